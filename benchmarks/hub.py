"""What the hub itself costs: steps a second on an echo beside OpenEnv 0.10's native server, and many live episodes.

    python benchmarks/hub.py [--quick] [--only CASE]

Prints one JSON object a line: {"bench", "case", "metric", "value", "unit"}, with "peer" and "ratio" (more is better)
where OpenEnv ran beside it. Everything of a real step is in the hub's (wire, protocol, limits, log, reward) but a box:
the suite is tasks/echo.yaml. Servers, and one process of clients for each, are processes of their own; OpenEnv's server
is driven by its own client, from the environment that scripts/peer-environment makes.

    echo_N     N sessions, each waiting for its answer before its next step: our client's default transport
    post_64    64 sessions, a request a step; beside OpenEnv at 64 sessions
    batch_256  256 sessions, all their steps in one request; beside OpenEnv at 256 sessions
    live       2,000 jailed Python episodes and 8,000 of the echo, 200 steps a second over both
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = ROOT / "benchmarks" / "hub_clients"
PEER = "openenv 0.10.0, native server and its own client"
CASES = (
    ("echo_1", "socket", 1),
    ("echo_64", "socket", 64),
    ("echo_256", "socket", 256),
    ("echo_1024", "socket", 1024),
    ("post_64", "post", 64),
    ("batch_256", "batch", 256),
)
STEPS_PER_S = 200
SUITE = """
schema: agenthub.suite/1
suite: {name: live, version: "1", description: Runs what it is told., license: CC0-1.0}
defaults:
  protocol: fence_strict
  on_no_call: remind
  limits: {max_turns: 1000000, episode_seconds: 3600}
  sandbox: {resources: {request: 4M}}
  verifier: {checks: [{uses: exact}]}
tasks:
  - {id: python, prompt: {user: "?"}, target: {answer: "1"}, tools: [{uses: python}]}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server process."""

    url: str
    pid: int

    def cpu_s(self) -> float:
        """User and system seconds so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def status(self, name: str) -> int:
        """A number of /proc/PID/status."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])

    def descriptors(self) -> int:
        """Open descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run of sessions came to."""

    steps_per_s: float
    p50_ms: float
    p99_ms: float
    server_cpu_us: float


class Rows:
    """Prints measurements."""

    def __init__(self, *, quick: bool) -> None:
        self._quick = quick

    def add(self, case: str, metric: str, value: float, unit: str, **more: object) -> None:
        """One row; `peer`, `peer_value` and `ratio` are given together."""
        row = {"bench": "hub", "case": case, "metric": metric, "value": round(value, 3), "unit": unit}
        print(json.dumps(row | more | ({"quick": True} if self._quick else {})), flush=True)

    def beside(self, case: str, ours: Measured, peer: Measured | None) -> None:
        """The rows of one case."""
        for metric, unit in (("steps_per_s", "1/s"), ("p50_ms", "ms"), ("p99_ms", "ms"), ("server_cpu_us", "us")):
            value, more = getattr(ours, metric), {}
            if peer is not None:
                theirs = getattr(peer, metric)
                ratio = value / theirs if metric == "steps_per_s" else theirs / value
                more = {"peer": PEER, "peer_value": round(theirs, 3), "ratio": round(ratio, 3)}
            self.add(case, metric, value, unit, **more)


class Client:
    """One process of clients; it says a line and waits for one."""

    def __init__(self, python: str, script: str, *arguments: object) -> None:
        command = [python, str(CLIENTS / script), *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def hear(self) -> str:
        """Its next line; ends the benchmark where it has none."""
        line = _pipe(self._process.stdout).readline()
        if not line:
            sys.exit(f"hub: {self._process.args} ended with {self._process.wait()}")
        return line.strip()

    def go(self) -> None:
        """Let it go on."""
        stream = _pipe(self._process.stdin)
        stream.write("\n")
        stream.flush()

    def leave(self) -> None:
        """Let it end its sessions."""
        self.go()
        self._process.wait(120)


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None  # both are pipes
    return stream


@contextmanager
def hub(folder: Path, suites: tuple[Path, ...], *options: str) -> Iterator[Server]:
    """A hub process."""
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "agenthub", "serve", "--port", "0", "--log", str(folder / "log.sqlite")]
    for suite in suites:
        command += ["--tasks", str(suite)]
    command += ["--ready-fd", str(writer), *options]
    process = subprocess.Popen(command, pass_fds=(writer,), stderr=subprocess.DEVNULL, cwd=ROOT)
    os.close(writer)
    try:
        with os.fdopen(reader) as ready:
            row = json.loads(ready.readline())
        yield Server(row["url"], row["pid"])
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def openenv(python: str) -> Iterator[Server]:
    """OpenEnv's server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([python, str(CLIENTS / "openenv_server.py"), str(port)], stderr=subprocess.DEVNULL)
    try:
        ends = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            if process.poll() is not None or time.monotonic() > ends:
                sys.exit("hub: OpenEnv's server did not start")
            time.sleep(0.05)
        yield Server(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.kill()
        process.wait()


def peer_python() -> str | None:
    """The interpreter of OpenEnv's environment; None, and why on standard error, where it cannot be had."""
    script = ROOT / "scripts" / "peer-environment"
    done = subprocess.run([sys.executable, script, "openenv"], stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def measure(python: str, script: str, server: Server, mode: str, sessions: int, seconds: float) -> Measured:
    """Run the sessions of one case."""
    with Client(python, script, server.url, mode, sessions, seconds) as client:
        client.hear()
        cpu_s = server.cpu_s()
        client.go()
        row = json.loads(client.hear())
        cpu_s = server.cpu_s() - cpu_s
        client.leave()
    us, steps = sorted(row["us"]), row["steps"]
    return Measured(steps / row["wall_s"], _at(us, 0.50) / 1e3, _at(us, 0.99) / 1e3, 1e6 * cpu_s / steps)


def _at(ordered: list[int], share: float) -> float:
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])


