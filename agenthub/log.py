"""EpisodeLog: what the hub has acknowledged, kept in SQLite by one writer thread.

Owns the durable record of episodes: opened, stepped, ended, and which request opened them. An `append` returns after
its commit, so an answer that leaves after its `append` survives a killed process; a lost disk is not covered. Bodies
are bytes of JSON: this module does not know what they mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agenthub import log_rows
from agenthub.errors import HostFault, UserError
from agenthub.log_rows import Entry, EpisodeEnd, EpisodeRow, RequestRow, StepRow, WriteRow

__all__ = ["Entry", "EpisodeEnd", "EpisodeLog", "EpisodeRow", "RequestRow", "StepRow", "WriteRow"]

T = TypeVar("T")
_logger = logging.getLogger("agenthub.log")
_COPY_EVERY_S = 1.0
_MOST_AHEAD_BYTES = 256 << 20
_VERSION = 2
_APPLICATION = 0x61676875  # "aghu", so that a database of something else is refused and not written to
_SCHEMA = f"""
BEGIN;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
{log_rows.SCHEMA}COMMIT;
"""


@dataclass(frozen=True, slots=True)
class _Job:
    """One unit of work of the writer thread: entries to commit, or a question to answer."""

    entries: Sequence[Entry]
    question: Callable[[sqlite3.Connection], Any] | None
    done: Callable[[Any], None]
    """Called in the event loop with the result, or with a HostFault."""


class EpisodeLog:
    """The log of one hub process; a second process that opens the same file is refused."""

    def __init__(self, path: Path, *, max_pages: int | None = None) -> None:
        """`max_pages` bounds the file in pages of 4 KiB; what does not fit is a full disk."""
        self.path, self._max_pages = path, max_pages
        self._asked: list[_Job] = []
        """Handed over together when the writer is done with what it has: a hand-over costs a wait for a lock."""
        self._writing = False
        self._jobs: queue.SimpleQueue[Sequence[_Job] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._copier: threading.Thread
        self._closing = threading.Event()
        self._lock_file: int | None = None

    async def open(self) -> None:
        """Open or make the file and start the writer.

        Raises:
            UserError: the file is no log of ours, is of a newer version, or another hub has it open.
            HostFault: it cannot be opened or written.
        """
        loop = asyncio.get_running_loop()
        connection = await asyncio.to_thread(self._connect)
        self._thread = threading.Thread(target=self._run, args=(connection, loop), name="agenthub-log", daemon=True)
        self._thread.start()
        self._closing.clear()
        self._copier = threading.Thread(target=self._copy_back, name="agenthub-log-copier", daemon=True)
        self._copier.start()

    async def append(self, *entries: Entry) -> None:
        """Write entries in one transaction; returns after its commit.

        Raises:
            HostFault: the disk is full, the file is locked or gone, or the log is closed. Nothing was written.
        """
        await self._submit(entries, None)

    def append_soon(self, entries: Sequence[Entry], then: Callable[[HostFault | None], None]) -> None:
        """As `append`, without a task that waits: `then` is called after the commit, or with what went wrong."""
        if self._thread is None:
            asyncio.get_running_loop().call_soon(then, self._closed())
        else:
            self._ask_writer(_Job(entries, None, then))

    async def episode(self, id: str) -> EpisodeRow | None:
        """The episode with that id; None where there never was one. Raises HostFault."""
        found: EpisodeRow | None = await self._ask(lambda connection: log_rows.episode_of(connection, id))
        return found

    async def running(self) -> list[tuple[EpisodeRow, int]]:
        """Every episode without an end, each with the number of its own steps and writes. Raises HostFault."""
        found: list[tuple[EpisodeRow, int]] = await self._ask(log_rows.running)
        return found

    async def step(self, episode: str, turn: int) -> StepRow | None:
        """The answered step of that turn; None where it was never answered. Raises HostFault."""
        found: StepRow | None = await self._ask(lambda connection: log_rows.step_of(connection, episode, turn))
        return found

    async def steps(self, episode: str, before: int) -> list[StepRow]:
        """The episode's own answered steps of the turns before `before`, in order. Raises HostFault."""
        found: list[StepRow] = await self._ask(lambda connection: log_rows.steps_of(connection, episode, before))
        return found

    async def writes(self, episode: str) -> list[WriteRow]:
        """What was written into the episode itself from outside, in order. Raises HostFault."""
        found: list[WriteRow] = await self._ask(lambda connection: log_rows.writes_of(connection, episode))
        return found

    async def request(self, id: str) -> RequestRow | None:
        """The answered request with that id. Raises HostFault."""
        row = await self._one("SELECT id, hash, answer FROM requests WHERE id = ?", id)
        return row and RequestRow(id=row[0], hash=row[1], answer=row[2])

    async def trajectory(self, episode: str) -> bytes | None:
        """JSON of a finished episode's trajectory. Raises HostFault."""
        row = await self._one("SELECT body FROM trajectories WHERE episode = ?", episode)
        return None if row is None else bytes(row[0])

    async def close(self) -> None:
        """Commit what is queued and close the file. Safe to call again."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._jobs.put(self._asked)
        self._asked = []
        self._jobs.put(None)
        self._closing.set()
        await asyncio.to_thread(thread.join)
        await asyncio.to_thread(self._copier.join)
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    async def _one(self, sql: str, *values: Any) -> Any:
        return await self._ask(lambda connection: connection.execute(sql, values).fetchone())

    async def _ask(self, question: Callable[[sqlite3.Connection], Any]) -> Any:
        return await self._submit((), question)

    async def _submit(self, entries: Sequence[Entry], question: Callable[[sqlite3.Connection], Any] | None) -> Any:
        if self._thread is None:
            raise self._closed()
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._ask_writer(_Job(entries, question, functools.partial(_set, done)))
        return await done

    def _closed(self) -> HostFault:
        return HostFault(f"episode log {self.path}: closed")

    def _ask_writer(self, job: _Job) -> None:
        if not self._writing:
            self._writing = True
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._asked.append(job)

    def _hand_over(self) -> None:
        """Give the writer all that was asked for since the last time."""
        self._writing = bool(self._asked)
        if self._asked:
            self._jobs.put(self._asked)
            self._asked = []

    def _settled(self, settled: Sequence[tuple[_Job, Any]]) -> None:
        for job, result in settled:
            try:
                job.done(result)
            except Exception:  # the boundary: a bug of one that asked is not the others'
                _logger.exception("an answer of the log could not be taken")
        self._hand_over()

    def _connect(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            # The file holds what policies and tools said: only its owner reads it.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=2.0)
            self._prepare(connection)
        except (sqlite3.Error, OSError) as error:
            self._release_lock()
            if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
                raise UserError(f"episode log {self.path}: not an SQLite file; name another with --log") from error
            raise HostFault(f"episode log {self.path}: {error}") from error
        except UserError:
            self._release_lock()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if not empty and application != _APPLICATION:
            raise UserError(f"episode log {self.path}: a database of something else; name another with --log")
        if not empty and version != _VERSION:
            raise UserError(
                f"episode log {self.path}: version {version}; this agenthub writes version {_VERSION}: "
                "name another with --log, or move the file away"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        # Copying the write-ahead file back waits for the disk; whoever waits for a commit does not wait for that.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        if self._max_pages is not None:
            connection.execute(f"PRAGMA max_page_count = {int(self._max_pages)}")
        if empty:
            connection.executescript(_SCHEMA)

    def _take_lock(self) -> None:
        descriptor = os.open(f"{self.path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(f"episode log {self.path}: another hub has it open; name another with --log") from None
        self._lock_file = descriptor

    def _release_lock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _copy_back(self) -> None:
        """The copier's thread: brings the write-ahead file back into the database beside the writer."""
        connection: sqlite3.Connection | None = None
        while not self._closing.wait(_COPY_EVERY_S):
            # What cannot be copied now, on a full disk say, is copied another time: it is in the log all the same.
            with contextlib.suppress(sqlite3.Error):
                connection = connection or sqlite3.connect(self.path, timeout=2.0)
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        if connection is not None:
            connection.close()

    def _run(self, connection: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        """The writer thread: one transaction for all that is handed over together."""
        ahead = Path(f"{self.path}-wal")
        while (jobs := self._jobs.get()) is not None:
            settled = _tick(connection, jobs, self.path)
            with contextlib.suppress(OSError, sqlite3.Error):
                if ahead.stat().st_size > _MOST_AHEAD_BYTES:  # the copier never saw the end of it
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._settled, settled)
        connection.close()


