"""Episodes of four turns: the task and the turn name a token, the policy says one, and a right one counts a quarter.

A turn takes the time that the trace has for it, whatever is sampled, so that runs differ in nothing but their schedule.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agenthub.policy import Request, Sampling
from agenthub.records import Finish, Generation, Outcome, Stop, Trajectory, Turn, floats, frozen, ints
from agenthub.rollout import CollectStats, Play, turn_seed

MEDIAN_S, SIGMA, CAP_S, TURNS = 0.2, 1.2, 10.0, 4
VOCABULARY, TASKS, RIGHT = 8, 4, 2
"""`RIGHT` tokens out of VOCABULARY are right in a turn."""


def turn_s(group: str, member: int, turn: int) -> float:
    """Seconds of a turn: lognormal, capped, and the same in every run."""
    draw = np.random.default_rng(turn_seed(0, group, member, turn)).normal()
    return float(min(CAP_S, MEDIAN_S * np.exp(SIGMA * draw)))


def group_s(group: str, members: int) -> float:
    """Seconds until the last member of a group has ended."""
    return max(sum(turn_s(group, member, turn) for turn in range(TURNS)) for member in range(members))


def right(task: int, turn: int) -> range:
    """The tokens that are right."""
    first = (task * 3 + turn * 5) % (VOCABULARY // RIGHT) * RIGHT
    return range(first, first + RIGHT)


def small_model(seed: int) -> Any:
    """One layer, randomly initialised."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=64,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    return Qwen3ForCausalLM(config).eval()


class SmallPolicy:
    """Serves the small model; a request at a time, as a server with many clients would be asked."""

    def __init__(self, seed: int) -> None:
        self.model = small_model(seed)
        self._version = 0

    def load_state(self, state: Mapping[str, Tensor], version: int) -> None:
        """Serve these weights from now on."""
        self.model.load_state_dict(state)
        self._version = version

    def weight_version(self) -> int:
        """Version of the weights that serve now."""
        return self._version

    async def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Sample each of them."""
        return [self._sample(request) for request in requests]

    @torch.no_grad()
    def _sample(self, request: Request) -> Generation:
        context, logprobs = request.prompt_ids.tolist(), []
        draws = np.random.default_rng(request.seed)
        for _ in range(request.sampling.max_tokens):
            logs = torch.log_softmax(self.model(torch.tensor([context])).logits[0, -1], dim=-1)
            chances = logs.double().exp().numpy()
            token = int(draws.choice(VOCABULARY, p=chances / chances.sum()))
            logprobs.append(float(logs[token]))
            context.append(token)
        return Generation(
            policy="policy",
            prompt_ids=request.prompt_ids,
            ids=ints(context[request.prompt_ids.size :]),
            logprobs=floats(logprobs),
            versions=((0, self._version),),
            finish=Finish.LENGTH,
        )


class Game:
    """A collector: members play side by side, each at the pace of the trace."""

    def __init__(self, policy: SmallPolicy, *, scale: float) -> None:
        """
        Args:
            scale: of the trace's seconds; 0 plays without waiting.
        """
        self._policy, self._scale, self.stats = policy, scale, CollectStats()

    async def collect(self, plays: Sequence[Play], *, seed: int) -> list[Trajectory]:
        """One trajectory for each member of each play."""
        members = [(play, member) for play in plays for member in range(play.count)]
        self.stats = CollectStats(turns=TURNS * len(members), tokens=TURNS * len(members))
        return list(await asyncio.gather(*(self._episode(play, member, seed) for play, member in members)))

    async def _episode(self, play: Play, member: int, seed: int) -> Trajectory:
        task = int(play.task.removeprefix("task-")) % TASKS
        context, turns = [task], list[Turn]()
        for index in range(TURNS):
            asked = Request(
                prompt_ids=ints(context),
                sampling=Sampling(max_tokens=1),
                seed=turn_seed(seed, play.group, member, index),
                stop_ids=frozenset(),
                complete=lambda ids: True,
            )
            (made,) = await self._policy.generate([asked])
            await asyncio.sleep(turn_s(play.group, member, index) * self._scale)
            context = [*made.prompt_ids.tolist(), *made.ids.tolist(), index]
            good = int(made.ids[0]) in right(task, index)
            turns.append(Turn(index=index, generation=made, text="", rewards=frozen({"outcome": good / TURNS})))
        total = sum(turn.reward for turn in turns)
        return Trajectory(
            task=f"{play.suite}/{play.task}",
            group=play.group,
            member=member,
            turns=tuple(turns),
            stop=Stop.ANSWERED,
            outcome=Outcome.OK,
            rewards=frozen({"outcome": total}),
            reward=total,
        )
