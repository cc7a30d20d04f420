"""Samplers that choose tasks by how they went."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agenthub.trainers.samplers.uniform import UniformState, by_task
from agenthub.trainers.types import Batch, Doubles

__all__ = ["Dump", "HardFocus", "Limr", "Staged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """Domains as softmax(UCB / tau), UCB_d = mu_d + sqrt(c2 ln(N + 1) / (n_d + 1)); tasks uniformly within.

    mu_d is the mean |advantage| of the domain's last `window` trajectories, n_d all it ever had, N their sum.
    Source: DUMP, arXiv 2504.09710; verl/utils/curriculum_learning.py.
    """

    tau: float = 0.1
    window: int = 300
    c2: float = 2.0
    domain: str = r"^(.*?)[-_/.]*\d*$"
    """Regular expression over a task's id whose first group names its domain."""

    def __post_init__(self) -> None:
        if self.tau <= 0.0 or self.window < 1 or self.c2 < 0.0:
            raise ValueError(f"tau {self.tau}, window {self.window} or c2 {self.c2} is off")
        if re.compile(self.domain).groups < 1:
            raise ValueError(f"domain {self.domain!r} has no group that names the domain")

    def ucb(self, means: Sequence[float], counts: Sequence[int]) -> Doubles:
        """f64[D]"""
        n = np.asarray(counts, np.float64)
        bonus: Doubles = np.sqrt(self.c2 * np.log(n.sum() + 1.0) / (n + 1.0))
        return np.asarray(means, np.float64) + bonus

    def shares(self, means: Sequence[float], counts: Sequence[int]) -> Doubles:
        """f64[D]: sums to 1."""
        scaled = self.ucb(means, counts) / self.tau
        weights: Doubles = np.exp(scaled - scaled.max())
        shares: Doubles = weights / weights.sum()
        return shares

    def start(self, tasks: Sequence[str], seed: int) -> DumpState:
        """A sampler over these tasks."""
        return DumpState(self, tasks, seed)


