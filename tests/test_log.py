"""The episode log: durable, one writer, and loud where it cannot write."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agenthub.errors import HostFault, UserError
from agenthub.log import EpisodeEnd, EpisodeLog, EpisodeRow, RequestRow, StepRow, WriteRow


def opened(id: str) -> EpisodeRow:
    return EpisodeRow(id=id, task="s/t", group="g", member=0, opened=1.5)


def step(episode: str, turn: int) -> StepRow:
    return StepRow(episode=episode, turn=turn, hash="h", body=b"{}", answer=f"{turn}".encode())


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EpisodeLog]:
    made = EpisodeLog(tmp_path / "folder" / "log.sqlite")
    await made.open()
    yield made
    await made.close()


async def test_what_is_appended_is_read_back(log: EpisodeLog) -> None:
    await log.append(opened("a"), RequestRow(id="r", hash="x", answer=b"1"))
    await log.append(step("a", 0))
    await log.append(step("a", 1), EpisodeEnd(episode="a", state=b"{}", hash="t", trajectory=b"[]"))
    assert await log.request("r") == RequestRow(id="r", hash="x", answer=b"1")
    assert await log.step("a", 1) == step("a", 1)
    assert await log.trajectory("a") == b"[]"
    found = await log.episode("a")
    assert found is not None and (found.state, found.group, found.opened) == (b"{}", "g", 1.5)


async def test_what_a_restart_needs_is_kept(log: EpisodeLog) -> None:
    whole = EpisodeRow(
        id="b", task="s/t", group="g", member=3, opened=1.5, owner="alice", lease_s=7.5, limits=b'{"max_turns":2}',
        parent="a", fork_turn=1, fork_writes=2, spent_s=2.5,
    )  # fmt: skip
    kept = StepRow(episode="b", turn=1, hash="h", body=b"{}", answer=b"1", at_s=2.0, seconds=0.5, restored=True)
    put = [WriteRow(episode="b", position=0, turn=1, path="x", data=b"1")]
    put.append(WriteRow(episode="b", position=1, turn=2, path="y", data=None))
    await log.append(opened("a"), whole, kept, *put)
    assert await log.episode("b") == whole
    assert await log.steps("b", 2) == [kept] and await log.steps("b", 1) == []
    assert await log.writes("b") == put and await log.writes("a") == []
    assert await log.running() == [(opened("a"), 0), (whole, 3)]
    await log.append(EpisodeEnd(episode="b", state=b"{}", hash="t", trajectory=b"[]"))
    assert await log.running() == [(opened("a"), 0)]


async def test_what_is_not_there_is_none(log: EpisodeLog) -> None:
    assert await log.episode("a") is None and await log.step("a", 0) is None
    assert await log.request("r") is None and await log.trajectory("a") is None


async def test_many_writers_share_transactions_and_all_are_kept(log: EpisodeLog) -> None:
    await asyncio.gather(*(log.append(step(f"e{i}", turn)) for i in range(50) for turn in range(10)))
    assert all(await asyncio.gather(*(log.step(f"e{i}", 9) for i in range(50))))


async def test_a_bad_entry_fails_alone(log: EpisodeLog) -> None:
    await log.append(step("a", 0))
    results = await asyncio.gather(
        log.append(step("a", 1)), log.append(step("a", 0)), log.append(step("a", 2)), return_exceptions=True
    )
    assert [type(result) for result in results] == [type(None), HostFault, type(None)]
    assert await log.step("a", 1) is not None and await log.step("a", 2) is not None


async def test_entries_of_one_append_stand_or_fall_together(log: EpisodeLog) -> None:
    await log.append(step("a", 0))
    with pytest.raises(HostFault):
        await log.append(step("a", 1), step("a", 0))
    assert await log.step("a", 1) is None


async def test_the_file_is_its_owners_alone(log: EpisodeLog) -> None:
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


async def test_a_second_hub_is_refused_and_a_later_one_goes_on(log: EpisodeLog) -> None:
    await log.append(opened("a"))
    with pytest.raises(UserError, match="another hub"):
        await EpisodeLog(log.path).open()
    await log.close()
    again = EpisodeLog(log.path)
    await again.open()
    assert await again.episode("a") is not None
    await again.close()


async def test_after_close_nothing_is_written(log: EpisodeLog) -> None:
    await log.close()
    await log.close()
    with pytest.raises(HostFault, match="closed"):
        await log.append(opened("a"))


async def test_a_locked_file_is_a_fault_of_the_host_and_passes(log: EpisodeLog) -> None:
    other = sqlite3.connect(log.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(HostFault, match="locked"):
        await log.append(opened("a"))
    other.execute("ROLLBACK")
    other.close()
    await log.append(opened("a"))


async def test_a_full_disk_is_a_fault_of_the_host(tmp_path: Path) -> None:
    log = EpisodeLog(tmp_path / "log.sqlite", max_pages=20)
    await log.open()
    with pytest.raises(HostFault, match="full"):
        await log.append(RequestRow(id="r", hash="h", answer=b"x" * 1_000_000))
    await log.append(opened("a"))
    assert await log.episode("a") is not None
    await log.close()


async def test_files_of_something_else_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(UserError, match="something else"):
        await EpisodeLog(path).open()
    assert path.read_bytes() == before
    (tmp_path / "text").write_text("not a database " * 100)
    with pytest.raises(UserError, match="not an SQLite file"):
        await EpisodeLog(tmp_path / "text").open()
    with pytest.raises(HostFault):
        await EpisodeLog(Path("/proc/none/log.sqlite")).open()


async def test_a_newer_version_is_refused(log: EpisodeLog) -> None:
    await log.close()
    connection = sqlite3.connect(log.path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(UserError, match="version 99"):
        await EpisodeLog(log.path).open()
