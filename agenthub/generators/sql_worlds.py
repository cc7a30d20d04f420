"""The invented databases of the SQL generator: their tables, how rows are drawn, and what can be asked of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["WORLDS", "Maker", "Question", "World"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question in words and a statement that answers it."""

    text: str
    sql: str
    level: int
    """1: one table; 2: a join or groups; 3: both, or a query inside."""
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class Maker:
    """Questions of one form."""

    level: int
    text: str
    sql: str
    values: Mapping[str, Sequence[Any]]
    """What the braces of `text` and `sql` are drawn from; where the drawn value is a pair, (words, SQL)."""
    ordered: bool = False

    def draw(self, rng: random.Random) -> Question:
        """One of them."""
        drawn = {name: rng.choice(options) for name, options in self.values.items()}
        words = {name: value[0] if isinstance(value, tuple) else value for name, value in drawn.items()}
        terms = {name: value[1] if isinstance(value, tuple) else value for name, value in drawn.items()}
        text, sql = self.text.format(**words), self.sql.format(**terms)
        return Question(text=text, sql=sql, level=self.level, ordered=self.ordered)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One kind of database."""

    tables: str
    """CREATE statements, as the policy is shown them."""
    fill: Callable[[random.Random], Mapping[str, list[tuple[Any, ...]]]]
    """Rows by table."""
    questions: tuple[Maker, ...]

    def script(self, rng: random.Random) -> str:
        """SQL that makes one database with drawn rows."""
        lines = [self.tables]
        for table, rows in self.fill(rng).items():
            values = ",\n  ".join("(" + ", ".join(_literal(value) for value in row) + ")" for row in rows)
            lines.append(f"INSERT INTO {table} VALUES\n  {values};")
        return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    return "NULL" if value is None else repr(value) if isinstance(value, int | float) else f"'{value}'"


_CITIES = ("Aldmoor", "Brenn", "Castow", "Dunley", "Estrad")
_NAMES = ("Ada", "Bela", "Cato", "Dora", "Egon", "Fina", "Gero", "Hedi", "Ivo", "Jana", "Kuno", "Lene", "Milo", "Nora")
_SORTS = ("tools", "toys", "books", "garden")
_THINGS = ("lamp", "saw", "kite", "atlas", "rake", "drill", "puzzle", "novel", "spade", "robot", "ruler", "hose")
_YEARS = (1, 2, 3, 4)
_TEACHERS = ("Orlo", "Pia", "Quint", "Runa")
_TITLES = ("algebra", "botany", "chess", "drama", "ethics", "forestry", "geology", "history")


def _shop(rng: random.Random) -> Mapping[str, list[tuple[Any, ...]]]:
    people = [(n, name, rng.choice(_CITIES)) for n, name in enumerate(rng.sample(_NAMES, rng.randint(9, 13)), 1)]
    things = [
        (n, name, rng.choice(_SORTS), rng.randrange(200, 9000, 50) / 100)
        for n, name in enumerate(rng.sample(_THINGS, rng.randint(8, 12)), 1)
    ]
    # A few people never order, and a few things are never sold: that is asked for.
    buyers, sold = people[: -rng.randint(1, 3)], things[: -rng.randint(1, 3)]
    orders = [
        (
            n,
            rng.choice(buyers)[0],
            rng.choice(sold)[0],
            rng.randint(1, 9),
            f"2025-{rng.randint(1, 6):02d}-{rng.randint(1, 28):02d}",
        )
        for n in range(1, rng.randint(25, 45))
    ]
    return {"customers": people, "products": things, "orders": orders}


def _school(rng: random.Random) -> Mapping[str, list[tuple[Any, ...]]]:
    pupils = [(n, name, rng.choice(_YEARS)) for n, name in enumerate(rng.sample(_NAMES, rng.randint(9, 13)), 1)]
    courses = [
        (n, title, rng.choice(_TEACHERS), rng.randint(2, 6))
        for n, title in enumerate(rng.sample(_TITLES, rng.randint(5, 8)), 1)
    ]
    pairs = [(pupil[0], course[0]) for pupil in pupils[: -rng.randint(1, 2)] for course in courses]
    marks = [
        (*pair, rng.randint(1, 20) if rng.random() < 0.85 else None) for pair in rng.sample(pairs, len(pairs) // 2)
    ]
    return {"students": pupils, "courses": courses, "marks": sorted(marks, key=lambda row: row[:2])}


_SHOP = World(
    tables=(
        "CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, city TEXT);\n"
        "CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, category TEXT, price REAL);\n"
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customers, "
        "product_id INTEGER REFERENCES products, quantity INTEGER, day TEXT);"
    ),
    fill=_shop,
    questions=(
        Maker(
            1,
            "How many customers live in {city}?",
            "SELECT COUNT(*) FROM customers WHERE city = '{city}'",
            {"city": _CITIES},
        ),
        Maker(
            1,
            "What are the names of the products of the category {sort} that cost less than {price}?",
            "SELECT name FROM products WHERE category = '{sort}' AND price < {price}",
            {"sort": _SORTS, "price": (20, 30, 40, 50, 60, 70, 80)},
        ),
        Maker(
            1,
            "What are name and price of the products that cost more than {price}, the dearest first and by name where "
            "prices are equal?",
            "SELECT name, price FROM products WHERE price > {price} ORDER BY price DESC, name",
            {"price": (10, 20, 30, 40, 50, 60)},
            ordered=True,
        ),
        Maker(
            1,
            "How many orders of {much} pieces or more were there in {month}?",
            "SELECT COUNT(*) FROM orders WHERE quantity >= {much} AND day LIKE '2025-{month}-%'",
            {
                "much": (2, 3, 4, 5, 6),
                "month": (("January 2025", "01"), ("February 2025", "02"), ("March 2025", "03"), ("May 2025", "05")),
            },
        ),
        Maker(
            2,
            "For each category, what is the {what} price of its products? Give category and price.",
            "SELECT category, {what}(price) FROM products GROUP BY category",
            {"what": (("average", "AVG"), ("highest", "MAX"), ("lowest", "MIN"))},
        ),
        Maker(
            2,
            "How many pieces of each product of the category {sort} were sold? Give name and number; leave out what "
            "was never sold.",
            "SELECT p.name, SUM(o.quantity) FROM products p JOIN orders o ON o.product_id = p.id "
            "WHERE p.category = '{sort}' GROUP BY p.id",
            {"sort": _SORTS},
        ),
        Maker(
            2,
            "What are the names of the customers from {city} who ordered something?",
            "SELECT DISTINCT c.name FROM customers c JOIN orders o ON o.customer_id = c.id WHERE c.city = '{city}'",
            {"city": _CITIES},
        ),
        Maker(
            2,
            "Which customers made more than {much} orders? Give name and number of orders.",
            "SELECT c.name, COUNT(*) FROM customers c JOIN orders o ON o.customer_id = c.id GROUP BY c.id "
            "HAVING COUNT(*) > {much}",
            {"much": (1, 2, 3, 4, 5)},
        ),
        Maker(
            3,
            "What are the names of the {who} in {order} order?",
            "SELECT name FROM {who} ORDER BY name {order}",
            {
                "who": (
                    (
                        "customers who never ordered anything",
                        "customers WHERE id NOT IN (SELECT customer_id FROM orders)",
                    ),
                    ("products that were never sold,", "products WHERE id NOT IN (SELECT product_id FROM orders)"),
                ),
                "order": (("alphabetical", "ASC"), ("reverse alphabetical", "DESC")),
            },
            ordered=True,
        ),
        Maker(
            3,
            "What are the names of the customers who ordered a product of the category {sort} in {month}?",
            "SELECT DISTINCT c.name FROM customers c JOIN orders o ON o.customer_id = c.id "
            "JOIN products p ON p.id = o.product_id WHERE p.category = '{sort}' AND substr(o.day, 6, 2) = '{month}'",
            {
                "sort": _SORTS,
                "month": (("January 2025", "01"), ("March 2025", "03"), ("April 2025", "04"), ("June 2025", "06")),
            },
        ),
        Maker(
            3,
            "How much money did the orders from {city} bring in each month? Give the month as YYYY-MM and the sum, in "
            "the order of the months.",
            "SELECT substr(o.day, 1, 7), SUM(o.quantity * p.price) FROM orders o "
            "JOIN products p ON p.id = o.product_id JOIN customers c ON c.id = o.customer_id "
            "WHERE c.city = '{city}' GROUP BY 1 ORDER BY 1",
            {"city": _CITIES},
            ordered=True,
        ),
        Maker(
            3,
            "Which product or products of the category {sort} cost the most? Give name and price.",
            "SELECT name, price FROM products WHERE category = '{sort}' AND price = "
            "(SELECT MAX(price) FROM products WHERE category = '{sort}')",
            {"sort": _SORTS},
        ),
    ),
)
_SCHOOL = World(
    tables=(
        "CREATE TABLE students (id INTEGER PRIMARY KEY, name TEXT, year INTEGER);\n"
        "CREATE TABLE courses (id INTEGER PRIMARY KEY, title TEXT, teacher TEXT, credits INTEGER);\n"
        "-- a row for each course that a student takes; mark: 0 to 20, NULL while it is not given\n"
        "CREATE TABLE marks (student_id INTEGER REFERENCES students, course_id INTEGER REFERENCES courses, "
        "mark INTEGER);"
    ),
    fill=_school,
    questions=(
        Maker(
            1,
            "What are the names of the students of year {year}?",
            "SELECT name FROM students WHERE year = {year}",
            {"year": _YEARS},
        ),
        Maker(
            1,
            "What are the titles of the courses of {teacher} with {much} credits or more?",
            "SELECT title FROM courses WHERE teacher = '{teacher}' AND credits >= {much}",
            {"teacher": _TEACHERS, "much": (3, 4, 5)},
        ),
        Maker(
            1,
            "How many marks of {mark} or more were given?",
            "SELECT COUNT(*) FROM marks WHERE mark >= {mark}",
            {"mark": (8, 10, 12, 14, 16)},
        ),
        Maker(
            2,
            "How many students take each course of {teacher}? Give title and number; leave out courses that nobody "
            "takes.",
            "SELECT c.title, COUNT(*) FROM courses c JOIN marks m ON m.course_id = c.id WHERE c.teacher = '{teacher}' "
            "GROUP BY c.id",
            {"teacher": _TEACHERS},
        ),
        Maker(
            2,
            "What is the average mark in {title}?",
            "SELECT AVG(m.mark) FROM marks m JOIN courses c ON c.id = m.course_id WHERE c.title = '{title}' "
            "GROUP BY c.id HAVING COUNT(m.mark) > 0",
            {"title": _TITLES},
        ),
        Maker(
            2,
            "Which students of year {year} still wait for a mark? Give name and number of courses without a mark, by "
            "name.",
            "SELECT s.name, COUNT(*) FROM students s JOIN marks m ON m.student_id = s.id WHERE m.mark IS NULL "
            "AND s.year = {year} GROUP BY s.id ORDER BY s.name",
            {"year": _YEARS},
            ordered=True,
        ),
        Maker(
            3,
            "What are the names of the students who take a course of {teacher} but none of {other}?",
            "SELECT DISTINCT s.name FROM students s JOIN marks m ON m.student_id = s.id "
            "JOIN courses c ON c.id = m.course_id WHERE c.teacher = '{teacher}' "
            "AND s.id NOT IN (SELECT m.student_id FROM marks m "
            "JOIN courses c ON c.id = m.course_id WHERE c.teacher = '{other}')",
            {"teacher": _TEACHERS[:2], "other": _TEACHERS[2:]},
        ),
        Maker(
            3,
            "For the students of year {year}, how many credits did each earn? A course counts with a mark of {mark} or "
            "more. Give name and credits; leave out who earned none.",
            "SELECT s.name, SUM(c.credits) FROM students s JOIN marks m ON m.student_id = s.id "
            "JOIN courses c ON c.id = m.course_id WHERE s.year = {year} AND m.mark >= {mark} GROUP BY s.id",
            {"year": _YEARS, "mark": (8, 10, 12)},
        ),
        Maker(
            3,
            "{which} have an average mark above the average of all marks of the school? Give title and average, the "
            "best first and by title where averages are equal.",
            "SELECT c.title, AVG(m.mark) FROM courses c JOIN marks m ON m.course_id = c.id WHERE {which} GROUP BY c.id "
            "HAVING AVG(m.mark) > (SELECT AVG(mark) FROM marks) ORDER BY 2 DESC, 1",
            {
                "which": (
                    ("Which courses", "1"),
                    *((f"Which of the courses with {n} credits or more", f"c.credits >= {n}") for n in (3, 4, 5)),
                )
            },
            ordered=True,
        ),
        Maker(
            3,
            "Who has the best mark in {title}? Give the name or names and the mark.",
            "SELECT s.name, m.mark FROM students s JOIN marks m ON m.student_id = s.id "
            "JOIN courses c ON c.id = m.course_id WHERE c.title = '{title}' AND m.mark = "
            "(SELECT MAX(m.mark) FROM marks m JOIN courses c ON c.id = m.course_id WHERE c.title = '{title}')",
            {"title": _TITLES},
        ),
    ),
)
WORLDS: Mapping[str, World] = {"school": _SCHOOL, "shop": _SHOP}
