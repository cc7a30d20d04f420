"""Listening: TLS, how many may come, and how long a slow client is waited for.

A connection is closed where its first request's head does not come in time, and where its peer does not read what it
asked for. The body's time is `agenthub.server.app`'s, idle connections and the sizes of heads are aiohttp's.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from aiohttp import web

from agenthub.errors import ConfigError, UserError

__all__ = ["Door", "Patience", "Tls", "came", "listening"]

MAX_LINE = 16 << 10
"""Octets of a request's first line: a file's path of 4,096 characters, escaped."""
MAX_FIELD = 8 << 10
MAX_FIELDS = 64
_HANDSHAKE_S = 10.0
_LINGER_S = 2.0
"""How long what still comes of a body that was refused is thrown away, so that the client can read why."""
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long and how much a client may keep a hub waiting."""

    head_s: float = 10.0
    """Until the head of a connection's first request is there."""
    body_s: float = 60.0
    """Until a request's body is there, after its head."""
    unread_s: float = 30.0
    """While a client reads nothing of what was sent."""
    idle_s: float = 75.0
    """Between two requests of a connection."""
    max_connections: int = 10_000
    max_unread: int = 64 << 20
    """Octets that wait for the reader of one WebSocket; more, and it is closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files of a certificate and its key, PEM."""

    cert: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 or newer. Raises ConfigError as `load` does."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.load(context)
        return context

    def load(self, context: ssl.SSLContext) -> None:
        """Let connections from now on see the certificate.

        Raises:
            ConfigError: a file cannot be read, or they do not fit together.
        """
        try:
            context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            why = getattr(error, "strerror", None) or getattr(error, "reason", None) or error
            raise ConfigError(f"{self.cert}, {self.key}", f"cannot be used for TLS: {why}") from error


@asynccontextmanager
async def listening(
    app: web.Application,
    host: str,
    port: int,
    *,
    patience: Patience | None = None,
    tls: ssl.SSLContext | None = None,
    backlog: int = 1024,
) -> AsyncIterator[str]:
    """Serve the application inside the context; gives its URL.

    Raises:
        UserError: the address cannot be had.
    """
    patience = patience or Patience()
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=0.1,
        keepalive_timeout=patience.idle_s,
        lingering_time=_LINGER_S,
        max_line_size=MAX_LINE,
        max_field_size=MAX_FIELD,
        max_headers=MAX_FIELDS,
    )
    await runner.setup()
    try:
        assert runner.server is not None  # it was set up
        doors = _Doors(runner.server, patience)
        try:
            server = await asyncio.get_running_loop().create_server(
                doors, host, port, ssl=tls, backlog=backlog, ssl_handshake_timeout=_HANDSHAKE_S if tls else None
            )
        except OSError as error:
            raise UserError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        try:
            shown = f"[{host}]" if ":" in host else host
            yield f"{'https' if tls else 'http'}://{shown}:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
    finally:
        await runner.cleanup()


def came(request: web.Request) -> None:
    """The head of a connection's request is there."""
    door = request.transport.get_protocol() if request.transport is not None else None
    if isinstance(door, Door):
        door.came()


class _Doors:
    """Makes the protocol of each connection."""

    def __init__(self, make: Callable[[], asyncio.Protocol], patience: Patience) -> None:
        self._make, self.patience = make, patience
        self.open = 0

    def __call__(self) -> Door:
        return Door(self._make(), self)


class Door(asyncio.Protocol):
    """aiohttp's protocol of one connection, watched from outside."""

    def __init__(self, inner: asyncio.Protocol, doors: _Doors) -> None:
        self._inner, self._doors = inner, doors
        self._transport: asyncio.Transport | None = None
        self._head: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made = cast(asyncio.Transport, transport)  # uvloop's own are no subclasses of it
        self._doors.open += 1
        if self._doors.open > self._doors.patience.max_connections:
            self._refused = True
            made.write(_FULL)
            made.close()
            return
        self._transport = made
        self._head = asyncio.get_running_loop().call_later(self._doors.patience.head_s, made.abort)
        self._inner.connection_made(made)

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._refused else self._inner.eof_received()

    def pause_writing(self) -> None:
        if self._refused or self._transport is None:
            return
        self._unread = asyncio.get_running_loop().call_later(self._doors.patience.unread_s, self._transport.abort)
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._doors.open -= 1
        self.came()
        if self._unread is not None:
            self._unread.cancel()
        if not self._refused:
            self._inner.connection_lost(exc)

    def came(self) -> None:
        """The first request's head is there, or never will be."""
        if self._head is not None:
            self._head.cancel()
            self._head = None
