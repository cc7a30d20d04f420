"""What came out of a comparison: curves with their spread over seeds, and a row for each method."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agenthub.trainers.compare.plan import Plan
from agenthub.trainers.compare.runs import State, Status, status_of
from agenthub.trainers.plots import Band
from agenthub.trainers.report import RunData, read_metrics

__all__ = ["CURVES", "Column", "Compared", "Curve", "Spread", "columns", "compared"]

LAST_SHARE = 0.25
"""Columns that say `late` are means over this last part of the updates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A quantity over the updates."""

    title: str
    key: str
    of: Callable[[Mapping[str, Any]], float | None]
    y_range: tuple[float, float] | None = None


def _key(name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda row: None if row.get(name) is None else float(row[name])


def _seconds(row: Mapping[str, Any]) -> float:
    return float(sum(row["seconds"].values()))


CURVES = (
    Curve(title="Success of what was played", key="success", of=_key("success"), y_range=(0, 1)),
    Curve(title="Gradient norm before clipping", key="grad_norm", of=_key("grad_norm")),
    Curve(title="Void trajectories", key="void_rate", of=_key("void_rate"), y_range=(0, 1)),
    Curve(title="Entropy, nats a token", key="entropy", of=_key("entropy")),
    Curve(title="Sampled tokens", key="tokens", of=_key("tokens")),
    Curve(title="Seconds", key="seconds", of=_seconds),
)


@dataclass(frozen=True, slots=True)
class Spread:
    """A number over seeds."""

    mean: float
    deviation: float
    """Of the seeds, unbiased; 0.0 where there is one."""
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None where there is no value."""
        found = [value for value in values if math.isfinite(value)]
        if not found:
            return None
        return cls(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else 0.0, len(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the table."""

    title: str
    key: str
    digits: int
    of: Callable[[RunData], float | None]
    """Of one run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A comparison as far as it is."""

    plan: Plan
    statuses: tuple[Status, ...]
    runs: Mapping[str, tuple[RunData, ...]]
    """Of each arm, the runs that are done, by seed."""

    def curve(self, arm: str, curve: Curve) -> Band:
        """Mean over seeds with the lowest and the highest, at the updates that every run of the arm has."""
        rows: dict[int, list[float]] = {}
        for run in self.runs[arm]:
            for update in run.updates:
                value = curve.of(update)
                if value is not None:
                    rows.setdefault(int(update["update"]), []).append(value)
        whole = sorted(update for update, values in rows.items() if len(values) == len(self.runs[arm]))
        return Band(
            name=arm,
            x=whole,
            y=[statistics.fmean(rows[update]) for update in whole],
            low=[min(rows[update]) for update in whole],
            high=[max(rows[update]) for update in whole],
        )

    def over_tokens(self, arm: str) -> Band:
        """Success of what was played, over thousand tokens sampled so far (mean over seeds at each update)."""
        success = self.curve(arm, CURVES[0])
        sums: dict[int, list[float]] = {}
        for run in self.runs[arm]:
            for update, total in zip(run.updates, itertools.accumulate(_tokens(run)), strict=True):
                sums.setdefault(int(update["update"]), []).append(total / 1000)
        return replace(success, x=[statistics.fmean(sums[int(update)]) for update in success.x])

    def least_tokens(self) -> float:
        """The fewest tokens that a run sampled for training: what all methods had."""
        totals = [sum(_tokens(run)) for runs in self.runs.values() for run in runs]
        return min(totals, default=0.0)

    def held_out(self, arm: str) -> Band:
        """The evaluations in the same form."""
        rows: dict[int, list[float]] = {}
        for run in self.runs[arm]:
            for one in run.evaluations:
                rows.setdefault(int(one["update"]), []).append(float(one["eval"]["avg"]["mean"]))
        x = sorted(rows)
        means = [statistics.fmean(rows[update]) for update in x]
        return Band(name=arm, x=x, y=means, low=[min(rows[u]) for u in x], high=[max(rows[u]) for u in x])

    def cell(self, arm: str, column: Column) -> Spread | None:
        """A cell of the table; None where no run of the arm has a value."""
        values = [column.of(run) for run in self.runs[arm]]
        return Spread.of([value for value in values if value is not None])

    def failed(self) -> list[Status]:
        """The runs that failed."""
        return [status for status in self.statuses if status.state is State.FAILED]

    def waiting(self) -> int:
        """Runs that are still to be done."""
        return sum(status.state is State.WAITING for status in self.statuses)


def compared(plan: Plan, out: Path) -> Compared:
    """Read what is there of a comparison."""
    statuses = tuple(status_of(out, run) for run in plan.runs())
    runs: dict[str, tuple[RunData, ...]] = {arm.name: () for arm in plan.arms}
    for status in sorted(statuses, key=lambda one: one.run.seed):
        if status.state is State.DONE:
            runs[status.run.arm] = (*runs[status.run.arm], read_metrics(status.path))
    return Compared(plan=plan, statuses=statuses, runs=runs)


def _evaluation(place: int) -> Callable[[RunData], float | None]:
    def of(run: RunData) -> float | None:
        return float(run.evaluations[place]["eval"]["avg"]["mean"]) if run.evaluations else None

    return of


def _gain(run: RunData) -> float | None:
    before, after = _evaluation(0)(run), _evaluation(-1)(run)
    return None if before is None or after is None else after - before


def _late(name: str) -> Callable[[RunData], float | None]:
    def of(run: RunData) -> float | None:
        rows = run.updates[-max(1, round(len(run.updates) * LAST_SHARE)) :]
        values = [float(row[name]) for row in rows if row.get(name) is not None]
        return statistics.fmean(values) if values else None

    return of


def _tokens(run: RunData) -> list[float]:
    return [float(row.get("tokens") or 0.0) for row in run.updates]


def _late_within(tokens: float) -> Callable[[RunData], float | None]:
    """Success late among the updates that were done before so many tokens were sampled."""

    def of(run: RunData) -> float | None:
        sums = itertools.accumulate(_tokens(run))
        within = [row for row, total in zip(run.updates, sums, strict=True) if total <= tokens]
        return _late("success")(replace(run, updates=within)) if within else None

    return of


def _over(name: str, how: Callable[[list[float]], float]) -> Callable[[RunData], float | None]:
    def of(run: RunData) -> float | None:
        values = [float(row[name]) for row in run.updates if row.get(name) is not None]
        return how(values) if values else None

    return of


def _wall(run: RunData) -> float | None:
    return sum(map(_seconds, run.updates)) if run.updates else None


def columns(held_out: bool, tokens: float) -> list[Column]:
    """The columns of the table.

    Args:
        tokens: `Compared.least_tokens`.
    """
    evaluated = [
        Column(title="held out, before", key="before", digits=3, of=_evaluation(0)),
        Column(title="held out, after", key="after", digits=3, of=_evaluation(-1)),
        Column(title="gain", key="gain", digits=3, of=_gain),
    ]
    return [
        *(evaluated if held_out else []),
        Column(title="success, late", key="success", digits=3, of=_late("success")),
        Column(title="success, same tokens", key="success_same_tokens", digits=3, of=_late_within(tokens)),
        Column(title="gradient norm", key="grad_norm", digits=3, of=_over("grad_norm", statistics.fmean)),
        Column(title="its highest", key="grad_norm_max", digits=2, of=_over("grad_norm", max)),
        Column(title="void, late", key="void_rate", digits=3, of=_late("void_rate")),
        Column(title="entropy, late", key="entropy", digits=3, of=_late("entropy")),
        Column(title="thousand tokens", key="tokens", digits=0, of=_over("tokens", lambda row: sum(row) / 1000)),
        Column(title="seconds", key="seconds", digits=0, of=_wall),
    ]
