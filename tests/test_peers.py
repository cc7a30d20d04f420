"""Environments for peers: made once, shared where it is said, and missed by name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "peer-environment"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that has the script and three peers."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    peers = tmp_path / "tests" / "peers"
    peers.mkdir(parents=True)
    (peers / "nothing.txt").write_text("# shares this interpreter's packages\n")
    (peers / "lost.txt").write_text("a-package-that-no-index-has==1.0\n")
    return tmp_path


def ask(checkout: Path, name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(checkout / "scripts" / SCRIPT.name), name]
    environment = os.environ | {"PIP_NO_INDEX": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=False)


def test_an_environment_is_made_once_and_sees_what_it_shares(checkout: Path) -> None:
    made = ask(checkout, "nothing")
    assert made.returncode == 0, made.stderr
    python = made.stdout.strip()
    code = "import agenthub, sys; print(sys.prefix)"
    seen = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd="/", timeout=60, check=False)
    assert seen.stdout.strip() == str(checkout / ".cache" / "venvs" / "nothing"), seen.stderr
    kept = Path(python).parents[1] / "kept"
    kept.touch()
    assert ask(checkout, "nothing").stdout == made.stdout
    assert kept.exists(), "it was made again"


def test_what_cannot_be_had_is_named(checkout: Path) -> None:
    lost = ask(checkout, "lost")
    assert lost.returncode == 3 and "a-package-that-no-index-has" in lost.stderr
    unknown = ask(checkout, "last")
    assert unknown.returncode == 3 and "expected one of lost, nothing" in unknown.stderr
