"""Copies of an episode: live, by replay, from an earlier turn; and going on after a box was lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agenthub.codec import trajectory_hash
from agenthub.episodes import Episode, Past, Workbench
from agenthub.errors import ForkRefused, HostFault, WireError
from agenthub.records import Outcome, Stop
from agenthub.sandbox import SandboxSpec
from agenthub.suites.task import TaskLimits, ToolUse, TurnCheck
from agenthub.wire import Action, CallIn, StepDone
from tests.fakes import FakeFactory, FakeSandbox, fake_task
from tests.sandboxes.boxes import need_jail

COPYABLE = (ToolUse(name="python", uses="fake_copyable"),)
STATELESS = (ToolUse(name="python", uses="fake_stateless"),)
SINGLE = (ToolUse(name="python", uses="fake_single"),)
LONG = TaskLimits(max_turns=10)


@pytest.fixture
async def bench() -> AsyncIterator[Workbench]:
    FakeFactory.made.clear()
    made = Workbench()
    yield made
    await made.close()


async def opened(bench: Workbench, **changes: Any) -> Episode:
    episode = Episode(fake_task(**{"limits": LONG, **changes}), bench, id="e", group="g", member=0)
    await episode.open()
    return episode


async def say(episode: Episode, code: str, timeout_s: float | None = None) -> str:
    done = await step(episode, code, timeout_s)
    return str(done.observation["observations"][0]["parts"][0]["text"])


async def step(episode: Episode, code: str, timeout_s: float | None = None) -> StepDone:
    action = Action(calls=[CallIn(tool="python", arguments={"code": code})])
    return await episode.step(action, timeout_s=timeout_s, generation=None)


async def answer(episode: Episode, text: str = "42") -> StepDone:
    return await episode.step(Action(answer=text), timeout_s=None, generation=None)


def boxes() -> list[FakeSandbox]:
    return FakeFactory.made


KINDS = pytest.mark.parametrize("tools", [COPYABLE, fake_task().tools], ids=["live", "replay"])


@KINDS
async def test_copies_go_on_from_the_same_state_and_apart_from_each_other(bench: Workbench, tools: Any) -> None:
    parent = await opened(bench, tools=tools, turn_checks=(TurnCheck(name="ran", uses="call_ok", reward=0.25),))
    await say(parent, "a")
    await parent.write_file("data", b"x")
    await say(parent, "b")
    one, two = await parent.fork(2)
    assert len(boxes()) == 3
    assert (one.next_turn, one.parent, one.fork_turn) == (2, "e", 2)
    assert one.played == parent.played
    assert len({one.id, two.id, parent.id}) == 3
    assert (one.group == two.group, [one.member, two.member]) == (True, [0, 1])
    assert one.group != parent.group
    assert await one.read_file("data") == b"x"
    await one.write_file("data", b"y")
    assert (await two.read_file("data"), await parent.read_file("data")) == (b"x", b"x")
    assert [await say(it, "c") for it in (parent, one, one, two)] == ["c#3", "c#3", "c#4", "c#3"]
    assert (await answer(one)).reward == 1.0
    assert (await answer(two, "41")).reward == 0.0
    assert one.trajectory is not None and two.trajectory is not None
    assert (one.trajectory.parent, one.trajectory.fork_turn) == ("e", 2)
    assert one.trajectory.reward == pytest.approx(2.0)
    assert not parent.done
    await parent.cancel()
    assert all(box.closed for box in boxes())


@KINDS
async def test_a_copy_of_an_earlier_turn_is_replayed(bench: Workbench, tools: Any) -> None:
    parent = await opened(bench, tools=tools)
    for code in ("a", "b", "c"):
        await say(parent, code)
    await parent.write_file("late", b"")
    (copy,) = await parent.fork(1, turn=1)
    assert (copy.next_turn, copy.fork_turn) == (1, 1)
    assert copy.played == parent.played[:1]
    assert await say(copy, "other") == "other#2"
    (first,) = await parent.fork(1, turn=0)
    assert "text" not in first.observation()
    assert await say(first, "x") == "x#1"
    assert boxes()[1].store == boxes()[2].store == {}


async def test_a_copy_is_shown_what_its_last_turn_showed(bench: Workbench) -> None:
    parent = await opened(bench, tools=COPYABLE)
    done = await step(parent, "a")
    (copy,) = await parent.fork(1)
    seen = copy.observation()
    assert seen["messages"] == [{"role": "user", "content": "?"}]
    assert {name: seen[name] for name in done.observation} == done.observation


async def test_a_stateless_sandbox_is_copied_by_a_fresh_one(bench: Workbench) -> None:
    parent = await opened(bench, tools=STATELESS)
    assert await say(parent, "a") == "a#1"
    (copy,) = await parent.fork(1)
    assert await say(copy, "b") == "b#1"


async def test_two_sandboxes_of_which_one_must_be_replayed_are_both_replayed(bench: Workbench) -> None:
    parent = await opened(bench, tools=(*COPYABLE, ToolUse(name="second", uses="fake")))
    await say(parent, "thread")  # a live copy of the first would be refused
    (copy,) = await parent.fork(1)
    assert await say(copy, "a") == "a#2"


async def test_what_cannot_be_copied_or_replayed_is_refused(bench: Workbench) -> None:
    parent = await opened(bench, tools=SINGLE)
    await say(parent, "a")
    with pytest.raises(ForkRefused, match="'fake_single' can neither"):
        await parent.fork(2)
    assert await say(parent, "b") == "b#2"
    (fresh,) = await parent.fork(1, turn=0)
    assert await say(fresh, "a") == "a#1"


async def test_an_unsound_copy_is_refused_and_nothing_changes(bench: Workbench) -> None:
    parent = await opened(
        bench, tools=(*COPYABLE, ToolUse(name="s", uses="fake_copyable", spec=SandboxSpec(image="2")))
    )
    await step(parent, "a")
    action = Action(calls=[CallIn(tool="s", arguments={"code": "thread"})])
    await parent.step(action, timeout_s=None, generation=None)
    with pytest.raises(ForkRefused, match="second thread"):
        await parent.fork(3)
    assert [box.closed for box in boxes()] == [False, False, True, True, True]
    assert await say(parent, "b") == "b#2"


async def test_a_replay_that_differs_is_refused_with_its_turn(bench: Workbench) -> None:
    parent = await opened(bench, deterministic=False)
    await say(parent, "a")
    await say(parent, "chance")
    await say(parent, "b")
    with pytest.raises(WireError) as caught:
        await parent.fork(3)
    assert (caught.value.code, caught.value.status, caught.value.detail) == ("not_deterministic", 409, {"turn": 1})
    assert [box.closed for box in boxes()] == [False, True, True, True]
    assert await say(parent, "c") == "c#4"


async def test_a_replay_that_differs_though_it_must_not_is_a_fault_of_ours(bench: Workbench) -> None:
    parent = await opened(bench)
    await say(parent, "chance")
    with pytest.raises(HostFault, match="turn 0"):
        await parent.fork(1)
    assert boxes()[1].closed


@pytest.mark.parametrize("turn", [-1, 2, 100])
async def test_a_turn_that_was_not_played_is_refused(bench: Workbench, turn: int) -> None:
    parent = await opened(bench)
    await say(parent, "a")
    with pytest.raises(ForkRefused, match="1 turns"):
        await parent.fork(1, turn)


async def test_an_ended_episode_is_forked_from_before_its_end_alone(bench: Workbench) -> None:
    parent = await opened(bench, tools=COPYABLE)
    await say(parent, "a")
    await answer(parent)
    with pytest.raises(ForkRefused, match="has ended"):
        await parent.fork(1)
    with pytest.raises(ForkRefused, match="has ended"):
        await parent.fork(1, 2)
    (copy,) = await parent.fork(1, 1)
    assert await say(copy, "b") == "b#2"


async def test_a_lost_episode_can_be_tried_again_from_before_the_loss(bench: Workbench) -> None:
    parent = await opened(bench)
    await say(parent, "a")
    await step(parent, "lost")
    assert parent.done
    (copy,) = await parent.fork(1, 1)
    assert await say(copy, "b") == "b#2"


async def test_turns_tokens_and_seconds_that_are_left_are_the_same(bench: Workbench) -> None:
    parent = await opened(bench, limits=TaskLimits(max_turns=2, episode_seconds=5.0))
    await say(parent, "slow 0.2")
    (copy,) = await parent.fork(1)
    assert copy.limits == parent.limits
    assert 0.2 <= copy.past.seconds <= parent.past.seconds
    early = (await parent.fork(1, turn=0))[0]
    assert early.past.seconds < 0.2
    done = await step(copy, "b")
    assert (done.truncated, done.info["stop"]) == (True, "out_of_turns")


async def test_a_reward_that_is_paid_once_is_not_paid_again_in_a_copy(bench: Workbench) -> None:
    check = TurnCheck(name="ran", uses="call_ok", reward=0.25, first_only=True)
    parent = await opened(bench, turn_checks=(check,))
    assert (await step(parent, "a")).reward == 0.25
    (copy,) = await parent.fork(1)
    assert (await step(copy, "b")).reward == 0.0
    (early,) = await parent.fork(1, turn=0)
    assert (await step(early, "b")).reward == 0.25


async def test_a_copy_of_a_copy_has_all_turns(bench: Workbench) -> None:
    parent = await opened(bench)
    await say(parent, "a")
    (child,) = await parent.fork(1)
    await say(child, "b")
    (grandchild,) = await child.fork(1)
    assert (grandchild.parent, grandchild.fork_turn, grandchild.next_turn) == (child.id, 2, 2)
    (early,) = await grandchild.fork(1, turn=1)
    assert await say(early, "x") == "x#2"


async def test_a_copy_that_does_the_same_has_the_hash_of_an_episode_that_did_it_alone(bench: Workbench) -> None:
    parent = await opened(bench)
    await say(parent, "a")
    copies = await parent.fork(2)
    hashes = set()
    for copy in copies:
        await answer(copy)
        assert copy.trajectory is not None
        hashes.add(trajectory_hash(copy.trajectory))
    await answer(parent)
    assert parent.trajectory is not None
    assert hashes == {trajectory_hash(replace(parent.trajectory, fork_turn=1))}


async def test_a_cancelled_fork_leaves_no_box_behind(bench: Workbench) -> None:
    parent = await opened(bench)
    await say(parent, "slow 1.5")
    forking = asyncio.create_task(parent.fork(4))
    await asyncio.sleep(0.1)
    forking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await forking
    assert [box.closed for box in boxes()] == [False, True, True, True, True]


async def test_a_call_that_ran_out_of_a_time_of_its_own_is_replayed_within_it(bench: Workbench) -> None:
    parent = await opened(bench)
    await say(parent, "slow 8", timeout_s=0.05)
    async with asyncio.timeout(2):
        (copy,) = await parent.fork(1)
    assert copy.next_turn == 1


async def test_a_record_gives_the_past_again(bench: Workbench) -> None:
    parent = await opened(bench)
    await say(parent, "a")
    await say(parent, "b", timeout_s=3.0)
    await answer(parent)
    assert parent.trajectory is not None
    read = Past.of(parent.trajectory, parent.past.facts())
    assert (read.steps, read.limits, read.writes) == (parent.past.steps, parent.past.limits, ())
    with pytest.raises(ForkRefused, match="does not say"):
        Past.of(parent.trajectory, None)


async def test_files_that_are_not_kept_make_a_replay_impossible(bench: Workbench) -> None:
    parent = await opened(bench)
    await say(parent, "a")
    await parent.write_file("data", b"x" * (17 << 20))
    await say(parent, "b")
    with pytest.raises(ForkRefused, match="not kept"):
        await parent.fork(1)
    assert (await parent.fork(1, turn=0))[0].next_turn == 0


@KINDS
async def test_after_a_lost_box_a_task_may_go_on_from_before_the_turn(bench: Workbench, tools: Any) -> None:
    episode = await opened(bench, tools=tools, on_lost="restore")
    await say(episode, "a")
    await episode.write_file("data", b"x")
    done = await step(episode, "lost")
    assert (done.terminated, done.reward) == (False, 0.0)
    assert "killed by its memory limit" in done.observation["text"]
    assert "The state before this turn was restored." in done.observation["text"]
    assert await say(episode, "b") == "b#2"
    assert await episode.read_file("data") == b"x"
    assert sum(not box.closed for box in boxes()) == 1
    (copy,) = await episode.fork(1, turn=2)
    assert await say(copy, "c") == "c#2"
    assert (await answer(episode)).reward == 1.0


async def test_a_box_is_restored_at_most_so_often(bench: Workbench) -> None:
    episode = await opened(bench, on_lost="restore", max_restores=2)
    assert [(await step(episode, "lost")).terminated for _ in range(3)] == [False, False, True]
    assert episode.trajectory is not None
    assert (episode.trajectory.stop, episode.trajectory.outcome) == (Stop.SANDBOX_LOST, Outcome.MODEL_FAULT)
    assert all(box.closed for box in boxes())


async def test_a_copy_has_the_restores_that_are_left(bench: Workbench) -> None:
    episode = await opened(bench, on_lost="restore", max_restores=1)
    await step(episode, "lost")
    (copy,) = await episode.fork(1)
    assert (await step(copy, "lost")).terminated


async def test_a_state_that_cannot_be_restored_ends_the_episode_as_the_loss_does(bench: Workbench) -> None:
    episode = await opened(bench, on_lost="restore", deterministic=False)
    await say(episode, "chance")
    done = await step(episode, "lost")
    assert (done.info["outcome"], done.reward) == ("model_fault", 0.0)
    assert "could not be restored" in done.info["reason"]
    assert all(box.closed for box in boxes())


async def test_without_the_tasks_asking_a_lost_box_is_the_end(bench: Workbench) -> None:
    episode = await opened(bench, tools=COPYABLE)
    assert (await step(episode, "lost")).terminated
    assert len(boxes()) == 1


async def test_many_copies_of_an_earlier_turn_are_replayed_once_where_that_can_be_copied(bench: Workbench) -> None:
    parent = await opened(bench, tools=COPYABLE)
    await say(parent, "a")
    await say(parent, "b")
    copies = await parent.fork(5, turn=1)
    assert [await say(copy, "c") for copy in copies] == ["c#2"] * 5
    # A live copy is made with the calls counted; only what was replayed has got them from calls.
    assert len(boxes()) == 6


ACTS = st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["step", "fork", "early", "lost"]), st.integers(0, 9)))


@settings(max_examples=60, deadline=None)
@given(acts=ACTS, tools=st.sampled_from([COPYABLE, fake_task().tools]))
async def test_in_a_tree_of_copies_each_has_the_calls_of_its_own_path(
    acts: list[tuple[int, str, int]], tools: tuple[ToolUse, ...]
) -> None:
    FakeFactory.made.clear()
    bench = Workbench()
    limits = TaskLimits(max_turns=100)
    root = Episode(fake_task(tools=tools, limits=limits, on_lost="restore"), bench, id="e", group="g", member=0)
    await root.open()
    live: list[tuple[Episode, list[str]]] = [(root, [])]
    for number, (which, act, turn) in enumerate(acts):
        episode, path = live[which % len(live)]
        if act == "step":
            path.append(f"{number}#{sum(it != 'lost' for it in path) + 1}")
            assert await say(episode, str(number)) == path[-1]
        elif act == "lost" and path.count("lost") < 3:
            assert not (await step(episode, "lost")).terminated
            path.append("lost")
        elif act in ("fork", "early"):
            at = len(path) if act == "fork" else turn % (len(path) + 1)
            live += [(copy, path[:at]) for copy in await episode.fork(2, turn=at)]
    for episode, path in live:
        texts = [turn.observations[0].parts[0] for turn in episode.played]
        assert [getattr(part, "text", "") for part in texts if "#" in str(part)] == [it for it in path if it != "lost"]
        await episode.cancel()
    assert all(box.closed for box in boxes())


@pytest.fixture
async def jailed(bench: Workbench) -> Workbench:
    need_jail()
    return bench


PYTHON = (ToolUse(name="python", uses="python"),)


async def python(episode: Episode, code: str) -> str:
    done = await step(episode, code)
    return str(done.observation["text"])


async def test_copies_of_a_python_session_have_its_variables_and_files(jailed: Workbench) -> None:
    parent = await opened(jailed, tools=PYTHON)
    await python(parent, "x = [1]\nopen('f', 'w').write('a')")
    await parent.write_file("g", b"from outside")
    copies = await parent.fork(3)
    for number, copy in enumerate(copies):
        assert f"[1, {number}]" in await python(copy, f"x.append({number}); x")
        assert "a from outside" in await python(copy, "print(open('f').read(), open('g').read())")
        await python(copy, f"open('f', 'w').write('{number}')")
    assert "[1] a" in await python(parent, "print(x, open('f').read())")
    (early,) = await copies[2].fork(1, turn=1)
    assert "[1] a" in await python(early, "print(x, open('f').read())")
    for episode in (parent, early, *copies):
        await episode.cancel()


async def test_a_python_session_goes_on_after_its_interpreter_was_killed(jailed: Workbench) -> None:
    episode = await opened(jailed, tools=PYTHON, on_lost="restore")
    await python(episode, "x = 41")
    assert "The state before this turn was restored." in await python(episode, "x = 0\nimport os; os._exit(1)")
    assert "42" in await python(episode, "x + 1")
    await episode.cancel()
