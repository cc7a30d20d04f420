"""A task that shows itself broken is not played until an administrator releases it, and everyone can see that."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from agenthub.errors import BoxLost, HostFault, TaskBroken, WireError
from agenthub.records import frozen
from agenthub.server.quarantine import Quarantine
from agenthub.suites.task import Check, Task, Verifier
from tests.fakes import fake_task
from tests.server.faces import FACES, Face
from tests.server.harness import CALL, winning
from tests.server.tenants import TOKENS, Tenants, tenants


async def broken(served: Tenants, face: Face) -> None:
    """Play a task whose verifier cannot grade it."""
    task = await served.hub.dispatcher.catalog.task("fakes", "t0")
    unfit = Check(id="answer", uses="no_such_check", args=frozen())
    served.hub.dispatcher.catalog._tasks["fakes"]["t0"] = _with(task, Verifier(checks=(unfit,)))
    _, made = await face.call("create", request_id="r", suite="fakes", task="t0", count=2)
    first, second = (row["id"] for row in made["episodes"])
    status, done = await face.call("step", episode=first, turn=0, action=winning())
    assert (status, done["info"]["outcome"], done["reward"]) == (200, "env_fault", None)
    status, done = await face.call("step", episode=second, turn=0, action=CALL)
    assert status == 200, "what runs may go on"


def _with(task: Task, verifier: Verifier) -> Task:
    return fake_task(id=task.id, suite=task.suite, verifier=verifier)


@pytest.mark.parametrize("name", FACES)
async def test_a_broken_task_is_refused_seen_and_released(tmp_path: Path, name: str) -> None:
    async with (
        tenants(tmp_path) as served,
        FACES[name](served.url, TOKENS["alice"]) as alice,
        FACES[name](served.url, TOKENS["root"]) as root,
    ):
        await broken(served, alice)
        status, row = await alice.call("create", request_id="again", suite="fakes", task="t0")
        assert (status, row["error"]["code"], row["error"]["detail"]["task"]) == (409, "task_quarantined", "fakes/t0")
        assert "no_such_check" in row["error"]["message"]
        assert (await alice.call("suite", suite="fakes"))[1]["quarantined"] == 1
        shown = {it["id"]: it["quarantined"] for it in (await alice.call("tasks", suite="fakes"))[1]["tasks"]}
        assert shown.pop("t0") is True and set(shown.values()) == {False}
        status, listed = await root.call("quarantine")
        assert [it["task"] for it in listed["tasks"]] == ["fakes/t0"]
        assert (await alice.call("release", suite="fakes", task="t0"))[0] == 403
        assert (await root.call("release", suite="fakes", task="t0"))[0] == 200
        status, row = await root.call("release", suite="fakes", task="t0")
        assert (status, row["error"]["code"]) == (404, "not_quarantined")
        assert (await alice.call("create", request_id="again", suite="fakes", task="t0"))[0] == 201


async def test_the_metrics_count_every_outcome_and_what_is_in_quarantine(tmp_path: Path) -> None:
    async with tenants(tmp_path) as served, FACES["routes"](served.url, TOKENS["alice"]) as alice:
        await broken(served, alice)
        _, made = await alice.call("create", request_id="m", suite="fakes", task="t1", count=3)
        for row, code in zip(made["episodes"], ("host", "lost", None), strict=True):
            action = {"calls": [{"arguments": {"code": code}}]} if code else winning()
            await alice.call("step", episode=row["id"], turn=0, action=action)
        headers = {"Authorization": f"Bearer {TOKENS['meter']}"}
        async with aiohttp.ClientSession(headers=headers) as session, session.get(f"{served.url}/metrics") as response:
            text = await response.text()
        for outcome in ("env_fault", "infra_fault", "model_fault", "ok"):
            assert f'agenthub_episodes_total{{outcome="{outcome}"' in text
        assert "agenthub_tasks_quarantined 1.0" in text


async def test_seeds_go_around_a_quarantined_task_and_other_seeds_keep_theirs(tmp_path: Path) -> None:
    async with tenants(tmp_path) as served:
        catalog = served.hub.dispatcher.catalog
        before = [(await catalog.draw("fakes", "train", seed)).id for seed in range(200)]
        catalog.quarantine.add(await catalog.task("fakes", "t1"), "broken")
        after = [(await catalog.draw("fakes", "train", seed)).id for seed in range(200)]
        assert "t1" in before and "t1" not in after
        assert all(old == new for old, new in zip(before, after, strict=True) if old != "t1")
        catalog.quarantine.add(await catalog.task("fakes", "held"), "broken")
        with pytest.raises(WireError) as caught:
            await catalog.draw("fakes", "test", 1)
        assert (caught.value.code, caught.value.status) == ("task_quarantined", 409)


@pytest.mark.parametrize("error", [TaskBroken("no tests"), BoxLost("its setup killed the box")])
def test_what_ends_before_a_policy_came_is_the_tasks_fault(error: Exception) -> None:
    quarantine, task = Quarantine(), fake_task()
    with pytest.raises(type(error)), quarantine.watching(task):
        raise error
    assert task.key in quarantine


def test_our_own_faults_put_nothing_in_quarantine() -> None:
    quarantine = Quarantine()
    with pytest.raises(HostFault), quarantine.watching(fake_task()):
        raise HostFault("no box could be started")
    assert len(quarantine) == 0


def test_the_first_reason_stays() -> None:
    quarantine, task = Quarantine(), fake_task()
    quarantine.add(task, "first")
    quarantine.add(task, "second")
    assert [row["reason"] for row in quarantine.rows()] == ["first"]
    assert (len(quarantine), quarantine.count("fakes"), quarantine.count("fake")) == (1, 1, 0)
