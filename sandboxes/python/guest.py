"""The resident program of a Python box: reads frames from the hub, runs code, answers.

Standard library only. It shares its process with hostile code, so nothing here is a protection: the box is, and the
hub believes no frame further than its own episode.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal.pthread_sigmask makes an enum of every number
import _sitebuiltins
import builtins
import ctypes
import gc
import io
import json
import os
import random
import signal
import sys
import types
from typing import Any, NoReturn

from agenthub.sandboxes.python.carried import Carried
from agenthub.sandboxes.python.cell import run_cell
from agenthub.sandboxes.python.frames import encode
from agenthub.sandboxes.python.grading import Grader, exit_status

__all__ = ["main"]

_HELD = frozenset(map(int, signal.valid_signals() - {signal.SIGINT}))


class Guest:
    """One interpreter, from its first frame to its end."""

    def __init__(self, control: int) -> None:
        self._control = control
        self._running = False
        self._turn = 0
        self._main = types.ModuleType("__main__")
        sys.modules["__main__"] = self._main
        self._main.__dict__["__builtins__"] = builtins
        self._grader = Grader(self._ask)
        self._carried: Carried | None = None

    def serve(self) -> NoReturn:
        """Answer until the hub closes the socket."""
        signal.signal(signal.SIGINT, self._on_interrupt)
        while True:
            # Between turns no timer and no signal runs code; what came in is delivered as the next turn begins.
            mask = _signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
            message = self._receive()
            _signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            try:
                reply = self._work(message)
            except KeyboardInterrupt:
                # The interrupt came between the end of the code and the end of our own bookkeeping.
                self._running = False
                reply = {"value": None, "error": "KeyboardInterrupt\n"}
            self._flush()
            self._send(reply | {"id": message["id"]})

    def _work(self, message: dict[str, Any]) -> dict[str, Any]:
        self._running = True
        try:
            if message["op"] == "exec":
                self._turn += 1
                return run_cell(message["code"], self._turn, self._main.__dict__)
            work = {
                "load": self._grader.load,
                "invoke": self._grader.invoke,
                "drive": self._grader.drive,
                "run": self._grader.run,
                "fork": self._before_fork,
                "forked": self._after_fork,
            }
            return work[message["op"]](message)
        except SystemExit as error:
            status = exit_status(error)
            self._flush()
            os._exit(status)
        finally:
            self._running = False

    def _before_fork(self, _: dict[str, Any]) -> dict[str, Any]:
        """Get ready to be copied while this process waits for its next order."""
        carried = Carried(self._control)
        ctypes.pythonapi.PyOS_BeforeFork()
        self._carried = carried
        return {}

    def _after_fork(self, message: dict[str, Any]) -> dict[str, Any]:
        """The order after `fork`: a copy hears that it is one, and says what it lost by it."""
        carried, self._carried = self._carried, None
        if carried is None:
            return {}
        if not message["copy"]:
            ctypes.pythonapi.PyOS_AfterFork_Parent()
            return {}
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return {"lost": carried.restore()}

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        self._send(message)
        return self._receive()

    def _on_interrupt(self, *_: object) -> None:
        if self._running:
            raise KeyboardInterrupt

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            try:
                stream.flush()  # type: ignore[union-attr]
            except BaseException:
                # User code may have put anything in their place.
                continue

    def _send(self, message: dict[str, Any]) -> None:
        view = memoryview(encode(message))
        while view:
            view = view[os.write(self._control, view) :]

    def _receive(self) -> dict[str, Any]:
        length = int.from_bytes(self._exactly(4), "big")
        message: dict[str, Any] = json.loads(self._exactly(length))
        return message

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = os.read(self._control, count - len(data))
            if not chunk:
                os._exit(0)
            data += chunk
        return bytes(data)


def main(control: int) -> NoReturn:
    """Run a box's resident program on the socket `control`; never returns."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        raw = io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False))
        stream = io.TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=descriptor == 2)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    reader = io.BufferedReader(io.FileIO(0, closefd=False))
    setattr(sys, "__stdin__", io.TextIOWrapper(reader, "utf-8", "surrogateescape"))  # noqa: B010
    sys.stdin = sys.__stdin__
    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))
    sys.argv = [""]
    sys.path[:] = ["", *(path for path in sys.path if path)]
    guest = Guest(control)
    for name in [name for name in sys.modules if name.partition(".")[0] == "agenthub"]:
        del sys.modules[name]
    random.seed()
    gc.enable()
    guest.serve()
