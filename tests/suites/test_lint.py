"""Lint: an oracle must win, idlers must not, and each hole has a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from agenthub.episodes import Workbench
from agenthub.suites.lint import lint
from agenthub.suites.load import load_suite

HEAD = 'schema: agenthub.suite/1\nsuite: {name: s, version: "1"}\ntasks:\n'


async def holes(folder: Path, task: str) -> list[str]:
    path = folder / "s.yaml"
    path.write_text(f"{HEAD}- {{id: a, prompt: {{user: Hi}}, {task}}}\n", encoding="utf-8")
    bench = Workbench()
    try:
        return [hole.what for hole in await lint(load_suite(path).tasks, bench)]
    finally:
        await bench.close()


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (r"target: {answer: 7}, verifier: {checks: [{uses: numeric}]}, solution: {turns: ['\boxed{7}']}", []),
        (
            "target: {answer: 7}, verifier: {checks: [{uses: numeric}]}",
            ["has no solution, so nothing shows that it can be won"],
        ),
        (
            r"target: {answer: 7}, verifier: {checks: [{uses: numeric}]}, solution: {turns: ['\boxed{8}']}",
            ["the oracle does not win (reward 0; numeric: the answer is another number)"],
        ),
        (
            r"target: {answer: 7}, verifier: {checks: [{uses: numeric}]}, solution: {turns: ['\boxed{7']}",
            [r"the oracle does not win (reward 0; turn 0: the braces of \boxed{ do not close)"],
        ),
        (
            r"target: {answer: 7}, verifier: {checks: [{uses: numeric}]}, solution: {turns: ['\boxed{7}', 'more']}",
            ["the episode ended after 1 of the oracle's 2 turns"],
        ),
        (
            r"verifier: {checks: [{uses: regex, args: {pattern: '.*'}}]}, solution: {turns: ['\boxed{7}']}",
            ["the answer '' wins", "the answer '0' wins", "the answer 'None' wins"],
        ),
        (
            r"verifier: {checks: [{uses: numeric, args: {abs: 1000}}]}, target: {answer: 5}, "
            r"solution: {turns: ['\boxed{5}']}",
            ["the answer '0' wins"],
        ),
    ],
)
async def test_a_hole_is_named(tmp_path: Path, task: str, told: list[str]) -> None:
    assert await holes(tmp_path, task) == told


async def test_an_answer_that_is_right_is_no_hole(tmp_path: Path) -> None:
    task = r"target: {answer: 0}, verifier: {checks: [{uses: numeric}]}, solution: {turns: ['\boxed{0}']}"
    assert await holes(tmp_path, task) == []
