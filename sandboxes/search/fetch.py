"""One URL over a connection to an address that was checked, within limits of size, time, ratio and kind.

Redirects are followed by hand and every hop is checked like the first. There are no cookies, no proxies of the
environment and no credentials; robots.txt is honoured.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urljoin
from urllib.robotparser import RobotFileParser

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from agenthub.sandboxes.search.addresses import BENCHMARK_HOSTS, Refused, Target, check_addresses, target
from agenthub.sandboxes.search.turns import HostTurns

__all__ = ["AGENT", "Fetched", "Fetcher", "Limits", "resolve"]

AGENT = "agenthub/1 (research crawler of a reinforcement-learning sandbox; honours robots.txt)"
_TOKEN = "agenthub"
KINDS = frozenset(
    {
        "text/html",
        "application/xhtml+xml",
        "text/plain",
        "text/markdown",
        "application/pdf",
    }
)
_REDIRECTS = (301, 302, 303, 307, 308)
_ROBOTS_S = 24 * 3600.0
_ROBOTS_BYTES = 512 << 10
_CHUNK = 64 << 10
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one fetch, its redirects included."""

    seconds: float = 10.0
    body_bytes: int = 2 << 20
    """As sent, before it is unpacked."""
    unpacked_bytes: int = 8 << 20
    ratio: int = 100
    """Unpacked over sent."""
    redirects: int = 5
    per_host: int = 2
    """Fetches of one host at once."""
    pause_s: float = 0.2
    """Between the beginnings of two fetches of one host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a URL gave."""

    url: str
    """After redirects."""
    status: int
    media_type: str
    charset: str
    body: bytes


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, asked for once.

    Raises:
        Refused: the name has none.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Refused(f"host {host!r} cannot be resolved: {error.strerror or error}") from None
    return [str(row[4][0]) for row in found]


