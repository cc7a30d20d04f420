"""A hub on containers plays tasks that name no isolation."""

from __future__ import annotations

from pathlib import Path

from agenthub.client import Hub
from tests.served import served

ROOT = Path(__file__).parents[2]


async def test_a_task_that_names_no_isolation_runs_in_the_hubs(python_image: str, tmp_path: Path) -> None:
    tasks = ROOT / "tasks" / "arithmetic.yaml"
    with served(tasks, tmp_path, "--isolation", "docker") as url:
        async with Hub(url) as hub:
            (episode,) = await hub.create("arithmetic", seed=1)
            assert "42" in (await episode.step("```python\nx = 6 * 7\nx\n```")).observation["text"]
            capabilities = await hub.capabilities()
            assert capabilities["isolation"] == "docker"
            assert capabilities["sandboxes"]["python"]["fork"] == episode.info["fork"] == "replay"
            (copy,) = await episode.fork(1)
            assert "43" in (await copy.step("```python\nx + 1\n```")).observation["text"]
            await copy.close()
            await episode.close()
