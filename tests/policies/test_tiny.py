"""The checkpoint that ships: its size, what it can do, and what it leaves to be learned."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from agenthub.generators.arithmetic import Problem, problems
from agenthub.generators.parts import part_of
from agenthub.policies.bytes import FIXED, VOCABULARY, byte_tokenizer
from agenthub.policies.embedded import TINY, EmbeddedPolicy
from agenthub.policies.make_tiny import batches, build, examples, loss_of
from agenthub.policies.tiny_episodes import Habits, clean, demonstrations, execute
from agenthub.policy import Request, Sampling
from agenthub.records import Message, ints
from agenthub.renderer import Renderer
from agenthub.renderers import make_renderer


async def _play(policy: EmbeddedPolicy, renderer: Renderer, asked: Sequence[Problem], temperature: float) -> list[bool]:
    """True for each problem that an episode of at most four turns answers rightly."""
    contexts = {
        row: renderer.open([Message(role="user", content=problem.question)], []).tolist()
        for row, problem in enumerate(asked)
    }
    won = [False] * len(asked)
    for turn in range(4):
        requests = [
            Request(
                prompt_ids=ints(context),
                sampling=Sampling(temperature=temperature, max_tokens=40),
                seed=1000 * turn + row,
                stop_ids=renderer.stop_ids,
                complete=renderer.complete,
                episode=str(row),
            )
            for row, context in contexts.items()
        ]
        following: dict[int, list[int]] = {}
        for row, generation in zip(contexts, await policy.generate(requests) if requests else [], strict=True):
            parsed, kept = renderer.parse(generation.ids)
            won[row] = parsed.answer == str(asked[row].answer)
            if parsed.calls:
                shown = execute(str(parsed.calls[0].arguments["code"]), random.Random(0))
                after = renderer.extend([shown], ended=int(generation.ids[kept - 1]) in renderer.stop_ids)
                following[row] = [*contexts[row], *generation.ids[:kept].tolist(), *after.tolist()]
        contexts = following
    return won


async def test_the_checkpoint_starts_below_what_training_reaches() -> None:
    policy = EmbeddedPolicy("tiny")
    renderer = make_renderer("plain", policy.tokenizer, "fence_strict")
    won = await _play(policy, renderer, problems(99, 200, part="eval"), 1.0)
    assert 0.24 <= sum(won) / len(won) < 0.42
    await policy.close()


def test_the_checkpoint_is_small_and_its_tokenizer_is_ours() -> None:
    assert sum(file.stat().st_size for file in TINY.iterdir()) <= 2_000_000
    policy = EmbeddedPolicy("tiny")
    assert policy.model.num_parameters() == 823_680
    assert policy.model.dtype == torch.float32
    text = "".join(FIXED) + "<|end|>é\x00"
    assert policy.tokenizer.encode(text) == byte_tokenizer().encode(text)
    assert len(policy.tokenizer) == VOCABULARY == policy.model.config.vocab_size


def test_demonstrations_show_no_held_out_question_and_every_habit() -> None:
    shown = list(demonstrations(3, 600, Habits()))
    assert all(part_of(one.question) == "train" for one in shown)
    firsts = [one.turns[0] for one in shown]
    assert any(text.startswith("\\boxed{") for text, _ in firsts)
    assert any("```" not in text and "boxed" not in text for text, _ in firsts)
    assert any(seen is not None and seen.failed for _, seen in firsts)
    assert any(seen is not None and not seen.text for _, seen in firsts)
    again = [one for one in shown if len(one.turns) > 2]
    assert any(one.turns[-1][0].startswith("\\boxed{") for one in again)
    assert list(demonstrations(3, 600, Habits())) == shown


def test_clean_episodes_answer_with_what_was_printed() -> None:
    for one in clean(4, 50):
        (code, seen), (answer, nothing) = one.turns
        assert seen is not None and nothing is None
        assert code.startswith("```python\n") and answer == f"\\boxed{{{seen.text.strip()}}}"


def test_a_step_of_the_warm_start_lowers_the_loss_of_the_policys_own_tokens() -> None:
    tokenizer = byte_tokenizer()
    rows = examples(clean(1, 64), tokenizer)
    wrote = [tokenizer.decode([i for i, ours in zip(row.ids, row.learned, strict=True) if ours]) for row in rows]
    assert all(text.startswith("```python\n") and text.endswith("}<|end|>") for text in wrote)
    model = build(1)
    ids_BT, learned_BT = next(batches(rows, 64, random.Random(0)))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(3):
        loss = loss_of(model, ids_BT, learned_BT)
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    assert losses[-1] < losses[0]
