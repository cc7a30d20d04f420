"""Boxes run as nicely as their hub, whether or not it may raise its own priority."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sandboxes.boxes import need_jail

ROOT = Path(__file__).parents[2]
_PR_CAPBSET_DROP, _CAP_SYS_NICE = 24, 23
NICE = 7


def _give_way() -> None:
    os.nice(NICE - os.nice(0))


def _give_way_for_good() -> None:
    _give_way()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_CAPBSET_DROP, _CAP_SYS_NICE, 0, 0, 0)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("before", [_give_way, _give_way_for_good])
def test_a_box_of_a_nice_hub_is_as_nice(tmp_path: Path, before: object, compiled: bool) -> None:
    need_jail()
    if os.nice(0) > NICE:
        pytest.skip("these tests give way to others already")
    environment = dict(os.environ) if compiled else {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", "tests.sandboxes.nice_child"],
        cwd=ROOT,
        env=environment,
        preexec_fn=before,  # type: ignore[call-overload]
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    copied = compiled and shutil.which("cc") is not None and os.geteuid() == 0
    assert done.stdout.split() == ([str(NICE)] * 2 if copied else [str(NICE), "no", "copy"])
