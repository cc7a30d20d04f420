"""Trajectories to a Batch: which turns share a token run, and which tokens the policy sampled.

Credit goes to turns, not to rows: a context that does not extend the last one (thinking stripped by a template, a
planner with its own memory) opens the next Sample of the same trajectory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agenthub.errors import UserError
from agenthub.records import Finish, Generation, Ints, Observation, Text, Trajectory, Turn, floats, ints
from agenthub.trainers.types import Batch, Sample, Scores, TurnFacts

__all__ = ["build_batch", "samples_of", "solved", "turn_facts"]


def solved(trajectory: Trajectory) -> bool:
    """True where the verifier's outcome is full."""
    return trajectory.rewards.get("outcome", 0.0) >= 1.0 - 1e-6


def turn_facts(turn: Turn, anchor: str = "") -> TurnFacts:
    """The facts of one turn; `anchor` is what was shown before it."""
    return TurnFacts(
        text=turn.text,
        calls=len(turn.calls),
        answered=turn.answer is not None,
        parse_error=turn.parse_error is not None,
        failed_calls=sum(observation.failed for observation in turn.observations),
        observed=any(observation.call_id for observation in turn.observations),
        finish=turn.generation.finish if turn.generation else Finish.STOP,
        anchor=anchor,
    )


def _facts_of(trajectory: Trajectory) -> Iterator[TurnFacts]:
    anchor = trajectory.task
    for turn in trajectory.turns:
        yield turn_facts(turn, anchor)
        anchor = _shown(turn.observations) or anchor


def _shown(observations: Sequence[Observation]) -> str:
    """All that the observations show as one text, with the hash of what is no text or was cut."""
    return "\n".join(
        f"{observation.failed} {observation.sha256} "
        + "".join(part.text if isinstance(part, Text) else part.sha256 for part in observation.parts)
        for observation in observations
    )


@dataclass
class _Run:
    """A sample in the making."""

    policy: str
    pieces: list[Ints] = field(default_factory=list)
    lengths: list[tuple[int, int, int]] = field(default_factory=list)
    """(turn, new prompt tokens, action tokens) of each turn."""
    generations: list[Generation] = field(default_factory=list)

    def extends(self, prompt_ids: Ints) -> int | None:
        """Length of the run so far where `prompt_ids` starts with it, else None."""
        context = np.concatenate(self.pieces)
        size = context.shape[0]
        fits = prompt_ids.shape[0] >= size and np.array_equal(prompt_ids[:size], context)
        return size if fits else None

    def add(self, turn: int, generation: Generation, known: int) -> None:
        """Append the prompt's ids from `known` on, and the sampled ids."""
        self.pieces += [generation.prompt_ids[known:], generation.ids]
        self.lengths.append((turn, generation.prompt_ids.shape[0] - known, generation.ids.shape[0]))
        self.generations.append(generation)

    def sample(self, trajectory: int, group: str) -> Sample:
        """The finished sample."""
        mask, turn_of_token, logprobs, versions = [], [], [], []
        for (turn, prompt, action), generation in zip(self.lengths, self.generations, strict=True):
            mask += [np.zeros(prompt, bool), np.ones(action, bool)]
            turn_of_token.append(np.full(prompt + action, turn, np.int32))
            logprobs += [np.zeros(prompt, np.float32), generation.logprobs]
            versions += [np.full(prompt, -1, np.int32), _versions(generation)]
        return Sample(
            ids=ints(np.concatenate(self.pieces)),
            action_mask=np.concatenate(mask),
            turn_of_token=np.concatenate(turn_of_token),
            logprobs=np.concatenate(logprobs),
            versions=np.concatenate(versions),
            trajectory=trajectory,
            group=group,
            policy=self.policy,
            entropies=self._entropies(),
        )

    def _entropies(self) -> NDArray[np.float64] | None:
        """0 off the action tokens; None where a generation does not tell its own."""
        rows: list[NDArray[Any]] = []
        for (_, prompt, _action), generation in zip(self.lengths, self.generations, strict=True):
            if generation.entropies is None:
                return None
            rows += [np.zeros(prompt), generation.entropies]
        return np.concatenate(rows)


def _versions(generation: Generation) -> Ints:
    row = np.empty(generation.ids.shape[0], np.int32)
    for offset, version in generation.versions:
        row[offset:] = version
    return row


def samples_of(trajectory: Trajectory, *, number: int = 0, policies: Collection[str] | None = None) -> list[Sample]:
    """The samples of one trajectory, in the order in which they begin.

    Args:
        number: index of the trajectory in its batch.
        policies: names of the policies that train; None is all of them.

    Raises:
        UserError: a turn has no generation, or a prompt is empty, so that its first token has no probability.
    """
    runs: list[_Run] = []
    last: dict[str, _Run] = {}
    for turn in trajectory.turns:
        generation = turn.generation
        where = f"trajectory {trajectory.task} member {trajectory.member}, turn {turn.index}"
        if generation is None:
            raise UserError(f"{where} has no generation; only turns whose tokens are known can train")
        if policies is not None and generation.policy not in policies:
            continue
        if not generation.prompt_ids.shape[0]:
            raise UserError(f"{where} has an empty prompt")
        run = last.get(generation.policy)
        known = run.extends(generation.prompt_ids) if run else None
        if run is None or known is None:
            run, known = _Run(generation.policy), 0
            runs.append(run)
            last[generation.policy] = run
        run.add(turn.index, generation, known)
    return [run.sample(number, trajectory.group) for run in runs]


