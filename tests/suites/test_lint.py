"""Lint: an oracle must win, idlers must not, and each hole has a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from agenthub.episodes import Workbench
from agenthub.suites.lint import Plan, examine, lint
from agenthub.suites.lint.examine import luck
from agenthub.suites.load import load_suite

TREES = "alder birch cedar dogwood elder fir gorse hazel ivy juniper"
HEAD = 'schema: agenthub.suite/1\nsuite: {name: s, version: "1"}\ntasks:\n'


async def holes(folder: Path, task: str) -> list[str]:
    path = folder / "s.yaml"
    path.write_text(f"{HEAD}- {{id: a, prompt: {{user: Hi}}, {task}}}\n", encoding="utf-8")
    bench = Workbench()
    try:
        return [hole.what for hole in await lint(load_suite(path).tasks, bench, Plan(episodes=4))]
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
            ["the answers '', '0', '1', '-1', 'None', 'yes', 'no', 'true', 'A' win"],
        ),
        (
            r"verifier: {checks: [{uses: numeric, args: {abs: 1000}}]}, target: {answer: 5}, "
            r"solution: {turns: ['\boxed{5}']}",
            ["the answers '0', '1', '-1' win"],
        ),
        (
            r"verifier: {checks: [{uses: exact}]}, target: {answer: '0 1'}, solution: {turns: ['\boxed{0 1}']}, "
            "x: {lint: {allow: [all_answer]}}",
            [
                "cannot be played here: PLACE: x.lint.allow: no technique named 'all_answer'; "
                "did you mean 'all_answers'?"
            ],
        ),
        (
            r"verifier: {checks: [{uses: exact}]}, target: {answer: '0 1'}, solution: {turns: ['\boxed{0 1}']}, "
            "x: {lint: [random]}",
            ["cannot be played here: PLACE: x.lint is of the form {allow: [TECHNIQUE, ...]}"],
        ),
    ],
)
async def test_a_hole_is_named(tmp_path: Path, task: str, told: list[str]) -> None:
    assert await holes(tmp_path, task) == [what.replace("PLACE", f"{tmp_path / 's.yaml'}:4") for what in told]


async def test_an_answer_that_is_right_is_no_hole(tmp_path: Path) -> None:
    task = r"target: {answer: 0}, verifier: {checks: [{uses: numeric}]}, solution: {turns: ['\boxed{0}']}"
    assert await holes(tmp_path, task) == []


@pytest.mark.parametrize("answer", ["yes", "-1", "1.0"])
async def test_a_constant_that_is_the_right_answer_is_no_hole(tmp_path: Path, answer: str) -> None:
    pattern = {"yes": "(?i)yes", "-1": "-1", "1.0": "1(.0)?"}[answer]
    task = f"verifier: {{checks: [{{uses: regex, args: {{pattern: '{pattern}'}}}}]}}, "
    assert await holes(tmp_path, task + rf"solution: {{turns: ['\boxed{{{answer}}}']}}") == []


def test_luck_is_one_in_twenty_and_one_in_any_case() -> None:
    assert [luck(episodes) for episodes in (1, 24, 40, 100)] == [1, 1, 2, 5]


async def test_the_same_seed_gives_the_same_report_and_cheats_play_no_more_than_they_may(tmp_path: Path) -> None:
    rows = "".join(
        f"- {{id: t{index}, prompt: {{user: Say {word}}}, target: {{answer: {word}}}, "
        f"verifier: {{checks: [{{uses: exact}}]}}, solution: {{turns: ['\\boxed{{{word}}}']}}}}\n"
        for index, word in enumerate(TREES.split())
    )
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + rows, encoding="utf-8")
    bench = Workbench()
    plan = Plan(episodes=4, seed=3)
    first, second = [await examine(load_suite(path).tasks, bench, plan) for _ in range(2)]
    assert first.tallies == second.tallies and first.holes == second.holes
    tallies = {tally.technique: tally for tally in first.tallies}
    assert tallies["not_a_number"].tasks == 4 and tallies["random"].episodes == 4
    assert "read_box" not in tallies and "exit_zero" not in tallies, "there is no box to run anything in"


async def test_what_a_lucky_policy_wins_too_often_is_a_hole(tmp_path: Path) -> None:
    # Every answer of the random policy is accepted that has a letter of the question in it.
    task = r"verifier: {checks: [{uses: regex, args: {pattern: '.*[oy].*'}}]}, solution: {turns: ['\boxed{joy}']}"
    path = tmp_path / "s.yaml"
    head = f"{HEAD}- {{id: a, prompt: {{user: Joy or toy or boy, system: ''}}, "
    path.write_text(
        f"{head}x: {{lint: {{allow: [constant_answer, all_answers, fake_verdict, not_a_number]}}}}, {task}}}\n"
    )
    report = await examine(load_suite(path).tasks, Workbench(), Plan(episodes=40))
    (hole,) = report.holes
    assert hole.technique == "random" and "of 40 episodes; 2 may be" in hole.what
