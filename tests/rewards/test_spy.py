"""The game of one spy: who is suspected of what, what it is worth, and episodes of the packaged suite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.episodes import Episode, Workbench
from agenthub.errors import TaskBroken, UnknownName, UserError
from agenthub.generators.parts import part_of
from agenthub.generators.spy import generate
from agenthub.records import Call, Turn, frozen
from agenthub.rewards.spy import COLOURS, SpyArgs, claims, detective_reward, spy_reward, votes
from agenthub.rewards.verify import verify
from agenthub.sandbox import CodeBox, SandboxSpec
from agenthub.sandboxes.table import TableSandbox
from agenthub.suites.load import load_suites
from agenthub.suites.task import Task
from agenthub.wire import Action
from tests.rewards.tasks import called, make_task

SUITE = Path(__file__).parents[2] / "tasks" / "spy.yaml"
ROOM = {"cup": "red", "hat": "blue", "box": "green", "rug": "pink", "dog": "black", "bed": "white"}
GAME: dict[str, Any] = {"seat": 3, "spy": 2, "room": ROOM, "odd": "cup", "seen": "grey"}
CLUES = ("the hat is blue", "the cup is grey", "", "the box is green")
AS_SPY = {**GAME, "spy": 3, "clues": ("the hat is blue", "the dog is black", "", "the box is green")}


def game(**changes: Any) -> SpyArgs:
    return SpyArgs.model_validate({**GAME, "clues": CLUES, **changes})


async def no_box(uses: str) -> CodeBox:
    raise AssertionError(f"no box is needed here, of {uses}")


async def worth(args: dict[str, Any], clue: str | None, answer: str | None) -> float:
    turns: tuple[Turn, ...] = () if clue is None else (called(clue),)
    return (await verify(make_task(("spy", {"clues": CLUES, **args})), turns, answer, no_box)).outcome


@pytest.mark.parametrize(
    ("clue", "said"),
    [
        ("the cup is red", {"cup": "red"}),
        ("A RED cup!", {"cup": "red"}),
        ("a red cup, and the hat is blue", {"cup": "red", "hat": "blue"}),
        ("the cupboard is red", {}),
        ("the cup is reddish", {}),
        ("cup", {}),
        ("", {}),
        ("the cup is red" + " " * 1_000, {}),
    ],
)
def test_a_clue_says_which_thing_has_which_colour(clue: str, said: dict[str, str]) -> None:
    assert claims(clue, ROOM) == said


@given(st.text(max_size=60))
def test_any_clue_is_read(clue: str) -> None:
    assert set(claims(clue, ROOM)) <= set(ROOM)
    assert len(votes(game(), clue, 1)) == 4


def test_who_says_what_others_see_otherwise_is_suspected_and_two_such_divide_the_table() -> None:
    assert votes(game(), "the rug is pink", 2) == [2, 1, 2, 2]
    assert sorted(votes(game(), "the rug is grey", 2)) != [1, 2, 2, 2]
    assert votes(game(), "the hat is blue", 2) == [2, 3, 2, 2], "the spy suspects who says nothing new"
    assert votes(game(), "the cup is red", 2) == [2, 3, 2, 2], "and who sees otherwise than itself"


@pytest.mark.parametrize(
    ("args", "clue", "answer", "reward"),
    [
        (GAME, "the rug is pink", "2", 1.0),
        (GAME, "the rug is pink", "1", 0.0),
        (GAME, "the cup is red", "2", 0.8),
        (GAME, None, "2", 0.8),
        (GAME, "the rug is grey", "2", 0.0),
        (GAME, "the rug is pink", None, 0.0),
        (GAME, "the rug is pink", "3", 0.0),
        (GAME, "the rug is pink", "5", 0.0),
        (GAME, "the rug is pink", "1e0", 0.0),
        (GAME, "the rug is pink", "9" * 5_000, 0.0),
        (AS_SPY, "the rug is pink", "1", 1.0),
        (AS_SPY, "the cup is grey", "1", 0.0),
        (AS_SPY, "the hat is blue", "1", 0.0),
        (AS_SPY, None, "1", 0.0),
    ],
)
async def test_what_a_game_is_worth(args: dict[str, Any], clue: str | None, answer: str | None, reward: float) -> None:
    assert await worth(args, clue, answer) == pytest.approx(reward)


def test_the_rewards_are_those_of_the_paper() -> None:
    assert detective_reward(1, 4, caught=True) == pytest.approx(0.8)
    assert detective_reward(1, 4, caught=False) == pytest.approx(-0.2)
    assert spy_reward(2, 4) == pytest.approx(1 / 3)


@pytest.mark.parametrize("wrong", [{"seat": 5}, {"spy": 0}, {"odd": "lamp"}, {"clues": ("",)}, {"suspicion": -1.0}])
async def test_a_game_that_does_not_fit_is_the_tasks_fault(wrong: dict[str, Any]) -> None:
    with pytest.raises(TaskBroken):
        await worth({**GAME, **wrong}, None, "1")


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"playrs": 4}, "did you mean 'players'?"),
        ({"part": "test"}, "part of the tables"),
        ({"role": "spi"}, "did you mean 'spy'?"),
        ({"players": 2}, "from 3 to 6"),
        ({"things": 5}, "from 6 to"),
        ({"players": True}, "from 3 to 6"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(config: dict[str, Any], error: str) -> None:
    with pytest.raises((UserError, UnknownName), match=error):
        list(generate(config, 0, 2))


@pytest.mark.parametrize("players", [3, 4, 6])
def test_a_table_tells_the_policy_only_what_its_seat_may_know(players: int) -> None:
    for row in generate({"players": players, "things": 12}, 5, 60):
        args = SpyArgs.model_validate(row["verifier"]["checks"][0]["args"])
        told, after = row["prompt"]["user"], row["tools"][0]["config"]["after"]
        assert 2 <= args.seat <= players == len(args.clues)
        assert f"{args.view(args.seat)[args.odd]} {args.odd}" in told
        assert told.count("\nplayer ") == args.seat - 1 and len(after) == players - args.seat
        assert set(args.room.values()) <= set(COLOURS) and args.seen != args.room[args.odd]
        assert row["metadata"]["role"] == ("spy" if args.spy == args.seat else "detective")


def test_parts_share_no_table_whatever_the_seed() -> None:
    parts = {part: [row["prompt"]["user"] for row in generate({"part": part}, 3, 50)] for part in ("train", "eval")}
    assert all(part_of(text) == part for part, texts in parts.items() for text in texts)


async def play(task: Task, turns: Sequence[str]) -> tuple[Episode, list[Any]]:
    episode = Episode(task, Workbench(), id="e", group="g", member=0)
    await episode.open()
    steps = [await episode.step(Action(text=text), timeout_s=None, generation=None) for text in turns]
    return episode, steps


async def test_an_episode_is_one_clue_and_a_vote() -> None:
    task = next(one for one in load_suites([SUITE])["spy"].tasks if one.metadata["role"] == "detective")
    clue, vote = task.solution
    episode, steps = await play(task, [clue, clue, vote])
    assert steps[0].observation["text"].endswith("Vote.\n```")
    assert "you have spoken" in steps[1].observation["text"]
    assert steps[2].reward == 1.0
    assert episode.trajectory is not None and episode.trajectory.metadata["role"] == "detective"


async def test_copies_of_a_table_go_their_own_ways() -> None:
    task = load_suites([SUITE])["spy"].tasks[0]
    episode, _ = await play(task, [])
    (copy,) = await episode.fork(1)
    await copy.step(Action(text=task.solution[0]), timeout_s=None, generation=None)
    again = await episode.step(Action(text=task.solution[0]), timeout_s=None, generation=None)
    assert "you have spoken" not in again.observation["text"]
    await copy.cancel()
    await episode.cancel()


async def test_the_table_refuses_what_it_does_not_know() -> None:
    factory = TableSandbox()
    box = await factory.start(SandboxSpec())
    assert (await box.call(Call(id="0", tool="say", arguments=frozen({"text": "x"})), timeout_s=1)).failed
    wrong: tuple[dict[str, Any], ...] = ({"aftr": []}, {"after": "x"}, {"after": [1]})
    for params in wrong:
        with pytest.raises(UserError, match="after"):
            await factory.start(SandboxSpec(params=frozen(params)))
    with pytest.raises(UserError, match="files"):
        await factory.start(SandboxSpec(files=frozen({"a": b""})))
