"""`agenthub train` as a person runs it: real hub, real sandboxes, the tiny policy, a signal in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest

from agenthub.trainers.metrics import without_times

ROOT = Path(__file__).parents[2]
SMALL = ["rollout.groups=2", "rollout.group_size=4", "eval=null", "checkpoint_every=2", "optim.threads=1"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "agenthub", *arguments]


def settings(*more: str) -> list[str]:
    return [part for text in (*SMALL, *more) for part in ("--set", text)]


def run(*arguments: str, status: int = 0) -> str:
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def lines(path: Path) -> list[dict[str, object]]:
    return [without_times(json.loads(line)) for line in path.read_text().splitlines()]


def started(out: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A run of three updates that has done its first one, and every process below it."""
    process = subprocess.Popen(
        command("train", "simpletir", "--out", str(out), *settings("updates=3")),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    said = [process.stdout.readline()]
    while not said[-1].startswith("update 1/3"):
        assert said[-1], "".join(said)
        said.append(process.stdout.readline())
    return process, psutil.Process(process.pid).children(recursive=True)


def are_gone(family: list[psutil.Process], within_s: float) -> bool:
    until = time.monotonic() + within_s
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def test_an_interrupt_ends_it_with_all_its_processes_and_resuming_equals_an_uninterrupted_run(tmp_path: Path) -> None:
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    process, family = started(cut)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT, said
    assert f"go on with: agenthub train --resume --out {cut}" in said
    assert are_gone(family, 10)

    assert "update 3/3" in run("train", "--resume", "--out", str(cut))
    run("train", "simpletir", "--out", str(whole), *settings("updates=3"))
    for name in ("metrics.jsonl", "trajectories.jsonl"):
        assert lines(cut / name) == lines(whole / name)
    assert "<svg" in (cut / "report.html").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_trainer_that_is_ended_or_killed_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    process, family = started(tmp_path / "run")
    assert family
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == (128 + number if number is signal.SIGTERM else -number)
    assert are_gone(family, 60)


def test_a_hub_that_dies_ends_the_run_at_once_and_leaves_it_fit_to_resume(tmp_path: Path) -> None:
    process, family = started(tmp_path / "run")
    (hub,) = [one for one in family if "--ready-fd" in one.cmdline()]
    hub.kill()
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 2, said
    assert "the hub ended with status -9" in said
    assert "Traceback" not in said
    assert are_gone(family, 60)
    assert lines(tmp_path / "run" / "metrics.jsonl")[0]["update"] == 1


def test_eval_report_and_recipes(tmp_path: Path) -> None:
    row = json.loads(run("eval", "arithmetic", "--count", "3", "--k", "2", "--json").splitlines()[-1])
    assert row["tasks"] == 3
    assert 0.0 <= row["avg"]["low"] <= row["avg"]["mean"] <= row["avg"]["high"] <= 1.0
    assert set(row["pass_at"]) == {"1", "2"}
    assert "simpletir + grpo + ppo" in run("recipes")
    (tmp_path / "metrics.jsonl").write_text("garbage\n")
    assert "report.html" in run("report", str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], "give a recipe"),
        (["train", "grppo"], "did you mean 'grpo'"),
        (["train", "grpo", "--set", "updtes=1"], "did you mean 'updates'"),
        (["train", "--resume"], "needs --out"),
        (["train", "--resume", "--out", "/nowhere", "--suite", "echo"], "takes no"),
        (["train", "--resume", "--out", "/nowhere"], "no run to resume"),
        (["report", "/nowhere"], "is no folder"),
        (["eval", "arithmetic", "--policy", "/nowhere"], "the folder of a run"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(arguments: list[str], words: str) -> None:
    said = run(*arguments, status=2)
    assert words in said
    assert "Traceback" not in said


def test_a_server_that_refuses_is_named_and_its_connections_are_closed() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}#m"
        said = run("eval", "arithmetic", "--count", "1", "--k", "1", "--policy", address, status=2)
        server.shutdown()
    assert "refuses model 'm': 501" in said
    assert "Traceback" not in said
    assert "Unclosed" not in said


def test_a_split_that_the_suite_does_not_have_is_named_and_leaves_the_folder_free(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    said = run("train", "grpo", "--out", str(folder), *settings("split=dev"), status=2)
    assert "'dev'" in said
    assert "Traceback" not in said
    assert not (folder / "config.yaml").exists()
    assert (folder / "hub" / "hub.log").is_file()
