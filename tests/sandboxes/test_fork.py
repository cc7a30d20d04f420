"""A live interpreter is copied with its state and files, and the copies know nothing of each other."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from agenthub.errors import BoxLost, ForkRefused
from agenthub.sandbox import Sandbox
from agenthub.sandboxes.isolation.jailbox import JailBox
from agenthub.sandboxes.python.sandbox import PythonSandbox
from agenthub.sandboxes.python.session import PythonSession
from tests.sandboxes.boxes import groups_of, python_factory, run, shown, small
from tests.sandboxes.test_lifetime import alive, descendants, supervisor_of, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def factory() -> AsyncIterator[PythonSandbox]:
    """One for all tests here: its jail starts its supervisor again where a test has killed it."""
    async with python_factory() as made:
        if made.capabilities().fork != "native":
            pytest.skip(f"no copies of live boxes here: {made.no_fork}")
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def box(factory: PythonSandbox) -> AsyncIterator[PythonSession]:
    made = await factory.start(small())
    yield made
    await made.close()


def worker_of(sandbox: Sandbox) -> int:
    """The worker's process, as this machine numbers it."""
    held = _box(sandbox)._worker
    facts = Path(f"/proc/self/fdinfo/{held}").read_text()
    return int(next(line.split()[1] for line in facts.splitlines() if line.startswith("Pid:")))


def _box(sandbox: Sandbox) -> JailBox:
    assert isinstance(sandbox, PythonSession) and isinstance(sandbox._box, JailBox)
    return sandbox._box


async def test_state_files_and_history_are_carried(box: PythonSession) -> None:
    await run(
        box,
        "import os\ndef f(x): return x + len(rows)\nrows = [1, 2]\nos.makedirs('a/b')\nopen('a/b/c', 'w').write('c')",
    )
    await run(box, "open('/tmp/t', 'w').write('t'); os.symlink('a/b/c', 'link'); os.chmod('a/b/c', 0o640)")
    for copy in await box.fork(2):
        text = await shown(copy, "f(40), open('a/b/c').read(), open('/tmp/t').read(), os.readlink('link'), _")
        assert text == "(42, 'c', 't', 'a/b/c', 1)\n"
        assert (
            await shown(copy, "oct(os.stat('a/b/c').st_mode & 0o777), os.access('a/b/c', os.W_OK)")
            == "('0o640', True)\n"
        )
        assert "<turn 5>" in await shown(copy, "1 / 0")


async def test_a_copys_changes_stay_its_own(box: PythonSession) -> None:
    await run(box, "rows = [0]\nopen('a', 'w').write('old')")
    one, two = await box.fork(2)
    await run(one, "rows.append(1)\nopen('a', 'w').write('one')\nopen('/tmp/b', 'w').write('b')")
    await run(box, "rows.append(2)")
    question = "import os\nrows, open('a').read(), os.listdir('/tmp')"
    assert await shown(one, question) == "([0, 1], 'one', ['b'])\n"
    assert await shown(two, question) == "([0], 'old', [])\n"
    assert await shown(box, question) == "([0, 2], 'old', [])\n"
    assert await one.read_file("a") == b"one" and await two.read_file("a") == b"old"
    await two.write_file("a", b"from outside")
    assert await shown(two, "open('a').read(), open('a', 'a').write('!')") == "('from outside', 1)\n"


async def test_every_copy_has_namespaces_a_group_and_a_user_of_its_own(box: PythonSession) -> None:
    boxes: list[Sandbox] = [box, *await box.fork(2)]
    pids = [worker_of(it) for it in boxes]
    for kind in ("pid", "mnt", "net", "ipc", "uts", "cgroup"):
        spaces = {os.readlink(f"/proc/{pid}/ns/{kind}") for pid in (*pids, os.getpid())}
        assert len(spaces) == 4, kind
    assert len({os.stat(f"/proc/{pid}").st_uid for pid in pids}) == 3
    groups = [_groups(pid) for pid in pids]
    for rows in zip(*groups, strict=True):
        assert "agenthub." not in rows[0] or len(set(rows)) == 3
    assert (
        len({await shown(it, "import os; os.getpid(), os.getppid(), os.getsid(0), os.getpgrp()") for it in boxes}) == 1
    )


