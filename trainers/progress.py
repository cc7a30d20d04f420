"""What a run shows on the terminal: a line for each update, a line for each evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from agenthub.trainers.evaluate import Evaluation, Interval

__all__ = ["Terminal", "evaluation_text", "update_line"]

STAGES = ("rollout", "environment", "update", "sync")


def update_line(row: Mapping[str, Any], updates: int) -> str:
    """One line of metrics.jsonl for a person."""
    seconds: Mapping[str, float] = row["seconds"]
    split = " ".join(f"{stage} {seconds.get(stage, 0.0):.2f}" for stage in STAGES)
    dropped = ", ".join(f"{count} {reason}" for reason, count in row["dropped"].items())
    width = len(str(updates))
    return (
        f"update {row['update']:>{width}}/{updates}  {_played(row)}  "
        f"void {row['void_rate'] or 0.0:.3f}  kept {row['kept']}{f' dropped {dropped}' if dropped else ''}  "
        f"infra_fault {row['replayed']} env_fault {row['dropped'].get('env_fault', 0)}  "
        f"grad {row['grad_norm']:.3f}  entropy {row['entropy']:.3f}  {row['tokens_per_s']:.0f} tok/s  "
        f"{sum(seconds.values()):.2f} s ({split})"
    )


def _played(row: Mapping[str, Any]) -> str:
    """Success and reward of what the policy played; experts' tokens where there are any."""
    experts: Mapping[str, int] = row.get("experts", {})
    shown = f"experts {experts['trajectories']} ({experts['tokens']} tok)" if experts else ""
    if row["success"] is None:
        return shown
    return f"success {row['success']:.3f}  reward {row['reward']:.3f}{f'  {shown}' if shown else ''}"


def evaluation_text(evaluation: Evaluation) -> str:
    """An evaluation for a person."""
    best = max(evaluation.pass_at, default=1)
    shown = f"avg@{evaluation.k} {_interval(evaluation.avg)}"
    if best > 1:
        shown += f"  pass@{best} {_interval(evaluation.pass_at[best])}"
    faults = f"infra_fault {evaluation.replayed} env_fault {evaluation.unscored}"
    return f"{shown}  {len(evaluation.solved)} tasks  {faults}"


def _interval(interval: Interval) -> str:
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


class Terminal:
    """A reporter that prints."""

    def __init__(self, updates: int, console: Console | None = None) -> None:
        self._updates, self._console = updates, console or Console(highlight=False, soft_wrap=True)
        self._first: Evaluation | None = None

    def note(self, text: str) -> None:
        """Something a person should know."""
        self._print(text)

    def update(self, row: Mapping[str, Any]) -> None:
        """An update is done."""
        self._print(update_line(row, self._updates))
        if row["skipped"]:
            self._print(f"  {row['skipped']} of its steps were skipped: the gradient was not finite")

    def evaluation(self, update: int, evaluation: Evaluation) -> None:
        """An evaluation is done."""
        self._print(f"held out after {update} updates: {evaluation_text(evaluation)}")
        if self._first is None:
            self._first = evaluation
        elif update == self._updates:
            self._print(f"before {self._first.avg.mean:.3f}, after {evaluation.avg.mean:.3f}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False)
