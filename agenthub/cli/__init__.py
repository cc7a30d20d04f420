"""The `agenthub` command: mounts one module per command and turns user errors into one line and exit status 2.

Each command imports what it needs inside its function, so that `agenthub --help` stays quick.
"""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

import typer

from agenthub.errors import NO_ROOM, AgenthubError

__all__ = ["app", "main"]

app = typer.Typer(
    name="agenthub",
    help="Multi-turn tool-use environments for reinforcement learning of language-model agents.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_COMMANDS = ("serve", "train", "eval", "compare", "play", "record", "replay", "report", "recipes", "doctor")
_MODULES = {"eval": "evaluate"}
_GROUPS = ("images", "search", "tasks", "tokens")


def _mount() -> None:
    for name in _COMMANDS:
        module = importlib.import_module(f"agenthub.cli.{_MODULES.get(name, name)}")
        app.command(name)(module.command)
    for name in _GROUPS:
        app.add_typer(importlib.import_module(f"agenthub.cli.{name}").app, name=name)


def main() -> None:
    """Run the command line; never shows a traceback for what a user did."""
    _mount()
    try:
        app()
    except AgenthubError as error:
        _refuse(error)
    except ExceptionGroup as group:
        # What several episodes at once all met is said once.
        ours, others = group.split(AgenthubError)
        if ours is None or others is not None:
            raise
        first: BaseException = ours
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        _refuse(first)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        _refuse(f"cannot write: {error.strerror}")


def _refuse(error: BaseException | str) -> NoReturn:
    print(f"agenthub: {error}", file=sys.stderr)
    raise SystemExit(2) from None
