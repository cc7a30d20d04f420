"""Why void turns are filtered: what they do to the gradient, and what the filter does to a run. Measured and plotted.

    python benchmarks/void_mechanism.py [--quick] [--seeds 0,1,2] [--updates 30] [--out runs/void_mechanism]

One JSON object a line, and `void_mechanism.html` in the folder. Two parts:

probe   Episodes of the untrained policy, with the tools' output and with it blanked (feedback it has never seen). For
        each trajectory alone, at the same advantage of -1: the gradient norm of the token sum and of the token mean,
        and the share of its tokens below e^-5. Void trajectories against the others.
filter  Training with the filter and with its gate alone (`effect: none`), same seeds. What came out is what is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from train_tiny import Run, train  # noqa: E402 - the folder must be on the path first

from agenthub.policies.embedded import EmbeddedPolicy  # noqa: E402
from agenthub.policy import Sampling  # noqa: E402
from agenthub.records import Trajectory, floats, ints  # noqa: E402
from agenthub.rollout import Collector, Play  # noqa: E402
from agenthub.trainers.batch import build_batch  # noqa: E402
from agenthub.trainers.config import load_recipe  # noqa: E402
from agenthub.trainers.filters import void_trajectories  # noqa: E402
from agenthub.trainers.hub import hub_of, protocol_of, task_ids  # noqa: E402
from agenthub.trainers.learner import Learner  # noqa: E402
from agenthub.trainers.losses import PPO  # noqa: E402
from agenthub.trainers.plots import COLOURS, Series, bars, line_plot  # noqa: E402
from agenthub.trainers.run import Models, load_models, renderer_for  # noqa: E402

LOW = -5.0
"""Log-probability below which a token counts as unlikely."""
ARMS = {"filter_on": "filter.args.effect=trajectory", "filter_off": "filter.args.effect=none"}
METRICS = ("grad_norm_sum", "grad_norm_mean", "low_share", "tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """One trajectory's numbers."""

    void: bool
    values: dict[str, float]
    """By METRICS."""


def emit(case: str, metric: str, value: float, unit: str, **more: object) -> None:
    """Print one row."""
    row = {"bench": "void_mechanism", "case": case, "metric": metric, "value": round(value, 5), "unit": unit, **more}
    print(json.dumps(row), flush=True)


async def collect(models: Models, folder: Path, groups: int, *, blank: bool) -> list[Trajectory]:
    """Episodes of the untrained policy."""
    recipe = load_recipe("simpletir")
    async with hub_of(None, folder) as hub:
        protocol = await protocol_of(hub, recipe.suite)
        collector = Collector(
            hub,
            EmbeddedPolicy(models.path),
            renderer_for(recipe.renderer, models.tokenizer, protocol),
            sampling=Sampling(temperature=1.0, max_tokens=recipe.rollout.max_tokens),
            blank_tools=blank,
        )
        tasks = (await task_ids(hub, recipe.suite, recipe.split))[:groups]
        plays = [Play(suite=recipe.suite, task=task, count=8, group=task) for task in tasks]
        return await collector.collect(plays, seed=0)


def probe(models: Models, trajectories: Sequence[Trajectory]) -> list[Probed]:
    """The gradient of each trajectory alone at an advantage of -1, with ratio 1."""
    batch = build_batch([trajectory for trajectory in trajectories if trajectory.reward is not None])
    void = void_trajectories(batch)
    optim = load_recipe("simpletir").optim
    learners = {
        "grad_norm_sum": Learner(models.learner, PPO(aggregation="token-sum"), optim),
        "grad_norm_mean": Learner(models.learner, PPO(aggregation="token-mean"), optim),
    }
    exact = learners["grad_norm_sum"].logprobs(batch, batch.action_mask)
    batch = replace(batch, old_logprobs=exact)
    rows = []
    for n in range(batch.trajectories):
        alone = batch.select(ints([n]))
        tokens = int(alone.action_mask.sum())
        if not tokens:
            continue
        against = floats(np.where(alone.action_mask, -1.0, 0.0).astype(np.float32))
        values = {name: learner.gradient(alone, against).norm for name, learner in learners.items()}
        values["low_share"] = float((alone.old_logprobs[alone.action_mask] < LOW).mean())
        values["tokens"] = float(tokens)
        rows.append(Probed(void=bool(void[n]), values=values))
    return rows


