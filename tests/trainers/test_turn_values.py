"""Turn values by forking on a game whose policy gradient is known.

The expectation is taken over every outcome there is, so that an estimator is unbiased to rounding or it is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product

import numpy as np
import pytest

from agenthub.trainers.credit import TurnValueByFork
from agenthub.trainers.filters import NoFilter, apply
from agenthub.trainers.types import Batch, Doubles
from tests.golden.batches import Row, flat

TURNS = 3
ROOTS = 2
State = tuple[int, ...]
Actions = tuple[int, ...]


def chance(state: State) -> float:
    """Of action 1 after the actions `state`; no two states agree."""
    return 0.2 + 0.6 * ((7 * len(state) + 3 * sum((1 << i) * a for i, a in enumerate(state))) % 11) / 11


def worth(actions: Actions) -> float:
    """Of an episode: what a turn is worth depends on the others."""
    first, second, third = actions
    return 1.0 * first + 2.0 * second * third - 1.5 * (first ^ third) + 0.25


def likelihood(actions: Actions, begin: int = 0) -> float:
    """Of the actions from turn `begin` on, given those before."""
    return math.prod(
        (chance(actions[:t]) if actions[t] else 1 - chance(actions[:t]) for t in range(begin, TURNS)), start=1.0
    )


def states() -> list[State]:
    return [state for turn in range(TURNS) for state in product((0, 1), repeat=turn)]


@cache
def gradient() -> tuple[float, ...]:
    """Of the expected worth, by the logit of action 1 in each state."""
    out = dict.fromkeys(states(), 0.0)
    for actions in product((0, 1), repeat=TURNS):
        for turn in range(TURNS):
            score = actions[turn] - chance(actions[:turn])
            out[actions[:turn]] += likelihood(actions) * worth(actions) * score
    return tuple(out.values())


def groups() -> Iterator[tuple[float, list[Row], list[Actions]]]:
    """Every group of two roots, the first forked once before its second and once before its third turn."""
    for one, two, early, late in product(
        product((0, 1), repeat=3), product((0, 1), repeat=3), product((0, 1), repeat=2), (0, 1)
    ):
        copies: list[tuple[int, Actions]] = [(1, (one[0], *early)), (2, (*one[:2], late))]
        chance_of = likelihood(one) * likelihood(two)
        chance_of *= likelihood(copies[0][1], 1) * likelihood(copies[1][1], 2)
        rows = [_row(one), _row(two), *(_row(actions, turn, 0) for turn, actions in copies)]
        yield chance_of, rows, [one, two, *(actions for _, actions in copies)]


def _row(actions: Actions, fork_turn: int = -1, parent: int = -1) -> Row:
    return Row(mask=[1] * TURNS, turn=list(range(TURNS)), reward=worth(actions), fork_turn=fork_turn, parent=parent)


def expected(credit: TurnValueByFork, *, mutate: bool = False) -> Doubles:
    """The expectation of the estimate: over the trained turns, advantage times the score of the turn's action."""
    names = states()
    total = np.zeros(len(names))
    weight = 0.0
    for chance_of, rows, played in groups():
        batch = flat(rows)
        advantage = credit.advantage(batch)
        trained = batch.action_mask if mutate else apply(NoFilter(), credit, batch).in_loss
        total += chance_of * _estimate(batch, np.where(trained, advantage, 0.0), played, names)
        weight += chance_of
    assert weight == pytest.approx(1.0)
    return total / ROOTS


def _estimate(batch: Batch, advantage: Doubles, played: Sequence[Actions], names: Sequence[State]) -> Doubles:
    out = np.zeros(len(names))
    for token, value in enumerate(advantage.tolist()):
        actions, turn = played[int(batch.trajectory_of_token[token])], token % TURNS
        out[names.index(actions[:turn])] += value * (actions[turn] - chance(actions[:turn]))
    return out


@pytest.mark.parametrize("train", ["roots", "all"])
def test_the_expected_estimate_is_the_policy_gradient(train: str) -> None:
    assert expected(TurnValueByFork(train=train)) == pytest.approx(np.array(gradient()), abs=1e-12)


def test_forked_episodes_that_train_as_if_they_were_roots_bias_it() -> None:
    """Late turns, of which there are more samples, would weigh more."""
    wrong = expected(TurnValueByFork(train="roots"), mutate=True)
    assert np.abs(wrong - np.array(gradient())).max() > 1e-2


def test_the_expected_advantage_of_a_turn_is_that_of_its_action() -> None:
    """By the forked root's first action: the value of the state that it leads to, less that of the first state."""
    credit = TurnValueByFork()
    got: dict[int, float] = {0: 0.0, 1: 0.0}
    for chance_of, rows, played in groups():
        got[played[0][0]] += chance_of * float(credit.advantage(flat(rows))[0])
    every = [(actions, likelihood(actions) * worth(actions)) for actions in product((0, 1), repeat=TURNS)]
    value = sum(share for _, share in every)
    for action in (0, 1):
        of_action = chance(()) if action else 1 - chance(())
        q = sum(share for actions, share in every if actions[0] == action) / of_action
        assert got[action] / of_action == pytest.approx(q - value, abs=1e-12)
