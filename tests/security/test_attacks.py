"""Every attack has its required outcome and leaves nothing behind: no process, mount, control group or file."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agenthub.errors import BoxLost
from agenthub.sandbox import Sandbox
from agenthub.sandboxes.python.sandbox import PythonSandbox
from tests.sandboxes.boxes import run, shown, small
from tests.security.host import Host
from tests.security.payloads import ATTACKS, Attack
from tests.security.payloads.attack import CANARIES, CANARIES_OF_DOCKER, CANARIES_OF_THE_JAIL

pytestmark = pytest.mark.asyncio(loop_scope="module")

_CANARIES = {"jail": CANARIES_OF_THE_JAIL, "docker": CANARIES_OF_DOCKER, "gvisor": CANARIES}
_ANSWER_S = 1.0
"""A bystander is answered within this, whatever a neighbour has done."""


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
async def test_attack(factory: PythonSandbox, host: Host, listener: int, attack: Attack) -> None:
    bystander, victim = await asyncio.gather(factory.start(small()), factory.start(small(grace_s=0.3)))
    await run(bystander, "kept = 41")
    standing = host.standing()
    try:
        outcome, text = await _play(victim, attack, listener)
        await _is_answered(bystander)
        in_jail = factory._name == "jail"
        own = {"jail": attack.jail_outcome, "gvisor": attack.gvisor_outcome}.get(factory._name)
        assert outcome in (own or attack.outcome), text
        assert not any(word in text for word in _CANARIES[factory._name]), text
        if outcome == "observed":
            assert attack.shows in text
            assert not in_jail or attack.jail in text
        if attack.after is not None:
            fresh = await factory.start(small())
            await attack.after(victim, fresh)
            await fresh.close()
    finally:
        await victim.close()
        await bystander.close()
    for box in (victim, bystander):
        assert not (await _box(box).kill()).host_fault
    assert host.left_of([_box(victim), _box(bystander)]) == []
    assert host.files() == []
    assert host.standing() == standing


async def _play(victim: Sandbox, attack: Attack, port: int) -> tuple[str, str]:
    """The outcome of one attack; HostFault is none of them and fails the test."""
    if attack.before is not None:
        await attack.before(victim)
    try:
        async with asyncio.TaskGroup() as group:
            if attack.during is not None:
                group.create_task(attack.during(victim))
            turn = group.create_task(_turn(victim, attack.code.replace("{port}", str(port)), attack.timeout_s))
    except BoxLost as error:
        return "lost", str(error)
    return turn.result()


async def _turn(victim: Sandbox, code: str, timeout_s: float) -> tuple[str, str]:
    try:
        return "observed", (await run(victim, code, timeout_s)).text
    except BoxLost as error:
        return "lost", str(error)


async def _is_answered(bystander: Sandbox) -> None:
    async with asyncio.timeout(_ANSWER_S):
        assert await shown(bystander, "kept + 1") == "42\n"


def _box(sandbox: Sandbox) -> Any:
    return sandbox._box  # type: ignore[attr-defined]


async def test_many_attacks_at_once_leave_a_bystander_alone(factory: PythonSandbox, host: Host) -> None:
    names = ("01_", "02_", "03_", "14_", "19_", "23_", "29_", "42_")
    bombs = [attack for attack in ATTACKS if attack.name.startswith(names)]
    standing = host.standing()
    bystander = await factory.start(small())
    victims = [await factory.start(small(grace_s=0.3)) for _ in bombs]
    await run(bystander, "kept = 41")
    await asyncio.gather(*(_play(victim, bomb, 0) for victim, bomb in zip(victims, bombs, strict=True)))
    await _is_answered(bystander)
    boxes = [_box(sandbox) for sandbox in (bystander, *victims)]
    for sandbox in (bystander, *victims):
        await sandbox.close()
    for box in boxes:
        assert not (await box.kill()).host_fault
    assert host.left_of(boxes) == []
    assert host.standing() == standing
