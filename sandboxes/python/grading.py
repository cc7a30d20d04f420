"""Runs code that is graded: a module's source, a function by name, a test function with a proxy, a whole script.

Part of the guest: standard library only, and everything it says is untrusted on the other side.
"""

from __future__ import annotations

import base64
import builtins
import io
import linecache
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from agenthub.sandboxes.python.cell import show_error
from agenthub.sandboxes.python.plain import NotPlain, pack, unpack

__all__ = ["Grader"]

Ask = Callable[[dict[str, Any]], dict[str, Any]]
_SHOWN_CHARS = 2000
_FILE = "<solution>"


class Grader:
    """The state of one grading box."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._module = types.ModuleType("solution")
        sys.modules["solution"] = self._module

    def load(self, message: dict[str, Any]) -> dict[str, Any]:
        """Execute a source; its globals stay."""

        def work() -> None:
            exec(compile(message["source"], _FILE, "exec"), self._module.__dict__)

        return _outcome(work)

    def invoke(self, message: dict[str, Any]) -> dict[str, Any]:
        """Call a global by name."""

        def work() -> Any:
            function = self._function(message["name"])
            return function(*unpack(message["args"]), **unpack(message["kwargs"]))

        return _outcome(work)

    def drive(self, message: dict[str, Any]) -> dict[str, Any]:
        """Call a test function with a proxy of the candidate."""

        def candidate(*args: Any, **kwargs: Any) -> Any:
            answer = self._ask({"call": {"args": pack(list(args)), "kwargs": pack(kwargs)}})
            if answer["error"] is not None:
                raise _rebuilt(answer["error"])
            return unpack(answer["value"])

        return _outcome(lambda: self._function(message["name"])(candidate))

    def run(self, message: dict[str, Any]) -> dict[str, Any]:
        """Run a script as __main__ on a standard input; the value is its exit status.

        With `trace`, what it raised is written to standard error, as an interpreter does.
        """
        _replace_stdin(base64.b64decode(message["stdin"]))
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        main.__dict__["__builtins__"] = builtins
        lines = message["source"].splitlines(keepends=True)
        linecache.cache[_FILE] = (len(message["source"]), None, lines, _FILE)

        def work() -> int:
            try:
                exec(compile(message["source"], _FILE, "exec"), main.__dict__)
            except SystemExit as error:
                return exit_status(error)
            except BaseException as error:
                if not message.get("trace"):
                    raise
                sys.stderr.write(show_error(error, _FILE))
                return 1
            return 0

        return _outcome(work)

    def _function(self, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] = self._module.__dict__[name]
        return function


def exit_status(error: SystemExit) -> int:
    """What the interpreter would exit with; a message goes to standard error."""
    if error.code is None:
        return 0
    if type(error.code) is int:
        return error.code & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1


def _outcome(work: Callable[[], Any]) -> dict[str, Any]:
    """A Plain as a message: the packed value, or the error in its place."""
    try:
        return {"value": pack(work()), "error": None}
    except NotPlain as error:
        return {"value": None, "error": f"TypeError: {error}"}
    except BaseException as error:
        return {"value": None, "error": _one_line(error)}


def _one_line(error: BaseException) -> str:
    name = type.__getattribute__(type(error), "__name__")
    try:
        text = str(error)
    except BaseException:
        text = "its message cannot be shown"
    return f"{name}: {text}"[:_SHOWN_CHARS]


def _rebuilt(error: str) -> Exception:
    """The candidate's exception, as the builtin of its name where there is one."""
    name, _, text = error.partition(": ")
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(text)
        except TypeError:
            return RuntimeError(error)
    return RuntimeError(error)


def _replace_stdin(data: bytes) -> None:
    """Put bytes on descriptor 0: a memory file, so that a script that reads none of them blocks nobody."""
    descriptor = os.memfd_create("stdin")
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.dup2(descriptor, 0)
    os.close(descriptor)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8", "surrogateescape")
