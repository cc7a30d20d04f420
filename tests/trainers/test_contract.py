"""One suite over every registered plug-in but the losses: what each of a kind keeps."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from agenthub.records import ints
from agenthub.registry import registry
from agenthub.trainers.plugins import NEEDS, make
from agenthub.trainers.types import Batch, Doubles
from tests.trainers.contracts import padded, rich, rich_batch
from tests.trainers.fakes import ANSWER, CODE, PROSE, batch_of, mixed_batch, trajectory

STRICT: dict[str, dict[str, Any]] = {
    "simpletir": {"min_n": 2, "std_min": 1e-3, "truncated": "drop"},
    "no_call": {"effect": "drop"},
    "overlong": {"effect": "drop"},
    "otb": {"handle_zero_tail": False},
    "gae": {"level": "turn"},
    "gigpo": {"mode": "mean_std_norm", "episode_rows": False},
    "flow_grpo": {"statistics": "turns"},
    "arpo": {"sharing": "hard"},
    "step_wise": {"per_step": True},
    "opmd": {"baseline": "logavgexp"},
    "tis": {"level": "sequence", "normalise": True},
    "mis": {"level": "token"},
    "icepop": {"level": "sequence"},
    "rejection": {"over": "token", "measure": "k3", "high": 0.01},
    "rlcr": {"form": "code"},
}
STYLES = pytest.mark.parametrize("options", [{}, STRICT], ids=["defaults", "strict"])


def order_of(size: int) -> Any:
    return ints(np.random.default_rng(5).permutation(size))


def tokens_in(batch: Any, order: Any) -> Any:
    return np.concatenate([np.flatnonzero(batch.trajectory_of_token == n) for n in order])


@STYLES
@pytest.mark.parametrize("name", registry("filter").names())
class TestFilter:
    def test_only_action_tokens_stay_and_everything_that_leaves_has_a_reason(self, name: str, options: Any) -> None:
        batch = mixed_batch()
        filtered = make("filter", name, options.get(name, {})).apply(batch)
        assert not (filtered.in_loss & ~batch.action_mask).any()
        touched = {int(s) for s in batch.sample_of_token[batch.action_mask & ~filtered.in_loss]}
        assert touched | {int(s) for s in np.flatnonzero(~filtered.in_stats)} == set(filtered.reasons)
        assert set(filtered.keep_group) == set(batch.groups)

    def test_padding_changes_nothing(self, name: str, options: Any) -> None:
        batch = mixed_batch()
        plugin = make("filter", name, options.get(name, {}))
        before, after = plugin.apply(batch), plugin.apply(padded(batch))
        assert after.in_loss[padded(batch).action_mask].tolist() == before.in_loss[batch.action_mask].tolist()
        assert after.in_stats.tolist() == before.in_stats.tolist()
        assert after.reasons == before.reasons

    def test_permuting_trajectories_commutes(self, name: str, options: Any) -> None:
        batch = mixed_batch()
        order = order_of(batch.trajectories)
        plugin = make("filter", name, options.get(name, {}))
        moved = plugin.apply(batch.select(order))
        still = batch.with_filter(plugin.apply(batch)).select(order)
        assert moved.in_loss.tolist() == still.in_loss.tolist()
        assert moved.in_stats.tolist() == still.in_stats.tolist()
        assert moved.keep_group == still.keep_group


@STYLES
@pytest.mark.parametrize("name", registry("credit").names())
class TestCredit:
    def test_only_action_tokens_have_an_advantage_and_it_is_a_plain_array(self, name: str, options: Any) -> None:
        batch = rich_batch()
        plugin = make("credit", name, options.get(name, {}))
        advantage = plugin.advantage(batch)
        assert advantage.dtype == np.float64  # numpy: no gradient can flow
        assert advantage.shape == (batch.tokens,)
        assert not advantage[~batch.action_mask].any()
        assert np.abs(advantage).max() > 0
        assert plugin.needs <= set(NEEDS)

    def test_padding_changes_nothing(self, name: str, options: Any) -> None:
        batch = rich_batch()
        plugin = make("credit", name, options.get(name, {}))
        after = plugin.advantage(padded(batch))[padded(batch).action_mask]
        assert after.tolist() == plugin.advantage(batch)[batch.action_mask].tolist()

    def test_permuting_trajectories_commutes(self, name: str, options: Any) -> None:
        batch = rich_batch()
        order = order_of(batch.trajectories)
        plugin = make("credit", name, options.get(name, {}))
        still = plugin.advantage(batch)[tokens_in(batch, order)]
        assert plugin.advantage(batch.select(order)) == pytest.approx(still, abs=1e-9)

    def test_who_is_out_of_the_statistics_changes_nobody_elses_advantage(self, name: str, options: Any) -> None:
        batch = rich(batch_of([1.0, 0.0, 0.0, 1.0, 0.3]))
        left = replace(batch, in_stats=np.array([True] * 4 + [False]))
        four = batch.select(ints([0, 1, 2, 3]))
        plugin = make("credit", name, options.get(name, {}))
        got = plugin.advantage(left)[left.trajectory_of_token < 4]
        assert got.tolist() == pytest.approx(plugin.advantage(four).tolist())

    @pytest.mark.parametrize("rewards", [[0.7], [0.1] * 3, [1.0] * 8, [0.0] * 5])
    def test_group_centred_credit_is_0_for_equal_rewards_and_for_a_group_of_one(
        self, name: str, options: Any, rewards: list[float]
    ) -> None:
        plugin = make("credit", name, options.get(name, {}))
        if plugin.group_centred:
            assert not plugin.advantage(rich(batch_of(rewards))).any()

    def test_a_batch_in_which_nobody_counts_has_finite_advantages(self, name: str, options: Any) -> None:
        batch = replace(rich_batch(), in_stats=np.zeros(7, bool))
        assert np.isfinite(make("credit", name, options.get(name, {})).advantage(batch)).all()


@STYLES
@pytest.mark.parametrize("name", registry("correction").names())
class TestCorrection:
    def test_weights_are_plain_and_touch_action_tokens_alone(self, name: str, options: Any) -> None:
        batch = rich_batch()
        weights, keep = make("correction", name, options.get(name, {})).weights(batch)
        assert weights.dtype == np.float64  # numpy: no gradient can flow
        assert keep.dtype == np.bool_
        assert (weights >= 0.0).all()
        assert (weights[~batch.action_mask] == 1.0).all()
        assert keep[~batch.action_mask].all()

    def test_two_engines_that_agree_are_left_alone(self, name: str, options: Any) -> None:
        batch = rich_batch()
        weights, keep = make("correction", name, options.get(name, {})).weights(
            replace(batch, logprobs=batch.old_logprobs)
        )
        assert (weights == 1.0).all()
        assert keep.all()

    def test_padding_changes_nothing_and_permuting_commutes(self, name: str, options: Any) -> None:
        batch, order = rich_batch(), order_of(7)
        plugin = make("correction", name, options.get(name, {}))
        weights, keep = plugin.weights(batch)
        wide = padded(batch)
        for other, mine, theirs in (
            (wide, np.flatnonzero(batch.action_mask), np.flatnonzero(wide.action_mask)),
            (batch.select(order), tokens_in(batch, order), np.arange(batch.tokens)),
        ):
            w, k = plugin.weights(other)
            assert w[theirs] == pytest.approx(weights[mine])
            assert k[theirs].tolist() == keep[mine].tolist()

    def test_an_unknown_probability_and_an_empty_loss_give_no_nan(self, name: str, options: Any) -> None:
        batch = rich_batch()
        unknown = replace(batch, logprobs=np.full(batch.tokens, np.nan), in_loss=np.zeros(batch.tokens, bool))
        weights, keep = make("correction", name, options.get(name, {})).weights(unknown)
        assert (weights == 1.0).all()
        assert keep.all()


@STYLES
@pytest.mark.parametrize("name", registry("shaping").names())
class TestShaping:
    def test_a_component_is_one_finite_number_a_trajectory_and_commutes_with_everything(
        self, name: str, options: Any
    ) -> None:
        batch, order = mixed_batch(), order_of(7)
        plugin = make("shaping", name, options.get(name, {}))
        component = plugin.component(batch)
        assert component.shape == (7,)
        assert np.isfinite(component).all()
        assert plugin.component(padded(batch)).tolist() == component.tolist()
        assert plugin.component(batch.select(order)).tolist() == component[order].tolist()


@pytest.mark.parametrize("name", registry("sampler").names())
class TestSampler:
    TASKS = (*(f"easy-{n}" for n in range(3)), *(f"hard-{n}" for n in range(3)))

    def round_of(self, sampler: Any, number: int) -> tuple[list[str], list[str]]:
        """(tasks drawn, groups replayed) of one update."""
        drawn = sampler.next(4)
        rows = [
            replace(
                trajectory([ANSWER], reward=float(member % 2 or "easy" in task), group=f"u{number}/{n}", member=member),
                task=f"suite/{task}",
            )
            for n, task in enumerate(drawn)
            for member in range(2)
        ]
        earlier = sampler.replay(rows)
        from agenthub.trainers.batch import build_batch

        batch = build_batch([*rows, *earlier])
        sampler.observe(replace(batch, advantages=np.where(batch.action_mask, 1.0, 0.0)))
        return drawn, [one.group for one in earlier]

    def test_resuming_from_its_state_as_json_equals_going_on(self, name: str) -> None:
        plugin = make("sampler", name, {})
        whole, cut = plugin.start(self.TASKS, 3), plugin.start(self.TASKS, 3)
        expected = [self.round_of(whole, number) for number in range(8)]
        assert [self.round_of(cut, number) for number in range(3)] == expected[:3]
        state = json.loads(json.dumps(cut.state_dict()))
        resumed = plugin.start(self.TASKS, 3)
        resumed.load_state_dict(state)
        assert [self.round_of(resumed, number) for number in range(3, 8)] == expected[3:]

    def test_it_draws_tasks_that_it_was_given_and_as_many_as_asked(self, name: str) -> None:
        sampler = make("sampler", name, {}).start(self.TASKS, 0)
        for number in range(5):
            drawn, _ = self.round_of(sampler, number)
            assert len(drawn) == 4
            assert set(drawn) <= set(self.TASKS)


@pytest.mark.parametrize("name", registry("rollout").names())
class TestRollout:
    def test_it_is_a_function_of_what_it_is_told(self, name: str) -> None:
        plugin, again = make("rollout", name, {}), make("rollout", name, {})
        for update in (1, 100, 101, 10_000):
            assert plugin.horizon(update) == again.horizon(update)
            assert plugin.horizon(update) is None or plugin.horizon(update) >= 1
        for entropy in (0.0, 1.0, 3.0):
            assert 0 <= plugin.roots(8, 1.0, entropy) <= 8
            assert plugin.branches(1.0, entropy, 0) in (True, False)


def test_a_kind_without_a_member_is_not_declared() -> None:
    from agenthub.registry import KINDS

    assert all(kind.names() for kind in KINDS.values())


def test_texts_of_the_fakes_are_what_the_filters_take_them_for() -> None:
    batch = mixed_batch()
    assert {turn.text for turn in batch.turns} == {ANSWER, CODE, PROSE}


def test_the_credit_that_the_guide_shows_keeps_the_contract() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    names: dict[str, Any] = {"np": np, "dataclass": dataclass, "ClassVar": ClassVar, "Batch": Batch, "Doubles": Doubles}
    exec(code, names)
    shown, ours = names["RLOO"](), make("credit", "rloo", {})
    batch = rich(batch_of([0.0, 1.0, 0.5, 1.0]))
    np.testing.assert_allclose(shown.advantage(batch), ours.advantage(batch), atol=1e-12)
    assert not shown.advantage(rich(batch_of([0.1] * 3))).any()
