"""The shop's pages: a request in, HTML or a redirection out. Standard library only."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping
from html import escape
from urllib.parse import parse_qs, unquote, urlsplit

Form = Mapping[str, str]
Answer = tuple[int, dict[str, str], str]
COUPONS = {"SPRING10": 10, "HELLO5": 5}
"""Percent off by code."""
SHIPPING = {"standard": 490, "express": 990, "pickup": 0}
SUBJECTS = ("Order", "Product", "Return", "Other")
REASONS = ("damaged", "wrong item", "not needed")
SORTS = {"name": "name", "price": "price", "rating": "rating DESC, name"}
STYLE = """body{font:15px sans-serif;margin:0 24px 24px}nav a{margin-right:16px}table{border-collapse:collapse}
td,th{padding:4px 12px 4px 0;text-align:left}label{display:block;margin:6px 0}.told{background:#efe;padding:6px}"""
LINKS = (
    ("/", "Home"),
    ("/products", "Products"),
    ("/cart", "Cart"),
    ("/orders", "Orders"),
    ("/wishlist", "Wishlist"),
    ("/account", "Account"),
    ("/contact", "Contact"),
)
MOST_TEXT = 2000


class Shop:
    """Answers requests over one database."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        self._told = ""
        self._routes: list[tuple[str, str, Callable[..., Answer]]] = [
            ("GET", r"/", self._home),
            ("GET", r"/products", self._products),
            ("GET", r"/product/(\d+)", self._product),
            ("POST", r"/product/(\d+)/cart", self._add),
            ("POST", r"/product/(\d+)/wish", self._wish),
            ("POST", r"/product/(\d+)/review", self._review),
            ("GET", r"/wishlist", self._wishlist),
            ("POST", r"/wishlist/(\d+)/remove", self._unwish),
            ("GET", r"/cart", self._cart),
            ("POST", r"/cart/(\d+)", self._change),
            ("GET", r"/checkout", self._checkout),
            ("POST", r"/checkout", self._order),
            ("GET", r"/orders", self._orders),
            ("GET", r"/order/(\d+)", self._one_order),
            ("POST", r"/order/(\d+)/cancel", self._cancel),
            ("POST", r"/order/(\d+)/return", self._return),
            ("GET", r"/account", self._account),
            ("POST", r"/account", self._save),
            ("GET", r"/contact", self._contact),
            ("POST", r"/contact", self._send),
        ]

    def answer(self, method: str, url: str, body: str) -> Answer:
        """Status, headers and text for a request."""
        parts = urlsplit(url)
        source = body if method == "POST" else parts.query
        form = {name: values[-1][:MOST_TEXT].strip() for name, values in parse_qs(source, max_num_fields=50).items()}
        for wanted, pattern, page in self._routes:
            found = re.fullmatch(pattern, unquote(parts.path) or "/")
            if found and method == wanted:
                return page(form, *map(int, found.groups()))
        return self._page("Not found", "<p>There is no such page.</p>", 404)

    # --- products

    def _home(self, form: Form) -> Answer:
        rows = self._db.execute("SELECT category, count(*) AS number FROM products GROUP BY category")
        links = "".join(
            f'<li><a href="/products?category={row["category"]}">{row["category"]}</a> ({row["number"]})</li>'
            for row in rows
        )
        return self._page("Paper & Light", f"{_search('')}<h2>Categories</h2><ul>{links}</ul>")

    def _products(self, form: Form) -> Answer:
        words, category, sort = form.get("q", ""), form.get("category", ""), form.get("sort", "name")
        rows = self._db.execute(
            "SELECT * FROM products WHERE instr(lower(name || ' ' || about), lower(?)) AND (category = ? OR ? = '')"
            f" ORDER BY {SORTS.get(sort, 'name')}",
            (words, category, category),
        ).fetchall()
        sorts = " ".join(
            f'<a href="/products?q={escape(words)}&amp;category={escape(category)}&amp;sort={name}">by {name}</a>'
            for name in SORTS
        )
        lines = "".join(
            f'<tr><td><a href="/product/{row["id"]}">{escape(row["name"])}</a></td><td>{_money(row["price"])}</td>'
            f"<td>{row['rating']} stars</td><td>{_stock(row['stock'])}</td></tr>"
            for row in rows
        )
        title = escape(category or (f"Search: {words}" if words else "All products"))
        table = f"<table>{lines}</table>" if lines else "<p>Nothing was found.</p>"
        return self._page(title, f"{_search(words)}<p>Sort: {sorts}</p>{table}")

    def _product(self, form: Form, id: int) -> Answer:
        row = self._row("SELECT * FROM products WHERE id = ?", id)
        if row is None:
            return self._page("Not found", "<p>There is no such product.</p>", 404)
        reviews = self._db.execute("SELECT stars, text FROM reviews WHERE product = ? ORDER BY id", (id,)).fetchall()
        written = (
            "".join(f"<li>{it['stars']} stars: {escape(it['text'])}</li>" for it in reviews) or "<li>None yet</li>"
        )
        stars = "".join(f'<option value="{n}">{n}</option>' for n in range(1, 6))
        buy = (
            f'<form method="post" action="/product/{id}/cart"><label>Quantity <input name="quantity" value="1"></label>'
            "<button>Add to cart</button></form>"
            if row["stock"]
            else "<p>Sold out</p>"
        )
        body = (
            f"<p>{escape(row['about'])}</p><p>{_money(row['price'])}, {row['rating']} stars, "
            f"{_stock(row['stock'])}</p>{buy}"
            f'<form method="post" action="/product/{id}/wish"><button>Add to wishlist</button></form>'
            f"<h2>Reviews</h2><ul>{written}</ul>"
            f'<form method="post" action="/product/{id}/review"><label>Stars <select name="stars">{stars}</select>'
            '</label><label>Review <textarea name="text"></textarea></label><button>Send review</button></form>'
        )
        return self._page(row["name"], body)

    def _add(self, form: Form, id: int) -> Answer:
        row, quantity = self._row("SELECT stock FROM products WHERE id = ?", id), _count(form.get("quantity"))
        if row is None or quantity < 1:
            return self._back(f"/product/{id}", "A quantity is a number from 1.")
        have = self._row("SELECT quantity FROM cart WHERE product = ?", id)
        wanted = quantity + (have["quantity"] if have else 0)
        if wanted > row["stock"]:
            return self._back(f"/product/{id}", f"There are only {row['stock']} of them.")
        self._db.execute("INSERT OR REPLACE INTO cart VALUES (?, ?)", (id, wanted))
        return self._back("/cart", "It is in your cart.")

    def _wish(self, form: Form, id: int) -> Answer:
        self._db.execute("INSERT OR IGNORE INTO wishlist SELECT id FROM products WHERE id = ?", (id,))
        return self._back("/wishlist", "It is on your wishlist.")

    def _unwish(self, form: Form, id: int) -> Answer:
        self._db.execute("DELETE FROM wishlist WHERE product = ?", (id,))
        return self._back("/wishlist", "It was taken off.")

    def _wishlist(self, form: Form) -> Answer:
        rows = self._db.execute("SELECT id, name FROM wishlist JOIN products ON id = product ORDER BY id")
        lines = "".join(
            f'<tr><td><a href="/product/{row["id"]}">{escape(row["name"])}</a></td><td><form method="post" '
            f'action="/wishlist/{row["id"]}/remove"><button>Remove {escape(row["name"])}</button></form></td></tr>'
            for row in rows
        )
        return self._page("Wishlist", f"<table>{lines}</table>" if lines else "<p>It is empty.</p>")

    def _review(self, form: Form, id: int) -> Answer:
        stars, text = _count(form.get("stars")), form.get("text", "")
        if not 1 <= stars <= 5 or not text:
            return self._back(f"/product/{id}", "A review has stars and a text.")
        self._db.execute("INSERT INTO reviews (product, stars, text) VALUES (?, ?, ?)", (id, stars, text))
        return self._back(f"/product/{id}", "Thank you for your review.")

    # --- cart and orders

    def _cart_rows(self) -> list[sqlite3.Row]:
        return self._db.execute(
            "SELECT id, name, price, stock, quantity FROM cart JOIN products ON id = product ORDER BY id"
        ).fetchall()

    def _cart(self, form: Form) -> Answer:
        rows = self._cart_rows()
        if not rows:
            return self._page("Cart", "<p>Your cart is empty.</p>")
        lines = "".join(
            f"<tr><td>{escape(row['name'])}</td><td>{_money(row['price'])}</td><td>"
            f'<form method="post" action="/cart/{row["id"]}"><label>Quantity of {escape(row["name"])} '
            f'<input name="quantity" value="{row["quantity"]}"></label><button>Update {escape(row["name"])}</button>'
            "</form></td></tr>"
            for row in rows
        )
        total = sum(row["price"] * row["quantity"] for row in rows)
        body = f'<table>{lines}</table><p>Sum: {_money(total)}</p><p><a href="/checkout">Checkout</a></p>'
        return self._page("Cart", body)

    def _change(self, form: Form, id: int) -> Answer:
        quantity, row = _count(form.get("quantity")), self._row("SELECT stock FROM products WHERE id = ?", id)
        if row is None or quantity < 0 or quantity > row["stock"]:
            return self._back("/cart", "A quantity is a number, 0 to remove, and at most what is there.")
        if quantity:
            self._db.execute("UPDATE cart SET quantity = ? WHERE product = ?", (quantity, id))
        else:
            self._db.execute("DELETE FROM cart WHERE product = ?", (id,))
        return self._back("/cart", "Your cart was changed.")

    def _checkout(self, form: Form) -> Answer:
        if not self._cart_rows():
            return self._back("/cart", "There is nothing to order.")
        ways = "".join(
            f'<label><input type="radio" name="shipping" value="{name}"{" checked" if name == "standard" else ""}> '
            f"{name}, {_money(price)}</label>"
            for name, price in SHIPPING.items()
        )
        body = (
            f'<form method="post" action="/checkout"><h2>Shipping</h2>{ways}'
            '<label><input type="checkbox" name="gift" value="1"> Gift wrap</label>'
            '<label>Coupon <input name="coupon"></label><label>Note <input name="note"></label>'
            "<button>Place order</button></form>"
        )
        return self._page("Checkout", body)

    def _order(self, form: Form) -> Answer:
        rows, shipping, coupon = self._cart_rows(), form.get("shipping", ""), form.get("coupon", "").upper()
        if not rows:
            return self._back("/cart", "There is nothing to order.")
        if shipping not in SHIPPING or (coupon and coupon not in COUPONS):
            return self._back("/checkout", "This coupon is not known.")
        total = sum(row["price"] * row["quantity"] for row in rows) * (100 - COUPONS.get(coupon, 0)) // 100
        gift, note = int("gift" in form), form.get("note", "")
        self._db.execute("BEGIN")
        add = "INSERT INTO orders (status, shipping, gift, coupon, note, total) VALUES ('open', ?, ?, ?, ?, ?)"
        order = self._db.execute(add, (shipping, gift, coupon, note, total + SHIPPING[shipping])).lastrowid
        for row in rows:
            self._db.execute("INSERT INTO lines VALUES (?, ?, ?)", (order, row["id"], row["quantity"]))
            self._db.execute("UPDATE products SET stock = stock - ? WHERE id = ?", (row["quantity"], row["id"]))
        self._db.execute("DELETE FROM cart")
        self._db.execute("COMMIT")
        return self._back(f"/order/{order}", "Thank you for your order.")

    def _orders(self, form: Form) -> Answer:
        rows = self._db.execute("SELECT id, status, total FROM orders ORDER BY id DESC")
        lines = "".join(
            f'<tr><td><a href="/order/{row["id"]}">Order {row["id"]}</a></td><td>{row["status"]}</td>'
            f"<td>{_money(row['total'])}</td></tr>"
            for row in rows
        )
        return self._page("Orders", f"<table>{lines}</table>")

    def _one_order(self, form: Form, id: int) -> Answer:
        row = self._row("SELECT * FROM orders WHERE id = ?", id)
        if row is None:
            return self._page("Not found", "<p>There is no such order.</p>", 404)
        found = "SELECT name, quantity FROM lines JOIN products ON id = product WHERE order_id = ? ORDER BY id"
        lines = "".join(f"<li>{it['quantity']} x {escape(it['name'])}</li>" for it in self._db.execute(found, (id,)))
        body = f"<p>Status: {row['status']}, {row['shipping']}, {_money(row['total'])}</p><ul>{lines}</ul>"
        if row["status"] == "open":
            body += f'<form method="post" action="/order/{id}/cancel"><button>Cancel order</button></form>'
        if row["status"] == "delivered":
            reasons = "".join(f"<option>{reason}</option>" for reason in REASONS)
            body += (
                f'<form method="post" action="/order/{id}/return"><label>Reason <select name="reason">{reasons}'
                "</select></label><button>Return order</button></form>"
            )
        return self._page(f"Order {id}", body)

    def _cancel(self, form: Form, id: int) -> Answer:
        self._db.execute("UPDATE orders SET status = 'cancelled' WHERE id = ? AND status = 'open'", (id,))
        return self._back(f"/order/{id}", "The order was cancelled.")

    def _return(self, form: Form, id: int) -> Answer:
        row = self._row("SELECT status FROM orders WHERE id = ?", id)
        if row is None or row["status"] != "delivered" or form.get("reason") not in REASONS:
            return self._back(f"/order/{id}", "This order cannot be returned.")
        self._db.execute("INSERT INTO returns (order_id, reason) VALUES (?, ?)", (id, form["reason"]))
        self._db.execute("UPDATE orders SET status = 'returning' WHERE id = ?", (id,))
        return self._back(f"/order/{id}", "We wait for your parcel.")

    # --- customer

    def _account(self, form: Form) -> Answer:
        row = self._row("SELECT * FROM customer WHERE id = 1")
        if row is None:
            return self._page("Account", "<p>You have no account.</p>")
        fields = "".join(
            f'<label>{name.capitalize()} <input name="{name}" value="{escape(row[name])}"></label>'
            for name in ("name", "email", "phone", "street", "city")
        )
        ticked = " checked" if row["newsletter"] else ""
        fields += f'<label><input type="checkbox" name="newsletter" value="1"{ticked}> Newsletter</label>'
        return self._page("Account", f'<form method="post" action="/account">{fields}<button>Save</button></form>')

    def _save(self, form: Form) -> Answer:
        if "@" not in form.get("email", "") or not form.get("name"):
            return self._back("/account", "A name and an e-mail address are needed.")
        values = [form.get(name, "") for name in ("name", "email", "phone", "street", "city")]
        self._db.execute(
            "UPDATE customer SET name = ?, email = ?, phone = ?, street = ?, city = ?, newsletter = ? WHERE id = 1",
            (*values, int("newsletter" in form)),
        )
        return self._back("/account", "Your account was saved.")

    def _contact(self, form: Form) -> Answer:
        subjects = "".join(f"<option>{name}</option>" for name in SUBJECTS)
        body = (
            f'<form method="post" action="/contact"><label>Subject <select name="subject">{subjects}</select></label>'
            '<label>Message <textarea name="text"></textarea></label><button>Send message</button></form>'
        )
        return self._page("Contact", body)

    def _send(self, form: Form) -> Answer:
        if form.get("subject") not in SUBJECTS or not form.get("text"):
            return self._back("/contact", "A message has a subject and a text.")
        self._db.execute("INSERT INTO messages (subject, text) VALUES (?, ?)", (form["subject"], form["text"]))
        return self._back("/contact", "Your message was sent.")

    # --- what all pages share

    def _row(self, query: str, *values: int) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self._db.execute(query, values).fetchone()
        return found

    def _back(self, where: str, told: str) -> Answer:
        self._told = told
        return 303, {"location": where}, ""

    def _page(self, title: str, body: str, status: int = 200) -> Answer:
        told, self._told = self._told, ""
        nav = "".join(f'<a href="{where}">{name}</a>' for where, name in LINKS)
        said = f'<p class="told">{escape(told)}</p>' if told else ""
        text = (
            f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{escape(title)}</title>"
            f"<style>{STYLE}</style></head><body><nav>{nav}</nav><h1>{escape(title)}</h1>{said}{body}</body></html>"
        )
        return status, {"content-type": "text/html; charset=utf-8", "cache-control": "no-store"}, text


def _search(words: str) -> str:
    return (
        f'<form action="/products"><label>Search <input name="q" value="{escape(words)}"></label>'
        "<button>Search</button></form>"
    )


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d} EUR"


def _stock(number: int) -> str:
    return f"{number} in stock" if number else "sold out"


def _count(text: str | None) -> int:
    """A whole number; -1 for what is none."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 6 else -1
