"""The hub's end of a mold: it is told of each box that it is to make, and is noticed when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Any

from agenthub.errors import HostFault
from agenthub.sandboxes.isolation import messages
from agenthub.sandboxes.isolation.ready import hung_up, readable, writable

__all__ = ["MoldLink"]

_START_S = 20.0


class MoldLink:
    """The hub's end of one mold."""

    def __init__(self, channel: socket.socket, number: int, no_fork: str = "") -> None:
        self._channel, self.number = channel, number
        self._open = True
        self.no_fork = no_fork
        """Why live boxes of this mold cannot be copied; empty where they can."""
        self._listeners: list[Callable[[], None]] = []

    def on_close(self, listener: Callable[[], None]) -> None:
        """Call `listener` once the mold is gone or this end is closed."""
        self._listeners.append(listener)

    @property
    def alive(self) -> bool:
        """False once the mold is gone or this end is closed."""
        if self._open and hung_up(self._channel):
            self.close()
        return self._open

    async def ready(self) -> None:
        """Wait until the mold has its image. Raises HostFault."""
        try:
            async with asyncio.timeout(_START_S):
                await readable(self._channel.fileno())
            message, _ = messages.receive(self._channel)
        except (OSError, TimeoutError) as error:
            self.close()
            raise HostFault(f"a mold did not start: {error or 'no answer in time'}") from error
        if message is None or "error" in message:
            self.close()
            raise HostFault(f"a mold did not start: {message['error'] if message else 'it ended'}")
        self.no_fork = message["no_fork"]
        self.watch()

    def watch(self) -> None:
        """Notice from now on when the mold ends."""
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self.close)

    async def spawn(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        """Send a request. Raises HostFault where the mold is gone."""
        while self.alive:
            try:
                messages.send(self._channel, message, descriptors)
                return
            except BlockingIOError:
                await writable(self._channel.fileno())
            except OSError:
                self.close()
        raise HostFault("the mold is gone")

    def close(self) -> None:
        """Let go; the mold kills its boxes and ends. A mold that says anything after `ready` has ended."""
        if self._open:
            self._open = False
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._channel.close()
            for listener in self._listeners:
                listener()
