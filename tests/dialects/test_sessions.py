"""A session is its owner's alone, and is forgotten when it was not used for its lease."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from agenthub.errors import WireError
from agenthub.server.answers import Answer
from agenthub.server.dialects.player import Player
from agenthub.server.dialects.sessions import Sessions


async def _operate(name: str, values: Mapping[str, Any]) -> Answer:
    raise AssertionError(f"{name} was asked for")


def player(lease_s: float = 60.0) -> Player:
    return Player(_operate, "fakes", lease_s=lease_s)


async def test_a_session_is_known_to_its_owner_alone() -> None:
    sessions = Sessions(8)
    mine = sessions.add("me", player())
    assert sessions.get("me", mine.id) is mine
    assert sessions.get("you", mine.id) is None
    await sessions.close(mine)
    assert sessions.get("me", mine.id) is None


async def test_two_owners_use_one_name_for_their_own() -> None:
    sessions = Sessions(8)
    mine, yours = sessions.add("me", player(), id="a"), sessions.add("you", player(), id="a")
    assert sessions.get("me", "a") is mine
    assert sessions.get("you", "a") is yours


async def test_an_unused_session_makes_room_and_an_attached_one_stays() -> None:
    sessions = Sessions(2)
    kept, left = sessions.add("me", player(0.01)), sessions.add("me", player(0.01))
    kept.attached = True
    with pytest.raises(WireError, match="at most 2"):
        sessions.add("me", player())
    for _ in range(500):
        if asyncio.get_running_loop().time() > left.expires:
            break
        await asyncio.sleep(0.01)
    sessions.add("me", player())
    assert sessions.get("me", left.id) is None
    assert sessions.get("me", kept.id) is kept
