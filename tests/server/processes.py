"""Starting hubs as processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "SUITE", "Child", "arguments", "child", "gone"]

ROOT = Path(__file__).parents[2]
SUITE = Path(__file__).parent / "data" / "fakes.yaml"


@dataclass(frozen=True)
class Child:
    """A hub process that serves."""

    process: subprocess.Popen[str]
    url: str
    port: int


def arguments(log: Path, *more: str, port: int = 0) -> list[str]:
    """The command line of a hub on the fake sandbox."""
    here = [sys.executable, "-m", "tests.server.child", "--tasks", str(SUITE)]
    return [*here, "--log", str(log), "--port", str(port), *more]


@contextmanager
def child(log: Path, *more: str, port: int = 0, env: dict[str, str] | None = None) -> Iterator[Child]:
    """A hub that serves inside the context; killed after it where it still runs."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        arguments(log, "--ready-fd", str(writer), *more, port=port),
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        pass_fds=(writer,),
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    try:
        with os.fdopen(reader) as ready:
            line = ready.readline()
        assert line, process.communicate()[1]
        row = json.loads(line)
        assert row["pid"] == process.pid
        yield Child(process, row["url"], row["port"])
    finally:
        process.kill()
        process.communicate()


def gone(pid: int, within_s: float) -> bool:
    """True where the process ends in that time."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False
