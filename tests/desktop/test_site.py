"""The shop: on each task the oracle has 1 and who does nothing has 0; and only the database counts."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from agenthub.episodes import Workbench
from agenthub.policies.scripted import ScriptedPolicy
from agenthub.sandboxes.browser.shop.pages import Shop
from agenthub.sandboxes.browser.shop.store import connect
from agenthub.suites.load import load_suite
from tests.desktop.playing import played, wrongs

AT_ONCE = 4


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Shop, sqlite3.Connection]:
    database = connect(str(tmp_path / "shop.sqlite"))
    return Shop(database), database


@pytest.mark.gui
@pytest.mark.timeout(600)
async def test_the_oracle_wins_every_task_and_who_does_nothing_wins_none(browser: None, bench: Workbench) -> None:
    suite = load_suite("agenthub/tasks/site.yaml")
    assert len(suite.tasks) >= 30
    assert all({"steps", "elements"} == set(task.metadata["difficulty"]) for task in suite.tasks)
    wrong = await wrongs(suite.tasks, bench, AT_ONCE)
    assert not wrong, "\n".join(wrong)


@pytest.mark.gui
async def test_doing_more_than_was_asked_for_does_not_win(browser: None, bench: Workbench) -> None:
    tasks = {task.id: task for task in load_suite("agenthub/tasks/site.yaml").tasks}
    asked, more = tasks["order-cancel"], tasks["order-cancel-all"]
    end = await played(asked, ScriptedPolicy.oracle(more.solution, asked.key), bench)
    assert end.reward == 0.0


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("POST", "/product/1/cart", "quantity=-3"),
        ("POST", "/product/1/cart", "quantity=1e3"),
        ("POST", "/product/12/cart", "quantity=1"),
        ("POST", "/product/1/review", "stars=9&text=x"),
        ("POST", "/checkout", "shipping=standard"),
        ("POST", "/order/1002/return", "reason=damaged"),
        ("POST", "/order/1001/cancel", ""),
        ("POST", "/contact", "subject=Sales&text=x"),
        ("POST", "/account", "name=&email=x"),
        ("GET", "/products?q=%27%3B+DROP+TABLE+orders%3B--&sort=1;DROP", ""),
        ("DELETE", "/orders", ""),
    ],
)
def test_what_a_shop_would_not_do_changes_nothing(
    shop: tuple[Shop, sqlite3.Connection], method: str, url: str, body: str
) -> None:
    site, database = shop
    before = "\n".join(database.iterdump())
    status, _, _ = site.answer(method, url, body)
    assert status in (200, 303, 404)
    assert "\n".join(database.iterdump()) == before


def test_what_a_customer_wrote_is_shown_as_text(shop: tuple[Shop, sqlite3.Connection]) -> None:
    site, _ = shop
    site.answer("POST", "/product/1/review", "stars=5&text=%3Cscript%3Ealert(1)%3C/script%3E")
    _, _, page = site.answer("GET", "/product/1", "")
    assert "<script>" not in page and "&lt;script&gt;" in page
