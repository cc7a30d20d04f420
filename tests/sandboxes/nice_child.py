"""A hub process with a nice value of its own: prints those of a box and of a copy of it."""

from __future__ import annotations

import asyncio

from agenthub.errors import ForkRefused
from tests.sandboxes.boxes import python_factory, shown, small

ASK = "import os\nos.nice(0)"


async def main() -> None:
    async with python_factory() as factory:
        box = await factory.start(small())
        told = [await shown(box, ASK)]
        try:
            told += [await shown(copy, ASK) for copy in await box.fork(1)]
        except ForkRefused:
            told.append("no copy")
        print(*(text.strip() for text in told), flush=True)


asyncio.run(main())
