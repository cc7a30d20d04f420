"""Rollout strategies through the real collector: each grows its groups in its own way, leaks nothing, and trains."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agenthub.errors import HostFault, UserError
from agenthub.policies.bytes import byte_tokenizer
from agenthub.records import Stop, Trajectory
from agenthub.registry import registry
from agenthub.rollout import Play
from agenthub.trainers.batch import build_batch
from agenthub.trainers.config import RECIPES, load_recipe
from agenthub.trainers.filters import NoFilter, apply
from agenthub.trainers.mechanisms import is_suffix, mechanism_metrics
from agenthub.trainers.plugins import make
from agenthub.trainers.rollouts import bind
from agenthub.trainers.types import EXECUTED, REFINED
from tests.trainers.forest import ORACLE, Forest, ForestGame, ForestPolicy, Tree, collector_of, lost, refused
from tests.trainers.games import Run

NAMES = registry("rollout").names()
FORKING = [name for name in NAMES if registry("rollout").load(name).forks]
ARGS: dict[str, dict[str, Any]] = {
    "arpo": {"rule": "draw"},
    "aepo": {"rule": "draw"},
    "scaling_inter": {"rounds": [2, 3], "updates_per_stage": 1},
    "pope": {"fraction": 0.5},
}


async def played(
    name: str, forest: Forest | None = None, *, groups: int = 3, count: int = 4, lockstep: bool = True, **args: Any
) -> tuple[list[Trajectory], Any, ForestPolicy]:
    """What a strategy makes of some groups, what it cost, and the policy that played."""
    policy, forest = ForestPolicy(lockstep=lockstep), forest or Forest()
    strategy = make("rollout", name, ARGS.get(name, {}) | args)
    collector = collector_of(forest, policy, strategy, {"easy-0": ORACLE})
    plays = [Play(suite="suite", task="easy-0", count=count, group=f"u1/{n}", update=1) for n in range(groups)]
    made = await collector.collect(plays, seed=0)
    assert not forest.live
    return made, collector.stats, policy


def tokens_of(made: Sequence[Trajectory]) -> dict[tuple[str, int], list[list[int]]]:
    return {
        (one.group, one.member): [turn.generation.ids.tolist() for turn in one.turns if turn.generation] for one in made
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lockstep", [True, False])
async def test_a_strategy_grows_whole_groups_the_same_way_each_time(name: str, lockstep: bool) -> None:
    made, stats, _ = await played(name, lockstep=lockstep)
    again, _, _ = await played(name, lockstep=lockstep)
    assert tokens_of(made) == tokens_of(again)
    for group in ("u1/0", "u1/1", "u1/2"):
        members = [one.member for one in made if one.group == group]
        assert members == sorted(set(members))
        assert len(members) >= 4
    assert all(one.reward is not None for one in made)
    batch = build_batch(made)
    assert mechanism_metrics(made, batch).get("tokens", int(batch.action_mask.sum())) == stats.tokens


@pytest.mark.parametrize("name", FORKING)
async def test_a_branch_shares_its_parents_turns_and_goes_on_by_itself(name: str) -> None:
    made, _, _ = await played(name)
    batch = build_batch(made)
    forked = [n for n, one in enumerate(made) if one.fork_turn is not None]
    assert forked
    for n in forked:
        parent = int(batch.parent[n])
        assert made[n].parent == f"{made[parent].group}[{made[parent].member}]"
        turn = made[n].fork_turn
        assert turn is not None
        shared = zip(made[n].turns[:turn], made[parent].turns[:turn], strict=True)
        assert all(a.generation is b.generation for a, b in shared)
    seen = Counter(str(tokens_of([made[n]])) for n in forked)
    assert len(seen) > 1


@pytest.mark.parametrize("name", FORKING)
async def test_a_branch_that_our_side_lost_is_played_again_and_nothing_else_is(name: str) -> None:
    whole, _, _ = await played(name)
    gone: list[str] = []

    async def once(operation: str, tree: Tree | None) -> None:
        if operation == "step" and tree is not None and tree.forked and not gone:
            gone.append(tree.id)
            tree._end()
            raise lost()

    made, stats, _ = await played(name, Forest(once))
    assert gone and stats.replayed == 1
    assert tokens_of(made) == tokens_of(whole)
    assert [one.reward for one in made] == [one.reward for one in whole]


@pytest.mark.parametrize("name", FORKING)
async def test_a_fork_that_our_side_could_not_make_is_made_again(name: str) -> None:
    whole, _, _ = await played(name)
    failures = iter([lost()])

    async def once(operation: str, tree: Tree | None) -> None:
        if operation == "fork" and (fault := next(failures, None)):
            raise fault

    made, stats, _ = await played(name, Forest(once))
    assert stats.replayed >= 1
    assert tokens_of(made) == tokens_of(whole)


async def test_a_branch_that_is_always_lost_stops_the_run() -> None:
    async def always(operation: str, tree: Tree | None) -> None:
        if operation == "step" and tree is not None and tree.forked:
            raise lost()

    forest = Forest(always)
    with pytest.raises(HostFault, match=r"lost 4 times by our side, u1/0\[4\] first: the supervisor is gone"):
        await played("turn_values", forest)
    assert not forest.live


@pytest.mark.parametrize("name", FORKING)
async def test_a_fork_that_the_hub_refuses_is_counted_and_the_group_goes_on_without_it(name: str) -> None:
    async def never(operation: str, tree: Tree | None) -> None:
        if operation == "fork":
            raise refused()

    made, stats, _ = await played(name, Forest(never))
    assert stats.refused > 0
    assert all(one.fork_turn is None for one in made)
    assert {group: sum(one.group == group for one in made) for group in ("u1/0", "u1/1", "u1/2")} == {
        "u1/0": 4, "u1/1": 4, "u1/2": 4,
    }  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(NAMES), at=st.integers(1, 40), lockstep=st.booleans(), how=st.sampled_from(["cancel", "fault"])
)
async def test_nothing_is_left_open_wherever_it_is_cancelled_or_breaks(
    name: str, at: int, lockstep: bool, how: str
) -> None:
    count = 0
    task: asyncio.Task[Any] | None = None

    async def stop(operation: str, tree: Tree | None) -> None:
        nonlocal count
        count += 1
        if count == at:
            if how == "fault":
                raise UserError("the hub refuses")
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

    forest = Forest(stop)
    task = asyncio.ensure_future(played(name, forest, lockstep=lockstep))
    done, _ = await asyncio.wait([task], timeout=20)
    assert done
    if count >= at:
        assert task.cancelled() or isinstance(task.exception(), UserError)
    assert not forest.live


async def test_entropy_branches_stand_in_for_roots_and_roots_for_branches_that_were_not_taken() -> None:
    made, _, _ = await played("arpo", rule="threshold", tau=-9.0)
    assert [one.fork_turn is not None for one in made if one.group == "u1/0"] == [False, False, True, True]
    made, _, _ = await played("arpo", rule="threshold", tau=9.0)
    assert len(made) == 12
    assert all(one.fork_turn is None for one in made)


async def test_a_probe_says_how_many_roots_there_are() -> None:
    for balance, roots in ((-50.0, {2, 4}), (0.0, {2})):
        made, _, _ = await played("aepo", rule="threshold", tau=-9.0, balance=balance, penalty=0.0, groups=4)
        counts = Counter(one.group for one in made if one.fork_turn is None)
        assert set(counts.values()) <= roots
        assert len(made) == 16


async def test_a_run_of_branches_is_damped() -> None:
    free, _, _ = await played("aepo", rule="threshold", alpha=1.0, beta=0.0, tau=0.5, penalty=0.0, count=8)
    damped, _, _ = await played("aepo", rule="threshold", alpha=1.0, beta=0.0, tau=0.5, penalty=1.0, count=8)

    def in_a_row(made: Sequence[Trajectory]) -> int:
        forks = {(one.parent, one.fork_turn) for one in made if one.fork_turn is not None}
        return sum((parent, turn + 1) in forks for parent, turn in forks if turn is not None)

    assert in_a_row(free) > in_a_row(damped) == 0


async def test_the_horizon_is_a_function_of_the_update_and_never_above_the_tasks_own() -> None:
    strategy = make("rollout", "scaling_inter", {"rounds": [1, 2, 9], "updates_per_stage": 2})
    hub: Any = Forest()
    bound = await bind(hub, "suite", "train", "scaling_inter", strategy, byte_tokenizer())
    turns = [
        bound.planned(Play(suite="suite", task="easy-0", count=1, group="g", update=update)).max_turns
        for update in (1, 2, 3, 4, 5, 99)
    ]
    assert turns == [1, 1, 2, 2, 3, 3]
    made, _, _ = await played("scaling_inter", rounds=[2], updates_per_stage=1)
    assert {(len(one.turns), one.stop) for one in made} == {(2, Stop.OUT_OF_TURNS)}


async def test_help_comes_only_where_the_unguided_half_solves_nothing_and_stays_out_of_the_loss() -> None:
    made, _, _ = await played("pope", groups=12, fraction=0.5)
    batch = build_batch(made)
    assert {"guide_tokens" in one.metadata for one in made} == {True, False}
    for n, one in enumerate(made):
        alone = [other for other in made if other.group == one.group and other.member < 2]
        helped = "guide_tokens" in one.metadata
        assert helped == (one.member >= 2 and not any(other.rewards.get("outcome") for other in alone))
        if helped:
            # Half of six tokens: the first turn as it stands, and one token of the second.
            assert one.metadata["guide_tokens"] == 3
            assert one.turns[0].text == "10 11"
            assert one.turns[1].text.startswith("12 ") and len(one.turns[1].text.split()) == 3
            mine = batch.ids[(batch.trajectory_of_token == n) & batch.action_mask]
            assert mine.tolist() == [int(i) for t in one.turns[1:] if t.generation for i in t.generation.ids]


async def test_a_failed_turn_is_sampled_again_from_the_state_before_it() -> None:
    made, _, _ = await played("thor_backtrack", groups=8, suffixes=3, failures=1, back=1)
    batch = build_batch(made)
    suffixes = [n for n, one in enumerate(made) if is_suffix(one)]
    assert suffixes
    for n in suffixes:
        one, parent = made[n], made[int(batch.parent[n])]
        assert one.fork_turn is not None and len(one.turns) == one.fork_turn + 1
        failed, again = parent.turns[one.fork_turn], one.turns[-1]
        assert failed.generation is not None and again.generation is not None
        assert any(seen.failed for seen in failed.observations)
        # One token is sampled again; the other one is prompt.
        assert again.text.split()[0] == str(int(failed.generation.ids[0]))
        assert again.generation.prompt_ids[-1] == failed.generation.ids[0]
        assert one.reward == one.rewards[EXECUTED] == 0.0
        assert not any(turn.rewards for turn in one.turns[:-1])
    filtered = apply(make("filter", "thor", {}), make("credit", "thor", {}), batch)
    early = batch.turn_index[batch.turn_of_token] < batch.fork_turn[batch.trajectory_of_token]
    assert not (filtered.in_loss & early).any()


async def test_a_second_attempt_sees_the_first_one_and_is_recorded_as_if_it_had_not() -> None:
    made, _, policy = await played("critique", groups=6, refined=1)
    refined = [one for one in made if any(t.generation and t.generation.policy == REFINED for t in one.turns)]
    assert refined
    for one in refined:
        assert one.member == 3
        attempts = [other for other in made if other.group == one.group and not other.rewards.get("outcome")]
        first, bare = one.turns[0].generation, made[0].turns[0].generation
        assert first is not None and bare is not None
        assert first.prompt_ids.tolist() == bare.prompt_ids.tolist()
        seen = [r.prompt_ids.tolist() for r in policy.requests]
        told = [
            [*last.prompt_ids.tolist(), *last.ids.tolist(), 7, 6]
            for last in (other.turns[-1].generation for other in attempts)
            if last is not None
        ]
        assert any(context in seen for context in told)
        second = one.turns[1].generation
        assert second is not None
        assert second.prompt_ids[: first.prompt_ids.size].tolist() == first.prompt_ids.tolist()


@pytest.mark.parametrize("credit", ["arpo", "aepo", "turn_value_by_fork", "polychromic"])
async def test_a_token_that_branches_share_trains_once(credit: str) -> None:
    made, stats, _ = await played("turn_values")
    batch = build_batch(made)
    option = {"turn_value_by_fork": {"train": "all"}, "polychromic": {}}.get(credit, {"sharing": "hard"})
    filtered = apply(NoFilter(), make("credit", credit, option), batch)
    assert int(filtered.in_loss.sum()) == stats.tokens < int(batch.action_mask.sum())
    left = np.flatnonzero(batch.action_mask & ~filtered.in_loss)
    assert {filtered.reasons[int(batch.sample_of_token[t])] for t in left} == {"forked_prefix"}


async def test_soft_sharing_leaves_shared_turns_in_each_leaf() -> None:
    batch = build_batch((await played("turn_values"))[0])
    assert (apply(NoFilter(), make("credit", "arpo", {}), batch).in_loss == batch.action_mask).all()


async def test_a_suite_that_cannot_be_forked_is_refused_with_what_can_be_done() -> None:
    hub: Any = Forest(way="no")
    with pytest.raises(UserError, match=r"can be neither copied nor replayed .*critique, fixed, pope, scaling_inter"):
        await bind(hub, "suite", "train", "arpo", make("rollout", "arpo", {}), byte_tokenizer())
    assert not hub.live
    replayed: Any = Forest(way="replay")
    await bind(replayed, "suite", "train", "arpo", make("rollout", "arpo", {}), byte_tokenizer())
    await bind(hub, "suite", "train", "fixed", make("rollout", "fixed", {}), byte_tokenizer())


RECIPE_NAMES = sorted(p.stem for p in RECIPES.glob("*.yaml") if load_recipe(p.stem).strategy.uses != "fixed")
FIRED: dict[str, Callable[[list[dict[str, Any]]], bool]] = {
    "aepo": lambda rows: all(row["branches"] > 0 for row in rows),
    "arpo": lambda rows: all(row["branches"] > 0 for row in rows),
    "critique_grpo": lambda rows: all(row["refined"] > 0 and row["refined_tokens"] > 0 for row in rows),
    "polychromic": lambda rows: all(row["forked_sets"] > 0 for row in rows),
    "pope": lambda rows: any(row.get("guided", 0) > 0 for row in rows),
    "scaling_inter": lambda rows: [row["horizon"] for row in rows] == [1, 2, 3],
    "thor": lambda rows: any(row.get("backtracks", 0) > 0 for row in rows),
    "turn_value_by_fork": lambda rows: all(row["valued_states"] > 0 for row in rows),
}
SMALL = {"scaling_inter": ["strategy.args.rounds=[1, 2, 3]", "strategy.args.updates_per_stage=1"]}


class _Whole:
    """The filter as the loop applies it, with what the credit leaves out."""

    def __init__(self, run: Run) -> None:
        self._filter, self._credit = run.filter, run.credit

    def apply(self, batch: Any) -> Any:
        return apply(self._filter, self._credit, batch)


@cache
def trained(name: str) -> tuple[Run, list[dict[str, Any]]]:
    recipe = load_recipe(name, SMALL.get(name))
    run = Run(recipe)
    run.policy = policy = ForestPolicy()
    game = ForestGame(policy, recipe.strategy.make())
    whole: Any = game
    run.game, run.filter = whole, _Whole(run)
    rows: list[dict[str, Any]] = []
    for number in range(1, 4):
        asyncio.run(run.update(number))
        batch = build_batch(game.played[-1])
        counts = run.credit.metrics(batch) if hasattr(run.credit, "metrics") else {}
        rows.append(mechanism_metrics(game.played[-1], batch) | dict(run.metrics[-1]) | dict(counts))
    return run, rows


@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_three_updates_fire_the_recipes_own_mechanism_and_move_weights_by_it(name: str) -> None:
    torch.set_num_threads(1)
    run, rows = trained(name)
    assert run.seen["steps"] > 0
    assert torch.isfinite(run.weights()).all()
    assert FIRED[name](rows), rows
    assert not torch.allclose(run.weights(), trained("grpo")[0].weights(), atol=1e-5), (
        f"{name} moves as plain GRPO does"
    )
