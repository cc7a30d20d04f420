"""Hand-written trajectories, batches and a tiny randomly initialised model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from agenthub.policy import Request, Sampling
from agenthub.records import (
    Call,
    Finish,
    Generation,
    Observation,
    Outcome,
    Stop,
    Text,
    Trajectory,
    Turn,
    floats,
    frozen,
    ints,
)
from agenthub.rollout import CollectStats, Play, turn_seed
from agenthub.trainers.batch import build_batch
from agenthub.trainers.evaluate import Evaluation
from agenthub.trainers.types import Batch

VOCABULARY = 24
CODE = "```python\nprint(1)\n```"
ANSWER = "\\boxed{1}"
PROSE = "let me think"


def tiny_model(seed: int = 0) -> Any:
    """A Qwen3 of two small layers over VOCABULARY tokens."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            intermediate_size=24,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            attn_implementation="sdpa",
        )
    ).eval()


def turn(
    index: int,
    text: str,
    *,
    prompt: Sequence[int],
    ids: Sequence[int],
    rewards: dict[str, float] | None = None,
    logprobs: Sequence[float] | None = None,
    version: int = 0,
    policy: str = "policy",
    finish: Finish = Finish.STOP,
) -> Turn:
    """A turn whose calls and answer follow from `text`: a fence is a call that was observed, `\\boxed` an answer."""
    calls = (Call(id=f"{index}.0", tool="python", arguments=frozen({"code": text})),) if "```" in text else ()
    return Turn(
        index=index,
        generation=Generation(
            policy=policy,
            prompt_ids=ints(prompt),
            ids=ints(ids),
            logprobs=floats([-1.0] * len(ids) if logprobs is None else logprobs),
            versions=((0, version),) if len(ids) else (),
            finish=finish,
        ),
        text=text,
        calls=calls,
        answer="1" if "\\boxed{" in text else None,
        observations=tuple(Observation(call_id=call.id, parts=(Text(text="1"),)) for call in calls),
        rewards=frozen(rewards),
    )


def trajectory(
    texts: Sequence[str],
    *,
    reward: float = 0.0,
    turn_rewards: Sequence[float] = (),
    group: str = "g",
    member: int = 0,
    stop: Stop = Stop.ANSWERED,
    action: int = 3,
    observation: int = 2,
    prompt: int = 4,
    seed: int = 0,
    version: int = 0,
    finish: Finish = Finish.STOP,
) -> Trajectory:
    """Turns of `action` sampled tokens each, with `observation` tokens between them, in one token run."""
    rng = np.random.default_rng([seed, member])
    context = rng.integers(1, VOCABULARY, prompt).tolist()
    turns = []
    for index, text in enumerate(texts):
        ids = rng.integers(1, VOCABULARY, action).tolist()
        rewards = {"call_ok": turn_rewards[index]} if index < len(turn_rewards) else {}
        if index == len(texts) - 1:
            rewards["outcome"] = reward
        turns.append(turn(index, text, prompt=context, ids=ids, rewards=rewards, version=version, finish=finish))
        context = [*context, *ids, *rng.integers(1, VOCABULARY, observation).tolist()]
    totals: dict[str, float] = {}
    for one in turns:
        for name, value in one.rewards.items():
            totals[name] = totals.get(name, 0.0) + value
    return Trajectory(
        task="fake/task",
        group=group,
        member=member,
        turns=tuple(turns),
        stop=stop,
        outcome=Outcome.OK,
        rewards=frozen(totals),
        reward=float(sum(one.reward for one in turns)),
    )


def batch_of(rewards: Sequence[float], texts: Sequence[str] = (CODE, ANSWER), group: str = "g") -> Batch:
    """One group with these outcomes, all of the same texts."""
    return build_batch(
        [trajectory(texts, reward=reward, group=group, member=member) for member, reward in enumerate(rewards)]
    )


def mixed_batch() -> Batch:
    """Three groups: void, truncated, many lengths, an all-equal one and one of a single member."""
    rows = [
        trajectory([CODE, ANSWER], reward=1.0, turn_rewards=[0.5], group="a", member=0),
        trajectory([PROSE], reward=0.0, group="a", member=1, stop=Stop.NO_CALL, action=9),
        trajectory([CODE, CODE, ANSWER], reward=0.0, turn_rewards=[0.5], group="a", member=2, action=2),
        trajectory([CODE, CODE], reward=0.0, group="a", member=3, stop=Stop.OUT_OF_TURNS),
        trajectory([ANSWER], reward=1.0, group="b", member=0, action=5),
        trajectory([CODE, ANSWER], reward=1.0, group="b", member=1, observation=6),
        trajectory([CODE, ANSWER], reward=1.0, group="c", member=0, seed=3),
    ]
    return build_batch(rows)


