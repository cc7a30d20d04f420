"""Credit from forked episodes and from critics, against numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agenthub.trainers.credit import ARPO, GAE, Polychromic, TurnValueByFork
from agenthub.trainers.critic import Critic, CriticConfig
from agenthub.trainers.types import Batch, Doubles
from tests.golden.batches import Row, flat


def by_turn(batch: Batch, advantage: Doubles) -> list[list[float]]:
    """Each trajectory's turns, of a token each."""
    return [advantage[batch.trajectory_of_token == n].tolist() for n in range(batch.trajectories)]


def three(reward: float, fork_turn: int = -1, parent: int = -1) -> Row:
    return Row(mask=[1, 1, 1], turn=[0, 1, 2], reward=reward, fork_turn=fork_turn, parent=parent)


def test_a_turns_value_is_what_the_other_continuations_of_its_state_got() -> None:
    # Root 0 and two forks of it before turn 1; root 3 is another one.
    batch = flat([three(1.0), three(0.0, fork_turn=1, parent=0), three(1.0, fork_turn=1, parent=0), three(0.0)])
    got = by_turn(batch, TurnValueByFork().advantage(batch))
    # Before turn 0 of trajectory 0: the other root's 0. Before turn 1: the mean of 0 and 1. After: its own 1.
    assert got[0] == pytest.approx([0.5, 0.5, 0.5])
    # Its first turn is its parent's; before turn 1 the others got 1 and 1.
    assert got[1] == pytest.approx([0.0, -1.0, -1.0])
    # The others got 1 and 0.
    assert got[2] == pytest.approx([0.0, 0.5, 0.5])
    # Never forked: its return against the other root's.
    assert got[3] == pytest.approx([-1.0] * 3)


def test_hard_sharing_gives_a_shared_turn_the_mean_of_its_branches() -> None:
    batch = flat([three(1.0), three(0.0, fork_turn=2, parent=0), three(0.0)])
    soft = by_turn(batch, ARPO().advantage(batch))
    hard = by_turn(batch, ARPO(sharing="hard").advantage(batch))
    assert soft[0] == pytest.approx([1.1547] * 3, abs=1e-4)
    shared = (soft[0][0] + soft[1][0]) / 2
    assert hard[0] == pytest.approx([shared, shared, soft[0][2]])
    assert hard[1] == pytest.approx([shared, shared, soft[1][2]])
    assert hard[2] == pytest.approx(soft[2])


def test_sets_of_unlike_members_are_worth_more() -> None:
    texts = ["a", "a", "b"]
    batch = flat([Row(reward=1.0, texts=[text]) for text in texts])
    # Pairs: aa 1/2, ab 1, ab 1; their mean 5/6. Members: (1/2 + 1) / 2, the same, 1.
    got = [row[0] for row in by_turn(batch, Polychromic(k=2).advantage(batch))]
    assert got == pytest.approx([0.75 - 5 / 6, 0.75 - 5 / 6, 1 - 5 / 6])


@given(lam=st.floats(0, 1), gamma=st.floats(0.5, 1), level=st.sampled_from(["token", "turn"]))
def test_gae_is_the_discounted_sum_of_its_residuals_over_action_tokens_alone(
    lam: float, gamma: float, level: str
) -> None:
    values = [0.3, 9.0, -0.2, 0.5]
    batch = flat(
        [
            Row(mask=[1, 0, 1, 1], turn=[0, 1, 1, 2], turn_rewards=[0.1, 0.0, 0.0], reward=1.1, outcome=1.0,
                scores={"values": values})
        ]
    )  # fmt: skip
    v, r = [0.3, -0.2, 0.5, 0.0], [0.1, 0.0, 1.0]
    delta = [r[k] + gamma * v[k + 1] - v[k] for k in range(3)]
    expected = [sum((gamma * lam) ** (j - k) * delta[j] for j in range(k, 3)) for k in range(3)]
    plugin = GAE(lam=lam, gamma=gamma, level=level, normalise=False)
    got = plugin.advantage(batch)
    assert got[[0, 2, 3]].tolist() == pytest.approx(expected)
    assert got[1] == 0.0
    assert plugin.returns(batch)[[0, 2, 3]].tolist() == pytest.approx(
        [a + b for a, b in zip(expected, v, strict=False)]
    )


def test_turns_of_several_tokens_share_the_value_before_the_first() -> None:
    batch = flat([Row(mask=[1, 1], reward=1.0, scores={"values": [0.25, 7.0]})])
    assert GAE(level="turn", normalise=False).advantage(batch).tolist() == [0.75, 0.75]


def test_a_critic_learns_what_follows_from_its_states() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(64, 5)
    returns = (hidden @ torch.tensor([1.0, -1.0, 0.5, 0.0, 0.2])).double().numpy()
    critic = Critic(5, CriticConfig(lr=0.1, steps=20, clip=None), torch.device("cpu"))
    assert not critic.values(hidden).any()
    errors = []
    for _ in range(10):
        critic.values(hidden)
        errors.append(critic.fit(returns, np.ones(64, bool)))
    assert errors[-1] < 0.01 * errors[0]


def test_a_bound_keeps_a_critics_values_near_what_they_were() -> None:
    hidden, ends = torch.ones(4, 1), []
    for clip in (0.2, None):
        critic = Critic(1, CriticConfig(lr=0.05, steps=50, clip=clip), torch.device("cpu"))
        critic.values(hidden)
        critic.fit(np.full(4, 10.0), np.ones(4, bool))
        ends.append(float(critic.values(hidden)[0]))
    # Beyond the bound there is no gradient, and the optimiser's momentum runs out.
    assert 0.2 < ends[0] < ends[1] / 2
