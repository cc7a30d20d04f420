"""Records are checked at birth, and survive the way to JSON and back."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub import codec, records
from agenthub.records import Call, Finish, Generation, Observation, Outcome, Stop, Text, Trajectory, Turn

TOKENS = st.lists(st.integers(0, 2**31 - 1), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8), lambda x: st.lists(x, max_size=3)
)


@st.composite
def generations(draw: st.DrawFn) -> Generation:
    ids = draw(TOKENS)
    logprobs = draw(st.lists(st.floats(-50, 0, width=32), min_size=len(ids), max_size=len(ids)))
    return Generation(
        policy=draw(st.text(max_size=5)),
        prompt_ids=records.ints(draw(TOKENS)),
        ids=records.ints(ids),
        logprobs=records.floats(logprobs),
        versions=((0, draw(st.integers(0, 9))),) if ids else (),
        finish=draw(st.sampled_from(Finish)),
    )


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    turns = []
    for index in range(draw(st.integers(1, 3))):
        call = Call(
            id=f"{index}.0", tool="python", arguments=draw(st.dictionaries(st.text(max_size=4), JSON, max_size=2))
        )
        shown = Observation(call_id=call.id, parts=(Text(text=draw(st.text(max_size=20))),), failed=draw(st.booleans()))
        rewards = draw(st.dictionaries(st.sampled_from(["outcome", "call_ok"]), st.floats(-2, 2), max_size=2))
        turns.append(
            Turn(
                index=index,
                generation=draw(st.none() | generations()),
                text=draw(st.text(max_size=20)),
                calls=(call,),
                observations=(shown,),
                rewards=rewards,
                seconds=draw(st.floats(0, 9)),
            )
        )
    return Trajectory(
        task="suite/task",
        group=draw(st.text(max_size=4)),
        member=draw(st.integers(0, 9)),
        turns=tuple(turns),
        stop=Stop.ANSWERED,
        outcome=Outcome.OK,
        rewards={},
        reward=float(sum(turn.reward for turn in turns)),
    )


@given(trajectories())
def test_a_trajectory_survives_json(trajectory: Trajectory) -> None:
    again = codec.decode(Trajectory, json.loads(json.dumps(codec.encode(trajectory))))
    assert codec.canonical(again) == codec.canonical(trajectory)
    assert codec.trajectory_hash(again) == codec.trajectory_hash(trajectory)


@given(trajectories())
def test_the_hash_leaves_out_ids_and_times_and_nothing_else(trajectory: Trajectory) -> None:
    renamed = dataclasses.replace(
        trajectory,
        group="other",
        member=77,
        turns=tuple(dataclasses.replace(turn, seconds=turn.seconds + 1) for turn in trajectory.turns),
    )
    assert codec.trajectory_hash(renamed) == codec.trajectory_hash(trajectory)
    changed = dataclasses.replace(trajectory, reason=trajectory.reason + "x")
    assert codec.trajectory_hash(changed) != codec.trajectory_hash(trajectory)


def generation(**changes: Any) -> Generation:
    fields: dict[str, Any] = {
        "policy": "p",
        "prompt_ids": records.ints([1, 2]),
        "ids": records.ints([3, 4]),
        "logprobs": records.floats([-0.5, -0.25]),
        "versions": ((0, 1),),
        "finish": Finish.STOP,
    }
    return Generation(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logprobs": records.floats([-0.5])}, "1 values for 2 ids"),
        ({"logprobs": records.floats([-0.5, float("nan")])}, r"logprobs\[1\] is nan"),
        ({"logprobs": records.floats([-0.5, 0.5])}, "above 0"),
        ({"ids": records.ints([3, -4])}, "negative"),
        ({"versions": ((1, 0),)}, "start at offset 0"),
        ({"versions": ((0, 0), (5, 1))}, "stay within"),
        ({"ids": np.array([3, 4], dtype=np.int32)}, "read-only"),
    ],
)
def test_a_generation_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generation(**changes)


def test_token_arrays_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        generation().ids[0] = 9


def test_step_rewards_must_sum_to_the_trajectory_reward() -> None:
    turn = Turn(index=0, generation=None, text="", rewards={"outcome": 1.0})
    with pytest.raises(ValueError, match="step rewards sum to 1"):
        Trajectory(
            task="s/t",
            group="g",
            member=0,
            turns=(turn,),
            stop=Stop.ANSWERED,
            outcome=Outcome.OK,
            rewards={"outcome": 1.0},
            reward=0.5,
        )


@pytest.mark.parametrize("outcome", [Outcome.INFRA_FAULT, Outcome.ENV_FAULT])
def test_a_fault_never_carries_a_reward(outcome: Outcome) -> None:
    with pytest.raises(ValueError, match="contradict"):
        Trajectory(
            task="s/t", group="g", member=0, turns=(), stop=Stop.ANSWERED, outcome=outcome, rewards={}, reward=0.0
        )


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("stop",), "answerd", "trajectory.stop is 'answerd'; expected one of"),
        (("turns", 0, "colour"), 1, r"trajectory.turns\[0\].colour: unknown field"),
        (("turns", 0, "text"), 3, r"trajectory.turns\[0\].text: expected str, got int"),
        (("turns", 0, "observations", 0, "parts", 0, "type"), "txt", "type is 'txt'; expected one of"),
        (("turns", 0, "index"), True, r"turns\[0\].index: expected int, got bool"),
    ],
)
def test_decoding_names_the_place(path: tuple[Any, ...], value: Any, message: str) -> None:
    shown = Observation(call_id="0.0", parts=(Text(text="hi"),))
    turn = Turn(index=0, generation=generation(), text="x", observations=(shown,))
    made = Trajectory(
        task="s/t", group="g", member=0, turns=(turn,), stop=Stop.ANSWERED, outcome=Outcome.OK, rewards={}, reward=0.0
    )
    row = codec.encode(made)
    place = row
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        codec.decode(Trajectory, row)
