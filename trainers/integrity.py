"""Token integrity at the trainer's border: a trajectory whose tokens cannot be what the engine sampled is refused.

Lengths and finite values are checked where a `Generation` is made; this looks at what one generation says of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from agenthub.errors import HostFault
from agenthub.records import Ints, Trajectory
from agenthub.trainers.types import EXPERT

__all__ = ["check_tokens"]

_AROUND = 8
"""Tokens shown on each side of a difference."""


def check_tokens(trajectory: Trajectory, *, version: int, decode: Callable[[Sequence[int]], str] | None = None) -> None:
    """Every context extends the one before by its ids, and no token is newer than the weights that serve.

    Args:
        version: of the weights that serve now.
        decode: text of ids, for the message.

    Raises:
        HostFault: a turn drifted; the message names the first token that differs and shows both texts around it.
    """
    context: Ints | None = None
    where = f"{trajectory.group}[{trajectory.member}]"
    for turn in trajectory.turns:
        generation = turn.generation
        if generation is None:
            raise HostFault(f"{where} turn {turn.index} has no tokens")
        # An expert's tokens are of no weights of this run either, and are the model's own all the same.
        if generation.policy != EXPERT and any(number < 0 for _, number in generation.versions):
            raise HostFault(f"{where} turn {turn.index} has text alone: its tokens are not the engine's")
        newest = max((number for _, number in generation.versions), default=0)
        if newest > version:
            raise HostFault(f"{where} turn {turn.index} was sampled by weights {newest}, {version} is the newest")
        if context is not None:
            _check_extends(f"{where} turn {turn.index}", context, generation.prompt_ids, decode)
        context = np.concatenate([generation.prompt_ids, generation.ids])


def _check_extends(where: str, context: Ints, prompt: Ints, decode: Callable[[Sequence[int]], str] | None) -> None:
    size = min(context.size, prompt.size)
    places = np.flatnonzero(context[:size] != prompt[:size])
    if not places.size and prompt.size >= context.size:
        return
    place = int(places[0]) if places.size else size
    shown = ""
    if decode is not None:
        part = slice(max(0, place - _AROUND), place + _AROUND)
        shown = f": {decode(context[part].tolist())!r} became {decode(prompt[part].tolist())!r}"
    new = str(int(prompt[place])) if place < prompt.size else "missing"
    raise HostFault(f"{where}: the context drifted at token {place}, {int(context[place])} is {new} now{shown}")