def build_batch(trajectories: Sequence[Trajectory], *, policies: Collection[str] | None = None) -> Batch:
    """The batch of these trajectories; one that no trained policy took part in has no sample but counts in its group.

    Raises:
        UserError: there is none, one carries no reward, or a turn lacks its tokens.
    """
    if not trajectories:
        raise UserError("no trajectory to train on")
    samples: list[Sample] = []
    for number, trajectory in enumerate(trajectories):
        if trajectory.reward is None:
            raise UserError(f"trajectory {trajectory.task} member {trajectory.member} carries no reward")
        samples += samples_of(trajectory, number=number, policies=policies)
    return _flat(trajectories, samples)


def _flat(trajectories: Sequence[Trajectory], samples: Sequence[Sample]) -> Batch:
    names = tuple(dict.fromkeys(trajectory.group for trajectory in trajectories))
    place = {name: number for number, name in enumerate(names)}
    turn_counts = [len(trajectory.turns) for trajectory in trajectories]
    first_turn = np.concatenate([[0], np.cumsum(turn_counts)[:-1]]).astype(np.int32)
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    entropies = [s.entropies for s in samples if s.entropies is not None]
    mask = np.concatenate([s.action_mask for s in samples] or [np.empty(0, bool)])
    logprobs = floats(np.concatenate([s.logprobs for s in samples] or [np.empty(0, np.float32)]))
    batch = Batch(
        ids=_joined([s.ids for s in samples]),
        action_mask=mask,
        sample_of_token=np.repeat(np.arange(len(samples), dtype=np.int32), [s.ids.shape[0] for s in samples]),
        turn_of_token=_joined([first_turn[s.trajectory] + s.turn_of_token for s in samples]),
        logprobs=logprobs,
        versions=_joined([s.versions for s in samples]),
        trajectory_of_sample=np.array([s.trajectory for s in samples], np.int32),
        policy_of_sample=tuple(s.policy for s in samples),
        trajectory_of_turn=np.repeat(np.arange(len(trajectories), dtype=np.int32), turn_counts),
        turns=tuple(facts for trajectory in trajectories for facts in _facts_of(trajectory)),
        turn_rewards=np.array([turn.reward - turn.rewards.get("outcome", 0.0) for turn in turns], np.float64),
        groups=names,
        group_of_trajectory=np.array([place[trajectory.group] for trajectory in trajectories], np.int32),
        rewards=np.array([trajectory.reward for trajectory in trajectories], np.float64),
        outcomes=np.array([t.rewards.get("outcome", 0.0) for t in trajectories], np.float64),
        truncated=np.array([trajectory.stop.truncated for trajectory in trajectories], bool),
        in_loss=mask,
        in_stats=np.ones(len(samples), bool),
        old_logprobs=logprobs,
        tasks=tuple(trajectory.task for trajectory in trajectories),
        roles=tuple(str(trajectory.metadata.get("role", "")) for trajectory in trajectories),
        fork_turn=np.array([-1 if t.fork_turn is None else t.fork_turn for t in trajectories], np.int32),
        parent=np.array([_parent_of(trajectory, trajectories) for trajectory in trajectories], np.int32),
        scores=Scores(entropies=np.concatenate(entropies) if samples and len(entropies) == len(samples) else None),
        peers=np.zeros(len(trajectories), np.int32),
        peers_solved=np.zeros(len(trajectories), np.int32),
    )
    return batch.with_peers()


def _parent_of(child: Trajectory, trajectories: Sequence[Trajectory]) -> int:
    """The trajectory of the same group whose first turns the child shares; -1 where it was not forked or there is none.

    Of several, the one that the child names (`group[member]`), else the one that was forked least deeply.
    """
    shared = child.fork_turn
    if shared is None:
        return -1
    fits = [
        (f"{other.group}[{other.member}]" != child.parent, -1 if other.fork_turn is None else other.fork_turn, number)
        for number, other in enumerate(trajectories)
        if other.group == child.group
        and other is not child
        and (-1 if other.fork_turn is None else other.fork_turn) < shared
        and len(other.turns) >= shared
        and all(_same(a, b) for a, b in zip(other.turns[:shared], child.turns[:shared], strict=True))
    ]
    return min(fits, default=(True, -1, -1))[2]


def _same(one: Turn, other: Turn) -> bool:
    a, b = one.generation, other.generation
    return (
        a is not None and b is not None and np.array_equal(a.prompt_ids, b.prompt_ids) and np.array_equal(a.ids, b.ids)
    )


def _joined(arrays: Sequence[Ints]) -> Ints:
    return np.concatenate([*arrays, np.empty(0, np.int32)]).astype(np.int32)
