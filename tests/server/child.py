"""A hub as a process of its own, on the fake sandbox: `python -m tests.server.child [serve's options]`."""

from __future__ import annotations

import typer

import tests.fakes
from agenthub.cli.serve import command

if __name__ == "__main__":
    assert tests.fakes.FakeFactory  # importing it registers the sandbox
    typer.run(command)
