"""The other side of the fetcher's tests: hostile web servers in a network namespace of their own.

Run by `netns_client` under `unshare -n`; it reads a line once its end of the cable is there, and says `ready`.
"""

from __future__ import annotations

import asyncio
import gzip
import ssl
import subprocess
import sys
from collections.abc import Callable

PUBLIC = "93.184.216.34"
PRIVATE = ("10.0.0.1", "169.254.169.254", "192.168.7.7", "100.64.0.9")
PAGE = "<html><head><title>A page</title></head><body><p>Some text.</p></body></html>"
REDIRECTS = {
    "/redirect-private": "http://10.0.0.1/",
    "/redirect-metadata": "http://169.254.169.254/latest/meta-data/",
    "/redirect-file": "file:///etc/passwd",
    "/redirect-port": "http://good.org:22/",
    "/redirect-local": "//localhost/",
    "/redirect-name": "http://loop.org/",
    "/redirect-decimal": "http://2130706433/",
    "/redirect-user": "http://good.org@127.0.0.1/",
    "/redirect-loop": "/redirect-loop",
    "/redirect-denied": "http://huggingface.co/x",
    "/redirect-gopher": "gopher://good.org/",
    "/redirect-fine": "/page",
}


def answer(body: bytes, kind: str = "text/html; charset=utf-8", status: str = "200 OK", *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def simple(host: str, path: str, head: str) -> bytes | None:
    """The answers that are sent at once."""
    if path == "/robots.txt":
        if host == "robots500.org":
            return answer(b"", status="500 Broken")
        if host == "robotsaway.org":
            return answer(b"", "text/plain", "302 Found", "Location: http://10.0.0.1/robots.txt")
        return answer(b"User-agent: *\nDisallow: /secret\n", "text/plain")
    if path in REDIRECTS:
        return answer(b"", "text/html", "302 Found", f"Location: {REDIRECTS[path]}")
    bomb = gzip.compress(b"\0" * (64 << 20))
    answers: dict[str, Callable[[], bytes]] = {
        "/page": lambda: answer(PAGE.encode()),
        "/secret": lambda: answer(b"secret"),
        "/redirect-nowhere": lambda: answer(b"", "text/html", "302 Found"),
        "/packed": lambda: answer(gzip.compress(PAGE.encode()), "text/html", "200 OK", "Content-Encoding: gzip"),
        "/bomb": lambda: answer(bomb, "text/html", "200 OK", "Content-Encoding: gzip"),
        "/not-packed": lambda: answer(b"plain", "text/html", "200 OK", "Content-Encoding: gzip"),
        "/brotli": lambda: answer(b"x", "text/html", "200 OK", "Content-Encoding: br"),
        "/binary": lambda: answer(b"\0\1", "application/octet-stream"),
        "/image": lambda: answer(b"\x89PNG", "image/png"),
        "/no-type": lambda: b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        "/charset": lambda: answer(
            "<title>caf\xe9</title><p>na\xefve</p>".encode("latin-1"), "text/html; charset=nonsense"
        ),
        "/refresh": lambda: answer(b"<meta http-equiv=refresh content='0;url=http://10.0.0.1/'><p>stay"),
        "/cookie": lambda: answer(head.encode(), "text/plain", "200 OK", "Set-Cookie: a=b; Path=/"),
        "/missing": lambda: answer(b"gone", "text/plain", "404 Not Found"),
        "/large-header": lambda: answer(b"x", "text/html", "200 OK", "X-Large: " + "y" * (10 << 20)),
        "/many-headers": lambda: answer(b"x", "text/html", "200 OK", *(f"X-{n}: {n}" for n in range(20_000))),
        "/garbage": lambda: b"\x16\x03\x01\x02\x00 nothing of HTTP \r\n\r\n" * 50,
        "/nothing": lambda: b"",
        "/short": lambda: answer(b"x" * 100)[:-50],
        "/declared-large": lambda: (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * (4 << 20)
        ),
        "/negative": lambda: b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: -5\r\n\r\nx",
    }
    made = answers.get(path)
    return made() if made else None


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request."""
    try:
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode("latin-1")
        path = head.split(" ")[1]
        host = next((line[5:].strip() for line in head.split("\r\n") if line.lower().startswith("host:")), "")
        said = simple(host, path, head)
        if said is not None:
            writer.write(said)
        elif path in ("/slow-header", "/slow-body", "/endless"):
            start = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n"
            writer.write(start + (b"" if path == "/slow-header" else b"\r\n"))
            for number in range(100_000):
                chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n" if path == "/endless" else b"1\r\nx\r\n"
                writer.write(b"X-%d: y\r\n" % number if path == "/slow-header" else chunk)
                await writer.drain()
                if path != "/endless":
                    await asyncio.sleep(0.05)
        else:
            writer.write(answer(PAGE.encode()))
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError, TimeoutError):
        pass
    finally:
        writer.close()


def plug_in() -> None:
    """Give this end of the cable its addresses, once it is there."""
    sys.stdin.readline()
    for command in (
        ["link", "set", "lo", "up"],
        ["addr", "add", "5.5.5.2/24", "dev", "v1"],
        ["link", "set", "v1", "up"],
    ):
        subprocess.run(["ip", *command], check=True)
    for address in (PUBLIC, *PRIVATE):
        subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "v1"], check=True)


async def main() -> None:
    servers = [await asyncio.start_server(serve, "0.0.0.0", port) for port in (80, 22)]
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(sys.argv[1], sys.argv[2])
    servers.append(await asyncio.start_server(serve, "0.0.0.0", 443, ssl=tls))
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for server in servers:
        server.close()


if __name__ == "__main__":
    plug_in()
    asyncio.run(main())
