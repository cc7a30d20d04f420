"""Packed views: every run whole, what is shared stored once, and the gradient of padded rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from agenthub.errors import UserError
from agenthub.records import ints
from agenthub.trainers import attention
from agenthub.trainers.attention import causal, layout_of
from agenthub.trainers.batch import build_batch
from agenthub.trainers.door import Door
from agenthub.trainers.packing import SHARED, packs
from agenthub.trainers.types import Batch
from agenthub.trainers.view import View
from tests.trainers.fakes import CODE, VOCABULARY, mixed_batch, tiny_model, trajectory, turn

SHAPES = ("qwen2", "qwen3", "llama")
RUNS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=40).map(ints), min_size=1, max_size=8)


def shaped(family: str, **more: Any) -> Any:
    """A tiny model of a family, heads grouped, embeddings tied where the family's small models tie them."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 128,
        "tie_word_embeddings": family != "llama",
    }
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes | more)).eval()


def grouped(prompts: list[int], answers: list[int], repeat: int) -> Batch:
    """Episodes of two turns; those of one prompt begin alike, and every `repeat`-th one repeats its neighbour."""
    rng = np.random.default_rng(len(answers) * 7 + repeat)
    opened = [rng.integers(1, VOCABULARY, length).tolist() for length in prompts]
    rows = []
    for member, length in enumerate(answers):
        which = member % len(opened)
        ids = rng.integers(1, VOCABULARY, length).tolist()
        if repeat and member % repeat == 0:
            ids = [3] * length
        context = [*opened[which], *ids, 5, 6]
        turns = (turn(0, CODE, prompt=opened[which], ids=ids), turn(1, CODE, prompt=context, ids=[7, 8][: length % 3]))
        rows.append(trajectory([CODE], group=str(which), member=member))
        rows[-1] = type(rows[-1])(
            **{name: getattr(rows[-1], name) for name in rows[-1].__dataclass_fields__} | {"turns": turns}
        )
    return build_batch(rows)


def slopes(door: Door, batch: Batch, views: list[View]) -> tuple[Tensor, Tensor]:
    """(log-probabilities f32[T], gradient of a fixed weighting of them)"""
    door.zero_grad()
    lp = torch.zeros(batch.tokens)
    for view in views:
        got = door.scores(view, temperature=0.7)
        lp = lp.index_copy(0, view.tokens, got.lp + 0.1 * got.logsumexp)
    (lp * torch.linspace(-1.0, 1.0, batch.tokens)).sum().backward()  # type: ignore[no-untyped-call]
    grads = [p.grad.flatten() for p in door.parameters() if p.grad is not None]
    return lp.detach(), torch.cat(grads)


@settings(max_examples=60, deadline=None)
@given(runs=RUNS, most=st.integers(1, 120))
def test_packs_hold_every_run_once_and_store_what_neighbours_share_once(runs: list[Any], most: int) -> None:
    seen = []
    for pack in packs(runs, max_tokens=most):
        assert len(pack.runs) == 1 or pack.ids.size <= most
        assert sum(pack.own) == pack.ids.size == pack.positions.size
        for n, path, own in zip(pack.runs, pack.paths, pack.own, strict=True):
            assert pack.ids[path].tolist() == runs[n].tolist()
            assert pack.positions[path].tolist() == list(range(runs[n].size))
            seen.append((n, own))
        stored = [tuple(pack.ids[path[: k + 1]]) for path in pack.paths for k in range(SHARED - 1, path.size)]
        rest = [path for path in pack.paths if path.size >= SHARED]
        kept = {int(path[k]) for path in rest for k in range(SHARED - 1, path.size)}
        assert len(kept) == len(set(stored))
    assert sorted(n for n, _ in seen) == list(range(len(runs)))


@pytest.mark.parametrize("family", SHAPES)
@settings(max_examples=30, deadline=None)
@given(
    prompts=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    answers=st.lists(st.integers(1, 20), min_size=1, max_size=9),
    repeat=st.integers(0, 3),
    most=st.integers(20, 400),
)
def test_the_packed_gradient_is_the_padded_one(
    family: str, prompts: list[int], answers: list[int], repeat: int, most: int
) -> None:
    door, batch = Door(shaped(family)), grouped(prompts, answers, repeat)
    assert door.why_padded is None
    packed = door.views(batch, batch.action_mask, max_tokens=most)
    assert all(view.layout is not None for view in packed)
    got = slopes(door, batch, packed)
    door.why_padded = "asked to"
    expected = slopes(door, batch, door.views(batch, batch.action_mask, max_tokens=most))
    torch.testing.assert_close(got[0], expected[0], atol=1e-5, rtol=1e-5)
    assert float((got[1] - expected[1]).abs().max()) <= 1e-4 * max(1.0, float(expected[1].abs().max()))


