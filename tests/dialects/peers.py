"""Peers in environments of their own, and programs that drive a hub from there."""

from __future__ import annotations

import asyncio
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

__all__ = ["CLIENTS", "interpreter", "said_by", "start"]

ROOT = Path(__file__).parents[2]
CLIENTS = Path(__file__).parent / "clients"
_NOT_HERE = 3


@functools.cache
def interpreter(peer: str) -> str:
    """The interpreter of a peer's environment; the test is skipped where it cannot be had, by name."""
    command = [sys.executable, str(ROOT / "scripts" / "peer-environment"), peer]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == _NOT_HERE:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def start(peer: str, *arguments: str) -> asyncio.subprocess.Process:
    """A program of `clients/`, named as the peer is, in the peer's environment."""
    python = await asyncio.to_thread(interpreter, peer)
    script = str(CLIENTS / f"{peer}_client.py")
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(python, script, *arguments, stdout=pipe, stderr=pipe, cwd=ROOT)


async def said_by(peer: str, *arguments: str) -> list[Any]:
    """What such a program prints, a JSON value a line, when it has ended well."""
    process = await start(peer, *arguments)
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-4000:]
    return [json.loads(line) for line in out.splitlines() if line.startswith((b"{", b"["))]