async def test_a_copy_has_no_right_that_its_original_has_not(box: PythonSession) -> None:
    (copy,) = await box.fork(1)
    original, facts = (_status(worker_of(it)) for it in (box, copy))
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Groups"):
        assert facts[name] == original[name] and not facts[name].strip("0")
    assert facts["NoNewPrivs"] == "1" and facts["Seccomp"] == "2" and facts["Seccomp_filters"] == "1"
    assert sorted(map(int, os.listdir(f"/proc/{worker_of(copy)}/fd"))) == [0, 1, 2, 3]
    refused = (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "def no(number, *a): return libc.syscall(number, *a) == -1 and ctypes.get_errno() in (1, 38)\n"
        "[no(272, 0x20000), no(308, 0, 0), no(165, 0, 0, 0, 0, 0), no(101, 0, 1, 0, 0),"
        " no(56, 0x8000 | 17, 0, 0, 0, 0), no(438, 0, 0, 0), no(435, 0, 88), no(56, 0x20000000 | 17, 0, 0, 0, 0)]"
    )
    assert await shown(copy, refused) == f"{[True] * 8}\n"


def _groups(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cgroup").read_text().splitlines()


def _status(pid: int) -> dict[str, str]:
    rows = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.strip() for name, _, value in rows}


async def test_copies_cannot_signal_see_or_read_each_other(box: PythonSession) -> None:
    one, two = await box.fork(2)
    pids = [worker_of(it) for it in (box, two)]
    attack = f"""
import ctypes, os, signal
said = []
for pid in {pids} + [1, 0, -1]:
    try:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.kill(pid, signal.SIGTERM)
        said.append("sent" if pid in {pids} or pid == 1 else "group")
    except OSError as error:
        said.append(type(error).__name__)
for pid in {pids} + [1]:
    for name in ("mem", "environ", "root", "cwd", "maps"):
        try:
            os.open(f"/proc/{{pid}}/{{name}}", os.O_RDONLY)
            said.append(f"opened {{pid}} {{name}}")
        except OSError:
            pass
said, sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
"""
    text = await shown(one, attack)
    assert "sent" not in text and "opened" not in text and text.endswith("[2])\n")
    for it in (box, two):
        assert await shown(it, "6 * 7") == "42\n"


async def test_forty_generations(box: PythonSession) -> None:
    await run(box, "n = 0\nopen('log', 'w').close()")
    live: Sandbox = box
    for generation in range(1, 41):
        (copy,) = await live.fork(1)
        await live.close()
        assert (
            await shown(copy, "n += 1\nopen('log', 'a').write('x')\nn, len(open('log').read())")
            == f"({generation}, {generation})\n"
        )
        live = copy


async def test_copies_of_copies_and_their_original_all_live_on(box: PythonSession) -> None:
    await run(box, "trail = ['root']")
    boxes: list[Sandbox] = [box]
    for round in range(3):
        for parent in list(boxes):
            (copy,) = await parent.fork(1)
            await run(copy, f"trail.append({round})")
            boxes.append(copy)
    trails = [await shown(it, "''.join(map(str, trail[1:]))") for it in boxes]
    assert sorted(trails) == sorted(f"'{it}'\n" for it in ("", "0", "1", "01", "2", "02", "12", "012"))


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (
            "import threading, time\nt = threading.Thread(target=time.sleep, args=(600,), daemon=True)\nt.start()",
            "threads",
        ),
        ("import mmap\nm = mmap.mmap(-1, 4096)", "shares memory"),
        ("import mmap\nf = open('m', 'w+b')\nf.truncate(4096)\nm = mmap.mmap(f.fileno(), 4096)", "maps a file"),
        (
            "import mmap\nf = open('m', 'w+b')\nf.truncate(4096)\nm = mmap.mmap(f.fileno(), 0, mmap.MAP_PRIVATE)",
            "maps a file",
        ),
        ("import subprocess\np = subprocess.Popen(['/proc/self/exe', '-c', 'import time; time.sleep(600)'])", "child"),
        ("import os\nif os.fork() == 0: os._exit(0)\n", "child"),
        ("import os, time\nif os.fork() == 0:\n if os.fork() == 0: time.sleep(600)\n os._exit(0)\nos.wait()", "child"),
    ],
)
async def test_what_a_copy_would_not_carry_is_refused_and_nothing_changes(
    factory: PythonSandbox, box: PythonSession, code: str, why: str
) -> None:
    await run(box, "x = 41")
    if "Popen" in code:
        code = code.replace("'/proc/self/exe'", "sys.executable").replace("import ", "import sys, ", 1)
    assert not (await run(box, code)).failed
    group = groups_of(factory).get("pids", "")
    before = _boxes(group)
    with pytest.raises(ForkRefused, match=why):
        await box.fork(2)
    assert until(lambda: len(_boxes(group)) <= max(len(before), 1) + 10, 5)
    assert await shown(box, "x + 1") == "42\n"


