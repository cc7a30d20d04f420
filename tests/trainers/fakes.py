"""Hand-written trajectories, batches and a tiny randomly initialised model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

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
from agenthub.trainers.batch import build_batch
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
