"""Costs of the Python sandbox: a turn, a start, a copy, an idle episode; in the hub and over the wire, beside peers.

    python benchmarks/python_sandbox.py [--quick]

Prints one JSON object a line: {"bench", "case", "metric", "value", "unit"}, with "peer" and "ratio" (more is better)
where a peer ran beside it. Hubs are processes of their own, one in the jail and one in `Unjailed`, an interpreter
without any isolation that exists only in this file. `docker exec` runs where an engine does (scripts/docker-engine),
smolagents' executor where `.cache/venvs/smolagents` has it.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import functools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agenthub.client import Hub  # noqa: E402 - the folder must be on the path first
from agenthub.isolation import BoxEnd, BoxSpec, BoxUsage  # noqa: E402
from agenthub.records import Call  # noqa: E402
from agenthub.registry import registry  # noqa: E402
from agenthub.sandbox import Sandbox, SandboxSpec  # noqa: E402
from agenthub.sandboxes.isolation.jail import Jail  # noqa: E402
from agenthub.sandboxes.python.sandbox import PythonSandbox  # noqa: E402
from agenthub.server.config import ServeConfig  # noqa: E402
from agenthub.server.serve import serve  # noqa: E402
from agenthub.wire import Action, CallIn  # noqa: E402

SUITE = """
schema: agenthub.suite/1
suite: {name: turns, version: "1", description: One turn after the other., license: CC0-1.0}
defaults:
  protocol: fence_strict
  on_no_call: remind
  limits: {max_turns: 1000000, episode_seconds: 3600}
  verifier: {checks: [{uses: exact}]}
tasks:
  - {id: python, prompt: {user: "?"}, target: {answer: "1"}, tools: [{uses: python}]}
  - {id: echo, prompt: {user: "?"}, target: {answer: "1"}}
"""
CODE = "1 + 1"
CALL = Call(id="0.0", tool="python", arguments={"code": CODE})
STEP = Action(text=None, calls=[CallIn(arguments={"code": CODE})])
ECHO = Action(text="nothing that any protocol reads as a call", calls=None)
_KCMP = 312
_libc = ctypes.CDLL(None)
_REFILL_S = 0.03
_EIGHT_S = 0.25
"""Between two starts from the pool, so that it is the pool that is measured."""
_SETTLE_S = 1.0
_IDLE_S = 4.0


class Rows:
    """Prints measurements."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick

    def add(self, case: str, metric: str, value: float, unit: str, **more: object) -> None:
        """One row; `peer` and `ratio` are given together."""
        row: dict[str, object] = {"bench": "python_sandbox", "case": case, "metric": metric, "value": round(value, 4)}
        row |= {"unit": unit} | more | ({"quick": True} if self.quick else {})
        print(json.dumps(row), flush=True)

    def note(self, text: str) -> None:
        """What could not be measured, on standard error."""
        print(f"python_sandbox: {text}", file=sys.stderr, flush=True)


