"""A hub as a process of its own, on the fake sandbox: `python -m tests.server.child [serve's options]`."""

from __future__ import annotations

import sys

import typer

import tests.fakes  # noqa: F401 - importing it registers the sandbox
from agenthub.cli.serve import command
from agenthub.errors import AgenthubError

if __name__ == "__main__":
    try:
        typer.run(command)
    except AgenthubError as error:
        sys.exit(f"agenthub: {error}")
