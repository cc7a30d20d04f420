"""The resident program of a Lean box: writes files, runs one compiler, answers how it ended and what it wrote.

Runs as text given to `python3 -I -c`. Frames are a length of 4 bytes and JSON, on descriptor 3. The compiler is a child
of the same user: it may kill this program or forge its answers, which fools nobody, for no answer is believed. The
compiler may be started ahead of its task, as this program's own argument says in JSON; a line then lets it go on.
Standard library only.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

CONTROL = 3
CHUNK = 65536
NOT_BEGUN = 97


def receive() -> dict[str, Any]:
    """The next request; ends the process where the hub has gone."""
    message: dict[str, Any] = json.loads(exactly(int.from_bytes(exactly(4), "big")))
    return message


def exactly(count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = os.read(CONTROL, count - len(data))
        if not chunk:
            os._exit(0)
        data += chunk
    return data


def send(message: dict[str, Any]) -> None:
    data = json.dumps(message).encode()
    data = len(data).to_bytes(4, "big") + data
    while data:
        data = data[os.write(CONTROL, data) :]


def write(files: dict[str, str]) -> None:
    for name, data in files.items():
        with open(name, "wb") as file:
            file.write(base64.b64decode(data))


def start(argv: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def finish(child: subprocess.Popen[bytes], seconds: float, most: int) -> dict[str, Any]:
    """Let the compiler go on, and read until it ends, its time is up, or it has written more than `most` bytes."""
    assert child.stdin is not None and child.stdout is not None
    with contextlib.suppress(OSError):
        child.stdin.write(b"\n")
        child.stdin.close()
    out, deadline, kept, late = child.stdout.fileno(), time.monotonic() + seconds, bytearray(), False
    os.set_blocking(out, False)
    events = select.poll()
    events.register(out, select.POLLIN)
    while len(kept) <= most:
        left = deadline - time.monotonic()
        if left <= 0:
            late = True
            break
        if not events.poll(min(left, 0.2) * 1000):
            if child.poll() is not None:
                break
            continue
        data = os.read(out, CHUNK)
        kept += data
        if not data:
            break
    if not late and len(kept) <= most:
        try:
            child.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            late = True
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    code = child.wait()
    flood = len(kept) > most
    return {"code": None if late or flood else code, "late": late, "flood": flood, "out": text(bytes(kept[:most]))}


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def main() -> None:
    os.set_inheritable(CONTROL, False)
    early = None
    if sys.argv[1:]:
        ahead = json.loads(sys.argv[1])
        write(ahead["files"])
        early = start(ahead["command"])
    while True:
        asked = receive()
        try:
            write(asked["files"])
            gone = early is not None and early.poll() is not None
            child = early or start(asked["command"])
            early = None
            reply = finish(child, asked["seconds"], asked["output_bytes"])
            if gone:
                # It ended while it waited, which is nobody's fault who was not served yet.
                reply["code"] = NOT_BEGUN
        except OSError as error:
            reply = {"code": 127, "late": False, "flood": False, "out": text(str(error).encode())}
        send({"id": asked["id"]} | reply)


if __name__ == "__main__":
    main()