def echo(rows: Rows, folder: Path, seconds: float, only: str | None) -> None:
    """Every case of the echo."""
    cases = [case for case in CASES if only in (None, case[0])]
    if not cases:
        return
    python, theirs = peer_python(), dict[int, Measured]()
    with ExitStack() as servers:
        ours = servers.enter_context(hub(folder, (ROOT / "tasks" / "echo.yaml",)))
        peer = None if python is None else servers.enter_context(openenv(python))
        for case, mode, sessions in cases:
            if python is not None and peer is not None and sessions not in theirs:
                theirs[sessions] = measure(python, "openenv_client.py", peer, mode, sessions, seconds)
            mine = measure(sys.executable, "agenthub_client.py", ours, mode, sessions, seconds)
            rows.beside(case, mine, theirs.get(sessions))


def available_kb() -> int:
    """Memory of the machine that is free for use, KiB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])


def live(rows: Rows, folder: Path, echoes: int, pythons: int, seconds: float) -> None:
    """Many episodes at once, most of them idle."""
    suite = folder / "live.yaml"
    suite.write_text(SUITE)
    options = ("--max-episodes", str(echoes + pythons + 16))
    with hub(folder, (suite, ROOT / "tasks" / "echo.yaml"), *options) as server:
        start_kb = server.status("VmRSS")
        with Client(sys.executable, "live_client.py", server.url, echoes, pythons, STEPS_PER_S, seconds) as client:
            client.hear()
            echo_kb = server.status("VmRSS")
            free_kb = available_kb()
            client.go()
            client.hear()
            ready_kb = server.status("VmRSS")
            box_kb = (free_kb - available_kb() - (ready_kb - echo_kb)) / max(1, pythons)
            client.go()
            row = json.loads(client.hear())
            threads, descriptors = server.status("Threads"), server.descriptors()
    us = sorted(row["echo"] + row["python"])
    rows.add("live", "episodes", echoes + pythons, "1")
    rows.add("live", "steps_per_s", len(us) / row["wall_s"], "1/s")
    rows.add("live", "p50_ms", _at(us, 0.50) / 1e3, "ms")
    rows.add("live", "p99_ms", _at(us, 0.99) / 1e3, "ms")
    for kind in ("echo", "python"):
        rows.add("live", f"{kind}_p99_ms", _at(sorted(row[kind]), 0.99) / 1e3, "ms")
    rows.add("live", "kb_per_episode", (ready_kb - start_kb) / (echoes + pythons), "KiB")
    rows.add("live", "kb_per_python_box", box_kb, "KiB")
    rows.add("live", "threads", threads, "1")
    rows.add("live", "descriptors", descriptors, "1")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short cases, and a tenth of the live episodes")
    parser.add_argument("--only", help="one case by its name")
    asked = parser.parse_args()
    known = [case[0] for case in CASES] + ["live"]
    if asked.only not in (None, *known):
        parser.error(f"no case named {asked.only!r}; expected one of {', '.join(known)}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    rows = Rows(quick=asked.quick)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        echo(rows, Path(one), 1.0 if asked.quick else 10.0, asked.only)
        if asked.only in (None, "live"):
            sizes: tuple[Any, ...] = (800, 200, 5.0) if asked.quick else (8000, 2000, 30.0)
            live(rows, Path(two), *sizes)


if __name__ == "__main__":
    main()
