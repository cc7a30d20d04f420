"""The fetcher against hostile servers across a cable between two network namespaces; prints what came of it as JSON.

Run by the tests under `unshare -n`. Every packet that leaves or stays inside is looked at: `syns` holds the addresses
to which a connection was begun.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from agenthub.errors import UserError
from agenthub.sandboxes.search.fetch import Fetcher, Limits
from tests.search.netns_server import PUBLIC, REDIRECTS

NAMES: dict[str, list[str]] = {
    "good.org": [PUBLIC],
    "robots500.org": [PUBLIC],
    "robotsaway.org": [PUBLIC],
    "loop.org": ["127.0.0.1"],
    "private.org": ["10.0.0.1"],
    "metadata.org": ["169.254.169.254"],
    "mixed.org": [PUBLIC, "10.0.0.1"],
    "mixed6.org": [PUBLIC, "fd00::1"],
    "private6.org": ["fd00::1"],
    "loop6.org": ["::1"],
    "mapped.org": ["::ffff:10.0.0.1"],
    "nat64.org": ["64:ff9b::a00:1"],
    "shared.org": ["100.64.0.9"],
    "own.org": ["5.5.5.1"],
    "none.org": [],
}
PATHS = (
    "/page /secret /redirect-nowhere /packed /bomb /not-packed /brotli /binary /image /no-type /charset /refresh "
    "/cookie /missing /large-header /many-headers /garbage /nothing /short /declared-large /negative /endless"
)
SLOW = ["/slow-header", "/slow-body"]


class Resolver:
    """Names of the tests' own; `flip.org` is public when it is asked for first, and private ever after."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked[host] = self.asked.get(host, 0) + 1
        if host == "flip.org":
            return [PUBLIC] if self.asked[host] == 1 else ["10.0.0.1"]
        return NAMES[host]


LAST = "93.184.216.99"
"""Nobody is there; connected to after the last fetch."""


def watch(wire: socket.socket, stop: threading.Event, seen: set[str]) -> None:
    """Note where TCP connections are begun to, on every interface."""
    wire.settimeout(0.1)
    while not stop.is_set():
        try:
            data = wire.recv(65536)
        except TimeoutError:
            continue
        version, header, protocol = data[0] >> 4, (data[0] & 15) * 4, data[9]
        if version == 6:
            header, protocol = 40, data[6]
        if protocol == 6 and len(data) > header + 13 and data[header + 13] & 0x12 == 0x02:
            raw = data[24:40] if version == 6 else data[16:20]
            seen.add(str(ipaddress.ip_address(raw)))
    wire.close()


def shown(seen: set[str], addresses: set[str]) -> None:
    """Wait until the wire has shown connections to all of these, and with them everything that was before."""
    waiting = threading.Event()
    for _ in range(200):
        if addresses <= seen:
            return
        waiting.wait(0.1)


async def fetched(fetcher: Fetcher, url: str) -> dict[str, Any]:
    try:
        found = await fetcher.get(url)
    except UserError as error:
        return {"refused": str(error)}
    return {"url": found.url, "status": found.status, "text": found.body.decode("utf-8", "replace")[:600]}


async def play(certificate: str) -> dict[str, Any]:
    """Every case by its name."""
    resolver = Resolver()
    fetcher = Fetcher(resolver=resolver, limits=Limits(seconds=20, pause_s=0))
    hasty = Fetcher(resolver=resolver, limits=Limits(seconds=1.5, pause_s=0), robots=False)
    rows = {path: await fetched(fetcher, f"http://good.org{path}") for path in (*REDIRECTS, *PATHS.split())}
    rows |= {path: await fetched(hasty, f"http://good.org{path}") for path in SLOW}
    rows |= {name: await fetched(fetcher, f"http://{name}/page") for name in NAMES if name != "good.org"}
    rows["flip.org"] = await fetched(Fetcher(resolver=resolver, robots=False), "http://flip.org/page")
    rows["flip.org again"] = await fetched(Fetcher(resolver=resolver, robots=False), "http://flip.org/page")
    rows["literal public"] = await fetched(fetcher, f"http://{PUBLIC}/page")
    trusting = Fetcher(resolver=resolver, robots=False, tls=ssl.create_default_context(cafile=certificate))
    rows["https trusted"] = await fetched(trusting, "https://good.org/page")
    rows["https another name"] = await fetched(trusting, "https://robots500.org/page")
    rows["https not trusted"] = await fetched(fetcher, "https://good.org/page")
    for address in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:10.0.0.1]", "5.5.5.1"):
        rows[f"literal {address}"] = await fetched(fetcher, f"http://{address}/")
    return {"rows": rows, "asked": resolver.asked}


def main(certificate: str, key: str) -> None:
    server = subprocess.Popen(
        ["unshare", "-n", sys.executable, "-m", "tests.search.netns_server", certificate, key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin and server.stdout
    try:
        own = f"/proc/{server.pid}/ns/net"
        mine = subprocess.run(["readlink", "/proc/self/ns/net"], capture_output=True, text=True, check=True).stdout
        while subprocess.run(["readlink", own], capture_output=True, text=True, check=True).stdout == mine:
            pass  # unshare has not come to it yet
        for command in (
            ["link", "set", "lo", "up"],
            ["link", "add", "v0", "type", "veth", "peer", "name", "v1"],
            ["link", "set", "v1", "netns", str(server.pid)],
            ["addr", "add", "5.5.5.1/24", "dev", "v0"],
            ["link", "set", "v0", "up"],
            ["route", "add", "default", "via", "5.5.5.2"],
        ):
            subprocess.run(["ip", *command], check=True)
        server.stdin.write("go\n")
        server.stdin.flush()
        assert server.stdout.readline() == "ready\n"
        stop, seen = threading.Event(), set[str]()
        # Open before anything is sent: a thread begins when it is let.
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        watcher = threading.Thread(target=watch, args=(wire, stop, seen))
        watcher.start()
        result = asyncio.run(play(certificate))
        with socket.socket() as last:
            last.setblocking(False)
            last.connect_ex((LAST, 80))
            shown(seen, {LAST})
        result["syns"] = sorted(seen - {LAST})
        # The wire would have shown it, and the servers would have answered.
        for address in ("10.0.0.1", "169.254.169.254"):
            socket.create_connection((address, 80), timeout=10).close()
        shown(seen, {"10.0.0.1", "169.254.169.254"})
        stop.set()
        watcher.join()
        result["control"] = sorted(seen)
        print(json.dumps(result))
    finally:
        server.stdin.close()
        server.wait(timeout=20)


if __name__ == "__main__":
    main(*sys.argv[1:])