class UnjailedBox:
    """A resident interpreter as a plain process of this user; a `Box` as far as a turn needs one."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp())
        self._streams: list[int] = []
        self._ours, inside = socket.socketpair()
        self._ours.setblocking(False)
        ends = [os.pipe(), os.pipe()]
        code = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom agenthub.sandboxes.python.guest import main; main(%d)"
        )
        with inside:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code % inside.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=ends[0][1],
                stderr=ends[1][1],
                pass_fds=[inside.fileno()],
                cwd=self._folder,
            )
        for reading, writing in ends:
            os.close(writing)
            os.set_blocking(reading, False)
            self._streams.append(reading)
        self.id = str(self._process.pid)
        self._listeners: list[Callable[[], None]] = []
        self._open = True

    def fileno(self) -> int:
        return self._ours.fileno()

    def streams(self) -> tuple[int, int]:
        return self._streams[0], self._streams[1]

    def on_end(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    async def read_file(self, path: str, *, max_bytes: int) -> bytes:
        return (self._folder / path).read_bytes()[:max_bytes]

    async def write_file(self, path: str, data: bytes) -> None:
        (self._folder / path).write_bytes(data)

    async def list_files(self, *, most: int) -> list[str]:
        return sorted(os.listdir(self._folder))[:most]

    def usage(self) -> BoxUsage:
        return BoxUsage(cpu_s=0.0, peak_mb=0)

    async def signal_soft(self) -> None:
        self._process.send_signal(2)

    def discard(self) -> None:
        if self._open:
            self._open = False
            for listener in self._listeners:
                listener()
            self._process.kill()
            self._process.wait()
            self._ours.close()
            for descriptor in self._streams:
                os.close(descriptor)
            shutil.rmtree(self._folder, ignore_errors=True)

    async def kill(self) -> BoxEnd:
        self.discard()
        return BoxEnd(code=None, oom=False, reason="killed")

    async def ended(self) -> BoxEnd:
        return await self.kill()


class Unjailed:
    """No isolation at all: what a turn costs where nothing holds it in."""

    async def open(self) -> None:
        return

    async def spawn(self, spec: BoxSpec) -> UnjailedBox:
        return UnjailedBox()

    def layers(self) -> tuple[()]:
        return ()

    async def close(self) -> None:
        return


@contextmanager
def served(isolation: str) -> Iterator[str]:
    """The URL of a hub process that runs its boxes in an isolation."""
    with tempfile.TemporaryDirectory() as folder:
        reader, writer = os.pipe()
        command = [sys.executable, __file__, "--hub", isolation, folder, str(writer)]
        process = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
        os.close(writer)
        try:
            with os.fdopen(reader) as ready:
                yield json.loads(ready.readline())["url"]
        finally:
            process.terminate()
            process.wait(20)


def hub(isolation: str, folder: str, ready: int) -> None:
    """The life of such a process."""
    registry("isolation").add("unjailed", f"{__name__}:Unjailed")
    suite = Path(folder, "turns.yaml")
    suite.write_text(SUITE)
    log = Path(folder, "log.sqlite")
    asyncio.run(serve(ServeConfig(port=0, tasks=(suite,), isolation=isolation, log=log, ready_fd=ready)))


async def p50_ms(act: Callable[[], Awaitable[object]], times: int, pause_s: float = 0.0) -> float:
    """Median milliseconds of an act, after a few that are not counted."""
    for _ in range(min(5, times)):
        await act()
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        await act()
        spent.append(time.perf_counter() - began)
        if pause_s:
            await asyncio.sleep(pause_s)
    return statistics.median(spent) * 1000


async def wire_p50_ms(url: str, times: int) -> float:
    """One client, one episode, one turn after the other."""
    async with Hub(url) as client:
        (episode,) = await client.create("turns", "python", lease_s=600)
        value = await p50_ms(lambda: episode.step(STEP), times)
        await episode.close()
    return value


async def rate(url: str, task: str, action: Action, sessions: int, seconds: float) -> float:
    """Turns a second of many episodes over one client's socket, each waiting for its answer before its next turn."""
    async with Hub(url) as client:
        episodes = await client.create("turns", task, count=sessions, lease_s=600)
        await asyncio.gather(*(episode.step(action) for episode in episodes))
        began = time.perf_counter()
        ends, turns = began + seconds, 0
        for count in await asyncio.gather(*(_until(episode.step, action, ends) for episode in episodes)):
            turns += count
        spent = time.perf_counter() - began
        await asyncio.gather(*(episode.close() for episode in episodes))
    return turns / spent


async def _until(step: Callable[[Action], Awaitable[object]], action: Action, ends: float) -> int:
    count = 0
    while time.perf_counter() < ends:
        await step(action)
        count += 1
    return count


