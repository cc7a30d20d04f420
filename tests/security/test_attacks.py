"""Every attack has its required outcome and leaves nothing behind: no process, no mount, no group."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pytest

from agenthub.errors import BoxLost
from agenthub.sandbox import Sandbox
from agenthub.sandboxes.python.sandbox import PythonSandbox
from tests.sandboxes.boxes import groups_of, python_factory, run, shown, small
from tests.security.attacks import ATTACKS, Attack

_PATIENCE_S = 10.0


@pytest.fixture(params=["jail"])
async def factory(request: pytest.FixtureRequest) -> AsyncIterator[PythonSandbox]:
    async with python_factory(request.param) as made:
        yield made


@pytest.fixture(autouse=True)
def host_to_attack() -> Iterator[None]:
    """A secret in our environment and a listener in our namespace, for the attacks to find."""
    os.environ["AGENTHUB_TEST_SECRET"] = "SECRET"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0agenthub-test-abstract")
        listener.listen()
        yield
    del os.environ["AGENTHUB_TEST_SECRET"]


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
async def test_attack(factory: PythonSandbox, attack: Attack) -> None:
    bystander = await factory.start(small())
    await run(bystander, "kept = 41")
    mounts = _mounts()
    victim = await factory.start(small(grace_s=0.3))
    outcome, text = await _play(victim, attack)
    assert outcome in attack.outcome, text
    if outcome == "observed":
        assert attack.shows in text
    assert not any(word in text for word in ("REACHED", "SEEN", "OPENED", "WROTE", "GOT IT", "MADE", "SENT"))
    async with asyncio.timeout(_PATIENCE_S):
        assert await shown(bystander, "kept + 1") == "42\n"
    await victim.close()
    await bystander.close()
    after = await factory.start(small())
    assert await shown(after, "6 * 7") == "42\n"
    await after.close()
    assert _mounts() == mounts


async def _play(victim: Sandbox, attack: Attack) -> tuple[str, str]:
    """The outcome of one attack; HostFault is none of them and fails the test."""
    try:
        seen = await run(victim, attack.code, attack.timeout_s)
    except BoxLost as error:
        return "lost", str(error)
    return "observed", seen.text


def _mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


async def test_nothing_is_left_of_many_attacked_boxes(factory: PythonSandbox) -> None:
    bombs = [attack for attack in ATTACKS if attack.name[:2] in ("01", "03", "19", "23", "29", "42")]
    victims = [await factory.start(small(grace_s=0.3)) for _ in bombs]
    await asyncio.gather(*(_play(victim, bomb) for victim, bomb in zip(victims, bombs, strict=True)))
    groups = groups_of(factory)
    for victim in victims:
        await victim.close()
    await factory.close()
    assert _existing(groups.values()) == []


def _existing(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if os.path.exists(path)]
