"""Writes a file of experts: scripts are played on a hub, and those that win are kept with their tokens."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agenthub.codec import encode
from agenthub.errors import UserError
from agenthub.records import Trajectory
from agenthub.trainers.experts.library import Script, read_texts, solved
from agenthub.trainers.experts.scripted import ScriptPlayer

__all__ = ["Recorded", "record", "scripts_for"]

AT_ONCE = 32
"""Episodes."""


@dataclass(slots=True)
class Recorded:
    """What came of a recording."""

    kept: int = 0
    lost: int = 0
    """Scripts that did not win."""
    tokens: int = 0
    """The experts' own."""
    reason: str = ""
    """Of the first script that did not win."""


def scripts_for(
    suite: str, keys: Sequence[str], oracles: dict[str, tuple[str, ...]], source: Path | None
) -> list[Script]:
    """The scripts to play: the oracles of these tasks, or the texts of a file's trajectories on them.

    Raises:
        UserError, ConfigError: there is none, or the file cannot be read.
    """
    if source is None:
        scripts = [Script(task=key, texts=oracles[key]) for key in keys if key in oracles]
    else:
        scripts = [one for one in read_texts(source) if one.task in set(keys)]
    if not scripts:
        what = "a solution" if source is None else f"a trajectory in {source}"
        raise UserError(f"none of the {len(keys)} tasks of suite {suite!r} has {what}")
    return scripts


async def record(player: ScriptPlayer, scripts: Sequence[Script], out: Path) -> Recorded:
    """Play the scripts and write those that win, a line each.

    Raises:
        UserError: the file cannot be written, or no script wins.
        HostFault, HubUnreachable, WireError: as the hub raises them.
    """
    done = Recorded()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("w", encoding="utf-8") as file:
            async for one in _played(player, scripts):
                if solved(one):
                    done.kept += 1
                    done.tokens += sum(turn.generation.ids.size for turn in one.turns if turn.generation)
                    file.write(json.dumps(encode(one), separators=(",", ":")) + "\n")
                else:
                    done.lost += 1
                    done.reason = done.reason or f"{one.task}: {one.stop}, outcome {one.outcome} {one.reason}".rstrip()
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from error
    if not done.kept:
        raise UserError(f"none of the {done.lost} scripts won; the first: {done.reason}")
    return done


async def _played(player: ScriptPlayer, scripts: Sequence[Script]) -> AsyncIterator[Trajectory]:
    for start in range(0, len(scripts), AT_ONCE):
        part = {f"expert-{start + place}": one for place, one in enumerate(scripts[start : start + AT_ONCE])}
        for trajectory in (await player.play(part)).values():
            yield trajectory
