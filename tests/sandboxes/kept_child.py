"""A hub process for the tests of keeping: `python -m tests.sandboxes.kept_child SOCKET GRACE_S`.

Starts two kept sandboxes and one that is not, plays a turn in each, says so, and waits.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from agenthub.sandboxes.python.sandbox import PythonSandbox
from tests.sandboxes.boxes import run, small


async def main(socket: Path, grace_s: float) -> None:
    factory = PythonSandbox()
    factory.keep_at(socket, grace_s)
    await factory.open()
    sandboxes = [await factory.start(small()) for _ in range(3)]
    for number, sandbox in enumerate(sandboxes[:2]):
        sandbox.keep(f"box-{number}")
    for number, sandbox in enumerate(sandboxes):
        await run(sandbox, f"x = {number}")
    # Left running at the end of a turn: it is frozen then.
    await run(
        sandboxes[1], "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    )
    print(factory._isolation._link.pid, flush=True)  # type: ignore[attr-defined]
    await asyncio.sleep(600)


asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2])))
