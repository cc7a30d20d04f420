"""The resident program of a language box, as a process of its own on this machine."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agenthub.sandboxes.languages import guest

PYTHON = [sys.executable, "-I", "main.py"]


class Guest:
    """A running guest and the hub's end of its socket."""

    def __init__(self, folder: Path) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(20)
        start = f"import os; os.dup2({theirs.fileno()}, 3); exec(open({str(guest.__file__)!r}).read())"
        self.process = subprocess.Popen([sys.executable, "-I", "-c", start], cwd=folder, pass_fds=[theirs.fileno()])
        theirs.close()
        self.asked = 0

    def ask(self, source: str, stdin: bytes = b"", **more: Any) -> dict[str, Any]:
        self.asked += 1
        message = {
            "id": self.asked, "path": "main.py", "source": source, "compile": None, "run": PYTHON,
            "stdin": base64.b64encode(stdin).decode(), "compile_s": 5, "run_s": 5, "output_bytes": 1 << 20,
        } | more  # fmt: skip
        data = json.dumps(message).encode()
        self.socket.sendall(len(data).to_bytes(4, "big") + data)
        size = int.from_bytes(self._exactly(4), "big")
        reply: dict[str, Any] = json.loads(self._exactly(size))
        assert reply.pop("id") == self.asked
        return reply | {name: base64.b64decode(reply[name]) for name in ("out", "err")}

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += self.socket.recv(count - len(data))
        return data


@pytest.fixture
def resident(tmp_path: Path) -> Iterator[Guest]:
    made = Guest(tmp_path)
    yield made
    made.socket.close()
    assert made.process.wait(10) == 0


def test_a_program_reads_writes_and_ends(resident: Guest) -> None:
    done = resident.ask("import sys\nprint(input()[::-1])\nprint('!', file=sys.stderr)\nsys.exit(3)", b"abc\n")
    assert done.pop("seconds") > 0
    assert done == {"compiled": None, "stage": "run", "code": 3, "out": b"cba\n", "err": b"!\n"}


def test_a_program_that_does_not_compile_is_not_run(resident: Guest) -> None:
    done = resident.ask("(", compile=[sys.executable, "-m", "py_compile", "main.py"])
    assert done["stage"] == "compile" and done["code"] == 1 and b"SyntaxError" in done["err"]


def test_a_signal_is_a_negative_status(resident: Guest) -> None:
    assert resident.ask("import os; os.kill(os.getpid(), 9)")["code"] == -9


def test_a_program_whose_time_is_up_is_killed_with_its_group(resident: Guest, tmp_path: Path) -> None:
    child = "    time.sleep(2)\n    open('late', 'w')\n"
    source = f"import os, time\nif os.fork() == 0:\n{child}print('on', flush=True)\ntime.sleep(60)"
    done = resident.ask(source, run_s=0.5)
    assert (done["code"], done["out"]) == (None, b"on\n")
    assert resident.ask("print(1)")["out"] == b"1\n"
    assert not (tmp_path / "late").exists()


def test_a_child_that_holds_the_output_holds_nothing_up(resident: Guest) -> None:
    source = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(30)\nprint('done')"
    done = resident.ask(source, run_s=20)
    assert (done["code"], done["out"]) == (0, b"done\n")


def test_large_input_and_output_pass_and_a_flood_is_cut(resident: Guest) -> None:
    data = os.urandom(3_000_000)
    echo = "import sys, hashlib\nprint(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())\nprint('x' * 500_000)"
    done = resident.ask(echo, data)
    assert done["code"] == 0 and len(done["out"]) == 65 + 500_001
    flood = resident.ask("import sys\nwhile True: sys.stdout.write('y' * 65536)", run_s=0.5, output_bytes=1000)
    assert flood["code"] is None and flood["out"] == b"y" * 1000


def test_a_command_that_is_not_there_is_an_exit_status(resident: Guest) -> None:
    done = resident.ask("", run=["no-such-command"])
    assert done["code"] == 127 and b"No such file" in done["err"]


def test_a_program_that_reads_nothing_is_no_trouble(resident: Guest) -> None:
    assert resident.ask("pass", b"z" * 1_000_000)["code"] == 0
