"""A hub on containers that is killed: its episodes go on in fresh ones, and nothing of the old ones is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agenthub.client import Hub
from tests.sandboxes.test_lifetime import until
from tests.server.kills import STATE, phoenix, played


def _owned(api: Any, ids: set[str]) -> set[str]:
    return {row["Id"] for row in api.containers(all=True, filters={"label": "agenthub.owner"})} & ids


async def test_episodes_of_a_killed_hub_are_replayed_in_fresh_containers(
    python_image: str, api: Any, tmp_path: Path
) -> None:
    before = {row["Id"] for row in api.containers(all=True)}
    with phoenix(tmp_path, "--isolation", "docker") as served:
        async with Hub(served.url, retry_s=120) as hub:
            episodes = await hub.create("kills", "state", count=2)
            calm = (await played(episodes[0], STATE)).info["hash"]
            for text in STATE[:3]:
                await episodes[1].step(text)
            of_the_killed = {row["Id"] for row in api.containers(all=True)} - before
            served.kill()
            served.start()
            assert (await played(episodes[1], STATE)).info["hash"] == calm
            await served.count(hub)
            assert served.recovered == {"replayed": 1}
            assert until(lambda: not _owned(api, of_the_killed), 20)
