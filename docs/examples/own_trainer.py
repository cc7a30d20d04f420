"""A trainer of one's own, with nothing but the hub's client: `python own_trainer.py http://127.0.0.1:8700 [UPDATES]`.

The policy chooses one of three ways to go about a sum, by three logits; REINFORCE with the group's mean as baseline
finds the one that works. A real one would sample tokens and tell the hub about them (`generation`).
"""

import asyncio
import math
import random
import sys

from agenthub.client import EpisodeHandle, Hub

GROUP, GROUPS, RATE = 8, 4, 1.0
WAYS = ("guess", "say nothing", "run it")
CHANCE = random.Random(0)


def shares(logits: list[float]) -> list[float]:
    """The softmax."""
    weights = [math.exp(logit - max(logits)) for logit in logits]
    return [weight / sum(weights) for weight in weights]


async def play(episode: EpisodeHandle, way: int) -> float | None:
    """Play one episode; its reward, None where the hub failed and there is none."""
    question = episode.observation["messages"][-1]["content"]
    rewards: list[float | None] = []
    if WAYS[way] == "run it":
        done = await episode.step(f"```python\n{question}\n```")
        rewards.append(done.reward)
        shown = done.observation["text"].strip("`").removeprefix("output").strip()
    if not episode.done:
        texts = {"guess": "\\boxed{10}", "say nothing": "Hm.", "run it": f"\\boxed{{{shown}}}" if rewards else ""}
        rewards.append((await episode.step(texts[WAYS[way]])).reward)
    return None if None in rewards else math.fsum(reward or 0.0 for reward in rewards)


async def train(url: str, updates: int) -> None:
    logits = [0.0] * len(WAYS)
    async with Hub(url) as hub:
        for update in range(updates):
            gradient, seen = [0.0] * len(WAYS), []
            for seed in range(update * GROUPS, (update + 1) * GROUPS):
                ways = CHANCE.choices(range(len(WAYS)), shares(logits), k=GROUP)
                group = await hub.create("arithmetic", seed=seed, split="train", count=GROUP)
                rewards = await asyncio.gather(*map(play, group, ways))
                valid = [(way, reward) for way, reward in zip(ways, rewards, strict=True) if reward is not None]
                mean = sum(reward for _, reward in valid) / max(1, len(valid))
                for way, reward in valid:
                    for other, share in enumerate(shares(logits)):
                        gradient[other] += (reward - mean) * ((way == other) - share) / (GROUP * GROUPS)
                seen.append(mean)
            logits = [logit + RATE * GROUPS * slope for logit, slope in zip(logits, gradient, strict=True)]
            print(f"update {update}: reward {sum(seen) / GROUPS:.2f}, runs it {shares(logits)[2]:.0%}", flush=True)


asyncio.run(train(sys.argv[1], int((sys.argv[2:] or [20])[0])))
