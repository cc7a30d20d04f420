"""`agenthub tasks`: what it prints and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agenthub.cli.tasks import app
from agenthub.errors import ConfigError, UnknownName

SUITE = r"""
schema: agenthub.suite/1
suite: {name: sums, version: "3", description: Two sums.}
defaults:
  verifier: {checks: [{uses: numeric}]}
tasks:
- {id: good, prompt: {user: 600 + 66}, target: {answer: 666}, solution: {turns: ['\boxed{666}']}}
"""
BAD = r"- {id: bad, prompt: {user: 600 + 77}, target: {answer: 677}, solution: {turns: ['\boxed{1}']}}" + "\n"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def suite(folder: Path, text: str = SUITE) -> str:
    path = folder / "sums.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_list_counts_tasks_and_names_what_is_not_available(tmp_path: Path) -> None:
    suite(tmp_path)
    source = "sources: [{kind: jsonl, path: gone.jsonl, fields: {}}]\n"
    (tmp_path / "other.yaml").write_text(
        'schema: agenthub.suite/1\nsuite: {name: other, version: "1"}\n' + source, encoding="utf-8"
    )
    result = run("list", "--tasks", str(tmp_path))
    assert result.exit_code == 0
    assert "sums" in result.output
    assert "train 1" in result.output
    assert "other: not available here" in result.output
    assert "gone.jsonl" in result.output


def test_show_hides_the_answer_until_it_is_asked_for(tmp_path: Path) -> None:
    hidden = run("show", suite(tmp_path), "good")
    assert hidden.exit_code == 0
    assert "666" not in hidden.output
    assert json.loads(hidden.output)["messages"][-1]["content"] == "600 + 66"
    shown = json.loads(run("show", suite(tmp_path), "good", "--reveal").output)
    assert shown["target"] == 666
    assert shown["solution"] == [r"\boxed{666}"]


def test_run_plays_the_oracle_and_the_noop(tmp_path: Path) -> None:
    oracle = run("run", suite(tmp_path), "--policy", "oracle")
    assert oracle.exit_code == 0
    assert "sums/good  reward 1  1 turns  answered  ok" in oracle.output
    assert "oracle: 1 of 1 won" in oracle.output
    noop = run("run", suite(tmp_path), "good", "--policy", "noop")
    assert noop.exit_code == 0
    assert "noop: 0 of 1 won" in noop.output


def test_run_fails_where_the_oracle_does_not_win(tmp_path: Path) -> None:
    result = run("run", suite(tmp_path, SUITE + BAD))
    assert result.exit_code == 1
    assert "oracle: 1 of 2 won" in result.output


def test_lint_passes_a_sound_suite_and_names_the_hole_of_another(tmp_path: Path) -> None:
    assert run("lint", suite(tmp_path)).exit_code == 0
    result = run("lint", suite(tmp_path, SUITE + BAD))
    assert result.exit_code == 1
    assert "sums.yaml:8: sums/bad: the oracle does not win" in result.output
    assert "sums: 2 tasks, 1 with a hole" in result.output
    assert run("lint", suite(tmp_path, SUITE + BAD), "--limit", "1").exit_code == 0


def test_lint_without_a_name_takes_every_suite(tmp_path: Path) -> None:
    suite(tmp_path)
    result = run("lint", "--tasks", str(tmp_path))
    assert result.exit_code == 0
    assert "sums: 1 tasks, 0 with a hole" in result.output


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("show", "SUITE", "god"), UnknownName, "did you mean 'good'"),
        (("run", "SUITE", "--policy", "orakle"), UnknownName, "did you mean 'oracle'"),
        (("lint", "gone.yaml"), ConfigError, "cannot be read"),
        (("lint", "arithmetik"), UnknownName, "did you mean 'arithmetic'"),
    ],
)
def test_a_wrong_name_is_a_user_error(
    tmp_path: Path, arguments: tuple[str, ...], error: type[Exception], message: str
) -> None:
    path = suite(tmp_path)
    result = run(*(path if argument == "SUITE" else argument for argument in arguments))
    assert isinstance(result.exception, error)
    assert message in str(result.exception)