def _tick(connection: sqlite3.Connection, jobs: Sequence[_Job], path: Path) -> list[tuple[_Job, Any]]:
    """Commit the jobs' entries and answer their questions: pairs of job and result, or of job and HostFault."""
    writes = [job for job in jobs if job.question is None]
    settled: list[tuple[_Job, Any]] = []
    if writes:
        failed = _commit(connection, writes, path)
        if failed is not None and len(writes) > 1:
            # One bad entry must not fail what shares its tick: each on its own.
            settled += [(job, _commit(connection, [job], path)) for job in writes]
        else:
            settled += [(job, failed) for job in writes]
    for job in jobs:
        if job.question is not None:
            try:
                settled.append((job, job.question(connection)))
            except sqlite3.Error as error:
                settled.append((job, HostFault(f"episode log {path}: {error}")))
    return settled


def _commit(connection: sqlite3.Connection, jobs: Sequence[_Job], path: Path) -> HostFault | None:
    try:
        connection.execute("BEGIN IMMEDIATE")
        log_rows.insert_all(connection, (entry for job in jobs for entry in job.entries))
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        return HostFault(f"episode log {path}: {error}")
    return None


def _set(done: asyncio.Future[Any], result: Any) -> None:
    if done.done():
        return
    if isinstance(result, HostFault):
        done.set_exception(result)
    else:
        done.set_result(result)