def test_a_prompt_that_a_group_shares_is_computed_once() -> None:
    door, batch = Door(tiny_model()), grouped([30], [5] * 6, 0)
    (view,) = door.views(batch, batch.action_mask, max_tokens=1000)
    runs = [batch.ids[batch.sample_of_token == s][:-1].tolist() for s in range(batch.samples)]
    assert view.ids.numel() == len({tuple(run[: k + 1]) for run in runs for k in range(len(run))})
    assert view.ids.numel() < sum(len(run) for run in runs) - 5 * 30 + 1
    door.why_padded = "asked to"
    (rows,) = door.views(batch, batch.action_mask, max_tokens=1000)
    assert rows.ids.numel() == 6 * max(len(run) for run in runs)


def by_rows(query: Tensor, key: Tensor, value: Tensor, *ends: Any, scale: float) -> Tensor:
    """What the kernel of torch promises: rows of many lengths, causal from the lower right corner, heads grouped."""
    ends_q, ends_k, longest_q, longest_k = ends
    sizes = ends_q.diff(), ends_k.diff()
    assert (int(sizes[0].max()), int(sizes[1].max())) == (longest_q, longest_k)
    assert ends_q.dtype == ends_k.dtype == torch.int32
    outs = []
    for row in range(ends_q.numel() - 1):
        q, k, v = (
            side[ends[row] : ends[row + 1]].transpose(0, 1)
            for side, ends in ((query, ends_q), (key, ends_k), (value, ends_k))
        )
        k, v = (side.repeat_interleave(q.shape[0] // k.shape[0], dim=0) for side in (k, v))
        sees = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(k.shape[1] - q.shape[1])
        logits = (q @ k.transpose(1, 2) * scale).masked_fill(~sees, -torch.inf)
        outs.append((logits.softmax(dim=-1) @ v).transpose(0, 1))
    return torch.cat(outs)


def of_today(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *ends: Any,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    """The kernel as torch 2.13 names its options."""
    assert (window_size, enable_gqa) == ((-1, 0), key.shape[1] != query.shape[1])
    assert scale is not None
    return by_rows(query, key, value, *ends, scale=scale)


def of_before(query: Tensor, key: Tensor, value: Tensor, *ends: Any, is_causal: bool = False) -> Tensor:
    """The kernel as torch 2.10 names its options."""
    assert is_causal
    return by_rows(query, key, value, *ends, scale=query.shape[-1] ** -0.5)


@pytest.mark.parametrize("kernel", [of_today, of_before])
@pytest.mark.parametrize("share", [True, False])
def test_rows_handed_to_a_kernel_of_many_lengths_are_those_of_the_blocks(share: bool, kernel: Any) -> None:
    rng = np.random.default_rng(0)
    runs = [ints([*range(10 if share else 0), *rng.integers(0, 99, length)]) for length in (3, 9, 4, 20)]
    (pack,) = packs(runs, max_tokens=1000)
    torch.manual_seed(0)
    query, key, value = (torch.randn(pack.ids.size, heads, 8) for heads in (4, 2, 2))
    lengths = layout_of(pack, torch.device("cpu"), varlen=True)
    assert (lengths.keys is not None) == share
    got = attention._by_lengths(causal(kernel), [query, key, value], lengths, 0.3)
    blocks = layout_of(pack, torch.device("cpu"), varlen=False)
    expected = attention._by_blocks([query, key, value], blocks, 0.3)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "more", "why"),
    [
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}, "sliding_attention"),
        ("gpt_neox", {}, None),
        ("bloom", {}, "attention"),
    ],
)
def test_what_cannot_be_packed_is_padded_says_so_and_scores_the_same(
    family: str, more: dict[str, Any], why: str | None
) -> None:
    model = shaped(family, **more)
    batch = mixed_batch()
    rows = batch.sample_of_token == 5
    ids = torch.tensor(batch.ids[rows][None], dtype=torch.int64)
    with torch.no_grad():
        logs = torch.log_softmax(model(ids).logits[0].float(), dim=-1)
    door = Door(model)
    assert (door.why_padded is None) == (why is None)
    assert why is None or why in str(door.why_padded)
    for view in door.views(batch, batch.action_mask, max_tokens=60):
        got = door.scores(view, temperature=1.0).lp
        for token, lp in zip(view.tokens.tolist(), got.tolist(), strict=True):
            if rows[token]:
                place = token - int(np.flatnonzero(rows)[0])
                assert lp == pytest.approx(float(logs[place - 1, batch.ids[token]]), abs=1e-4)


def test_a_model_that_bends_its_logits_is_refused() -> None:
    model = tiny_model()
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(UserError, match="final_logit_softcapping"):
        Door(model)
