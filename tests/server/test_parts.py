"""Properties of the small parts: reading requests, owned work."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.errors import BoxLost, HostFault, TaskBroken, UnknownName, UserError, WireError
from agenthub.server.answers import boundary, dumps
from agenthub.server.owner import Owner
from agenthub.server.params import canonical_json, parse_json, read
from agenthub.wire import StepIn

scalars = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(max_size=8)
values = st.recursive(
    scalars | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


@given(values)
def test_what_was_written_is_read(value: object) -> None:
    assert parse_json(dumps(value)) == json.loads(json.dumps(value))


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_any_input_is_json_or_a_malformed_request(data: bytes | str) -> None:
    try:
        parse_json(data)
    except WireError as error:
        assert (error.code, error.status) == ("malformed_json", 400)


@given(st.dictionaries(st.text(max_size=4), values, max_size=4))
def test_the_canonical_request_does_not_depend_on_the_order_of_keys(arguments: dict[str, object]) -> None:
    turned = dict(reversed(arguments.items()))
    first, second = (
        canonical_json(read(StepIn, {"turn": 0, "action": {"calls": [{"arguments": row}]}}))
        for row in (arguments, turned)
    )
    assert first == second


@given(values)
def test_any_value_is_a_request_or_names_a_field(value: object) -> None:
    try:
        read(StepIn, value)
    except WireError as error:
        assert (error.code, error.status) == ("invalid", 422) and error.message


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (WireError("turn_order", 409, "m"), 409),
        (UnknownName("task", "a", ["b"]), 404),
        (UserError("m"), 422),
        (TaskBroken("m"), 422),
        (BoxLost("m"), 422),
        (HostFault("m"), 503),
        (KeyError("m"), 500),
    ],
)
def test_every_error_has_its_status(error: Exception, status: int) -> None:
    assert boundary(error).status == status


async def test_owned_work_outlives_its_callers_and_is_joined_by_many() -> None:
    async def work() -> int:
        await asyncio.sleep(0.05)
        return 7

    async with Owner() as owner:
        job = owner.start(work())
        impatient = asyncio.create_task(job.join())
        await asyncio.sleep(0)
        impatient.cancel()
        assert list(await asyncio.gather(job.join(), job.join())) == [7, 7]


async def test_cancelled_work_tells_its_callers_even_where_it_never_began() -> None:
    async def work() -> None:
        await asyncio.sleep(60)

    async with Owner() as owner:
        unborn, begun = owner.start(work()), owner.start(work())
        await unborn.cancel(WireError("episode_done", 410, "it has ended"))
        await asyncio.sleep(0)
        with pytest.raises(WireError, match="it has ended"):
            await unborn.join()
    with pytest.raises(WireError, match="stopping"):
        await begun.join()
    with pytest.raises(WireError, match="stopping"):
        owner.start(work())


async def test_work_that_fails_fails_alone() -> None:
    async def bug() -> None:
        raise ZeroDivisionError

    async with Owner() as owner:
        job = owner.start(bug())
        with pytest.raises(WireError, match="ZeroDivisionError"):
            await job.join()
        assert job.failed
