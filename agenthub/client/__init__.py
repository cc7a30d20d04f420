"""The client of a hub: `Hub` for asyncio, `BlockingHub` for everything else.

    async with Hub("http://127.0.0.1:8700") as hub:
        (episode,) = await hub.create("arithmetic", seed=1)
        done = await episode.step("\\boxed{4}")

Knows the wire and the records, nothing of suites, sandboxes or the server.
"""

from __future__ import annotations

from agenthub.client.blocking import BlockingEpisode, BlockingHub
from agenthub.client.episode import EpisodeHandle
from agenthub.client.hub import BatchStep, Hub

__all__ = ["BatchStep", "BlockingEpisode", "BlockingHub", "EpisodeHandle", "Hub"]