def report_probe(case: str, rows: Sequence[Probed], **more: object) -> dict[str, float]:
    """Rows of one probe; void over other by metric, for the plot."""
    ratios = {}
    for metric in METRICS:
        parts = {side: [row.values[metric] for row in rows if row.void == side] for side in (True, False)}
        if not all(parts.values()):
            continue
        means = {side: fmean(values) for side, values in parts.items()}
        unit = {"low_share": "share", "tokens": "count"}.get(metric, "norm")
        for side, name in ((True, "void"), (False, "other")):
            emit(case, f"{metric}_{name}", means[side], unit, trajectories=len(parts[side]), **more)
        ratios[metric] = means[True] / max(means[False], 1e-12)
        emit(case, f"{metric}_ratio", ratios[metric], "void/other", **more)
    return ratios


def report_arm(case: str, runs: Sequence[Run], **more: object) -> None:
    """Rows of one arm of the comparison."""
    norms = [row["grad_norm"] for run in runs for row in run.updates]
    emit(case, "success_before", fmean(run.before for run in runs), "share", runs=[r.before for r in runs], **more)
    emit(case, "success_after", fmean(run.after for run in runs), "share", runs=[r.after for r in runs], **more)
    emit(case, "grad_norm_median", median(norms), "norm", **more)
    emit(case, "grad_norm_highest", max(norms), "norm", **more)
    last = [run.updates[-1]["void_rate"] for run in runs if run.updates]
    emit(case, "void_rate_last", fmean(last) if last else 0.0, "share", **more)
    emit(case, "update_seconds", fmean(row["seconds"]["update"] for r in runs for row in r.updates), "s", **more)


def page(ratios: dict[str, dict[str, float]], arms: dict[str, list[Run]]) -> str:
    """The plots as one file."""
    figures = [bars(f"Void over other trajectories, {case}", values) for case, values in ratios.items()]
    for title, key in (("Gradient norm", "grad_norm"), ("Success", "success"), ("Void trajectories", "void_rate")):
        lines = [
            Series(
                name=f"{arm}, seed {run.seed}",
                x=[row["update"] for row in run.updates],
                y=[row[key] for row in run.updates],
            )
            for arm, runs in arms.items()
            for run in runs
        ]
        figures.append(line_plot(title, lines))
    style = (
        "body{font:15px system-ui;max-width:1000px;margin:2em auto}figure{display:inline-block;width:470px;margin:0}"
        ".legend span{margin-right:1em}.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.3em}"
        f"svg text{{font-size:10px}}.bar{{display:inline-block;height:.7em;background:{COLOURS[0]}}}"
        ".grid{stroke:#8884}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>void turns</title><style>{style}'
        f"</style><h1>What void turns do</h1>{''.join(figures)}</html>\n"
    )


def main() -> None:
    """Measure, print, plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="few episodes, one seed, few updates")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "void_mechanism")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")][: 1 if options.quick else None]
    updates, groups = (3, 8) if options.quick else (options.updates, 64)
    more: dict[str, object] = {"quick": True} if options.quick else {}
    options.out.mkdir(parents=True, exist_ok=True)
    models = load_models(load_recipe("simpletir"))
    ratios = {}
    for case, blank in (("probe", False), ("probe_blank_tools", True)):
        played = asyncio.run(collect(models, options.out / "hub", groups, blank=blank))
        ratios[case] = report_probe(case, probe(models, played), **more)
    few = ["eval.tasks=30", "eval.k=4"] if options.quick else []
    arms: dict[str, list[Run]] = {}
    for arm, setting in ARMS.items():
        settings = [f"updates={updates}", setting, *few]
        arms[arm] = [train("simpletir", settings, options.out / f"{arm}-{seed}", seed) for seed in seeds]
        report_arm(arm, arms[arm], **more)
    (options.out / "void_mechanism.html").write_text(page(ratios, arms))
    print(f"plots: {options.out / 'void_mechanism.html'}", file=sys.stderr)


if __name__ == "__main__":
    main()