def _boxes(group: str) -> set[str]:
    return {name for name in os.listdir(group) if os.path.isdir(f"{group}/{name}")} if group else set()


async def test_what_was_refused_can_be_copied_once_its_reason_is_gone(box: PythonSession) -> None:
    await run(box, "import mmap\nm = mmap.mmap(-1, 4096)")
    with pytest.raises(ForkRefused):
        await box.fork(1)
    await run(box, "m.close()")
    (copy,) = await box.fork(1)
    assert await shown(copy, "m.closed") == "True\n"


async def test_a_box_in_the_middle_of_a_turn_is_not_copied_and_its_turn_goes_on(box: PythonSession) -> None:
    turn = asyncio.ensure_future(shown(box, "import time\ntime.sleep(1.5)\n'done'"))
    await asyncio.sleep(0.3)
    with pytest.raises(ForkRefused, match="does not wait for its next turn"):
        await _box(box).copies(2, b"")
    assert await turn == "'done'\n"


async def test_a_box_that_has_ended_cannot_be_copied(box: PythonSession) -> None:
    with pytest.raises(BoxLost):
        await run(box, "import os\nos._exit(3)")
    with pytest.raises(BoxLost):
        await box.fork(1)


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.close(3)",
        "import os\nos.register_at_fork(before=lambda: os._exit(1))",
        "import os\nos.execv('/proc/self/exe', ['python', '-c', 'import time; time.sleep(600)'])",
        "import os\nos.register_at_fork(after_in_child=lambda: os._exit(1))",
        "import sys\nfor frame in [sys._getframe()]:\n while frame.f_back: frame = frame.f_back\n"
        "import gc\nfor it in gc.get_objects():\n"
        " if type(it).__name__ == 'Guest': type(it)._after_fork = lambda *a: {'lost': 1 / 0}",
    ],
)
async def test_a_program_that_spoils_its_copying_hurts_only_itself(factory: PythonSandbox, code: str) -> None:
    bystander, box = await factory.start(small()), await factory.start(small())
    try:
        await run(box, code)
        for copy in await box.fork(2):
            await copy.close()
    except (BoxLost, ForkRefused):
        pass
    (copy,) = await bystander.fork(1)
    assert await shown(copy, "6 * 7") == "42\n"


async def test_code_that_a_copy_starts_from_cannot_be_swapped(factory: PythonSandbox, box: PythonSession) -> None:
    """The instruction behind every call that is made for a copy lies in the program's own memory."""
    found = await run(
        box,
        "import ctypes, mmap\nlibc = ctypes.CDLL(None)\n"
        "rows = [line.split() for line in open('/proc/self/maps') if 'memfd:twin' in line]\n"
        "for row in rows:\n"
        " low, high = (int(it, 16) for it in row[0].split('-'))\n"
        " libc.mprotect(ctypes.c_void_p(low), ctypes.c_size_t(high - low), 7)\n"
        " text = ctypes.string_at(low, high - low)\n"
        " at = text.find(b'\\x0f\\x05')\n"
        " while at >= 0:\n"
        "  ctypes.memmove(low + at, b'\\xcd\\x80', 2)\n"
        "  at = text.find(b'\\x0f\\x05', at + 1)\n"
        "len(rows) > 0",
    )
    assert found.text == "True\n"
    with pytest.raises(ForkRefused, match="changed the code"):
        await box.fork(2)
    assert await shown(box, "6 * 7") == "42\n"
    other = await factory.start(small())
    assert len(await other.fork(1)) == 1


