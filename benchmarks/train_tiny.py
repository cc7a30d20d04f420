"""The embedded policy trained over HTTP on really executed code, and two controls that must not learn.

    python benchmarks/train_tiny.py [--quick] [--seeds 0,1,2] [--updates 40] [--out DIR]

One JSON object a line. Each run is `agenthub train` in a process of its own, so that its memory and its start count.
`success_before` and `success_after` are avg@8 on 200 held-out questions; a row's `runs` has them for each seed.
Seconds are means over all updates of all seeds; `peak_mb` is the largest sum of the memory of trainer, hub and
sandboxes at one moment, shared pages counted once. The controls: rewards shuffled inside their groups, and the tools'
output blanked.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
CONTROLS = {"shuffled_rewards": "controls.shuffle_rewards=true", "blank_tools": "controls.blank_tools=true"}
SAMPLE_S = 1.5
"""Seconds between two looks at the memory: one look at hundreds of sandboxes costs tenths of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one training run came to."""

    seed: int
    before: float
    after: float
    updates: list[dict[str, Any]]
    peak_mb: float
    wall_s: float


def train(recipe: str, settings: Sequence[str], out: Path, seed: int) -> Run:
    """One run of `agenthub train`; its output goes to the standard error.

    Raises:
        SystemExit: the run failed.
    """
    flags = [part for setting in (*settings, f"seed={seed}") for part in ("--set", setting)]
    command = [sys.executable, "-m", "agenthub", "train", recipe, "--out", str(out), "--replace", *flags]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, memory_mb(process.pid))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SAMPLE_S)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    scores = [row["eval"]["avg"]["mean"] for row in rows if "eval" in row]
    return Run(
        seed=seed,
        before=scores[0],
        after=scores[-1],
        updates=[row for row in rows if "eval" not in row],
        peak_mb=peak,
        wall_s=time.perf_counter() - started,
    )


def memory_mb(pid: int) -> float:
    """MiB of a process and everything below it; a page that n of them share counts 1/n in each (PSS)."""
    total = 0
    for one in _family(pid):
        try:
            total += _proportional_kb(one)
        except (OSError, ValueError):
            continue  # it has ended, or is not ours to look into
    return total / 1024


def _family(pid: int) -> list[int]:
    try:
        top = psutil.Process(pid)
        return [pid, *(child.pid for child in top.children(recursive=True))]
    except psutil.Error:
        return []


def _proportional_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def emit(case: str, metric: str, value: float, unit: str, **more: object) -> None:
    """Print one row."""
    row = {"bench": "train_tiny", "case": case, "metric": metric, "value": round(value, 4), "unit": unit, **more}
    print(json.dumps(row), flush=True)


def report(case: str, runs: Sequence[Run], **more: object) -> None:
    """The rows of the case that learns."""
    rows = [row for run in runs for row in run.updates]
    emit(case, "success_before", fmean(run.before for run in runs), "share", runs=[r.before for r in runs], **more)
    emit(case, "success_after", fmean(run.after for run in runs), "share", runs=[r.after for r in runs], **more)
    emit(case, "success_after_lowest", min(run.after for run in runs), "share", **more)
    emit(case, "updates", len(runs[0].updates), "count", **more)
    emit(case, "seconds_per_update", fmean(sum(row["seconds"].values()) for row in rows), "s", **more)
    for stage in ("rollout", "environment", "update", "sync"):
        emit(case, f"{stage}_seconds", fmean(row["seconds"][stage] for row in rows), "s", **more)
    emit(case, "wall_seconds", fmean(run.wall_s for run in runs), "s", **more)
    emit(case, "peak_mb", max(run.peak_mb for run in runs), "MiB", **more)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="one seed, few updates, few questions")
    parser.add_argument("--seeds", default="0,1,2", help="of the case that learns; the controls take the first")
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--out", type=Path, help="keep the runs in this folder")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")][: 1 if options.quick else None]
    updates = 6 if options.quick else options.updates
    settings = [f"updates={updates}", *(["eval.tasks=50", "eval.k=4"] if options.quick else [])]
    more: dict[str, object] = {"quick": True} if options.quick else {}
    with tempfile.TemporaryDirectory(prefix="agenthub-bench-") as scratch:
        folder: Path = options.out or Path(scratch)
        runs = [train("grpo", settings, folder / f"grpo-{seed}", seed) for seed in seeds]
        report("grpo", runs, **more)
        for case, control in CONTROLS.items():
            few = ["updates=2"] if options.quick else []
            run = train("grpo", [*settings, *few, control], folder / case, seeds[0])
            emit(case, "success_before", run.before, "share", **more)
            emit(case, "success_after", run.after, "share", **more)


if __name__ == "__main__":
    main()
