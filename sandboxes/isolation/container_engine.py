"""A container engine as the isolations see it: the Docker SDK off the event loop, its errors in our tree, raw streams.

The SDK blocks, so every call runs in a thread of the engine's own. Streams are hijacked HTTP connections that are
opened without the SDK: its sockets may already hold bytes of the stream in a buffer that the raw socket does not show.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import requests
import urllib3
from docker.api.client import APIClient
from docker.errors import APIError, DockerException, NotFound

from agenthub.errors import HostFault, UserError

__all__ = ["APIError", "Engine", "NotFound", "Stream"]

T = TypeVar("T")
_THREADS = 16
_CONNECT_S = 10.0
_CALL_S = 60
_HEADERS_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Stream:
    """A hijacked connection; what it carries is multiplexed in frames of an 8-byte header and a body."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def frame(self) -> tuple[int, bytes] | None:
        """(1 output or 2 errors, bytes) as they come; None at the end of the stream or where it breaks."""
        try:
            header = await self.reader.readexactly(8)
            return header[0], await self.reader.readexactly(int.from_bytes(header[4:], "big"))
        except (asyncio.IncompleteReadError, OSError):
            return None

    async def send(self, data: bytes) -> bool:
        """Send input; False where nobody takes it any more."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except OSError:
            return False
        return True

    async def close(self) -> None:
        """Let go of the connection."""
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            return


class Engine:
    """A connection to the engine that DOCKER_HOST names, or the machine's own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.api: Any = APIClient(base_url=url, version="auto", timeout=_CALL_S, max_pool_size=_THREADS)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="engine")

    @classmethod
    def connect(cls) -> Engine:
        """Raises UserError where no engine answers, or it is reached in a way that has no plain streams."""
        url = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        if not url.startswith(("unix://", "tcp://")) or os.environ.get("DOCKER_TLS_VERIFY"):
            raise UserError(f"DOCKER_HOST is {url!r}; expected unix:// or tcp:// without TLS")
        try:
            return cls(url)
        except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            cause = str(error).splitlines()[0]
            raise UserError(
                f"no Docker engine answers at {url} ({cause}); start one, or set DOCKER_HOST to one that runs"
            ) from None

    def info(self) -> dict[str, Any]:
        """The engine's facts about itself. Blocks. Raises UserError where it does not answer."""
        try:
            facts: dict[str, Any] = self.api.info()
        except (DockerException, requests.RequestException) as error:
            raise UserError(f"the engine at {self.url} does not answer: {error}") from None
        return facts

    async def call(self, method: Callable[..., T], *args: Any, **named: Any) -> T:
        """Run one SDK call in a thread.

        Raises:
            APIError: the engine answered, with an error (NotFound among them).
            HostFault: the engine did not answer.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, partial(method, *args, **named))
        except APIError:
            raise
        except RuntimeError as error:
            raise HostFault("the connection to the engine is closed") from error
        except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise HostFault(f"the engine at {self.url} is gone: {error}") from error

    async def hijack(self, path: str, body: Mapping[str, Any] | None = None) -> Stream:
        """POST to a path of the API that answers with a stream.

        Raises:
            HostFault: the engine does not answer, or refuses.
        """
        try:
            async with asyncio.timeout(_CONNECT_S):
                reader, writer = await self._connection()
                data = json.dumps(body).encode() if body is not None else b""
                head = (
                    f"POST /v{self.api.api_version}{path} HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\n"
                    f"Upgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
                )
                writer.write(head.encode() + data)
                status = await reader.readline()
                while (await reader.readline()).strip():
                    pass
        except (OSError, TimeoutError, ValueError) as error:
            raise HostFault(f"the engine at {self.url} is gone: {error}") from error
        stream = Stream(reader, writer)
        if b" 101 " not in status and b" 200 " not in status:
            await stream.close()
            raise HostFault(f"the engine refused a stream: {status.decode('latin-1').strip()}")
        return stream

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.url.startswith("unix://"):
            return await asyncio.open_unix_connection(self.url.removeprefix("unix://"), limit=_HEADERS_BYTES)
        host, _, port = self.url.removeprefix("tcp://").rstrip("/").rpartition(":")
        return await asyncio.open_connection(host, int(port), limit=_HEADERS_BYTES)

    def close(self) -> None:
        """Let go of the connections and end the threads; calls in progress end first. Blocks."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self.api.close()