async def test_limits_hold_for_copies(factory: PythonSandbox, box: PythonSession) -> None:
    await run(box, "rows = [bytes(1 << 20) for _ in range(20)]")
    bomb, *siblings = await box.fork(3)
    if "memory" in groups_of(factory):
        with pytest.raises(BoxLost, match="memory"):
            await run(bomb, "x = [bytearray(1 << 20) for _ in range(4000)]")
    assert "Error" in await shown(siblings[0], "open('big', 'wb').write(bytes(64 << 20))")
    assert "BlockingIOError" in await shown(
        siblings[1], "import os\nwhile True:\n if os.fork() == 0: os._exit(0) if 0 else __import__('time').sleep(60)"
    )
    for it in (box, siblings[0]):
        assert await shown(it, "len(rows)") == "20\n"


async def test_open_files_go_on_where_they_were_each_in_its_own_file(box: PythonSession) -> None:
    await run(
        box,
        "r = open('in', 'w+'); r.write('abcdef'); r.flush(); r.seek(2)\n"
        "log = open('log', 'a')\nlog.write('1'); log.flush()",
    )
    await run(box, "import os\nos.mkdir('sub'); os.chdir('sub'); old = os.umask(0o077)")
    one, two = await box.fork(2)
    await run(one, "log.write('one'); log.flush()")
    assert await shown(two, "r.read(2), log.write('two'), log.flush()") == "('cd', 3, None)\n"
    assert await shown(box, "r.read(), log.close()") == "('cdef', None)\n"
    assert [await it.read_file("log") for it in (box, one, two)] == [b"1", b"1one", b"1two"]
    assert await shown(one, "os.getcwd(), oct(os.umask(0))") == "('/workspace/sub', '0o77')\n"


async def test_a_socket_and_a_file_without_a_name_are_lost_and_the_copy_says_so(box: PythonSession) -> None:
    await run(box, "import socket, tempfile\na, b = socket.socketpair()\nt = tempfile.TemporaryFile()")
    (copy,) = await box.fork(1)
    said = await run(copy, "try: a.send(b'x')\nexcept OSError as error: print(error.errno)")
    assert said.parts[0].text == "9\n" and "closed in this copy" in said.text  # type: ignore[union-attr]
    assert await shown(box, "a.send(b'x'), b.recv(1)") == "(1, b'x')\n"
    assert "closed" not in await shown(copy, "1")


async def test_signal_handlers_are_carried(box: PythonSession) -> None:
    await run(box, "import os, signal\nseen = []\nsignal.signal(signal.SIGUSR1, lambda *_: seen.append(1))")
    (copy,) = await box.fork(1)
    assert await shown(copy, "os.kill(os.getpid(), signal.SIGUSR1)\nseen") == "[1]\n"
    text = await shown(copy, "import time\ntime.sleep(60)", timeout_s=0.3)
    assert "KeyboardInterrupt" in text and await shown(copy, "seen") == "[1]\n"


async def test_random_goes_its_own_way_in_every_copy_and_a_users_generator_does_not(box: PythonSession) -> None:
    await run(box, "import random, ssl, uuid\nssl.RAND_bytes(4)\nrandom.seed(7)\nown = random.Random(7)")
    boxes: list[Sandbox] = [box, *await box.fork(3)]
    assert len({await shown(it, "random.random()") for it in boxes}) == 4
    assert len({await shown(it, "own.random()") for it in boxes}) == 1
    assert len({await shown(it, "uuid.uuid4()") for it in boxes}) == 4
    assert len({await shown(it, "ssl.RAND_bytes(8)") for it in boxes}) == 4


