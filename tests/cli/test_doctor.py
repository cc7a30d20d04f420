"""`agenthub doctor` tells what this machine can do and always ends well."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from agenthub.cli.doctor import report
from agenthub.isolation import LayerState


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agenthub", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_report_has_every_layer_and_package() -> None:
    names = [row.name for row in report()]
    assert names[0] == "machine" and {"kernel", "seccomp", "jail", "docker", "gvisor", "torch", "transformers"} <= set(
        names
    )
    assert len(names) == len(set(names))
    assert all(row.detail for row in report())


def test_an_engine_that_is_not_there_is_told_with_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    rows = {row.name: row for row in report()}
    for name in ("docker", "gvisor"):
        assert rows[name].state is LayerState.MISSING and "images of their own" in rows[name].detail


def test_json_is_one_object() -> None:
    done = doctor("--json")
    rows = json.loads(done.stdout)
    assert done.returncode == 0 and rows["machine"]["state"] == "ok"
    assert all(row["state"] in [state.value for state in LayerState] for row in rows.values())


def test_the_table_ends_with_status_zero() -> None:
    done = doctor()
    assert done.returncode == 0 and "jail" in done.stdout and "seccomp" in done.stdout
