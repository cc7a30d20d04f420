"""Replay: play a recorded trajectory's actions again and say where the world answered differently.

What an episode was told from outside its actions is not in a trajectory: files that a client wrote into it, and the
clock. An end that time, or a fault of our side, brought about is therefore not compared; the turns before it are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agenthub.codec import decode, observation_hash
from agenthub.episodes import Episode, Workbench
from agenthub.errors import ConfigError, UserError
from agenthub.records import Outcome, Stop, Trajectory, Turn
from agenthub.suites.load import open_task
from agenthub.suites.task import Task
from agenthub.wire import Action, CallIn, GenerationIn, LimitsIn

__all__ = ["action_of", "difference", "first_difference", "play_again", "read_trajectory"]

_SHOWN_CHARS = 200


def read_trajectory(path: Path, line: int = 1) -> Trajectory:
    """The trajectory on one line of a JSONL file; a file that is one JSON object, on however many lines, is one.

    Raises:
        ConfigError: the file cannot be read, has no such line, or holds no trajectory there.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}") from None
    rows = [row for row in text.splitlines() if row.strip()]
    if text.lstrip().startswith("{\n") and len(rows) > 1:
        rows = [text]
    if not 1 <= line <= len(rows):
        raise ConfigError(str(path), f"the file has {len(rows)} trajectories; --line {line} is none of them")
    try:
        return decode(Trajectory, json.loads(rows[line - 1]))
    except ValueError as error:
        raise ConfigError(f"{path}:{line}", f"not a trajectory: {error}") from None


def action_of(turn: Turn) -> Action:
    """The action that a recorded turn took: its calls or answer as they were read, with its text."""
    if turn.calls and turn.answer is None:
        calls = [CallIn(tool=call.tool, arguments=dict(call.arguments), id=call.id) for call in turn.calls]
        return Action(text=turn.text, calls=calls)
    if turn.answer is not None and not turn.calls:
        return Action(text=turn.text, answer=turn.answer)
    return Action(text=turn.text)


async def first_difference(recorded: Trajectory, paths: Sequence[Path], *, isolation: str = "jail") -> str | None:
    """None where every turn shows the same and is worth the same; otherwise one line on the first that differs.

    Raises:
        UserError: the task is not known here, or its sandboxes cannot be had.
        HostFault: our side failed while replaying.
    """
    suite, slash, task_id = recorded.task.partition("/")
    if not slash:
        raise UserError(f"the trajectory's task is {recorded.task!r}; expected suite/id")
    task = open_task(suite, task_id, list(paths), isolation=isolation)
    bench = Workbench(isolation)
    try:
        found = difference(recorded, await play_again(recorded, task, bench))
    finally:
        await bench.close()
    if found is not None and not task.deterministic:
        found += " (the task does not promise that the same actions show the same)"
    return found


async def play_again(recorded: Trajectory, task: Task, workbench: Workbench) -> Trajectory:
    """What comes of the recorded actions in a fresh episode; it may end before they do. Raises as `Episode.open`."""
    # Limits that a client had lowered are not recorded, but this one can be seen.
    ran_out = recorded.stop is Stop.OUT_OF_TURNS and len(recorded.turns) < task.limits.max_turns
    limits = LimitsIn(max_turns=len(recorded.turns)) if ran_out else None
    episode = Episode(task, workbench, id="replay", group=recorded.group, member=recorded.member, limits=limits)
    try:
        await episode.open()
        for turn in recorded.turns:
            if episode.done:
                break
            await episode.step(action_of(turn), timeout_s=None, generation=_told(turn))
    finally:
        again = await episode.cancel()
    return again


def difference(recorded: Trajectory, again: Trajectory) -> str | None:
    """One line on the first turn, or else the end, in which two plays of the same actions differ; None where none does.

    Ids and times are not compared.
    """
    for before, after in zip(recorded.turns, again.turns, strict=False):
        found = _turn_difference(before, after, scored=(recorded.reward is None) == (again.reward is None))
        if found is not None:
            return f"turn {before.index}: {found}"
    if len(again.turns) < len(recorded.turns):
        return f"turn {len(again.turns)}: recorded, but the replayed episode had ended: {_end(again)}"
    if recorded.outcome is Outcome.INFRA_FAULT or recorded.stop is Stop.OUT_OF_TIME:
        return None
    if recorded.stop is Stop.OUT_OF_TOKENS and recorded.turns[-1].generation is None:
        return None
    if (recorded.stop, recorded.outcome) != (again.stop, again.outcome):
        return f"the end: recorded {_end(recorded)}; replayed {_end(again)}"
    return None


def _turn_difference(before: Turn, after: Turn, *, scored: bool) -> str | None:
    shown = [observation.text for observation in before.observations]
    seen = [observation.text for observation in after.observations]
    hashes = [[observation_hash(observation) for observation in turn.observations] for turn in (before, after)]
    if hashes[0] != hashes[1]:
        if shown == seen:
            return "the observations have the same text and differ in their parts, their failure or what was cut"
        return f"recorded {_short(''.join(shown))}, replayed {_short(''.join(seen))}"
    if scored and dict(before.rewards) != dict(after.rewards):
        return f"recorded rewards {dict(before.rewards)}, replayed {dict(after.rewards)}"
    return None


def _told(turn: Turn) -> GenerationIn | None:
    """What the hub was told of the turn's tokens, as far as its limits go by it."""
    made = turn.generation
    if made is None:
        return None
    return GenerationIn(finish=made.finish, prompt_tokens=len(made.prompt_ids), completion_tokens=len(made.ids))


def _end(end: Trajectory) -> str:
    worth: Any = "none" if end.reward is None else f"{end.reward:g}"
    return f"{end.stop}, {end.outcome}, reward {worth}"


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}...")
