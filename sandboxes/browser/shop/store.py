"""What the shop sells and knows: its tables and the rows that every episode begins with. Standard library only."""

from __future__ import annotations

import sqlite3

SCHEMA = """
CREATE TABLE products (
    id INTEGER PRIMARY KEY, name TEXT, category TEXT, price INTEGER, stock INTEGER, rating REAL, about TEXT
);
CREATE TABLE customer (
    id INTEGER PRIMARY KEY, name TEXT, email TEXT, phone TEXT, street TEXT, city TEXT, newsletter INTEGER
);
CREATE TABLE cart (product INTEGER PRIMARY KEY, quantity INTEGER);
CREATE TABLE orders (
    id INTEGER PRIMARY KEY, status TEXT, shipping TEXT, gift INTEGER, coupon TEXT, note TEXT, total INTEGER
);
CREATE TABLE lines (order_id INTEGER, product INTEGER, quantity INTEGER, PRIMARY KEY (order_id, product));
CREATE TABLE reviews (id INTEGER PRIMARY KEY, product INTEGER, stars INTEGER, text TEXT);
CREATE TABLE wishlist (product INTEGER PRIMARY KEY);
CREATE TABLE messages (id INTEGER PRIMARY KEY, subject TEXT, text TEXT);
CREATE TABLE returns (id INTEGER PRIMARY KEY, order_id INTEGER, reason TEXT);
"""
PRODUCTS = (
    ("Desk lamp", "Lighting", 2499, 12, 4.2, "A lamp with a bendable neck."),
    ("Floor lamp", "Lighting", 7999, 3, 4.6, "Lights a whole room."),
    ("Reading light", "Lighting", 1299, 40, 3.9, "Clips to a book."),
    ("Notebook", "Paper", 399, 200, 4.4, "96 ruled pages."),
    ("Sketchbook", "Paper", 899, 55, 4.8, "Thick paper for ink."),
    ("Envelope set", "Paper", 549, 80, 4.0, "Fifty envelopes."),
    ("Fountain pen", "Pens", 3299, 9, 4.7, "With a steel nib."),
    ("Ballpoint pen", "Pens", 199, 500, 3.8, "Writes blue."),
    ("Highlighter", "Pens", 249, 320, 4.1, "Yellow."),
    ("Office chair", "Furniture", 18999, 4, 4.3, "Rolls and turns."),
    ("Stool", "Furniture", 4599, 17, 3.7, "Of beech."),
    ("Bookshelf", "Furniture", 12999, 0, 4.5, "Five boards."),
)
"""Name, category, price in cents, stock, rating, text."""
ORDERS = (
    (1001, "delivered", "standard", 0, "", "", 2898),
    (1002, "open", "express", 0, "", "", 3299),
    (1003, "open", "standard", 1, "", "For Ben", 18999),
    (1004, "delivered", "standard", 0, "", "", 1797),
)
LINES = ((1001, 1, 1), (1001, 4, 1), (1002, 7, 1), (1003, 10, 1), (1004, 5, 1), (1004, 9, 1))
REVIEWS = ((1, 5, "Bright and quiet."), (1, 3, "The foot is light."), (7, 5, "A joy."), (10, 4, "Good for the back."))


def connect(path: str) -> sqlite3.Connection:
    """The shop's database, made and filled where it is new."""
    database = sqlite3.connect(path, isolation_level=None)
    database.row_factory = sqlite3.Row
    # One file, whole after every statement: it is read from outside once everything has stopped.
    database.execute("PRAGMA journal_mode = DELETE")
    database.execute("PRAGMA synchronous = OFF")
    if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        database.executescript(f"BEGIN;{SCHEMA}COMMIT;")
        database.execute("BEGIN")
        add = "INSERT INTO products (name, category, price, stock, rating, about) VALUES (?, ?, ?, ?, ?, ?)"
        database.executemany(add, PRODUCTS)
        me = (1, "Ada Miller", "ada@example.org", "555 0100", "Mill Lane 4", "Bridgeton", 0)
        database.execute("INSERT INTO customer VALUES (?, ?, ?, ?, ?, ?, ?)", me)
        database.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?)", ORDERS)
        database.executemany("INSERT INTO lines VALUES (?, ?, ?)", LINES)
        database.executemany("INSERT INTO reviews (product, stars, text) VALUES (?, ?, ?)", REVIEWS)
        database.execute("COMMIT")
    return database
