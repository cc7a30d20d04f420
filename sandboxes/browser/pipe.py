"""The DevTools protocol over a box's socket: calls answered in any order, and events by session.

Nothing that comes in is trusted to be well formed: a browser that says what it should not is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

import orjson

__all__ = ["Gone", "Pipe", "Refused"]

_CHUNK = 1 << 18
_MOST_MESSAGE = 96 << 20
Listener = Callable[[str, dict[str, Any]], None]


class Refused(Exception):
    """The browser answered a call with an error."""


class Gone(Exception):
    """The browser, or the page that a call was for, is gone."""


class Pipe:
    """One browser's orders and answers; used within one event loop."""

    def __init__(self, descriptor: int) -> None:
        """Speaks over a copy of the descriptor of a stream socket."""
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._waiting: dict[int, tuple[str, asyncio.Future[dict[str, Any]]]] = {}
        self._listeners: dict[str, Listener] = {}
        self._heard = bytearray()
        self._unsent = bytearray()
        self._writing = False
        self.lost = ""
        """Why nothing can be asked any more; empty while it can."""
        self._loop.add_reader(self._socket, self._on_readable)

    def listen(self, session: str, listener: Listener) -> None:
        """Have the events of a session (the browser's own is empty) told to `listener(method, params)`."""
        self._listeners[session] = listener

    def forget(self, session: str) -> None:
        """No more events of a session; calls that wait for it fail."""
        self._listeners.pop(session, None)
        for number, (whose, answer) in list(self._waiting.items()):
            if whose == session:
                del self._waiting[number]
                _fail(answer, Gone("the page is gone"))

    def call(self, method: str, session: str = "", /, **params: Any) -> asyncio.Future[dict[str, Any]]:
        """Send a call now; its result comes with the future.

        Raises, from the future:
            Refused: the browser says no.
            Gone: browser or page ended before it answered.
        """
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        if self.lost:
            _fail(answer, Gone(self.lost))
            return answer
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        self._waiting[self._number] = (session, answer)
        self._send(orjson.dumps(message) + b"\0")
        return answer

    def tell(self, method: str, session: str = "", /, **params: Any) -> None:
        """Send a call whose answer is of no interest."""
        self.call(method, session, **params).add_done_callback(_ignored)

    def close(self, why: str = "the browser was closed") -> None:
        """Stop; whatever waits fails. Safe to call again."""
        if self.lost:
            return
        self.lost = why
        self._loop.remove_reader(self._socket)
        if self._writing:
            self._loop.remove_writer(self._socket)
        self._socket.close()
        waiting, self._waiting = self._waiting, {}
        for _, answer in waiting.values():
            _fail(answer, Gone(why))
        listeners, self._listeners = self._listeners, {}
        for listener in listeners.values():
            listener("Pipe.closed", {})

    def _send(self, data: bytes) -> None:
        if not self._unsent:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self.close(f"the browser is gone: {error}")
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._unsent += data
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._socket, self._on_writable)

    def _on_writable(self) -> None:
        try:
            sent = self._socket.send(memoryview(self._unsent)[:_CHUNK])
        except BlockingIOError:
            return
        except OSError as error:
            self.close(f"the browser is gone: {error}")
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._writing = False
            self._loop.remove_writer(self._socket)

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close("the browser is gone")
            return
        self._heard += data
        if b"\0" not in data:
            if len(self._heard) > _MOST_MESSAGE:
                self.close("the browser said more than can be listened to")
            return
        *messages, rest = bytes(self._heard).split(b"\0")
        self._heard = bytearray(rest)
        for message in messages:
            if self.lost:
                return
            try:
                self._take(orjson.loads(message))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self.close(f"the browser said what it should not: {error}")

    def _take(self, message: Mapping[str, Any]) -> None:
        if "id" in message:
            _, answer = self._waiting.pop(message["id"], ("", None))
            if answer is None or answer.done():
                return
            if "error" in message:
                _fail(answer, Refused(str(message["error"].get("message"))))
            else:
                answer.set_result(message["result"])
            return
        listener = self._listeners.get(message.get("sessionId", ""))
        if listener is not None:
            listener(message["method"], message["params"])


def _fail(answer: asyncio.Future[dict[str, Any]], why: Exception) -> None:
    if not answer.done():
        answer.set_exception(why)
        # Several calls may wait at once, and whoever made them looks at the first that fails.
        answer.exception()


def _ignored(answer: asyncio.Future[dict[str, Any]]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        answer.exception()
