"""`agenthub replay`: an undisturbed episode is played the same, and the first turn that differs is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from agenthub.cli import play, replay
from agenthub.errors import ConfigError, UnknownName, UserError
from agenthub.records import Outcome, Stop, Trajectory, Turn, frozen
from agenthub.replay import action_of, difference
from tests.sandboxes.boxes import need_jail

SUITE = r"""
schema: agenthub.suite/1
suite: {name: s, version: "1"}
defaults:
  tools: [{uses: python}]
  limits: {max_turns: 3}
  on_no_call: remind
  verifier: {checks: [{uses: numeric}]}
tasks:
- id: steady
  prompt: {user: Sum}
  target: {answer: 7}
  turn_checks: [{uses: call_ok, reward: 0.25}]
  solution: {turns: ["```python\nx = 3\n```", "```python\nprint(x + 4)\n```", '\boxed{7}']}
- id: unsteady
  prompt: {user: Time}
  target: {answer: 7}
  deterministic: false
  solution: {turns: ["```python\nimport time\nprint(time.perf_counter_ns())\n```", '\boxed{7}']}
"""


APP = Typer()
APP.command("play")(play.command)
APP.command("replay")(replay.command)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(APP, list(arguments))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite and the trajectory of each of its oracles."""
    need_jail()
    made = tmp_path_factory.mktemp("replay")
    (made / "s.yaml").write_text(SUITE, encoding="utf-8")
    for task in ("steady", "unsteady"):
        path = str(made / f"{task}.jsonl")
        played = run("play", "s", task, "--policy", "oracle", "--save", path, "--tasks", str(made / "s.yaml"))
        assert played.exit_code == 0, played.output
    return made


def check(folder: Path, file: Path, *more: str) -> Result:
    return run("replay", str(file), "--check", "--tasks", str(folder / "s.yaml"), *more)


def edited(folder: Path, to: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """The trajectory of the steady task, changed."""
    row = json.loads((folder / "steady.jsonl").read_text(encoding="utf-8"))
    edit(row)
    to.write_text(json.dumps(row, indent=1), encoding="utf-8")
    return to


def test_an_undisturbed_episode_is_played_the_same(folder: Path) -> None:
    result = check(folder, folder / "steady.jsonl")
    assert result.exit_code == 0
    assert "replayed: the same" in result.output


def _no_value(row: dict[str, Any]) -> None:
    row["turns"][0]["calls"][0]["arguments"]["code"] = "x = 4"


def _no_rewards(row: dict[str, Any]) -> None:
    row["turns"][1]["rewards"] = {"call_ok": 0.5}
    row["rewards"]["call_ok"], row["reward"] = 0.75, 1.75


def _more_turns(row: dict[str, Any]) -> None:
    row["turns"].append({**row["turns"][0], "index": 3, "rewards": {}})


def _another_end(row: dict[str, Any]) -> None:
    row["stop"] = "out_of_turns"


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (_no_value, r"turn 1: recorded '7\n', replayed '8\n'"),
        (_no_rewards, "turn 1: recorded rewards {'call_ok': 0.5}, replayed {'call_ok': 0.25}"),
        (_more_turns, "turn 3: recorded, but the replayed episode had ended: answered, ok, reward 1.5"),
        (_another_end, "the end: recorded out_of_turns, ok, reward 1.5; replayed answered, ok, reward 1.5"),
    ],
)
def test_the_first_turn_that_differs_is_named(
    folder: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], object], told: str
) -> None:
    result = check(folder, edited(folder, tmp_path / "t.json", edit))
    assert result.exit_code == 1
    assert told in result.output


def test_a_task_that_promises_nothing_says_so_where_it_differs(folder: Path) -> None:
    result = check(folder, folder / "unsteady.jsonl")
    assert result.exit_code == 1
    assert "turn 0: recorded" in result.output
    assert "the task does not promise" in result.output


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (lambda row: row.update(task="s/stedy"), UnknownName, "did you mean 'steady'"),
        (lambda row: row.update(task="steady"), UserError, "expected suite/id"),
        (lambda row: row.pop("turns"), ConfigError, "not a trajectory"),
    ],
)
def test_what_cannot_be_replayed_is_a_user_error(
    folder: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], object], error: type[Exception], message: str
) -> None:
    result = check(folder, edited(folder, tmp_path / "t.json", edit))
    assert isinstance(result.exception, error)
    assert message in str(result.exception)
    missing = check(folder, folder / "steady.jsonl", "--line", "2")
    assert "the file has 1 trajectories" in str(missing.exception)


def trajectory(stop: Stop, outcome: Outcome = Outcome.OK, **turn: Any) -> Trajectory:
    played = Turn(index=0, generation=None, text="hm", **turn)
    scored = outcome.scored and stop is not Stop.CANCELLED
    return Trajectory(
        task="s/t", group="g", member=0, turns=(played,), stop=stop, outcome=outcome,
        rewards=frozen(), reward=0.0 if scored else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    "recorded",
    [
        trajectory(Stop.OUT_OF_TIME),
        trajectory(Stop.OUT_OF_TOKENS),
        trajectory(Stop.SANDBOX_LOST, Outcome.INFRA_FAULT),
    ],
)
def test_an_end_that_no_action_brought_about_is_not_compared(recorded: Trajectory) -> None:
    assert difference(recorded, trajectory(Stop.CANCELLED)) is None
    assert difference(trajectory(Stop.NO_CALL), trajectory(Stop.CANCELLED)) is not None


def test_a_text_without_call_or_answer_is_played_as_text() -> None:
    assert action_of(trajectory(Stop.NO_CALL).turns[0]).text == "hm"