class DumpState(UniformState):
    """What each domain taught of late."""

    def __init__(self, config: Dump, tasks: Sequence[str], seed: int) -> None:
        super().__init__(tasks, seed)
        self._config = config
        rows: dict[str, list[str]] = {}
        for task in self.tasks:
            rows.setdefault(self._domain(task), []).append(task)
        self._names = sorted(rows)
        self._within = [UniformState(rows[name], seed + place) for place, name in enumerate(self._names)]
        self._recent: list[list[float]] = [[] for _ in self._names]
        self._counts = [0] * len(self._names)

    def _domain(self, task: str) -> str:
        found = re.search(self._config.domain, task)
        return found.group(1) if found else ""

    def next(self, k: int) -> list[str]:
        """Ids of the next `k` tasks."""
        means = [float(np.mean(row)) if row else 0.0 for row in self._recent]
        rng = np.random.default_rng([self.seed, self.drawn])
        self.drawn += k
        chosen = rng.choice(len(self._names), size=k, p=self._config.shares(means, self._counts))
        return [self._within[place].next(1)[0] for place in chosen.tolist()]

    def observe(self, batch: Batch) -> None:
        """Remember each trajectory's mean |advantage|."""
        if batch.advantages is None:
            return
        owner = batch.trajectory_of_token[batch.action_mask]
        sums = np.bincount(owner, np.abs(batch.advantages[batch.action_mask]), minlength=batch.trajectories)
        means = sums / np.maximum(np.bincount(owner, minlength=batch.trajectories), 1)
        for task, rows in by_task(batch).items():
            domain = self._domain(task)
            if domain in self._names:
                place = self._names.index(domain)
                self._counts[place] += len(rows)
                self._recent[place] = [*self._recent[place], *means[rows].tolist()][-self._config.window :]

    def state_dict(self) -> dict[str, Any]:
        """Draws, windows and counts."""
        within = [state.state_dict() for state in self._within]
        return {"drawn": self.drawn, "within": within, "recent": self._recent, "counts": self._counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state)
        for one, row in zip(self._within, state["within"], strict=True):
            one.load_state_dict(row)
        self._recent = [list(map(float, row)) for row in state["recent"]]
        self._counts = list(map(int, state["counts"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """A sampler that plays everything first and then keeps what it measured as worth it."""

    def chosen(self, tasks: Sequence[str], rewards: Mapping[str, list[float]]) -> list[str]:
        """The tasks that go on being played, in the order of `tasks`; all of them while it is still measuring."""
        raise NotImplementedError

    def start(self, tasks: Sequence[str], seed: int) -> MeasuredState:
        """A sampler over these tasks."""
        return MeasuredState(self, tasks, seed)


class MeasuredState(UniformState):
    """Mean outcome of each task at each of its visits."""

    def __init__(self, config: _Measured, tasks: Sequence[str], seed: int) -> None:
        super().__init__(tasks, seed)
        self._config, self._all = config, list(tasks)
        self._rewards: dict[str, list[float]] = {}

    def observe(self, batch: Batch) -> None:
        """Note what each task gave, and choose again."""
        for task, rows in by_task(batch).items():
            self._rewards.setdefault(task, []).append(float(batch.outcomes[rows].mean()))
        self._choose()

    def _choose(self) -> None:
        chosen = self._config.chosen(self._all, self._rewards) or self._all
        if chosen != self.tasks:
            self.tasks, self._pass = chosen, -1

    def state_dict(self) -> dict[str, Any]:
        """Draws and measurements."""
        return {"drawn": self.drawn, "rewards": self._rewards}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state)
        self._rewards = {task: list(map(float, row)) for task, row in state["rewards"].items()}
        self._choose()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limr(_Measured):
    """Tasks whose outcomes over `epochs` visits follow the mean curve of all of them.

    s_i = 1 - sum_k (r_ik - m_k)^2 / sum_k (1 - m_k)^2 >= theta.
    Source: LIMR, arXiv 2502.11886; lim/lim_selection.py.
    """

    epochs: int = 3
    theta: float = 0.6

    def scores(self, rewards: Sequence[Sequence[float]], mean: Sequence[float] | None = None) -> Doubles:
        """f64[tasks]; a task always solved gives 1 where the mean is 1 throughout.

        Args:
            rewards: [tasks][visits]; a visit that is not there, at the end or as a NaN, is as the one before it.
            mean: [visits]; None takes it over the tasks.
        """
        r = np.full((len(rewards), max(map(len, [*rewards, () if mean is None else mean]))), np.nan)
        for row, of_task in zip(r, rewards, strict=True):
            row[: len(of_task)] = of_task
        for visit in range(1, r.shape[1]):
            r[:, visit] = np.where(np.isnan(r[:, visit]), r[:, visit - 1], r[:, visit])
        m = r.mean(axis=0) if mean is None else np.asarray(mean, np.float64)
        room = float(((1.0 - m) ** 2).sum())
        off = ((r - m) ** 2).sum(axis=1)
        return np.where(off == 0.0, 1.0, 1.0 - off / room) if room else np.where(off == 0.0, 1.0, -np.inf)

    def chosen(self, tasks: Sequence[str], rewards: Mapping[str, list[float]]) -> list[str]:
        """Those at or above theta, once each has had its visits."""
        if not all(len(rewards.get(task, ())) >= self.epochs for task in tasks):
            return list(tasks)
        scores = self.scores([rewards[task][: self.epochs] for task in tasks])
        return [task for task, score in zip(tasks, scores.tolist(), strict=True) if score >= self.theta]


@dataclass(frozen=True, slots=True, kw_only=True)
class HardFocus(_Measured):
    """Stage 1 plays everything `visits` times, stage 2 the `share` of tasks with the lowest outcomes.

    Source: DRIVE, arXiv 2511.06307; the share is assumed, and both stages have the recipe's group size.
    """

    visits: int = 1
    share: float = 0.25

    def chosen(self, tasks: Sequence[str], rewards: Mapping[str, list[float]]) -> list[str]:
        """The hardest by their first visits, once each has had them."""
        if not all(len(rewards.get(task, ())) >= self.visits for task in tasks):
            return list(tasks)
        means = [float(np.mean(rewards[task][: self.visits])) for task in tasks]
        size = max(1, int(np.ceil(self.share * len(tasks))))
        hardest = sorted(range(len(tasks)), key=lambda place: (means[place], place))[:size]
        return [tasks[place] for place in sorted(hardest)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """Tasks in `stages` equal parts in the order in which the split lists them, easy to hard, `draws` tasks from each.

    Source: CRAFT-GUI, arXiv 2508.11360; that the split is ordered by difficulty is assumed.
    """

    stages: int = 3
    draws: int = 160
    """Tasks drawn before the next stage; the last one stays."""

    def __post_init__(self) -> None:
        if self.stages < 1 or self.draws < 1:
            raise ValueError(f"stages {self.stages} and draws {self.draws} must be 1 or more")

    def stage(self, drawn: int) -> int:
        """From 0."""
        return min(drawn // self.draws, self.stages - 1)

    def start(self, tasks: Sequence[str], seed: int) -> StagedState:
        """A sampler over these tasks."""
        return StagedState(self, tasks, seed)


class StagedState(UniformState):
    """How far the stages have come."""

    def __init__(self, config: Staged, tasks: Sequence[str], seed: int) -> None:
        super().__init__(tasks, seed)
        self._config = config
        parts = np.array_split(np.arange(len(self.tasks)), min(config.stages, len(self.tasks)))
        self._parts = [UniformState([self.tasks[place] for place in part], seed) for part in parts]

    def next(self, k: int) -> list[str]:
        """Ids of the next `k` tasks."""
        chosen = []
        for _ in range(k):
            stage = min(self._config.stage(self.drawn), len(self._parts) - 1)
            chosen += self._parts[stage].next(1)
            self.drawn += 1
        return chosen

    def state_dict(self) -> dict[str, Any]:
        """Draws, of each stage too."""
        return {"drawn": self.drawn, "parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state)
        for part, row in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(row)
