"""What a turn does, when an episode ends, and what it is worth."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from agenthub.episodes import Episode, Workbench
from agenthub.errors import HostFault, UserError, WireError
from agenthub.records import Finish, Outcome, Stop
from agenthub.sandbox import SandboxSpec
from agenthub.suites.task import Check, TaskLimits, ToolUse, TurnCheck, Verifier
from agenthub.wire import Action, CallIn, GenerationIn, LimitsIn, StepDone
from tests.fakes import FakeFactory, fake_task


def code(text: str) -> Action:
    return Action(text=f"```python\n{text}\n```")


def said(prompt: int = 1, completion: int = 1, **more: Any) -> GenerationIn:
    return GenerationIn(finish=Finish.STOP, prompt_tokens=prompt, completion_tokens=completion, **more)


@pytest.fixture
async def bench() -> AsyncIterator[Workbench]:
    FakeFactory.made.clear()
    made = Workbench()
    yield made
    await made.close()


async def opened(bench: Workbench, limits: LimitsIn | None = None, **changes: Any) -> Episode:
    episode = Episode(fake_task(**changes), bench, id="e", group="g", member=0, limits=limits)
    await episode.open()
    return episode


async def step(episode: Episode, action: Action, generation: GenerationIn | None = None) -> StepDone:
    return await episode.step(action, timeout_s=None, generation=generation)


async def test_a_right_answer_after_a_call_is_worth_one(bench: Workbench) -> None:
    episode = await opened(bench)
    first = await step(episode, code("6*7"))
    assert (first.reward, first.terminated, first.truncated) == (0.0, False, False)
    assert "6*7#1" in first.observation["text"]
    last = await step(episode, Action(text="\\boxed{42}"))
    assert (last.reward, last.terminated, last.truncated) == (1.0, True, False)
    assert episode.trajectory is not None
    assert episode.trajectory.stop is Stop.ANSWERED
    assert episode.trajectory.reward == 1.0
    assert all(box.closed for box in FakeFactory.made)


@pytest.mark.parametrize("text", ["\\boxed{41}", "it is 42", "\\boxed{}"])
async def test_a_wrong_or_missing_answer_is_worth_nothing(bench: Workbench, text: str) -> None:
    done = await step(await opened(bench), Action(text=text))
    assert done.reward == 0.0
    assert done.terminated


@pytest.mark.parametrize(("rule", "ends"), [("end", True), ("remind", False), ("ignore", False)])
async def test_a_turn_without_a_call_does_what_the_suite_says(bench: Workbench, rule: str, ends: bool) -> None:
    episode = await opened(bench, on_no_call=rule)
    done = await step(episode, Action(text="let me think"))
    assert done.terminated is ends
    assert ("Neither a call" in done.observation["text"]) is (rule == "remind")
    if ends:
        assert done.info["stop"] == "no_call"


async def test_turns_run_out_as_truncation(bench: Workbench) -> None:
    episode = await opened(bench, limits=LimitsIn(max_turns=2))
    assert not (await step(episode, code("1"))).truncated
    last = await step(episode, code("2"))
    assert (last.truncated, last.terminated, last.info["stop"]) == (True, False, "out_of_turns")
    assert last.reward == 0.0


async def test_tokens_run_out_as_truncation_unless_the_turn_answers(bench: Workbench) -> None:
    episode = await opened(bench, limits=LimitsIn(max_tokens=100))
    assert (await step(episode, code("1"), said(90, 10))).info["stop"] == "out_of_tokens"
    episode = await opened(bench, limits=LimitsIn(max_tokens=100))
    assert (await step(episode, Action(text="\\boxed{42}"), said(90, 10))).info["stop"] == "answered"


async def test_time_runs_out_for_a_turn_and_for_the_episode(bench: Workbench) -> None:
    limits = TaskLimits(max_turns=4, turn_seconds=0.05, episode_seconds=0.1)
    episode = await _with(bench, limits)
    done = await step(episode, Action(calls=[CallIn(arguments={"code": "slow 9"}), CallIn(arguments={"code": "x"})]))
    assert "not run: the turn's time is up" in done.observation["text"]
    again = await step(episode, code("slow 9"))
    assert again.truncated
    assert again.info["stop"] == "out_of_time"


async def _with(bench: Workbench, limits: TaskLimits) -> Episode:
    episode = Episode(replace(fake_task(), limits=limits), bench, id="e", group="g", member=0)
    await episode.open()
    return episode


async def test_a_box_that_ends_by_itself_is_the_models_fault_and_scored(bench: Workbench) -> None:
    done = await step(await opened(bench), code("lost"))
    assert (done.info["stop"], done.info["outcome"], done.reward) == ("sandbox_lost", "model_fault", 0.0)


async def test_a_failure_of_ours_never_becomes_a_reward(bench: Workbench) -> None:
    episode = await opened(bench)
    done = await step(episode, code("host"))
    assert (done.info["outcome"], done.reward) == ("infra_fault", None)
    assert episode.trajectory is not None
    assert episode.trajectory.reward is None


async def test_a_broken_task_is_an_env_fault(bench: Workbench) -> None:
    broken = Verifier(checks=(Check(id="x", uses="regex", args={"pattern": "("}),))
    episode = await opened(bench, verifier=broken)
    done = await step(episode, Action(text="\\boxed{42}"))
    assert (done.info["outcome"], done.reward) == ("env_fault", None)


async def test_named_turn_rewards_add_up_to_the_trajectorys(bench: Workbench) -> None:
    checks = (TurnCheck(name="ran", uses="call_ok", reward=0.25),)
    episode = await opened(bench, turn_checks=checks)
    rewards = [
        (await step(episode, code("1"))).reward,
        (await step(episode, code("fail"))).reward,
        (await step(episode, Action(text="\\boxed{42}"))).reward,
    ]
    assert rewards == [0.25, 0.0, 1.0]
    assert episode.trajectory is not None
    assert episode.trajectory.reward == 1.25
    assert dict(episode.trajectory.rewards) == {"ran": 0.25, "outcome": 1.0}


async def test_an_unknown_tool_is_an_observation_with_the_nearest_name(bench: Workbench) -> None:
    done = await step(await opened(bench), Action(calls=[CallIn(tool="pyhton", arguments={})]))
    assert "did you mean 'python'?" in done.observation["text"]
    assert not done.terminated


async def test_code_in_an_answering_turn_still_runs(bench: Workbench) -> None:
    episode = await opened(bench, protocol="fence_simpletir")
    done = await step(episode, Action(text="\\boxed{42}\n```python\n1\n```"))
    assert done.info["answer"] == "42"
    assert FakeFactory.made[0].calls == 1


async def test_tools_of_one_spec_share_a_box_and_others_do_not(bench: Workbench) -> None:
    tools = (
        ToolUse(name="python", uses="fake"),
        ToolUse(name="second", uses="fake", tool="other"),
        ToolUse(name="third", uses="fake", spec=SandboxSpec(image="another")),
    )
    episode = await opened(bench, tools=tools)
    assert len(FakeFactory.made) == 2
    calls = [CallIn(tool=name, arguments={"code": name}) for name in ("python", "second", "third")]
    done = await step(episode, Action(calls=calls))
    assert [row["parts"][0]["text"] for row in done.observation["observations"]] == ["python#1", "second#2", "third#1"]


async def test_a_start_that_fails_leaves_no_box_behind(bench: Workbench) -> None:
    tools = (ToolUse(name="a", uses="fake"), ToolUse(name="b", uses="fake", spec=SandboxSpec(image="broken")))
    with pytest.raises(HostFault):
        await opened(bench, tools=tools)
    assert all(box.closed for box in FakeFactory.made)


@pytest.mark.parametrize(
    "told",
    [
        {"ids": [1], "logprobs": [-1.0]},
        {"ids": [1, 2], "logprobs": [-1.0, -1.0], "prompt_ids": [5]},
        {"ids": [1], "logprobs": [-1.0], "prompt_ids": [5, 6]},
        {"ids": [1], "logprobs": [float("nan")], "prompt_ids": [5]},
        {"ids": [-1], "logprobs": [-1.0], "prompt_ids": [5]},
    ],
)
async def test_tokens_that_do_not_fit_are_refused_and_change_nothing(bench: Workbench, told: dict[str, Any]) -> None:
    episode = await opened(bench)
    with pytest.raises(WireError) as caught:
        await step(episode, code("1"), said(1, 1, **told))
    assert caught.value.code == "token_mismatch"
    assert episode.next_turn == 0
    assert FakeFactory.made[0].calls == 0


async def test_an_aborted_generation_is_not_a_step(bench: Workbench) -> None:
    with pytest.raises(WireError, match="sample the turn again"):
        await step(
            await opened(bench), code("1"), GenerationIn(finish=Finish.ABORT, prompt_tokens=1, completion_tokens=0)
        )


async def test_cancelling_ends_without_a_reward_and_may_be_repeated(bench: Workbench) -> None:
    episode = await opened(bench)
    await step(episode, code("1"))
    first = await episode.cancel()
    assert (first.stop, first.outcome, first.reward) == (Stop.CANCELLED, Outcome.OK, None)
    assert await episode.cancel() is first
    with pytest.raises(WireError):
        await step(episode, code("1"))


async def test_a_client_may_lower_limits_and_not_raise_them(bench: Workbench) -> None:
    with pytest.raises(UserError, match="the task allows 4"):
        Episode(fake_task(), bench, id="e", group="g", member=0, limits=LimitsIn(max_turns=5))
