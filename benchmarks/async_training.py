"""Updates an hour when groups are played ahead of the weights, against playing and training in turn.

    python benchmarks/async_training.py [--quick] [--seeds 0,1,2] [--updates N] [--scale X]

One JSON object a line. The trainer's own loop, queue, ledger, learner and push run over a game of 4 turns whose times
are a fixed long tail: lognormal with a median of 0.2 s and sigma 1.2, capped at 10 s. The learner's update takes 2 s,
as one of a real size would, most of which it sleeps. Seeds in turn run side by side, since they wait and hardly
compute, those ahead one by one; all play the same trace for the same number of updates. `share_of_bound` compares with
a schedule of the same rule in which nothing but the trace and the 2 s takes time; `idle_share` is the learner's.
`success` is the mean reward of held-out episodes under the last weights; its spread is the standard error of the
difference over seeds.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import math
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, variance
from typing import Any

import torch
from async_tail.game import TASKS, Game, SmallPolicy, group_s, small_model

from agenthub.rollout import Play
from agenthub.trainers.config import OptimConfig, Recipe
from agenthub.trainers.evaluate import Evaluation
from agenthub.trainers.folder import RunFolder
from agenthub.trainers.learner import Learner, UpdateStats
from agenthub.trainers.loop import Parts, Trainer
from agenthub.trainers.plugins import Loss
from agenthub.trainers.sync.embedded import EmbeddedSync
from agenthub.trainers.types import Batch, Doubles

GROUPS, SIZE, LEARN_S, BOUND = 8, 4, 2.0, 2
HELD_OUT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run came to."""

    seconds: float
    """An update, of wall time."""
    idle: float
    """Share of the time in which the learner waited for episodes."""
    success: float


class PacedLearner(Learner):
    """A learner whose updates take as long as a larger one's: what it computes itself is part of that time."""

    def __init__(self, model: Any, loss: Loss, optim: OptimConfig, *, update_s: float) -> None:
        super().__init__(model, loss, optim)
        self._update_s = update_s

    def update(
        self,
        batch: Batch,
        advantage: Doubles,
        *,
        seed: int,
        weights: Doubles | None = None,
        stop: threading.Event | None = None,
    ) -> UpdateStats:
        """As `Learner`, and then the rest of its time."""
        until = time.monotonic() + self._update_s
        stats = super().update(batch, advantage, seed=seed, weights=weights, stop=stop)
        time.sleep(max(0.0, until - time.monotonic()))
        return stats


class Quiet:
    """A reporter that says nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def update(self, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def evaluation(self, update: int, evaluation: Evaluation) -> None:
        """Nothing."""


def recipe(bound: int, seed: int, updates: int) -> Recipe:
    """GRPO on the game."""
    return Recipe.model_validate(
        {
            "format": "agenthub.recipe/1",
            "name": "tail",
            "suite": "tail",
            "filter": {"uses": "none"},
            "credit": {"uses": "grpo"},
            "loss": {"uses": "ppo"},
            "rollout": {"groups": GROUPS, "group_size": SIZE, "max_tokens": 1},
            "optim": {"lr": 0.03, "threads": 1, "minibatches": 2},
            "staleness": bound,
            "updates": updates,
            "checkpoint_every": updates,
            "eval": None,
            "seed": seed,
        }
    )


async def trained(bound: int, seed: int, updates: int, scale: float, folder: Path) -> Run:
    """One run, timed between its first and its last update."""
    used = recipe(bound, seed, updates)
    policy, model = SmallPolicy(seed), small_model(seed)
    names = [f"task-{number}" for number in range(TASKS)]
    parts = Parts(
        collector=lambda: Game(policy, scale=scale),
        evaluator=None,
        held_out=(),
        sampler=used.sampler.make().start(names, 0),
        filter=used.filter.make(),
        credit=used.credit.make(),
        learner=PacedLearner(model, used.loss.make(), used.optim, update_s=LEARN_S * scale),
        sync=EmbeddedSync(policy, bound=used.sync_bound),
        serving=policy.weight_version,
    )
    run = RunFolder.create(folder, used)
    started = time.perf_counter()
    try:
        await Trainer(parts, run, Quiet()).run()
    finally:
        run.close()
    wall = time.perf_counter() - started
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    busy = sum(row["seconds"]["update"] + row["seconds"]["sync"] for row in rows)
    return Run(seconds=wall / updates, idle=1.0 - busy / wall, success=await success(policy, names))


async def success(policy: SmallPolicy, names: Sequence[str]) -> float:
    """Mean reward of held-out episodes, played at once."""
    plays = [Play(suite="tail", task=name, count=HELD_OUT, group=f"eval/{name}") for name in names]
    played = await Game(policy, scale=0.0).collect(plays, seed=10_000)
    return fmean(one.reward or 0.0 for one in played)


def ideal(bound: int, updates: int, scale: float) -> float:
    """Seconds an update of the same rule where nothing but the trace and the learner's seconds cost time."""
    now, started, ending = 0.0, 0, list[float]()
    for version in range(updates):
        while started < version + bound + 1:
            started += 1
            for place in range(GROUPS):
                heapq.heappush(ending, now + group_s(f"u{started}/{place}", SIZE) * scale)
        ends = [heapq.heappop(ending) for _ in range(GROUPS)]
        now = max(now, ends[-1]) + LEARN_S * scale
    return now / updates


