"""Updates an hour when groups are played ahead of the weights, against playing and training in turn.

    python benchmarks/async_training.py [--quick] [--updates N] [--scale X]

One JSON object a line. The trainer's own flow, queue and ledger run over episodes of a fixed long tail: 4 turns, each
lognormal with a median of 0.2 s and sigma 1.2, capped at 10 s; a learner takes 2 s an update. Times are multiplied by
`scale`, sync and async play the same trace. `share_of_bound` compares with a schedule of the same rule that costs
nothing but the trace. No model is trained here: success under both is a matter of `agenthub train`.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agenthub.records import Finish, Generation, Outcome, Stop, Trajectory, Turn, floats, frozen, ints
from agenthub.rollout import CollectStats, Play, turn_seed
from agenthub.trainers.flow import Flow
from agenthub.trainers.ledger import Ledger
from agenthub.trainers.samplers import Uniform

GROUPS, SIZE, TURNS, LEARN_S = 8, 4, 4, 2.0
MEDIAN_S, SIGMA, CAP_S = 0.2, 1.2, 10.0


def turn_s(group: str, member: int, turn: int) -> float:
    """Seconds of a turn: the same in every run."""
    draw = np.random.default_rng(turn_seed(0, group, member, turn)).normal()
    return float(min(CAP_S, MEDIAN_S * np.exp(SIGMA * draw)))


def group_s(group: str) -> float:
    """Seconds until the last member of a group has ended."""
    return max(sum(turn_s(group, member, turn) for turn in range(TURNS)) for member in range(SIZE))


@dataclass
class Tail:
    """A collector whose episodes only take time."""

    scale: float
    stats: CollectStats

    async def collect(self, plays: Sequence[Play], *, seed: int) -> list[Trajectory]:
        """One trajectory for each member of each play."""
        members = [(play, member) for play in plays for member in range(play.count)]
        return list(await asyncio.gather(*(self._episode(play, member) for play, member in members)))

    async def _episode(self, play: Play, member: int) -> Trajectory:
        turns, context = [], [1, 2]
        for index in range(TURNS):
            await asyncio.sleep(turn_s(play.group, member, index) * self.scale)
            made = Generation(
                policy="policy",
                prompt_ids=ints(context),
                ids=ints([3, 4]),
                logprobs=floats([-1.0, -1.0]),
                versions=((0, 0),),
                finish=Finish.STOP,
            )
            context = [*context, 3, 4, 5]
            rewards = frozen({"outcome": 0.0} if index == TURNS - 1 else {})
            turns.append(Turn(index=index, generation=made, text="", rewards=rewards))
        return Trajectory(
            task=play.task,
            group=play.group,
            member=member,
            turns=tuple(turns),
            stop=Stop.ANSWERED,
            outcome=Outcome.OK,
            rewards=frozen({"outcome": 0.0}),
            reward=0.0,
        )


async def measured(bound: int, updates: int, scale: float) -> tuple[float, float]:
    """(seconds an update, idle share of the learner) of the real flow."""
    with tempfile.TemporaryDirectory() as folder:
        sampler = Uniform().start([f"t{number}" for number in range(64)], 0)
        flow = Flow(
            lambda: Tail(scale, CollectStats()),
            sampler,
            Ledger(Path(folder) / "ledger.sqlite"),
            suite="tail",
            groups=GROUPS,
            group_size=SIZE,
            seed=0,
            bound=bound,
        )
        flow.begin(0, 0)
        started, idle = time.perf_counter(), 0.0
        for update in range(1, updates + 1):
            await flow.next(update)
            idle += flow.waited_s
            await asyncio.sleep(LEARN_S * scale)
            flow.advance(update)
        wall = time.perf_counter() - started
        await flow.close()
    return wall / updates, idle / wall


def ideal(bound: int, updates: int, scale: float) -> float:
    """Seconds an update of the same rule where nothing but the trace costs time."""
    now, started, ending = 0.0, 0, list[float]()
    for version in range(updates):
        while started < version + bound + 1:
            started += 1
            for place in range(GROUPS):
                heapq.heappush(ending, now + group_s(f"u{started}/{place}") * scale)
        ends = [heapq.heappop(ending) for _ in range(GROUPS)]
        now = max(now, ends[-1]) + LEARN_S * scale
    return now / updates


def main() -> None:
    """Measure sync, then async at a bound of 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--scale", type=float, default=0.5)
    given = parser.parse_args()
    updates, scale = (12, 0.1) if given.quick else (given.updates, given.scale)
    rates, idles = {}, {}
    for bound in (0, 2):
        seconds, idles[bound] = asyncio.run(measured(bound, updates, scale))
        rates[bound] = 3600.0 * scale / seconds
    bound_rate = 3600.0 * scale / ideal(2, updates, scale)
    rows = [
        {"metric": "updates_per_hour", "value": rates[2], "unit": "1/h", "peer": "sync", "ratio": rates[2] / rates[0]},
        {"metric": "share_of_bound", "value": rates[2] / bound_rate, "unit": "1"},
        {"metric": "idle_share", "value": idles[2], "unit": "1", "peer": "sync", "peer_value": idles[0]},
    ]
    for row in rows:
        extra = {"quick": True} if given.quick else {}
        print(json.dumps({"bench": "async_training", "case": "longtail", **row, "scale": scale, **extra}))


if __name__ == "__main__":
    main()
