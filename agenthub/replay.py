"""Replay: play a recorded trajectory's actions again and say where the world answered differently."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from agenthub.codec import decode, observation_hash
from agenthub.episodes import Episode, Workbench
from agenthub.errors import ConfigError
from agenthub.records import Trajectory, Turn
from agenthub.suites.load import open_task
from agenthub.wire import Action, CallIn

__all__ = ["action_of", "first_difference", "read_trajectory"]


def read_trajectory(path: Path, line: int = 1) -> Trajectory:
    """The trajectory on one line of a JSONL file (a JSON file is one line).

    Raises:
        ConfigError: the file cannot be read, has no such line, or holds no trajectory there.
    """
    try:
        rows = [row for row in path.read_text(encoding="utf-8").splitlines() if row.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}") from None
    if not 1 <= line <= len(rows):
        raise ConfigError(f"{path}:{line}", f"the file has {len(rows)} trajectories")
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


async def first_difference(recorded: Trajectory, paths: Sequence[Path]) -> str | None:
    """None where every turn shows the same and is worth the same; otherwise one line on the first that differs.

    Raises:
        UserError: the task is not known here, or its sandboxes cannot be had.
        HostFault: our side failed while replaying.
    """
    suite, _, task_id = recorded.task.partition("/")
    task = open_task(suite, task_id, list(paths))
    bench = Workbench()
    episode = Episode(task, bench, id="replay", group=recorded.group, member=recorded.member)
    try:
        await episode.open()
        for turn in recorded.turns:
            if episode.done:
                return f"turn {turn.index}: the replayed episode had already ended"
            done = await episode.step(action_of(turn), timeout_s=None, generation=None)
            replayed = episode.played[-1]
            shown, before = replayed.observations, turn.observations
            if [observation_hash(o) for o in shown] != [observation_hash(o) for o in before]:
                texts = "".join(o.text for o in before), "".join(o.text for o in shown)
                return f"turn {turn.index}: recorded {texts[0][:200]!r}, replayed {texts[1][:200]!r}"
            if done.reward != (turn.reward if recorded.reward is not None or not episode.done else None):
                return f"turn {turn.index}: recorded rewards {dict(turn.rewards)}, replayed {done.rewards}"
        end = await episode.cancel()
        if (end.stop, end.outcome) != (recorded.stop, recorded.outcome):
            return f"the end: recorded {recorded.stop}, {recorded.outcome}; replayed {end.stop}, {end.outcome}"
        return None
    finally:
        await episode.cancel()
        await bench.close()