async def test_threads_and_children_work_in_a_copy(box: PythonSession) -> None:
    (copy,) = await box.fork(1)
    code = (
        "import subprocess, sys, threading\nout = []\nt = threading.Thread(target=out.append, args=(1,))\n"
        "t.start(); t.join()\nran = subprocess.run([sys.executable, '-c', 'print(2)'], capture_output=True)\n"
        "out, ran.stdout, threading.current_thread().name"
    )
    assert await shown(copy, code) == "([1], b'2\\n', 'MainThread')\n"


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2]])
async def test_nothing_is_left_after_closing_in_any_order(factory: PythonSandbox, order: Sequence[int]) -> None:
    box = await factory.start(small())
    await run(box, "x = bytearray(8 << 20)\nopen('a', 'wb').write(bytes(1 << 20))")
    first = await box.fork(2)
    boxes = [box, *first, *await first[0].fork(1)]
    pids, names = {worker_of(it) for it in boxes}, [_box(it).id for it in boxes]
    for at in order:
        await boxes[at].close()
        for later in order[order.index(at) + 1 :]:
            assert await shown(boxes[later], "len(x), len(open('a', 'rb').read())") == f"({8 << 20}, {1 << 20})\n"
    for it in boxes:
        assert (await _box(it).ended()).code is None
    assert until(lambda: not alive(pids), 5)
    group = groups_of(factory).get("pids", "")
    assert not set(names) & _boxes(group)


async def test_descriptors_of_copies_are_given_back(factory: PythonSandbox) -> None:
    async def round_trip() -> None:
        box = await factory.start(small())
        for copy in [*await box.fork(3), box]:
            await copy.close()
            await _box(copy).ended()

    def held(pid: int) -> int:
        return len(os.listdir(f"/proc/{pid}/fd"))

    await round_trip()
    mold, warm = _mold(factory), factory.warm
    before = [held(pid) for pid in (os.getpid(), mold)]
    for _ in range(10):
        await round_trip()
    # Forty boxes were there and are gone. The pool may have grown meanwhile, and fill itself while this waits.
    for _ in range(100):
        more = max(0, factory.warm - warm) + 4
        now = [held(pid) for pid in (os.getpid(), mold)]
        if now[0] <= before[0] + 7 * more and now[1] <= before[1] + 11 * more:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(
        f"descriptors of hub and mold were {before} and are {now}, with {more - 4} more boxes that wait"
    )


def _mold(factory: PythonSandbox) -> int:
    """The process that makes the boxes: the one below the supervisor with the most children."""
    below = descendants(supervisor_of(factory))
    return max(below, key=lambda pid: len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@pytest.mark.parametrize("victim", ["supervisor", "mold"])
async def test_whatever_makes_copies_is_killed_and_all_of_them_die(
    factory: PythonSandbox, box: PythonSession, victim: str
) -> None:
    copies = await box.fork(3)
    find: Callable[[PythonSandbox], int] = supervisor_of if victim == "supervisor" else _mold
    supervisor = supervisor_of(factory)
    below = descendants(supervisor)
    assert {worker_of(it) for it in copies} <= below
    os.kill(find(factory), signal.SIGKILL)
    # The hub wakes what it had put to rest, for nothing else could: so its loop must run meanwhile.
    for _ in range(200):
        if not alive(below - {supervisor}):
            break
        await asyncio.sleep(0.05)
    assert not alive(below - {supervisor})
    after = await factory.start(small())
    assert len(await after.fork(2)) == 2


async def test_a_cancelled_fork_leaves_the_box_as_it_was(box: PythonSession) -> None:
    await run(box, "x = 41")
    forking = asyncio.ensure_future(box.fork(4))
    await asyncio.sleep(0)
    forking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await forking
    assert await shown(box, "x + 1") == "42\n"


async def test_many_forks_at_once(factory: PythonSandbox) -> None:
    async def play(number: int) -> list[str]:
        box = await factory.start(small())
        await run(box, f"x = {number}")
        copies = await box.fork(3)
        texts = list(await asyncio.gather(*(shown(it, "x") for it in copies)))
        await asyncio.gather(*(it.close() for it in [box, *copies]))
        return texts

    played = await asyncio.gather(*(play(number) for number in range(6)))
    assert played == [[f"{number}\n"] * 3 for number in range(6)]