class FakePolicy:
    """A served tiny model that samples token by token, a request at a time."""

    def __init__(self, seed: int = 0) -> None:
        self.model = tiny_model(seed)
        self.version = 0
        self.lie = 0.0
        """Added to every reported log-probability."""

    def load_state(self, state: Mapping[str, torch.Tensor], version: int) -> None:
        self.model.load_state_dict(state)
        self.version = version

    def weight_version(self) -> int:
        return self.version

    async def generate(self, requests: Sequence[Request]) -> list[Generation]:
        with torch.no_grad():
            return self._sample(requests)

    def _sample(self, requests: Sequence[Request]) -> list[Generation]:
        """All prompts have one length, and none stops early."""
        context = torch.tensor(np.stack([request.prompt_ids for request in requests]), dtype=torch.int64)
        steps = requests[0].sampling.max_tokens
        draws = np.stack([np.random.default_rng(request.seed).random(steps) for request in requests])
        logprobs = []
        for step in range(steps):
            logs = torch.log_softmax(self.model(context).logits[:, -1], dim=-1)
            reached = logs.double().exp().cumsum(dim=-1) < torch.from_numpy(draws[:, step : step + 1])
            chosen = reached.sum(dim=-1, keepdim=True).clamp(max=VOCABULARY - 1)
            logprobs.append(logs.gather(1, chosen) - self.lie)
            context = torch.cat([context, chosen], dim=1)
        return [
            Generation(
                policy="policy",
                prompt_ids=request.prompt_ids,
                ids=ints(ids),
                logprobs=floats(row),
                versions=((0, self.version),),
                finish=Finish.STOP,
            )
            for request, ids, row in zip(
                requests, context[:, -steps:].tolist(), torch.cat(logprobs, dim=1).tolist(), strict=True
            )
        ]


class Bandit:
    """A collector without a hub: one turn of two tokens, and an even first token wins; a token 1 makes it void."""

    def __init__(self, policy: FakePolicy, before: Callable[[int], Awaitable[None]] | None = None) -> None:
        self.policy, self.stats, self.calls = policy, CollectStats(), 0
        self._before = before

    async def collect(self, plays: Sequence[Play], *, seed: int) -> list[Trajectory]:
        self.calls += 1
        if self._before:
            await self._before(self.calls)
        self.stats = CollectStats(generate_s=0.01, environment_s=0.02, tokens=2 * sum(play.count for play in plays))
        members = [(play, member) for play in plays for member in range(play.count)]
        generations = await self.policy.generate(
            [
                Request(
                    prompt_ids=ints([2 + sum(play.task.encode()) % 9, 5, 6]),
                    sampling=Sampling(max_tokens=2),
                    seed=turn_seed(seed, play.group, member, 0),
                    stop_ids=frozenset(),
                    complete=lambda ids: False,
                )
                for play, member in members
            ]
        )
        return [self._trajectory(*who, one) for who, one in zip(members, generations, strict=True)]

    def _trajectory(self, play: Play, member: int, generation: Generation) -> Trajectory:
        first = int(generation.ids[0])
        reward = float(first % 2 == 0)
        one = Turn(
            index=0,
            generation=generation,
            text=PROSE if first == 1 else ANSWER,
            answer=None if first == 1 else "1",
            rewards=frozen({"outcome": reward}),
        )
        return Trajectory(
            task=f"{play.suite}/{play.task}",
            group=play.group,
            member=member,
            turns=(one,),
            stop=Stop.NO_CALL if first == 1 else Stop.ANSWERED,
            outcome=Outcome.OK,
            rewards=frozen({"outcome": reward}),
            reward=reward,
        )


class Silent:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.rows: list[dict[str, Any]] = []
        self.evaluations: list[tuple[int, float]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def update(self, row: Mapping[str, Any]) -> None:
        self.rows.append(dict(row))

    def evaluation(self, update: int, evaluation: Evaluation) -> None:
        self.evaluations.append((update, evaluation.avg.mean))