async def turns(factory: PythonSandbox, rows: Rows) -> None:
    """A turn: inside the hub, over the wire, unjailed behind the same wire, and as the peers do it."""
    times = 400 if rows.quick else 3000
    sandbox = await factory.start(SandboxSpec())
    hub_ms = await p50_ms(lambda: sandbox.call(CALL, timeout_s=10), times)
    await sandbox.close()
    rows.add("turn", "hub_p50_ms", hub_ms, "ms")
    with served("jail") as jailed, served("unjailed") as unjailed:
        # In turns, so that a burst of other work on the machine does not meet one of them alone.
        samples = [(await wire_p50_ms(jailed, times), await wire_p50_ms(unjailed, times)) for _ in range(3)]
        wire_ms, bare_ms = (statistics.median(column) for column in zip(*samples, strict=True))
        peer = docker_exec_ms(rows)
        more = {"peer": "docker exec", "peer_value": round(peer, 3), "ratio": round(peer / wire_ms, 1)} if peer else {}
        rows.add("turn", "wire_p50_ms", wire_ms, "ms", **more)
        ratio = round(bare_ms / wire_ms, 3)
        rows.add("unjailed", "wire_p50_ms", bare_ms, "ms", peer="an unjailed interpreter, same wire", ratio=ratio)
        seconds, echoes, ran = 1.0 if rows.quick else 3.0, [], []
        for _ in range(3):
            echoes.append(await rate(jailed, "echo", ECHO, 64, seconds))
            ran.append(await rate(jailed, "python", STEP, 64, seconds))
        echo, ours = statistics.median(echoes), statistics.median(ran)
        more = {"peer": "echo, same run", "peer_value": round(echo, 1), "ratio": round(ours / echo, 3)}
        rows.add("turns_64", "turns_per_s", ours, "1/s", **more)
    smolagents(rows, hub_ms)


def docker_exec_ms(rows: Rows) -> float:
    """Median of `docker exec` of the base image's interpreter on the same code; 0.0 where there is no engine."""
    script = ROOT / "scripts" / "docker-engine"
    host = os.environ.get("DOCKER_HOST")
    if host is None and subprocess.run([script, "alive"], check=False).returncode == 0:
        told = subprocess.run([script, "env"], capture_output=True, text=True, check=True).stdout
        host = told.strip().removeprefix("DOCKER_HOST=")
    if host is None or shutil.which("docker") is None:
        rows.note("no `docker exec` beside it: no engine runs (scripts/docker-engine start)")
        return 0.0
    environment = os.environ | {"DOCKER_HOST": host}
    start = ["docker", "run", "-d", "--rm", "--network", "none", "agenthub/base:latest", "sleep", "600"]
    made = subprocess.run(start, capture_output=True, text=True, env=environment, check=False)
    if made.returncode:
        rows.note(f"no `docker exec` beside it: {made.stderr.strip()[-200:]}")
        return 0.0
    container, spent = made.stdout.strip(), []
    try:
        for _ in range(5 if rows.quick else 20):
            began = time.perf_counter()
            command = ["docker", "exec", container, "python3", "-c", f"print({CODE})"]
            subprocess.run(command, capture_output=True, env=environment, check=True)
            spent.append(time.perf_counter() - began)
    finally:
        subprocess.run(["docker", "rm", "-f", container], capture_output=True, env=environment, check=False)
    return statistics.median(spent) * 1000


_SMOLAGENTS = f"""
import statistics, time
from smolagents.local_python_executor import LocalPythonExecutor
executor = LocalPythonExecutor([])
executor.send_tools({{}})
spent = []
for _ in range(2000):
    began = time.perf_counter()
    executor({CODE!r})
    spent.append(time.perf_counter() - began)
print(statistics.median(spent) * 1000)
"""


def smolagents(rows: Rows, hub_ms: float) -> None:
    """Its default executor in its own environment: an interpreter of the syntax tree in the same process, unjailed."""
    python = ROOT / ".cache" / "venvs" / "smolagents" / "bin" / "python"
    if not python.exists():
        rows.note("no smolagents beside it: .cache/venvs/smolagents is not there")
        return
    done = subprocess.run([python, "-c", _SMOLAGENTS], capture_output=True, text=True, check=False)
    if done.returncode:
        rows.note(f"no smolagents beside it: {done.stderr.strip()[-200:]}")
        return
    value = float(done.stdout)
    more = {"peer": "smolagents LocalPythonExecutor, in process, no isolation", "ratio": round(value / hub_ms, 3)}
    rows.add("smolagents", "call_p50_ms", value, "ms", **more)


async def starts(factory: PythonSandbox, rows: Rows) -> None:
    """A fresh episode from the pool, and a box without one; ends are outside of the measured time."""
    started: list[Sandbox] = []

    async def start() -> None:
        started.append(await factory.start(SandboxSpec()))

    await asyncio.sleep(0.5)
    pool_ms = await p50_ms(start, 30 if rows.quick else 200, _REFILL_S)
    for sandbox in started:
        await sandbox.close()
    jail, spent = Jail(), []
    await jail.open()
    try:
        await jail.warm("python")
        for _ in range(50 if rows.quick else 300):
            began = time.perf_counter()
            box = await jail.spawn(BoxSpec(image="python"))
            spent.append(time.perf_counter() - began)
            await box.kill()
    finally:
        await jail.close()
    rows.add("start", "cold_p50_ms", statistics.median(spent) * 1000, "ms")
    rows.add("start", "pool_p50_ms", pool_ms, "ms")


