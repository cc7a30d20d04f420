"""What every sandbox keeps, run over each kind on each isolation. The calls of a kind stand in its `Kind`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from agenthub.errors import BoxLost, UnknownName, UserError
from agenthub.isolation import Limits
from agenthub.records import Call, Observation
from agenthub.registry import registry
from agenthub.sandbox import Sandbox, SandboxFactory, SandboxSpec
from tests.sandboxes.boxes import need_jail


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One sandbox kind's arguments for what the contract asks of each."""

    name: str
    isolation: str
    works: dict[str, object]
    works_shows: str
    fails: dict[str, object]
    floods: dict[str, object]
    hangs: dict[str, object]
    ends: dict[str, object]


KINDS = [
    Kind(
        name="python",
        isolation="jail",
        works={"code": "20 + 22"},
        works_shows="42",
        fails={"code": "1 / 0"},
        floods={"code": "print('x' * 3_000_000)"},
        hangs={"code": "while True: pass"},
        ends={"code": "import os; os._exit(3)"},
    )
]


@pytest.fixture(params=KINDS, ids=[f"{kind.name}-{kind.isolation}" for kind in KINDS])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
async def factory(kind: Kind) -> AsyncIterator[SandboxFactory]:
    need_jail()
    made: SandboxFactory = registry("sandbox").load(kind.name)(isolation=kind.isolation)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def sandbox(factory: SandboxFactory) -> AsyncIterator[Sandbox]:
    made = await factory.start(SandboxSpec())
    yield made
    await made.close()


async def call(sandbox: Sandbox, arguments: dict[str, object], timeout_s: float = 20.0) -> Observation:
    return await sandbox.call(Call(id="3.1", tool="t", arguments=arguments), timeout_s=timeout_s)


async def test_a_call_shows_what_came_of_it(sandbox: Sandbox, kind: Kind) -> None:
    seen = await call(sandbox, kind.works)
    assert kind.works_shows in seen.text and seen.call_id == "3.1"
    assert not seen.failed and not seen.truncated


async def test_a_program_that_fails_is_an_observation(sandbox: Sandbox, kind: Kind) -> None:
    assert (await call(sandbox, kind.fails)).failed
    assert not (await call(sandbox, kind.works)).failed


async def test_arguments_of_the_wrong_shape_are_an_observation(sandbox: Sandbox, kind: Kind) -> None:
    for arguments in ({}, {"code": 3}, {"code": "1", "more": 2}):
        seen = await call(sandbox, dict(arguments))
        assert seen.failed and "argument" in seen.text


async def test_output_over_the_cap_is_cut_and_says_so(sandbox: Sandbox, kind: Kind) -> None:
    seen = await call(sandbox, kind.floods)
    assert seen.truncated and "cut" in seen.text and seen.sha256
    assert len(seen.text) < 20_000


async def test_a_turn_over_its_time_is_an_observation_and_the_state_lasts(sandbox: Sandbox, kind: Kind) -> None:
    seen = await call(sandbox, kind.hangs, timeout_s=0.3)
    assert seen.failed and "interrupted" in seen.text
    assert kind.works_shows in (await call(sandbox, kind.works)).text


async def test_a_program_that_ends_its_box_is_the_models_loss(sandbox: Sandbox, kind: Kind) -> None:
    with pytest.raises(BoxLost):
        await call(sandbox, kind.ends)
    with pytest.raises(BoxLost):
        await call(sandbox, kind.works)
    with pytest.raises(BoxLost):
        await sandbox.list_files()


async def test_files_round_trip(sandbox: Sandbox) -> None:
    await sandbox.write_file("folder/name", b"bytes")
    assert await sandbox.read_file("folder/name") == b"bytes"
    assert await sandbox.list_files() == ["folder/name"]
    with pytest.raises(UserError):
        await sandbox.read_file("../etc/passwd")


async def test_files_of_the_spec_are_there_from_the_start(factory: SandboxFactory) -> None:
    sandbox = await factory.start(SandboxSpec(files={"data/a.txt": b"1"}))
    assert await sandbox.read_file("data/a.txt") == b"1"
    await sandbox.close()


async def test_two_sandboxes_share_nothing(factory: SandboxFactory) -> None:
    one, two = await factory.start(SandboxSpec()), await factory.start(SandboxSpec())
    await one.write_file("mine", b"1")
    assert await two.list_files() == []
    await one.close()
    assert await two.list_files() == []


async def test_close_can_come_at_any_time_and_twice(factory: SandboxFactory, kind: Kind) -> None:
    sandbox = await factory.start(SandboxSpec())
    await sandbox.close()
    await sandbox.close()
    with pytest.raises(BoxLost):
        await call(sandbox, kind.works)


async def test_a_cancelled_call_ends_the_sandbox_and_nothing_else(factory: SandboxFactory, kind: Kind) -> None:
    one, two = await factory.start(SandboxSpec()), await factory.start(SandboxSpec())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await call(one, kind.hangs)
    with pytest.raises(BoxLost):
        await call(one, kind.works)
    assert kind.works_shows in (await call(two, kind.works)).text


@pytest.mark.parametrize(
    "spec",
    [
        SandboxSpec(image="no-such-image"),
        SandboxSpec(isolation="no-such-isolation"),
        SandboxSpec(limits=Limits(memory_mb=1 << 30)),
        SandboxSpec(files={"../out": b""}),
    ],
)
async def test_what_cannot_be_had_is_refused(factory: SandboxFactory, kind: Kind, spec: SandboxSpec) -> None:
    with pytest.raises(UserError):
        await factory.start(spec)
    sandbox = await factory.start(SandboxSpec())
    assert kind.works_shows in (await call(sandbox, kind.works)).text


async def test_an_unknown_setting_names_the_nearest(factory: SandboxFactory) -> None:
    with pytest.raises(UnknownName, match="shown_bytes"):
        await factory.start(SandboxSpec(params={"show_bytes": 10}))


def test_the_tool_has_a_schema_of_an_object(kind: Kind) -> None:
    factory: SandboxFactory = registry("sandbox").load(kind.name)(isolation=kind.isolation)
    for tool in factory.tools:
        assert tool.name and tool.description and tool.parameters["type"] == "object"
    assert factory.capabilities().fork in ("native", "stateless", "replay", "no")
