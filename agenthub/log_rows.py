"""What the episode log holds: one record an entry, the tables they lie in, and their way in and out.

Bodies are bytes of JSON: nothing here knows what they mean.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "SCHEMA",
    "Entry",
    "EpisodeEnd",
    "EpisodeRow",
    "RequestRow",
    "StepRow",
    "WriteRow",
    "episode_of",
    "insert_all",
    "running",
    "step_of",
    "steps_of",
    "writes_of",
]

SCHEMA = """
CREATE TABLE episodes (
    id TEXT PRIMARY KEY, task TEXT NOT NULL, grp TEXT NOT NULL, member INTEGER NOT NULL, opened REAL NOT NULL,
    owner TEXT NOT NULL, lease_s REAL NOT NULL, limits BLOB, parent TEXT, fork_turn INTEGER,
    fork_writes INTEGER NOT NULL, spent_s REAL NOT NULL,
    state BLOB, hash TEXT
) WITHOUT ROWID;
CREATE INDEX running ON episodes (id) WHERE state IS NULL;
CREATE TABLE steps (
    episode TEXT NOT NULL, turn INTEGER NOT NULL, hash TEXT NOT NULL, body BLOB NOT NULL, answer BLOB NOT NULL,
    at_s REAL NOT NULL, seconds REAL NOT NULL, restored INTEGER NOT NULL
);
CREATE UNIQUE INDEX step ON steps (turn, episode);
CREATE TABLE writes (
    episode TEXT NOT NULL, position INTEGER NOT NULL, turn INTEGER NOT NULL, path TEXT NOT NULL, data BLOB,
    PRIMARY KEY (episode, position)
) WITHOUT ROWID;
CREATE TABLE requests (id TEXT PRIMARY KEY, hash TEXT NOT NULL, answer BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE trajectories (episode TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRow:
    """An episode that was opened, with what a restarted hub needs to go on with it."""

    id: str
    task: str
    """`suite/task-id`."""
    group: str
    member: int
    opened: float
    """Seconds since the epoch."""
    owner: str = ""
    """Name of the token that opened it; `local` where the hub had none."""
    lease_s: float = 60.0
    """Seconds of its lease as asked for at the opening."""
    limits: bytes | None = None
    """JSON of the episode's limits (`suites.task.TaskLimits`) as they are in force; None is the task's own."""
    parent: str | None = None
    """Id of the episode that it is a copy of."""
    fork_turn: int | None = None
    """The turn of the parent before whose step it was copied."""
    fork_writes: int = 0
    """How many of the files that the parent was given from outside are the copy's as well: the first so many."""
    spent_s: float = 0.0
    """Seconds of the episode that were spent when it was opened: 0 but for a copy."""
    state: bytes | None = None
    """JSON of its last state; None while it runs, and for ever where its process died and no other went on with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """A step that was answered."""

    episode: str
    turn: int
    hash: str
    """SHA-256 of the request."""
    body: bytes
    """JSON of the request, for replay."""
    answer: bytes
    at_s: float = 0.0
    """Seconds from the episode's opening to the end of the turn."""
    seconds: float = 0.0
    """Seconds that the turn took."""
    restored: bool = False
    """Its box was lost, and the state before the turn was restored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRow:
    """A file that was written into an episode from outside."""

    episode: str
    position: int
    """In the order in which they were written."""
    turn: int
    """It was written before the step of this turn."""
    path: str
    data: bytes | None
    """None where the content is not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRow:
    """A request id that was answered."""

    id: str
    hash: str
    answer: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeEnd:
    """The end of an episode."""

    episode: str
    state: bytes
    hash: str
    """Trajectory hash."""
    trajectory: bytes


Entry = EpisodeRow | StepRow | WriteRow | RequestRow | EpisodeEnd

_EPISODE = "id, task, grp, member, opened, owner, lease_s, limits, parent, fork_turn, fork_writes, spent_s"
_STEP = "episode, turn, hash, body, answer, at_s, seconds, restored"
_CHUNKS = (256, 32, 4, 1)
"""Steps a statement: each one is a wait for the interpreter's lock, which the event loop holds most of the time."""


def insert_all(connection: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    """Write entries, steps first. Raises sqlite3.Error."""
    steps: list[Any] = []
    for entry in entries:
        if isinstance(entry, StepRow):
            steps.append((entry.episode, entry.turn, entry.hash, entry.body, entry.answer))
            steps[-1] += (entry.at_s, entry.seconds, entry.restored)
        else:
            _insert(connection, entry)
    for size in _CHUNKS:
        asked = "INSERT INTO steps VALUES " + ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * size)
        while len(steps) >= size:
            connection.execute(asked, [value for row in steps[:size] for value in row])
            del steps[:size]


def _insert(connection: sqlite3.Connection, entry: EpisodeRow | WriteRow | RequestRow | EpisodeEnd) -> None:
    values: tuple[Any, ...]
    more: tuple[Any, ...]
    match entry:
        case EpisodeRow():
            values = (entry.id, entry.task, entry.group, entry.member, entry.opened, entry.owner, entry.lease_s)
            more = (entry.limits, entry.parent, entry.fork_turn, entry.fork_writes, entry.spent_s)
            connection.execute(f"INSERT INTO episodes ({_EPISODE}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", (*values, *more))
        case WriteRow():
            values = (entry.episode, entry.position, entry.turn, entry.path, entry.data)
            connection.execute("INSERT INTO writes VALUES (?, ?, ?, ?, ?)", values)
        case RequestRow():
            connection.execute("INSERT INTO requests VALUES (?, ?, ?)", (entry.id, entry.hash, entry.answer))
        case EpisodeEnd():
            connection.execute(
                "UPDATE episodes SET state = ?, hash = ? WHERE id = ?", (entry.state, entry.hash, entry.episode)
            )
            connection.execute("INSERT INTO trajectories VALUES (?, ?)", (entry.episode, entry.trajectory))


def episode_of(connection: sqlite3.Connection, id: str) -> EpisodeRow | None:
    """The episode with that id; None where there is none. Raises sqlite3.Error."""
    row = connection.execute(f"SELECT {_EPISODE}, state FROM episodes WHERE id = ?", (id,)).fetchone()
    return None if row is None else _episode(row)


def running(connection: sqlite3.Connection) -> list[tuple[EpisodeRow, int]]:
    """Every episode without an end, and how many steps and writes of its own are kept. Raises sqlite3.Error."""
    found = [_episode(row) for row in connection.execute(f"SELECT {_EPISODE}, state FROM episodes WHERE state IS NULL")]
    counts: Counter[str] = Counter()
    if found:
        # One walk over an index that is in the order of turns: a question for each episode would be a walk as well.
        for table in ("steps", "writes"):
            joined = (
                f"SELECT episode, count(*) FROM {table} WHERE episode IN (SELECT id FROM episodes WHERE state IS NULL)"
            )
            counts.update(dict(connection.execute(f"{joined} GROUP BY episode").fetchall()))
    return [(row, counts[row.id]) for row in found]


def steps_of(connection: sqlite3.Connection, episode: str, before: int) -> list[StepRow]:
    """An episode's own steps of the turns before one, in order. Raises sqlite3.Error."""
    # The index leads with the turn, so that what is written at one time lies together: each turn is asked for alone.
    asked = (
        "WITH RECURSIVE turns(at) AS (SELECT 0 WHERE ?2 > 0 UNION ALL SELECT at + 1 FROM turns WHERE at + 1 < ?2)"
        f" SELECT {_STEP} FROM turns CROSS JOIN steps ON turn = at AND episode = ?1 ORDER BY turn"
    )
    (last,) = connection.execute("SELECT max(turn) FROM steps").fetchone()
    rows = connection.execute(asked, (episode, min(before, 0 if last is None else last + 1)))
    return [_step(row) for row in rows]


def step_of(connection: sqlite3.Connection, episode: str, turn: int) -> StepRow | None:
    """One step; None where it was never answered. Raises sqlite3.Error."""
    row = connection.execute(f"SELECT {_STEP} FROM steps WHERE episode = ? AND turn = ?", (episode, turn)).fetchone()
    return None if row is None else _step(row)


def writes_of(connection: sqlite3.Connection, episode: str) -> list[WriteRow]:
    """An episode's own writes, in order. Raises sqlite3.Error."""
    asked = "SELECT episode, position, turn, path, data FROM writes WHERE episode = ? ORDER BY position"
    rows = connection.execute(asked, (episode,))
    return [WriteRow(episode=row[0], position=row[1], turn=row[2], path=row[3], data=row[4]) for row in rows]


def _episode(row: tuple[Any, ...]) -> EpisodeRow:
    names = ("id", "task", "group", "member", "opened", "owner", "lease_s", "limits")
    more = ("parent", "fork_turn", "fork_writes", "spent_s", "state")
    return EpisodeRow(**dict(zip((*names, *more), row, strict=True)))


def _step(row: tuple[Any, ...]) -> StepRow:
    names = ("episode", "turn", "hash", "body", "answer", "at_s", "seconds")
    return StepRow(**dict(zip(names, row[:-1], strict=True)), restored=bool(row[-1]))
