"""A hub process for the tests of lifetimes: starts boxes, tells its supervisor's process id, and waits."""

from __future__ import annotations

import asyncio
import signal

from agenthub.isolation import BoxSpec
from agenthub.sandboxes.isolation.jail import Jail
from tests.sandboxes.boxes import SMALL


async def main() -> None:
    jail = Jail()
    await jail.open()
    boxes = [await jail.spawn(BoxSpec(image="python", limits=SMALL)) for _ in range(3)]
    link = jail._link
    assert link is not None
    print(link.pid, link.facts["groups"].get("pids", "-"), len(boxes), flush=True)
    await asyncio.sleep(600)


# A shell starts its background jobs with SIGINT ignored, and a child inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
asyncio.run(main())
