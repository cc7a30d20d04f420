"""The tiny policy trained over a real vLLM and in this process: the same curve, and parity after every update.

    python benchmarks/vllm_training.py [--quick] [--seeds 0,1,2] [--updates 20] [--out DIR]

One JSON object a line, and a table on the standard error. Each run is `agenthub train` in a process of its own; held
out are 100 questions, 4 samples each, at five points of a run. A point's difference is held against the standard error
of a difference of two means over seeds, its variance pooled over both policies and all points but the first, which no
seed of training moves. `bfloat16` is a short run over a server that computes in it, its parity the mean over tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, variance
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
POINTS = 5
COMMON = ("rollout.groups=8", "rollout.group_size=8", "eval.tasks=100", "eval.k=4", "policy.vllm.retry_s=120")
QUICK = ("rollout.groups=4", "rollout.group_size=4", "eval.tasks=24", "eval.k=1")
BF16_UPDATES = 5


def train(folder: Path, settings: Sequence[str]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl of one run; its output goes to the standard error.

    Raises:
        SystemExit: the run failed, as it does where parity is off by more than its bound.
    """
    flags = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "agenthub", "train", "simpletir", "--out", str(folder), "--replace", *flags]
    done = subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}")
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def curve(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """(updates, success) of each evaluation."""
    return [(int(row["update"]), float(row["eval"]["avg"]["mean"])) for row in rows if "eval" in row]


def parity(rows: Sequence[Mapping[str, Any]]) -> float:
    """The largest error after an update, nats."""
    return max(float(row["parity_error"]) for row in rows if "eval" not in row)


def standard_error(curves: Mapping[str, Sequence[Sequence[float]]]) -> float:
    """Of the difference of two means over seeds; curves are (policy, seed, point), with two seeds or more."""
    spreads = [variance(seen) for runs in curves.values() for seen in list(zip(*runs, strict=True))[1:]]
    seeds = len(next(iter(curves.values())))
    return math.sqrt(fmean(spreads) * 2.0 / seeds)


def emit(case: str, metric: str, value: float, unit: str, **more: object) -> None:
    """Print one row."""
    row = {"bench": "vllm_training", "case": case, "metric": metric, "value": value, "unit": unit, **more}
    print(json.dumps(row), flush=True)


def compare(at: Sequence[int], curves: Mapping[str, Sequence[Sequence[float]]], more: Mapping[str, object]) -> None:
    """The rows of the five points, and the table."""
    error = standard_error(curves) if len(curves["vllm"]) > 1 else math.nan
    print(f"{'updates':>8} {'embedded':>9} {'vllm':>9} {'difference':>11} {'in errors':>10}", file=sys.stderr)
    worst = 0.0
    for point, update in enumerate(at):
        ours, theirs = (fmean(run[point] for run in curves[name]) for name in ("vllm", "embedded"))
        off = abs(ours - theirs) / error if ours != theirs else 0.0
        worst = max(worst, off)
        print(f"{update:>8} {theirs:>9.4f} {ours:>9.4f} {ours - theirs:>11.4f} {off:>10.2f}", file=sys.stderr)
        runs = {name: [round(run[point], 4) for run in seen] for name, seen in curves.items()}
        emit("float32", f"success_{update}", round(ours, 4), "share", peer="embedded", peer_value=theirs, runs=runs)
    if not math.isnan(error):
        emit("float32", "worst_difference", round(worst, 3), "standard errors", standard_error=round(error, 5), **more)


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, five updates, few questions")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--updates", type=int, default=20, help="a multiple of four")
    parser.add_argument("--out", type=Path, help="keep the runs in this folder")
    given = parser.parse_args()
    seeds = [int(seed) for seed in given.seeds.split(",")][: 1 if given.quick else None]
    updates = 4 if given.quick else given.updates
    more: dict[str, object] = {"quick": True} if given.quick else {}
    settings = [*(QUICK if given.quick else COMMON), f"updates={updates}", f"eval.every={updates // (POINTS - 1)}"]
    worst = 0.0
    curves: dict[str, list[list[float]]] = {"vllm": [], "embedded": []}
    at: list[int] = []
    with tempfile.TemporaryDirectory(prefix="agenthub-bench-") as scratch:
        folder: Path = given.out or Path(scratch)
        for seed in seeds:
            for name in curves:
                bound = ["sync_bound=1e-4"] if name == "vllm" else []
                rows = train(folder / f"{name}-{seed}", [*settings, *bound, f"policy.uses={name}", f"seed={seed}"])
                at = [update for update, _ in curve(rows)]
                curves[name].append([success for _, success in curve(rows)])
                worst = max(worst, parity(rows)) if name == "vllm" else worst
        compare(at, curves, more)
        emit("float32", "parity_error", worst, "nats", **more)
        short = [*QUICK, f"updates={BF16_UPDATES}", "eval.every=0", "sync_bound=0.02", "policy.uses=vllm"]
        rows = train(folder / "bfloat16", [*short, "policy.vllm.dtype=bfloat16"])
        emit("bfloat16", "parity_error", parity(rows), "nats", **more)


if __name__ == "__main__":
    main()
