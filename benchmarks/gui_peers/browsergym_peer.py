"""BrowserGym plays a list of episodes, in its own environment: one JSON line of times for each.

    python browsergym_peer.py JOB.json

The job: `episodes` [{page, seed, actions}], `chromium`, `pages` (their folder's URL), `sleeps`: whether its delays are
as they ship (0.1 s a browser operation, 0.5 s an observation) or 0.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import browsergym.miniwob
from browsergym.core.action.highlevel import HighLevelActionSet
from browsergym.core.env import BrowserEnv
from playwright.sync_api import BrowserType

SCALE = 1.5
"""`_bgym_scale_factor` of its MiniWoB tasks."""


class Fixed:
    """Stands for the task's random numbers, so that the page gets the very seed that the other side gives it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def randint(self, low: int, high: int) -> str:
        del low, high
        return f"'{self._seed}'"


def main(job: dict[str, Any]) -> None:
    launch = BrowserType.launch
    # Its chat window is a browser as well, and takes no settings.
    BrowserType.launch = lambda self, **given: launch(self, **{"executable_path": job["chromium"], **given})
    kinds = {task.subdomain: task for task in browsergym.miniwob.ALL_MINIWOB_TASKS}
    actions = HighLevelActionSet(subsets=["coord"]).to_python_code
    delays = {} if job["sleeps"] else {"slow_mo": 0, "pre_observation_delay": 0.0}
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.readline()
    for episode in job["episodes"]:
        play(kinds[episode["page"]], episode, job, actions, delays)


def play(kind: Any, episode: dict[str, Any], job: dict[str, Any], actions: Any, delays: dict[str, Any]) -> None:
    def task(seed: int) -> Any:
        made = kind(seed=seed, base_url=job["pages"])
        made.random = Fixed(episode["seed"])
        return made

    env = BrowserEnv(task, action_mapping=actions, **delays)
    started = time.perf_counter()
    env.reset(seed=0)
    reset_s = time.perf_counter() - started
    steps, reward, done = [], 0.0, False
    for action in episode["actions"]:
        if done:
            break
        began = time.perf_counter()
        _, reward, done, _, _ = env.step(scaled(action))
        steps.append(time.perf_counter() - began)
    env.close()
    row = {"reset_s": reset_s, "steps_s": steps, "solved": bool(done and reward > 0), "page": episode["page"]}
    print(json.dumps(row), flush=True)


def scaled(action: str) -> str:
    """The action with its points as on BrowserGym's screenshots, which are larger than the window."""
    return re.sub(
        r"mouse_click\((\d+), (\d+)\)", lambda at: f"mouse_click({int(at[1]) * SCALE}, {int(at[2]) * SCALE})", action
    )


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
