"""The event loops that `agenthub serve` may run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["LOOPS"]

LOOPS: list[Callable[[], asyncio.AbstractEventLoopPolicy]] = [asyncio.DefaultEventLoopPolicy]
try:
    import uvloop
except ImportError:
    pass
else:
    LOOPS.append(uvloop.EventLoopPolicy)
