"""`agenthub serve` in a process of its own, for tests that need the real thing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["served"]

START_S = 30.0


@contextmanager
def served(tasks: Path, folder: Path, *options: str) -> Iterator[str]:
    """The URL of a hub that serves `tasks` inside the context, with its log under `folder`."""
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "agenthub", "serve", "--port", "0", "--tasks", str(tasks)]
    command += ["--log", str(folder / "log.sqlite"), "--ready-file", str(ready), "--grace-s", "0", *options]
    with (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors)
    try:
        deadline = time.monotonic() + START_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the hub did not start: {(folder / 'stderr').read_text()[-2000:]}")
            time.sleep(0.02)
        yield str(json.loads(ready.read_text())["url"])
    finally:
        process.terminate()
        process.wait(timeout=10)
