"""The resident program of a language box: writes a source file, compiles it, runs it on some input, answers.

Runs under the image's own Python, as text given to `python3 -I -c`. Frames are a length of 4 bytes and JSON, on
descriptor 3. The program under test is a child of the same user: it may kill this one, which loses its own box, and it
holds nothing that is worth reading. Standard library only.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import time
from typing import Any

CONTROL = 3
CHUNK = 65536
ASK_MS = 20.0
PIPE_READS = 17
PR_SET_DUMPABLE = 4


def receive() -> dict[str, Any]:
    """The next request; ends the process where the hub has gone."""
    size = int.from_bytes(exactly(4), "big")
    message: dict[str, Any] = json.loads(exactly(size))
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


def stage(name: str, argv: list[str], given: bytes, seconds: float, most: int) -> dict[str, Any]:
    """Run one command in a process group of its own; what it wrote, up to `most` bytes each, and its exit status."""
    try:
        child = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        return {"stage": name, "code": 127, "out": "", "err": text(f"{argv[0]}: {error.strerror}\n".encode())}
    began = time.monotonic()
    out, err, late = talk(child, given, began + seconds, most)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    code = child.wait()
    spent = time.monotonic() - began
    return {"stage": name, "code": None if late else code, "out": text(out), "err": text(err), "seconds": spent}


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def talk(child: subprocess.Popen[bytes], given: bytes, deadline: float, most: int) -> tuple[bytes, bytes, bool]:
    """Feed and read until the program has ended, not until the last holder of its output has."""
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    out, err = child.stdout.fileno(), child.stderr.fileno()
    kept = {out: bytearray(), err: bytearray()}
    ended = pidfd(child.pid)
    events = select.poll()
    for descriptor in (out, err, child.stdin.fileno()):
        os.set_blocking(descriptor, False)
    for descriptor in (out, err, *([ended] if ended >= 0 else [])):
        events.register(descriptor, select.POLLIN)
    if given:
        events.register(child.stdin, select.POLLOUT)
    else:
        child.stdin.close()
    late = False
    while not late:
        left_ms = max(0.0, deadline - time.monotonic()) * 1000
        ready = [descriptor for descriptor, _ in events.poll(left_ms if ended >= 0 else min(left_ms, ASK_MS))]
        late = not ready and left_ms <= ASK_MS
        for descriptor in ready:
            if descriptor in kept:
                read(descriptor, kept[descriptor], most, events)
            elif descriptor != ended:
                given = feed(child, given, events)
        if ended in ready or child.poll() is not None:
            break
    for descriptor, data in kept.items():
        # What is in the pipe, and no more: something that outlived the program may go on writing.
        for _ in range(PIPE_READS):
            if not read(descriptor, data, most, None):
                break
    if ended >= 0:
        os.close(ended)
    return bytes(kept[out]), bytes(kept[err]), late


def pidfd(pid: int) -> int:
    """A descriptor that is ready once the process has ended; -1 where the kernel (gVisor's) has none."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def read(descriptor: int, kept: bytearray, most: int, events: Any) -> bool:
    """Take what is there; False where there is nothing more for now."""
    try:
        data = os.read(descriptor, CHUNK)
    except BlockingIOError:
        return False
    if not data and events is not None:
        events.unregister(descriptor)
    kept += data[: max(0, most - len(kept))]
    return bool(data)


def feed(child: subprocess.Popen[bytes], given: bytes, events: Any) -> bytes:
    assert child.stdin is not None
    try:
        given = given[os.write(child.stdin.fileno(), given[:CHUNK]) :]
    except BlockingIOError:
        return given
    except OSError:
        given = b""
    if not given:
        events.unregister(child.stdin)
        child.stdin.close()
    return given


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    with open(asked["path"], "w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(asked["source"])
    most = asked["output_bytes"]
    done = None
    if asked["compile"]:
        done = stage("compile", asked["compile"], b"", asked["compile_s"], most)
        if done["code"] != 0:
            return done
    return {"compiled": done} | stage("run", asked["run"], base64.b64decode(asked["stdin"]), asked["run_s"], most)


def main() -> None:
    # The program under test is of the same user: it may not trace this process or read its memory.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    os.set_inheritable(CONTROL, False)
    while True:
        asked = receive()
        try:
            send({"id": asked["id"]} | answer(asked))
        except OSError as error:
            send({"id": asked["id"], "stage": "write", "code": 1, "out": "", "err": text(str(error).encode())})


if __name__ == "__main__":
    main()
