"""Quotas of a token: what counts, when it is refused, and that the client comes back when it is told to."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.client import Hub
from agenthub.client.episode import EpisodeHandle
from agenthub.client.retry import Again, refusal
from agenthub.errors import WireError
from agenthub.server.quotas import Account, Accounts, Bucket, Quotas
from agenthub.wire import Action
from tests.server.faces import FACES
from tests.server.harness import CALL, winning
from tests.server.tenants import TOKENS, tenants

DAY_S = 86400.0


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(st.floats(0.1, 100), st.lists(st.floats(0, 3), max_size=60))
def test_a_bucket_never_gives_more_than_its_size_and_what_flowed_in(rate: float, waits: list[float]) -> None:
    size, now, taken = max(1.0, rate), 0.0, 0
    bucket = Bucket(rate, size, now)
    for wait in waits:
        now += wait
        left = bucket.take(now)
        taken += left == 0.0
        assert left <= 1 / rate
        if left:
            assert bucket.take(now + left * 1.001) == 0.0, "what it promised is there"
            now, taken = now + left * 1.001, taken + 1
        assert taken <= size + now * rate + 1e-6


def test_box_time_is_wall_time_by_boxes_and_is_paid_back_over_a_day() -> None:
    clock = Clock()
    account = Account("a", Quotas(sandbox_seconds_per_day=100.0), clock)
    account.hold(2)
    clock.now += 30
    account.hold(1)
    assert account.box_seconds == 60
    clock.now += 20
    account.release(2)
    clock.now += 10
    account.release(1)
    spent = 2 * 30 + 3 * 20 + 10
    assert account.box_seconds == spent
    with pytest.raises(WireError) as caught:
        account.check(1)
    detail = caught.value.detail
    assert isinstance(detail, dict) and caught.value.status == 429
    assert (detail["quota"], detail["limit"]) == ("sandbox_seconds_per_day", 100.0)
    owed = spent - 60 * 100 / DAY_S
    assert detail["retry_after_s"] == pytest.approx((owed - 100) / (100 / DAY_S) + 1, abs=1)
    clock.now += detail["retry_after_s"]
    account.check(1)
    assert account.box_seconds == spent


def test_live_episodes_are_counted_and_given_back() -> None:
    account = Account("a", Quotas(live_episodes=2))
    account.check(2)
    account.hold(1)
    account.hold(1)
    with pytest.raises(WireError) as caught:
        account.check(1)
    assert (caught.value.code, caught.value.status) == ("quota_exceeded", 429)
    account.release(1)
    account.check(1)
    with pytest.raises(WireError) as refused:
        account.check(3)
    assert refused.value.status == 422, "it will never do"


def test_other_quotas_leave_what_was_used() -> None:
    accounts = Accounts()
    account = accounts.of("a")
    account.hold(1)
    account.set(Quotas(live_episodes=1))
    with pytest.raises(WireError):
        accounts.of("a").check(1)
    account.set(Quotas())
    account.check(1000)


@pytest.mark.parametrize("name", FACES)
async def test_live_episodes_are_refused_over_every_face_and_others_are_not(tmp_path: Path, name: str) -> None:
    async with (
        tenants(tmp_path, {"live_episodes": 2}) as served,
        FACES[name](served.url, TOKENS["alice"]) as alice,
        FACES[name](served.url, TOKENS["bob"]) as bob,
    ):
        status, made = await alice.call("create", request_id="a", suite="fakes", task="t0", count=2)
        assert status == 201
        first = made["episodes"][0]["id"]
        for op, params in (
            ("create", {"request_id": "b", "suite": "fakes", "task": "t0"}),
            ("fork", {"request_id": "c", "episode": first, "count": 1}),
        ):
            status, row = await alice.call(op, **params)
            assert (status, row["error"]["code"]) == (429, "quota_exceeded")
            assert row["error"]["detail"] == {"quota": "live_episodes", "limit": 2, "retry_after_s": 1.0}
        assert (await bob.call("create", request_id="b", suite="fakes", task="t0", count=3))[0] == 201
        await alice.call("step", episode=first, turn=0, action=winning())
        assert (await alice.call("create", request_id="b", suite="fakes", task="t0"))[0] == 201


async def test_a_refusal_says_when_to_come_back_in_a_header_too(tmp_path: Path) -> None:
    async with tenants(tmp_path, {"steps_per_s": 0.1}) as served, aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {TOKENS['alice']}"}
        asked = {"request_id": "a", "suite": "fakes", "task": "long"}
        async with session.post(f"{served.url}/v1/episodes", json=asked, headers=headers) as response:
            episode = (await response.json())["episodes"][0]["id"]
        step = {"turn": 0, "action": CALL}
        url = f"{served.url}/v1/episodes/{episode}/step"
        async with session.post(url, json=step, headers=headers) as response:
            assert response.status == 200
        async with session.post(url, json={**step, "turn": 1}, headers=headers) as response:
            detail = (await response.json())["error"]["detail"]
            assert (response.status, detail["quota"]) == (429, "steps_per_s")
            assert 0 < detail["retry_after_s"] <= 10
            assert int(response.headers["Retry-After"]) == max(1, math.ceil(detail["retry_after_s"]))
        async with session.post(
            f"{served.url}/v1/steps", json={"steps": [{**step, "episode": episode, "turn": 1}]}, headers=headers
        ) as response:
            line = await response.json(content_type=None)
            assert (line["status"], line["error"]["detail"]["quota"]) == (429, "steps_per_s")


async def test_our_client_waits_as_long_as_it_is_told_and_plays_every_turn_once(tmp_path: Path) -> None:
    async with tenants(tmp_path, {"steps_per_s": 20, "live_episodes": 2}) as served:
        async with Hub(served.url, TOKENS["alice"]) as hub:
            episodes = await hub.create("fakes", "long", count=2)
            await asyncio.gather(*(play(episode, 20) for episode in episodes))
            assert [episode.next_turn for episode in episodes] == [20, 20]
            waiting = asyncio.create_task(hub.create("fakes", "t0"))
            await asyncio.sleep(0)
            await episodes[0].close()
            assert len(await waiting) == 1
        assert served.hub.dispatcher.accounts.of("alice").steps == 40


async def play(episode: EpisodeHandle, turns: int) -> None:
    for _ in range(turns):
        await episode.step(Action.model_validate(CALL))


def test_a_quota_that_is_empty_for_long_is_told_at_once() -> None:
    def asked(after_s: float) -> object:
        return refusal(429, {"code": "quota_exceeded", "message": "m", "detail": {"retry_after_s": after_s}})

    soon, late = asked(2.5), asked(3600)
    assert isinstance(soon, Again) and soon.after_s == 2.5
    assert isinstance(late, WireError) and late.status == 429
