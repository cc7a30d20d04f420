"""Kimina's own clients against a hub: `kimina_client.py URL SECONDS SNIPPET...`; each answer a JSON line."""

from __future__ import annotations

import asyncio
import json
import sys
import typing
from typing import Any

import typing_extensions

# This file has the package's name; its folder is not to be looked in first.
sys.path.pop(0)
# Its models are built on `typing`'s own, which pydantic refuses before Python 3.12.
setattr(typing, "TypedDict", typing_extensions.TypedDict)  # noqa: B010 - mypy lets no module's name be replaced

from kimina_client import AsyncKiminaClient, KiminaClient, Snippet  # noqa: E402


def told(result: Any) -> None:
    """Print what a client makes of one snippet."""
    row = result.model_dump() | {"status": result.analyze().status.value}
    print(json.dumps(row), flush=True)


async def both(url: str, seconds: int, snippets: list[Snippet]) -> None:
    """The client for programs that wait for many."""
    client = AsyncKiminaClient(api_url=url, n_retries=1)
    answer = await client.check(snippets, timeout=seconds, show_progress=False)
    for result in answer.results:
        told(result)


if __name__ == "__main__":
    snippets = [Snippet(id=f"s{index}", code=code) for index, code in enumerate(sys.argv[3:])]
    client = KiminaClient(api_url=sys.argv[1], n_retries=1)
    client.test()
    for result in client.check(snippets, timeout=int(sys.argv[2]), show_progress=False).results:
        told(result)
    asyncio.run(both(sys.argv[1], int(sys.argv[2]), snippets[:1]))
