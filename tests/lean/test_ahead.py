"""A compiler that waits with the library imported says what a cold one says, and the judge takes what it compiled."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agenthub.sandboxes.lean import guest
from agenthub.sandboxes.lean.box import Compiler
from agenthub.sandboxes.lean.challenge import Challenge
from agenthub.sandboxes.lean.feedback import messages
from agenthub.sandboxes.lean.judge import Judge
from agenthub.sandboxes.lean.text import compiled

pytestmark = [pytest.mark.lean, pytest.mark.timeout(1800)]
HEARTBEATS = 200_000
FAULTY = """-- what is parsed by its columns, and letters of several bytes
theorem añ (p q : Prop) (h : p ∧ q) : q ∧ p := by
  constructor
  · exact h.2
  · exact h.1

theorem «b ∀» : ∀ n : Nat, n = n := by
  intro n
  exact (foo)
/-! 𝔸 -/ example : "ℕ".length = 2 := by
  decide
theorem unfinished :"""


@pytest.fixture
async def warm(judge: Judge) -> AsyncIterator[Compiler]:
    """A compiler that keeps one ahead."""
    if "ahead" not in judge.compiler.toolchain.capabilities:
        pytest.skip("this toolchain cannot be started ahead of its task")
    compiler = Compiler(judge.compiler.isolation, judge.compiler.toolchain, limits=judge.compiler.limits, warm=1)
    try:
        yield compiler
    finally:
        await compiler.close()


async def test_errors_have_the_places_that_a_cold_compiler_gives_them(judge: Judge, warm: Compiler) -> None:
    ahead = await compiled(warm, FAULTY, heartbeats=HEARTBEATS, seconds=600.0)
    cold = await compiled(judge.compiler, FAULTY, heartbeats=HEARTBEATS, seconds=600.0)
    assert ahead.above == 2 and cold.above == 1
    places = [(one["severity"], one["line"], one["col"], one["message"]) for one in messages(cold)]
    assert [(one["severity"], one["line"], one["col"], one["message"]) for one in messages(ahead)] == places
    assert [line for _, line, _, _ in places] == [9, 11, 12]


async def test_what_was_compiled_ahead_is_judged_and_replayed_ahead(judge: Judge, warm: Compiler) -> None:
    other = Judge(warm, cache=judge.cache, seconds=600.0)
    challenge = Challenge(statement="theorem target (a b : Nat) : a + b = b + a")
    await judge.challenges.get(challenge)
    assert (await other.judge(challenge, f"{challenge.statement} := by\n  omega")).accepted


async def test_a_file_with_a_header_or_limits_of_its_own_is_compiled_from_cold(warm: Compiler) -> None:
    text = "import Init\ntheorem a : 1 = 1 := rfl"
    ran = await compiled(warm, text, heartbeats=HEARTBEATS, seconds=600.0)
    assert ran.code == 0 and ran.parts and ran.above == 1
    late = await compiled(warm, "theorem a : 1 = 1 := rfl", heartbeats=HEARTBEATS + 1, seconds=0.01)
    assert late.late and late.above == 1


def test_one_that_ended_while_it_waited_is_told_from_one_that_was_given_a_text(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    fd = theirs.fileno()
    command = f"import os; os.dup2({fd}, 3); exec(open({guest.__file__!r}).read())"
    ahead = json.dumps({"files": {"there": base64.b64encode(b"yes").decode()}, "command": ["cat", "there"]})
    process = subprocess.Popen([sys.executable, "-c", command, ahead], cwd=tmp_path, pass_fds=(fd,))
    theirs.close()
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + 60.0
        while not any(_ended(child) for child in children.read_text().split()):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        for request, code, out in ((1, guest.NOT_BEGUN, b"yes"), (2, 0, b"more")):
            asked = {"id": request, "files": {}, "command": ["echo", "-n", "more"], "seconds": 60.0}
            data = json.dumps(asked | {"output_bytes": 100}).encode()
            ours.sendall(len(data).to_bytes(4, "big") + data)
            size = int.from_bytes(ours.recv(4, socket.MSG_WAITALL), "big")
            reply = json.loads(ours.recv(size, socket.MSG_WAITALL))
            assert (reply["id"], reply["code"], base64.b64decode(reply["out"])) == (request, code, out)
    finally:
        ours.close()
        process.kill()
        process.wait()


def _ended(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
