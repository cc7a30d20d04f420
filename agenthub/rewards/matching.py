"""Regular expressions against a policy's text, in a process of their own that can be ended.

A pattern that a person wrote in good faith may need hours for a text that a policy made for it, and nothing can
interrupt a match inside this process.
"""

from __future__ import annotations

import asyncio
import json
import sys

from agenthub.errors import HostFault

__all__ = ["MATCH_S", "fullmatch"]

MATCH_S = 2.0
"""Seconds for one match, start of the process included."""
_PROGRAM = "import json,re,sys;p,t,f=json.load(sys.stdin);sys.exit(0 if re.fullmatch(p,t,f) else 3)"
_MISS = 3


async def fullmatch(pattern: str, text: str, flags: int, *, timeout_s: float = MATCH_S) -> bool | None:
    """True where the pattern matches all of `text`; None where that took longer than `timeout_s`.

    Raises:
        HostFault: the process could not be started, or broke.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            "-c",
            _PROGRAM,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={},
        )
    except OSError as error:
        raise HostFault(f"no process for a regular expression: {error}") from error
    try:
        async with asyncio.timeout(timeout_s):
            await process.communicate(json.dumps([pattern, text, int(flags)]).encode())
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode not in (0, _MISS):
        raise HostFault(f"the process of a regular expression ended with {process.returncode}")
    return process.returncode == 0
