"""Who asks: the client of a request, as the dialects see it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from agenthub.server.access import Principal
from agenthub.server.answers import Answer
from agenthub.server.dispatcher import Dispatcher
from agenthub.server.guard import principal

__all__ = ["Caller", "Callers"]


@dataclass(frozen=True, slots=True)
class Caller:
    """A client that was let in."""

    dispatcher: Dispatcher
    who: Principal

    @property
    def owner(self) -> str:
        """What its sessions belong to."""
        return self.who.name

    async def operate(self, name: str, values: Mapping[str, Any]) -> Answer:
        """An operation as this client; values that are None are not given. Raises WireError."""
        given = {key: value for key, value in values.items() if value is not None}
        return await self.dispatcher.dispatch(name, given, self.who)


class Callers:
    """Tells who asks, and whom a socket serves."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.sockets: set[web.WebSocketResponse] = set()

    def of(self, request: web.Request) -> Caller:
        """The client of a request that the guard has let in."""
        return Caller(self.dispatcher, principal(request))

    async def goodbye(self) -> None:
        """Close every socket of the dialects."""
        await asyncio.gather(*(socket.close() for socket in list(self.sockets)), return_exceptions=True)
