"""A library of experts: recorded trajectories with their tokens, and scripts that still need them.

Reads the JSONL files that runs, `agenthub record` and `agenthub play --save` write. Tokens are taken as they were
recorded and never made again; a file of another tokenizer is refused.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from agenthub.codec import decode
from agenthub.errors import ConfigError, UserError
from agenthub.records import Generation, Trajectory
from agenthub.trainers.types import EXPERT

__all__ = [
    "Followed",
    "Library",
    "Script",
    "Vocabulary",
    "as_expert",
    "read_library",
    "read_texts",
    "scripts_of",
    "solved",
]

NO_VERSION = -1
"""No weights of the run sampled an expert's tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """An expert whose turns are known as text alone; playing them gives the tokens."""

    task: str
    """`suite/task-id`."""
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """As much of a tokenizer as tells its tokens from another one's."""

    size: int
    text: Callable[[Sequence[int]], str]
    """Text of ids, control tokens included."""
    stop_ids: frozenset[int]

    def problem(self, generation: Generation, said: str) -> str | None:
        """Why these tokens are none of this vocabulary's; None where they are.

        Args:
            said: the turn's text, as it was recorded.
        """
        for name, ids in (("prompt", generation.prompt_ids), ("turn", generation.ids)):
            if ids.size and int(ids.max()) >= self.size:
                return f"the {name} has token {int(ids.max())}, this tokenizer has {self.size}"
        ids = generation.ids.tolist()
        if ids and ids[-1] in self.stop_ids:
            ids = ids[:-1]
        text = self.text(ids)
        # The last token may go on after the end of the action, where the text was cut.
        whole = text.startswith(said) and (text == said or len(self.text(ids[:-1])) < len(said))
        return None if whole else f"its tokens say {text[:60]!r} here, and {said[:60]!r} was recorded"


def solved(trajectory: Trajectory) -> bool:
    """True where the verifier's outcome is full."""
    return trajectory.reward is not None and trajectory.rewards.get("outcome", 0.0) >= 1.0 - 1e-6


def as_expert(trajectory: Trajectory, group: str, member: int) -> Trajectory:
    """The trajectory as a member of a group, with all its tokens an expert's and of no weights of this run."""
    turns = []
    for turn in trajectory.turns:
        generation = turn.generation
        if generation is not None:
            versions = ((0, NO_VERSION),) if generation.ids.size else ()
            generation = replace(generation, policy=EXPERT, versions=versions)
        turns.append(replace(turn, generation=generation))
    return replace(trajectory, group=group, member=member, turns=tuple(turns), parent=None, fork_turn=None)


@dataclass(slots=True)
class Library:
    """Experts by task."""

    rows: dict[str, list[Trajectory | Script]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    """Trajectories of the file that are no experts here, by reason."""

    def add(self, row: Trajectory | Script) -> None:
        """One more expert for its task."""
        self.rows.setdefault(row.task, []).append(row)

    def leave_out(self, reason: str) -> None:
        """Count one that is not taken."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def refresh(self) -> None:
        """Take up what has come since; nothing for most."""

    def tasks(self) -> set[str]:
        """`suite/task-id` of every expert."""
        return set(self.rows)

    def pick(self, task: str | None, count: int, seed: int) -> list[Trajectory | Script]:
        """At most `count` experts for a task, or for any where it is None; the same for the same seed."""
        rows = self.rows.get(task, []) if task is not None else [row for part in self.rows.values() for row in part]
        chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
        return [rows[int(place)] for place in chosen]


class Followed(Library):
    """What a run itself has solved, as its trajectories.jsonl grows; the newest `capacity` of it."""

    def __init__(self, path: Path, *, capacity: int, only_solved: bool) -> None:
        super().__init__()
        self._path, self._only_solved, self._offset = path, only_solved, 0
        self._kept: deque[Trajectory] = deque(maxlen=capacity)

    def refresh(self) -> None:
        """Read the lines that were written since; an unfinished one waits for its end."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                trajectory = decode(Trajectory, json.loads(line))
                played = {turn.generation.policy for turn in trajectory.turns if turn.generation}
                if trajectory.reward is not None and played and EXPERT not in played:
                    if self._only_solved and not solved(trajectory):
                        continue
                    self._kept.append(trajectory)
        self.rows = {}
        for trajectory in self._kept:
            self.add(trajectory)


def read_library(
    path: Path, vocabulary: Vocabulary, *, only_solved: bool = True, tasks: Collection[str] | None = None
) -> Library:
    """The experts of a JSONL file.

    Args:
        tasks: `suite/task-id` of what may be learned from; None is everything. What is held out stays out by it.

    Raises:
        ConfigError: the file cannot be read, or a line is no trajectory, with its line.
        UserError: its tokens are another tokenizer's, or no trajectory of it is an expert here.
    """
    library = Library()
    for place, trajectory in _trajectories(path):
        reason = _unfit(trajectory, only_solved, tasks)
        if reason is not None:
            library.leave_out(reason)
        elif any(turn.generation is None for turn in trajectory.turns):
            texts = tuple(turn.text for turn in trajectory.turns)
            library.add(Script(task=trajectory.task, texts=texts))
        else:
            _check(place, trajectory, vocabulary)
            library.add(trajectory)
    if not library.rows:
        told = ", ".join(f"{count} {reason}" for reason, count in library.left_out.items()) or "it is empty"
        raise UserError(f"{path} has no expert for this run: {told}")
    return library


def read_texts(path: Path) -> list[Script]:
    """What the trajectories of a JSONL file said, turn by turn, whatever their tokens; cancelled ones are left out.

    Raises:
        ConfigError: the file cannot be read, or a line is no trajectory, with its line.
    """
    found = (one for _, one in _trajectories(path) if one.turns and one.reward is not None)
    return [Script(task=one.task, texts=tuple(turn.text for turn in one.turns)) for one in found]


def _unfit(trajectory: Trajectory, only_solved: bool, tasks: Collection[str] | None) -> str | None:
    if trajectory.reward is None:
        return "without a reward"
    if not trajectory.turns:
        return "without a turn"
    if only_solved and not solved(trajectory):
        return "not solved"
    return "of tasks that this run does not train on" if tasks is not None and trajectory.task not in tasks else None


def _check(place: str, trajectory: Trajectory, vocabulary: Vocabulary) -> None:
    for turn in trajectory.turns:
        assert turn.generation is not None  # the caller has looked
        problem = vocabulary.problem(turn.generation, turn.text)
        if problem is not None:
            raise UserError(
                f"{place}: turn {turn.index} was recorded with another tokenizer: {problem}; "
                "`agenthub record --source` plays its texts again and gives them this one's tokens"
            )


def _trajectories(path: Path) -> Iterator[tuple[str, Trajectory]]:
    """(file:line, trajectory) of each line that is not blank."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}:{number}", _trajectory(f"{path}:{number}", line)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _trajectory(place: str, line: str) -> Trajectory:
    try:
        return decode(Trajectory, json.loads(line))
    except (ValueError, RecursionError) as error:
        raise ConfigError(place, f"not a trajectory: {error}") from None


def scripts_of(solutions: Mapping[str, Sequence[str]], tasks: Iterable[str]) -> Library:
    """The oracles of these tasks; one without a solution has none."""
    library = Library()
    for task in tasks:
        texts = tuple(solutions.get(task, ()))
        if texts:
            library.add(Script(task=task, texts=texts))
        else:
            library.leave_out("without a solution")
    return library