class _Pinned(AbstractResolver):
    """Gives the addresses that were checked, whatever the name leads to by now."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


class Fetcher:
    """Fetches pages for every session of a hub."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        deny: Sequence[str] = BENCHMARK_HOSTS,
        robots: bool = True,
        resolver: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._limits, self._deny, self._robots, self._resolver = limits or Limits(), tuple(deny), robots, resolver
        self._tls = tls or ssl.create_default_context()
        self._rules: dict[str, tuple[float, RobotFileParser]] = {}
        self._turns = HostTurns(self._limits.per_host, self._limits.pause_s)

    async def get(self, url: str, *, allow: Sequence[str] = ()) -> Fetched:
        """The page at a URL.

        Raises:
            Refused: the URL, one of its hops, an address or the response is not allowed; or nothing came within the
                limits. Says which.
        """
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await self._hops(url, allow, robots=self._robots, most=self._limits.body_bytes)
        except TimeoutError:
            raise Refused(f"no whole answer within {self._limits.seconds:g} s") from None

    async def _hops(self, url: str, allow: Sequence[str], *, robots: bool, most: int) -> Fetched:
        for _ in range(self._limits.redirects + 1):
            where = target(url, deny=self._deny, allow=allow)
            if robots:
                await self._ask_robots(where, allow)
            found = await self._one(where, most, kinds=None if most == _ROBOTS_BYTES else KINDS)
            if isinstance(found, Fetched):
                return found
            url = urljoin(where.url, found)
        raise Refused(f"more than {self._limits.redirects} redirects")

    async def _one(self, where: Target, most: int, kinds: frozenset[str] | None) -> Fetched | str:
        """What a URL gives, or where it redirects to."""
        literal = ":" in where.host or where.host.rpartition(".")[2].isdigit()
        found = [where.host] if literal else await self._resolver(where.host, where.port)
        addresses = check_addresses(where.host, found)
        try:
            async with (
                self._turns.turn(where.host),
                self._session(addresses) as session,
                session.get(where.url, allow_redirects=False) as response,
            ):
                _check_peer(response, addresses)
                if response.status in _REDIRECTS:
                    return response.headers.get("Location") or _refuse("a redirect that leads nowhere")
                return await self._read(where, response, most, kinds)
        except (aiohttp.ClientError, ssl.SSLError, OSError, ValueError) as error:
            raise Refused(f"{where.host!r} could not be fetched: {_said(error)}") from None

    def _session(self, addresses: Sequence[str]) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=_Pinned(addresses), use_dns_cache=False, ssl=self._tls, force_close=True
        )
        headers = {"User-Agent": AGENT, "Accept": ", ".join(sorted(KINDS)), "Accept-Encoding": "gzip, deflate"}
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            auto_decompress=False,
            trust_env=False,
        )

    async def _read(
        self, where: Target, response: aiohttp.ClientResponse, most: int, kinds: frozenset[str] | None
    ) -> Fetched:
        header = Message()
        header["Content-Type"] = response.headers.get("Content-Type", "application/octet-stream")
        kind = header.get_content_type()
        if kinds is not None and response.status == 200 and kind not in kinds:
            raise Refused(f"content type {kind!r} is not allowed; expected one of {', '.join(sorted(kinds))}")
        body = await self._body(response, most)
        return Fetched(
            url=where.url,
            status=response.status,
            media_type=kind,
            charset=str(header.get_content_charset() or ""),
            body=body,
        )

    async def _body(self, response: aiohttp.ClientResponse, most: int) -> bytes:
        """The body, unpacked as it comes in. Raises Refused at the first byte over a limit."""
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
            raise Refused(f"content encoding {encoding[:40]!r} is not allowed")
        unpack = None if encoding in ("identity", "") else zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        sent, body = 0, bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            sent += len(chunk)
            if sent > most:
                raise Refused(f"the body is larger than {most} bytes")
            room = min(self._limits.unpacked_bytes, sent * self._limits.ratio + _CHUNK) - len(body)
            if unpack is None:
                body += chunk
                continue
            try:
                body += unpack.decompress(chunk, room + 1)
            except zlib.error:
                raise Refused("the body is not packed as its header says") from None
            if len(body) > self._limits.unpacked_bytes or unpack.unconsumed_tail:
                raise Refused(f"the body unpacks to more than it may ({self._limits.ratio} times what was sent)")
        return bytes(body)

    async def _ask_robots(self, where: Target, allow: Sequence[str]) -> None:
        """Raise Refused where robots.txt does not allow the URL; a server that fails to tell allows nothing."""
        now = asyncio.get_running_loop().time()
        expires, rules = self._rules.get(where.origin, (0.0, None))
        if rules is None or expires < now:
            rules = RobotFileParser()
            try:
                found = await self._hops(f"{where.origin}/robots.txt", allow, robots=False, most=_ROBOTS_BYTES)
            except Refused as refused:
                raise Refused(f"robots.txt of {where.host!r}: {refused}") from None
            if found.status >= 500:
                raise Refused(f"robots.txt of {where.host!r} cannot be had: status {found.status}")
            rules.parse(found.body.decode("utf-8", "replace").splitlines() if found.status == 200 else [])
            if len(self._rules) >= 4096:
                self._rules.pop(next(iter(self._rules)))
            self._rules[where.origin] = (now + _ROBOTS_S, rules)
        if not rules.can_fetch(_TOKEN, where.url):
            raise Refused(f"robots.txt of {where.host!r} does not allow this page")


def _check_peer(response: aiohttp.ClientResponse, addresses: Sequence[str]) -> None:
    transport: Any = response.connection.transport if response.connection else None
    peer = transport.get_extra_info("peername") if transport is not None else None
    if peer is not None and str(peer[0]) not in addresses:
        raise Refused(f"the connection leads to {peer[0]}, which was not checked")


def _refuse(why: str) -> str:
    raise Refused(why)


def _said(error: BaseException) -> str:
    """An error in few words; what a server wrote into it is not repeated at length."""
    return f"{type(error).__name__}: {error}"[:200]
