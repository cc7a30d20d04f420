"""Hubs that are killed and come back on the same port and log, and episodes that are played meanwhile."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agenthub.client import Hub
from agenthub.client.episode import EpisodeHandle
from agenthub.wire import StepDone
from tests.server.processes import ROOT

__all__ = ["ECHO", "STATE", "Phoenix", "phoenix", "played"]

SUITES = (Path(__file__).parent / "data" / "kills.yaml", ROOT / "tasks" / "echo.yaml")


def _fenced(code: str) -> str:
    return f"```python\n{code}\n```"


STATE = (
    _fenced("total, seen = 1, [1]\nopen('kept.txt', 'w').write('1')"),
    *(
        _fenced(
            f"import time\ntotal = total * 3 + 1\nseen.append(total)\ntime.sleep({0.06 if turn % 2 else 0})\n"
            "open('kept.txt', 'a').write(f' {total}')\nseen"
        )
        for turn in range(6)
    ),
    _fenced("print(open('kept.txt').read())\ntotal"),
    "\\boxed{1093}",
)
"""Turns whose observations show everything that happened before; 1093 is the right answer."""

ECHO = (*(f"```\nparrot {turn}\n```" for turn in range(8)), "\\boxed{parrot}")


class Phoenix:
    """`agenthub serve`, killed and started again on one port and one log."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder, self._options = folder, options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.recovered: Counter[str] = Counter()
        """By way, over every life that `count` was called in."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def fails(self) -> str:
        """What it says where it is expected not to start."""
        before = len(self.errors)
        try:
            self.start()
        except AssertionError:
            assert self._process is not None
            assert self._process.wait(30) != 0
            return self.errors[before:]
        raise AssertionError("it has started")

    def start(self) -> None:
        """Serve; returns once it does."""
        reader, writer = os.pipe()
        command = [sys.executable, "-m", "agenthub", "serve", "--port", str(self.port), "--ready-fd", str(writer)]
        command += ["--log", str(self._folder / "log.sqlite"), *self._options]
        for suite in SUITES:
            command += ["--tasks", str(suite)]
        with (self._folder / "stderr").open("ab") as errors:
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=(writer,), stderr=errors)
        os.close(writer)
        with os.fdopen(reader) as ready:
            line = ready.readline()
        assert line, (self._folder / "stderr").read_text()[-3000:]
        self.port = json.loads(line)["port"]

    def kill(self) -> None:
        """SIGKILL to the process that serves, and to nothing else."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and wait."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(30)

    async def count(self, hub: Hub) -> None:
        """Add what this life has recovered."""
        async with hub._http().get(f"{self.url}/metrics") as response:
            text = await response.text()
        for way, number in re.findall(r'agenthub_recovered_total\{way="(\w+)"\} (\S+)', text):
            self.recovered[way] += int(float(number))

    @property
    def errors(self) -> str:
        """What it has said on standard error, in all its lives."""
        return (self._folder / "stderr").read_text()


@contextmanager
def phoenix(folder: Path, *options: str) -> Iterator[Phoenix]:
    """A hub that serves inside the context."""
    made = Phoenix(folder, *options)
    made.start()
    try:
        yield made
    finally:
        made.stop()


async def played(episode: EpisodeHandle, texts: Sequence[str]) -> StepDone:
    """Play the turns that are left of a script; the last answer."""
    done: StepDone | None = None
    for text in texts[episode.next_turn :]:
        done = await episode.step(text)
    assert done is not None and (done.terminated or done.truncated), done
    return done
