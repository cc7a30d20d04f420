"""`agenthub play` and `agenthub replay`, as a person runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
schema: agenthub.suite/1
suite: {name: small, version: "1", description: A sum., license: Apache-2.0}
defaults:
  protocol: fence_strict
  tools: [{name: python, uses: python}]
  verifier: {checks: [{id: answer, uses: exact}]}
tasks:
  - id: a
    prompt: {user: "What is 6 * 7?"}
    target: {answer: "42"}
    solution: {turns: ["```python\\nprint(6 * 7)\\n```", "\\\\boxed{42}"]}
  - {id: b, prompt: {user: "1+1"}, target: {answer: "2"}}
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SUITE)
    return path


def agenthub(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agenthub", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)


def test_the_oracle_is_watched_recorded_and_replayed(suite: Path, tmp_path: Path) -> None:
    record = tmp_path / "played.jsonl"
    played = agenthub("play", str(suite), "--policy", "oracle", "--save", str(record))
    assert played.returncode == 0, played.stderr
    assert "reward 1.0" in played.stdout
    again = agenthub("replay", str(record), "--check", "--tasks", str(suite))
    assert again.returncode == 0, again.stderr
    assert "replayed: the same" in again.stdout
    nowhere = agenthub("report", str(record), "--out", str(record / "strip.html"))
    assert nowhere.returncode == 2
    assert "strip.html cannot be written: Not a directory" in nowhere.stderr


def test_a_full_disk_is_said_in_one_line() -> None:
    command = [sys.executable, "-u", "-m", "agenthub", "recipes"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "agenthub: cannot write: No space left on device\n")


def test_a_person_plays_from_the_keyboard(suite: Path) -> None:
    played = agenthub("play", str(suite), "a", stdin="```python\nprint(6 * 7)\n```\n\n\\boxed{42}\n\n")
    assert played.returncode == 0, played.stderr
    assert "42" in played.stdout
    assert "answered" in played.stdout
    assert "reward 1.0" in played.stdout


def test_leaving_in_the_middle_ends_the_episode_without_a_reward(suite: Path) -> None:
    played = agenthub("play", str(suite), "a", stdin="```python\n1\n```\n")
    assert "cancelled" in played.stdout
    assert "reward None" in played.stdout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda row: row["turns"][0]["observations"][0]["parts"][0].update(text="43\n"), "turn 0: recorded '43"),
        (lambda row: row["turns"][1].update(rewards={"outcome": 0.0}) or row.update(reward=0.0), "turn 1: recorded"),
    ],
)
def test_a_replay_names_the_first_turn_that_differs(suite: Path, tmp_path: Path, change: object, says: str) -> None:
    record = tmp_path / "played.jsonl"
    agenthub("play", str(suite), "--policy", "oracle", "--save", str(record))
    row = json.loads(record.read_text())
    change(row)  # type: ignore[operator]
    record.write_text(json.dumps(row))
    done = agenthub("replay", str(record), "--check", "--tasks", str(suite))
    assert done.returncode == 1, done.stderr
    assert says in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("play", "{suite}", "c"), "small: no task named 'c'"),
        (("play", "{suite}", "--policy", "oracel"), "did you mean 'oracle'?"),
        (("play", "{suite}", "b", "--policy", "oracle"), "the task has no solution to play"),
        (("play", "{suite}", "--policy", "oracle", "--save", "{suite}/t.jsonl"), "t.jsonl cannot be written"),
        (("play", "{suite}", "--policy", "oracle", "--images", "{suite}/shots"), "shots cannot be written"),
        (("replay", "{suite}"), "not a trajectory"),
        (("replay", "nowhere.jsonl"), "cannot be read"),
    ],
)
def test_what_cannot_be_played_says_why_in_one_line(suite: Path, arguments: tuple[str, ...], says: str) -> None:
    done = agenthub(*(argument.format(suite=suite) for argument in arguments))
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