async def all_seeds(bound: int, seeds: Sequence[int], updates: int, scale: float, folder: Path) -> list[Run]:
    """Every seed of one mode: side by side in turn, where all of them sleep most of the time, else one by one."""
    if bound:
        return [await trained(bound, seed, updates, scale, folder / f"{bound}-{seed}") for seed in seeds]
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(trained(0, seed, updates, scale, folder / f"0-{seed}")) for seed in seeds]
    return [run.result() for run in runs]


def report(ahead: Sequence[Run], turns: Sequence[Run], bound_s: float, scale: float) -> list[dict[str, Any]]:
    """The rows."""
    rate, peer = (3600.0 * scale / fmean(run.seconds for run in runs) for runs in (ahead, turns))
    ours, theirs = (fmean(run.success for run in runs) for runs in (ahead, turns))
    spread = math.nan
    if len(ahead) > 1:
        spread = math.sqrt(fmean(variance(run.success for run in runs) for runs in (ahead, turns)) * 2.0 / len(ahead))
    off = {} if math.isnan(spread) else {"in_errors": round(abs(ours - theirs) / max(spread, 1e-9), 2)}
    runs = {"async": [round(run.success, 4) for run in ahead], "sync": [round(run.success, 4) for run in turns]}
    return [
        {"metric": "updates_per_hour", "value": rate, "unit": "1/h", "peer": "sync", "ratio": rate / peer},
        {"metric": "share_of_bound", "value": bound_s / fmean(run.seconds for run in ahead), "unit": "1"},
        {
            "metric": "idle_share",
            "value": fmean(run.idle for run in ahead),
            "unit": "1",
            "peer": "sync",
            "peer_value": fmean(run.idle for run in turns),
        },
        {"metric": "success", "value": ours, "unit": "1", "peer": "sync", "peer_value": theirs, "runs": runs, **off},
    ]


def main() -> None:
    """Sync, then async at a bound of 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--updates", type=int, default=36)
    parser.add_argument("--scale", type=float, default=1.0, help="of every second in the trace")
    given = parser.parse_args()
    updates, scale = (12, 0.1) if given.quick else (given.updates, given.scale)
    seeds = [int(seed) for seed in given.seeds.split(",")][: 1 if given.quick else None]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        turns, ahead = (asyncio.run(all_seeds(bound, seeds, updates, scale, Path(folder))) for bound in (0, BOUND))
    for row in report(ahead, turns, ideal(BOUND, updates, scale), scale):
        extra = {"quick": True} if given.quick else {}
        print(json.dumps({"bench": "async_training", "case": "longtail", **row, "scale": scale, **extra}))


if __name__ == "__main__":
    main()
