"""The report: of whole, partial, empty and damaged runs."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.codec import encode
from agenthub.errors import UserError
from agenthub.trainers.plots import Points, Series, bars, line_plot
from agenthub.trainers.report import read_run, render, write_report
from tests.trainers.fakes import CODE, trajectory

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def update(number: int) -> dict[str, Any]:
    return {
        "update": number,
        "success": 0.1 * number,
        "reward": 0.1 * number,
        "void_rate": 0.2,
        "kept": 100,
        "dropped": {"void": 28},
        "grad_norm": 0.5,
        "entropy": 0.3,
        "seconds": {"rollout": 0.5, "update": 0.2},
    }


def evaluation(number: int) -> dict[str, Any]:
    interval = {"mean": 0.5, "low": 0.4, "high": 0.6}
    return {"update": number, "eval": {"k": 8, "tasks": 3, "avg": interval, "pass_at": {"8": interval}}}


def run(folder: Path, metrics: list[str], trajectories: list[str] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text("name: mine\n")
    (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in metrics))
    if trajectories is not None:
        (folder / "trajectories.jsonl").write_text("".join(line + "\n" for line in trajectories))
    return folder


class Checker(HTMLParser):
    """Tags, and whether anything points outside the file."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.outside += [value or "" for name, value in attrs if name in ("src", "href") or name.startswith("on")]


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert checker.outside == []
    assert "script" not in checker.tags
    return checker


def test_a_whole_run_has_curves_evaluations_and_episodes(tmp_path: Path) -> None:
    rows = [evaluation(0), update(1), update(2), evaluation(2)]
    episodes = [json.dumps(encode(trajectory([CODE, EVIL], reward=1.0, member=m))) for m in range(20)]
    target = write_report(run(tmp_path / "mine", list(map(json.dumps, rows)), episodes))
    page = target.read_text()
    tags = checked(page).tags
    assert tags.count("svg") == 7
    assert tags.count("details") == 12
    assert "after 2 updates" in page
    assert "avg@8 0.500 [0.400, 0.600]" in page
    assert EVIL not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("metrics", [[], [json.dumps(evaluation(0))]])
def test_an_empty_or_young_run_says_so(tmp_path: Path, metrics: list[str]) -> None:
    page = write_report(run(tmp_path / "mine", metrics)).read_text()
    checked(page)
    assert ("no update and no evaluation yet" in page) == (not metrics)
    assert "trajectories.jsonl cannot be read" in page
    assert "nothing to show yet" in page


def test_lines_that_make_no_sense_are_left_out_and_counted(tmp_path: Path) -> None:
    bad = ['{"update": 3, "succ', "[1]", '{"update": "x", "eval": {}}', '{"update": 9}', "\x00\x01", "[" * 100_000]
    folder = run(tmp_path / "mine", [*map(json.dumps, [update(1), evaluation(1)]), *bad], ["junk", '{"turns": 3}'])
    data = read_run(folder)
    assert (len(data.updates), len(data.evaluations)) == (1, 1)
    page = render(data)
    checked(page)
    assert "lines are no JSON objects" in page
    assert "neither an update nor an evaluation" in page
    assert "are no trajectories" in page


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        read_run(tmp_path / "none")
    with pytest.raises(UserError, match="holds no run"):
        read_run(tmp_path)


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=8))
def test_a_plot_takes_any_numbers(values: list[tuple[float, float]]) -> None:
    page = line_plot("t", [Series(name="a<b", x=[x for x, _ in values], y=[y for _, y in values])])
    checked(page)
    assert "nan" not in page
    assert "inf" not in page


def test_single_points_and_bars_are_drawn() -> None:
    page = line_plot("t", [], [Points(name="p", x=[0], y=[0.5], low=[0.4], high=[0.6])], y_range=(0, 1))
    assert "0.5 [0.4, 0.6]" in page
    checked(bars("t", {"<b>": 3.0, "zero": 0.0}))
