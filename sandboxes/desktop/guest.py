"""The resident program of a desktop's box: a display, a window manager, programs, and events for them.

Runs as text given to `python3 -I -c`, with `x11` beside it. Frames are a length of 4 bytes and JSON, on descriptor 3.
It is of the same user as the programs on the desktop, which may stop it or speak in its name: what it says is shown to
the policy and decides nothing. Screen and files are read from outside. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agenthub.sandboxes.desktop import x11
else:
    import x11

CONTROL = 3
DISPLAY = ":0"
SOCKET = "/tmp/.X11-unix/X0"
MOVES = 12
"""Steps of a drag: programs see a pointer that moves."""
POLL_S = 0.01
QUIET = 5
"""Looks at a program that waits, after which it is taken to have started."""


def exactly(count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = os.read(CONTROL, count - len(data))
        if not chunk:
            os._exit(0)
        data += chunk
    return data


def receive() -> dict[str, Any]:
    """The next order; ends the process where the hub has gone."""
    message: dict[str, Any] = json.loads(exactly(int.from_bytes(exactly(4), "big")))
    return message


def send(message: Mapping[str, Any]) -> None:
    data = json.dumps(message).encode()
    data = len(data).to_bytes(4, "big") + data
    while data:
        data = data[os.write(CONTROL, data) :]


def start(argv: list[str]) -> int:
    with open("/tmp/programs.log", "ab") as log:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True).pid


def waits(process: int) -> bool:
    with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"


def begin(settings: Mapping[str, Any]) -> x11.Display:
    """Start display and window manager, and wait until both serve."""
    for path, text in settings["files"].items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    os.environ.update(settings["env"])
    os.makedirs("/tmp/.X11-unix", exist_ok=True)
    os.makedirs(settings["screen_folder"], exist_ok=True)
    read, write = os.pipe()
    size = f"{settings['width']}x{settings['height']}x24"
    argv = ["Xvfb", DISPLAY, "-screen", "0", size, "-fbdir", settings["screen_folder"], "-nolisten", "tcp", "-noreset"]
    with open("/tmp/display.log", "wb") as log:
        subprocess.Popen(
            [*argv, "-ac", "-displayfd", str(write)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(write,),
        )
    os.close(write)
    told = b""
    # The number and the end of its line are written one after the other, and the display fails where nobody listens.
    while not told.endswith(b"\n") and (more := os.read(read, 16)):
        told += more
    if not told.endswith(b"\n"):
        with open("/tmp/display.log", encoding="utf-8", errors="replace") as log:
            raise OSError("the display did not start: " + log.read()[-500:])
    os.close(read)
    deadline = time.monotonic() + settings["seconds"]
    display = x11.Display(SOCKET)
    manager, quiet = start(settings["manager"]), 0
    # It says that it is there before it looks after windows, and loses one that comes in between.
    while quiet < QUIET:
        if time.monotonic() > deadline:
            with open("/tmp/programs.log", encoding="utf-8", errors="replace") as log:
                raise OSError("the window manager did not start: " + log.read()[-500:])
        time.sleep(POLL_S)
        there = display.property_set(display.root, "_NET_SUPPORTING_WM_CHECK")
        quiet = quiet + 1 if there and waits(manager) else 0
    return display


def act(display: x11.Display, events: list[dict[str, Any]]) -> None:
    """Events in their order. Raises ValueError for what is none."""
    for event in events:
        kind = event["do"]
        if kind == "move":
            display.fake(x11.MOTION, 0, event["x"], event["y"])
        elif kind == "button":
            display.fake(x11.BUTTON_PRESS if event["down"] else x11.BUTTON_RELEASE, event["button"])
        elif kind == "glide":
            glide(display, event["x"], event["y"])
        elif kind == "key":
            display.key(x11.keysym(event["key"]), down=event["down"])
        elif kind == "type":
            display.type(event["text"])
        elif kind == "pause":
            display.sync()
            time.sleep(event["seconds"])
        else:
            raise ValueError(f"no event {kind!r}")
    display.sync()


def glide(display: x11.Display, x: int, y: int) -> None:
    from_x, from_y = display.pointer()
    for step in range(1, MOVES + 1):
        display.fake(x11.MOTION, 0, from_x + (x - from_x) * step // MOVES, from_y + (y - from_y) * step // MOVES)
        display.sync()
        time.sleep(POLL_S)


def wait_for(display: x11.Display, title: str, seconds: float, *, there: bool, activate: bool) -> bool:
    """Wait until a window with such a title has the keyboard, or until there is none.

    Args:
        activate: a window that is there is given the keyboard.
    """
    deadline = time.monotonic() + seconds
    while True:
        rows = [row for row in display.windows() if re.search(title, row["title"])]
        if any(row["active"] for row in rows) if there else not rows:
            return True
        if rows and activate:
            display.activate(rows[0]["id"])
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)


def answer(display: x11.Display, order: Mapping[str, Any]) -> dict[str, Any]:
    op = order["op"]
    if op == "act":
        act(display, order["events"])
    elif op == "launch":
        start(order["argv"])
    elif op == "run":
        argv, seconds = order["argv"], order["seconds"]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
        return {"code": done.returncode, "out": (done.stdout + done.stderr).decode("utf-8", "replace")[-2000:]}
    elif op == "wait":
        how = {"there": order["there"], "activate": order["activate"]}
        return {"found": wait_for(display, order["title"], order["seconds"], **how)}
    return {"windows": display.windows(), "pointer": display.pointer()}


def main() -> None:
    try:
        display = begin(json.loads(sys.argv[1]))
        send({"ready": True})
    except (OSError, ValueError) as error:
        send({"error": f"{type(error).__name__}: {error}"})
        os._exit(1)
    while True:
        order = receive()
        try:
            send({"id": order["id"], **answer(display, order)})
        except (OSError, ValueError, KeyError, subprocess.SubprocessError, re.error) as error:
            send({"id": order["id"], "error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
