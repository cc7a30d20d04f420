"""The ledger of a run: which groups were started and finished, and which turn trained in which update, exactly once.

One SQLite file in the run's folder. Each change is one transaction, so a killed trainer finds either all of it or none.
Finished groups are a queue: they wait in the order in which they ended, and keep their trajectories until a checkpoint
covers the update that took them. Started ones that never finished are what a resumed run plays again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agenthub.codec import decode, encode
from agenthub.errors import HostFault
from agenthub.records import Trajectory

__all__ = ["Ledger", "Started", "TurnRow"]

_SCHEMA = """
create table if not exists groups (
    name text primary key, batch integer not null, place integer not null, task text not null,
    finished integer, trajectories text, used integer
);
create table if not exists turns (
    name text not null, member integer not null, turn integer not null,
    used integer not null, tokens integer not null, oldest integer not null, newest integer not null,
    primary key (name, member, turn)
);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A group that was started."""

    name: str
    batch: int
    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRow:
    """A turn that an update took."""

    group: str
    member: int
    turn: int
    update: int
    tokens: int
    oldest: int
    """Lowest weight version among its tokens; -1 where it has none."""
    newest: int


class Ledger:
    """The ledger in one file; one process at a time, which the run's folder sees to."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("pragma journal_mode=wal")
        self._db.execute("pragma synchronous=full")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def open_batch(self, batch: int, tasks: Sequence[str]) -> list[Started]:
        """Start the groups of a batch, one a task; names are `u{batch}/{place}`."""
        rows = [Started(name=f"u{batch}/{place}", batch=batch, task=task) for place, task in enumerate(tasks)]
        with self._db:
            self._db.execute("begin immediate")
            self._db.executemany(
                "insert into groups (name, batch, place, task) values (?, ?, ?, ?)",
                [(row.name, row.batch, place, row.task) for place, row in enumerate(rows)],
            )
        return rows

    def batch(self, batch: int) -> list[Started]:
        """The groups of a batch, in order; empty where it was not started."""
        found = self._db.execute("select name, batch, task from groups where batch = ? order by place", (batch,))
        return [Started(name=name, batch=number, task=task) for name, number, task in found]

    def batches(self) -> int:
        """Number of the last batch that was started; 0 where none was."""
        return int(self._db.execute("select coalesce(max(batch), 0) from groups").fetchone()[0])

    def unfinished(self) -> list[Started]:
        """Groups that were started and have not ended, in order."""
        found = self._db.execute("select name, batch, task from groups where finished is null order by batch, place")
        return [Started(name=name, batch=batch, task=task) for name, batch, task in found]

    def finish(self, name: str, trajectories: Sequence[Trajectory]) -> None:
        """Put a group that has ended into the queue.

        Raises:
            HostFault: it was never started, or has ended before.
        """
        text = json.dumps([encode(trajectory) for trajectory in trajectories], separators=(",", ":"))
        with self._db:
            self._db.execute("begin immediate")
            done = self._db.execute(
                "update groups set trajectories = ?, finished = (select coalesce(max(finished), 0) + 1 from groups) "
                "where name = ? and finished is null",
                (text, name),
            )
            if done.rowcount != 1:
                raise HostFault(f"group {name} ended twice, or was never started")

    def ready(self) -> int:
        """Groups that wait in the queue."""
        query = "select count(*) from groups where finished is not null and used is null"
        return int(self._db.execute(query).fetchone()[0])

    def take(self, update: int, count: int) -> list[Trajectory]:
        """The trajectories of the first `count` groups of the queue, which this update alone trains on.

        Raises:
            HostFault: fewer wait, or one of their turns has trained before.
        """
        with self._db:
            self._db.execute("begin immediate")
            found = self._db.execute(
                "select name, trajectories from groups where finished is not null and used is null "
                "order by finished limit ?",
                (count,),
            ).fetchall()
            if len(found) < count:
                raise HostFault(f"update {update} needs {count} groups, {len(found)} wait in the queue")
            self._db.executemany("update groups set used = ? where name = ?", [(update, name) for name, _ in found])
            taken = [decode(Trajectory, row) for _, text in found for row in json.loads(text)]
            self._enter(update, taken)
        return taken

    def _enter(self, update: int, trajectories: Sequence[Trajectory]) -> None:
        rows = []
        for trajectory in trajectories:
            for turn in trajectory.turns:
                versions = [version for _, version in turn.generation.versions] if turn.generation else []
                # What a forked trajectory shares was sampled, and trains, in its parent.
                own = turn.generation is not None and turn.index >= (trajectory.fork_turn or 0)
                tokens = int(turn.generation.ids.size) if turn.generation and own else 0
                spread = (min(versions, default=-1), max(versions, default=-1))
                rows.append((trajectory.group, trajectory.member, turn.index, update, tokens, *spread))
        try:
            self._db.executemany("insert into turns values (?, ?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.IntegrityError as error:
            raise HostFault(f"update {update} was given a turn that has trained already: {error}") from error

    def rewind(self, done: int) -> None:
        """Give back what updates after `done` took: they are made again."""
        with self._db:
            self._db.execute("begin immediate")
            self._db.execute("update groups set used = null where used > ?", (done,))
            self._db.execute("delete from turns where used > ?", (done,))

    def drop_batches(self, first: int) -> None:
        """Forget the batches from `first` on, finished or not."""
        with self._db:
            self._db.execute("begin immediate")
            self._db.execute("delete from turns where name in (select name from groups where batch >= ?)", (first,))
            self._db.execute("delete from groups where batch >= ?", (first,))

    def covered(self, done: int) -> None:
        """A checkpoint holds what updates up to `done` made of their trajectories: these are not kept any longer."""
        self._db.execute("update groups set trajectories = null where used <= ?", (done,))

    def turns(self) -> list[TurnRow]:
        """Every turn that trained, by update."""
        found = self._db.execute(
            "select name, member, turn, used, tokens, oldest, newest from turns order by used, name, member, turn"
        )
        return [
            TurnRow(group=name, member=member, turn=turn, update=used, tokens=tokens, oldest=oldest, newest=newest)
            for name, member, turn, used, tokens, oldest, newest in found
        ]

    def problems(self, updates: int, groups: int) -> list[str]:
        """What is wrong after `updates` updates of `groups` groups each, a line for each fault; empty where nothing is.

        Looks for updates with too few or too many groups, members that miss turns, and turns of groups that no update
        took. That none is there twice is the table's own key.
        """
        found = []
        counts = dict(self._db.execute("select used, count(*) from groups where used is not null group by used"))
        for update in range(1, updates + 1):
            if counts.get(update, 0) != groups:
                found.append(f"update {update} took {counts.get(update, 0)} groups, not {groups}")
        for name, member, last, count in self._db.execute(
            "select name, member, max(turn), count(*) from turns group by name, member"
        ):
            if last + 1 != count:
                found.append(f"{name}[{member}] trained on {count} turns of {last + 1}")
        strays = self._db.execute(
            "select distinct turns.name from turns left join groups on groups.name = turns.name "
            "where groups.used is null or groups.used != turns.used"
        )
        return found + [f"{name} trained in an update that did not take it" for (name,) in strays]