async def forks(factory: PythonSandbox, rows: Rows) -> None:
    """Eight copies of a small live episode."""
    if factory.capabilities().fork != "native":
        rows.note(f"no fork_8: copies are made by {factory.capabilities().fork} here")
        return
    parent, spent = await factory.start(SandboxSpec()), []
    await parent.call(Call(id="0.0", tool="python", arguments={"code": "x = [1, 2, 3]"}), timeout_s=10)
    for _ in range(10 if rows.quick else 50):
        began = time.perf_counter()
        copies = await parent.fork(8)
        spent.append(time.perf_counter() - began)
        for copy in copies:
            await copy.close()
        # Until the eight are gone and eight empty rooms wait again: milliseconds of work beside the next fork.
        await asyncio.sleep(_EIGHT_S)
    await parent.close()
    rows.add("fork_8", "ms", statistics.median(spent) * 1000, "ms")


async def idle(factory: PythonSandbox, rows: Rows) -> None:
    """Proportional memory, and processor time between turns, of live episodes that wait."""
    episodes = 200 if rows.quick else 2000
    call = Call(id="0.0", tool="python", arguments={"code": "x = 1"})
    before = _proportional_kb()
    live: list[Sandbox] = []
    try:
        while len(live) < episodes:
            live += await asyncio.gather(*(factory.start(SandboxSpec()) for _ in range(min(50, episodes - len(live)))))
            for sandbox in live[-50:]:
                await sandbox.call(call, timeout_s=30)
        await asyncio.sleep(_SETTLE_S)
        after = _proportional_kb()
        rows.add("idle", "mb_per_episode", (after - before) / 1024 / episodes, "MiB", episodes=episodes)
        used = _boxes_cpu_s(live)
        await asyncio.sleep(_IDLE_S)
        spent = _boxes_cpu_s(live) - used
        rows.add("idle", "cpu_us_per_episode_s", spent / episodes / _IDLE_S * 1e6, "us", episodes=episodes)
    finally:
        for sandbox in live:
            await sandbox.close()


def _boxes_cpu_s(live: list[Sandbox]) -> float:
    return sum(sandbox._box.usage().cpu_s for sandbox in live)  # type: ignore[attr-defined]


def _proportional_kb() -> int:
    """Sum of the proportional set sizes of everything below this process, and of this process.

    A box's worker and its twin have one memory between them, which the kernel reports for each: it counts once.
    """
    waiting, found = [os.getpid()], []
    while waiting:
        pid = waiting.pop()
        with suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            found.append(pid)
            waiting += map(int, file.read().split())
    total, last = 0, 0
    for pid in sorted(found, key=functools.cmp_to_key(_memory_order)):
        if last == 0 or _memory_order(last, pid) != 0:
            with suppress(OSError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        last = pid
    return total


def _memory_order(one: int, two: int) -> int:
    """The kernel's own order of two processes' memories (kcmp(2), KCMP_VM): 0 where it is the same one."""
    order = _libc.syscall(_KCMP, one, two, 1, 0, 0)
    return {0: 0, 1: -1}.get(order, 1)


async def run(rows: Rows) -> None:
    """Every case."""
    rows.note(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors as it starts")
    factory = PythonSandbox()
    await factory.open()
    try:
        await turns(factory, rows)
        await starts(factory, rows)
        await forks(factory, rows)
        await idle(factory, rows)
    finally:
        await factory.close()
    rows.note(f"load {os.getloadavg()[0]:.1f} as it ends")


def main() -> None:
    """Run every case, or be the hub of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions; ends within 50 s on 2 cores")
    parser.add_argument("--hub", nargs=3, metavar=("ISOLATION", "FOLDER", "FD"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.hub:
        hub(given.hub[0], given.hub[1], int(given.hub[2]))
    else:
        asyncio.run(run(Rows(quick=given.quick)))


if __name__ == "__main__":
    main()
