"""Makes the tiny policy's checkpoint: `python -m agenthub.policies.make_tiny [DIR]`, about five minutes on two cores.

A small Qwen3 model learns first to copy, on faultless episodes, until it does; then it learns the habits of an
imperfect demonstrator. Copying comes as a phase change whose time depends on the seed, so the first stage ends on its
loss and not on its steps. The files are shipped in `agenthub/policies/tiny`.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agenthub.errors import UserError
from agenthub.policies.bytes import VOCABULARY, byte_tokenizer
from agenthub.policies.embedded import TINY
from agenthub.policies.tiny_episodes import Demonstration, Habits, clean, demonstrations
from agenthub.records import Message
from agenthub.renderers.plain import END, PlainRenderer
from agenthub.renderers.text import FenceStrict

__all__ = ["Recipe", "build", "save", "train"]

CONTEXT = 1024
TOKENS = 19
"""Learned tokens of a typical row."""
CLEAN_FLOOR = 0.045
"""Nats a token that faultless episodes cannot lose: direct or roundabout, one choice in some 14 tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides the checkpoint."""

    seed: int = 1
    copy_episodes: int = 20_000
    copy_loss: float = 0.02
    """Nats a copied token at which the first stage ends."""
    copy_steps: int = 1500
    """Most steps of the first stage."""
    episodes: int = 30_000
    steps: int = 1100
    """Steps of the second stage."""
    batch: int = 64
    learning_rate: float = 3e-3
    warmup: int = 50
    habits: Habits = field(default_factory=Habits)


@dataclass(frozen=True, slots=True)
class Example:
    """One episode as ids, and which of them the policy wrote."""

    ids: list[int]
    learned: list[bool]


def build(seed: int) -> Any:
    """The untrained model: 823,680 parameters."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = byte_tokenizer()
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=384,
        max_position_embeddings=CONTEXT,
        rope_theta=10_000.0,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


def examples(episodes: Iterator[Demonstration], tokenizer: Any) -> list[Example]:
    """Episodes as the plain renderer shows them; an action's end token is learned with it."""
    renderer = PlainRenderer(tokenizer, FenceStrict())
    end = int(tokenizer.convert_tokens_to_ids(END))
    rows: list[Example] = []
    for episode in episodes:
        ids = renderer.open([Message(role="user", content=episode.question)], []).tolist()
        learned = [False] * len(ids)
        for text, shown in episode.turns:
            turn = [*tokenizer.encode(text, add_special_tokens=False), end]
            after = renderer.extend([shown], ended=True).tolist() if shown else []
            ids += [*turn, *after]
            learned += [True] * len(turn) + [False] * len(after)
        rows.append(Example(ids, learned))
    return rows


def batches(rows: Sequence[Example], size: int, rng: random.Random) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of rows of like length: ids and learned, both [B, T], right-padded."""
    while True:
        order = sorted(range(len(rows)), key=lambda index: len(rows[index].ids) + rng.random() * 30)
        starts = list(range(0, len(order) - size + 1, size))
        rng.shuffle(starts)
        for start in starts:
            chosen = [rows[index] for index in order[start : start + size]]
            width = max(len(row.ids) for row in chosen)
            ids_BT = torch.zeros((size, width), dtype=torch.long)
            learned_BT = torch.zeros((size, width), dtype=torch.bool)
            for place, row in enumerate(chosen):
                ids_BT[place, : len(row.ids)] = torch.tensor(row.ids)
                learned_BT[place, : len(row.ids)] = torch.tensor(row.learned)
            yield ids_BT, learned_BT


def loss_of(model: Any, ids_BT: Tensor, learned_BT: Tensor) -> Tensor:
    """Cross-entropy of the learned tokens over `TOKENS` a row: every token counts alike, in whatever batch it is."""
    logits = model(input_ids=ids_BT[:, :-1]).logits
    target = ids_BT[:, 1:].masked_fill(~learned_BT[:, 1:], -100)
    total = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), target.flatten(), ignore_index=-100, reduction="sum"
    )
    return total / (TOKENS * len(ids_BT))


def train(recipe: Recipe, *, show: Callable[[str], None] = print) -> Any:
    """The trained model.

    Raises:
        UserError: copying was not learned in the steps of the first stage; take another seed.
    """
    model, rng = build(recipe.seed), random.Random(recipe.seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    _learn_copying(model, optimiser, recipe, rng, show)
    rows = examples(demonstrations(recipe.seed + 1, recipe.episodes, recipe.habits), byte_tokenizer())
    stage = batches(rows, recipe.batch, rng)
    for step in range(recipe.steps):
        rate = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        loss = _step(model, optimiser, next(stage), max(rate, 1e-5))
        if step % 50 == 0:
            show(f"habits {step}: loss {loss:.4f}")
    return model.eval()


def _learn_copying(
    model: Any, optimiser: torch.optim.Optimizer, recipe: Recipe, rng: random.Random, show: Callable[[str], None]
) -> None:
    stage = batches(examples(clean(recipe.seed, recipe.copy_episodes), byte_tokenizer()), recipe.batch, rng)
    smooth = math.inf
    for step in range(recipe.copy_steps):
        loss = _step(model, optimiser, next(stage), recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup))
        smooth = loss if math.isinf(smooth) else 0.95 * smooth + 0.05 * loss
        if step % 50 == 0:
            show(f"copying {step}: loss {smooth:.4f}")
        if smooth < recipe.copy_loss + CLEAN_FLOOR:
            return
    raise UserError(f"copying was not learned: loss {smooth:.3f} after {recipe.copy_steps} steps; try another seed")


def _step(model: Any, optimiser: torch.optim.Optimizer, batch: tuple[Tensor, Tensor], rate: float) -> float:
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad(set_to_none=True)
    loss = loss_of(model, *batch)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


def save(model: Any, folder: Path) -> None:
    """Write the model as bf16 and its tokenizer, readable by any version of transformers that has Qwen3."""
    model.to(torch.bfloat16).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    settings = folder / "tokenizer_config.json"
    values = json.loads(settings.read_text())
    values["tokenizer_class"] = "PreTrainedTokenizerFast"
    values.pop("backend", None)
    settings.write_text(json.dumps(values, indent=2) + "\n")
    for file in folder.iterdir():
        file.chmod(0o644)


if __name__ == "__main__":
    save(train(Recipe()), Path(sys.argv[1]) if len(sys.argv) > 1 else TINY)
