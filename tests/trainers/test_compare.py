"""A comparison: one budget for all, nothing done twice, a failure among others, and its numbers on a page."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from agenthub.errors import ConfigError, UserError
from agenthub.trainers.compare import runs as running
from agenthub.trainers.compare.numbers import CURVES, Spread, columns, compared
from agenthub.trainers.compare.page import write_comparison
from agenthub.trainers.compare.plan import Plan, make_plan
from agenthub.trainers.compare.runs import State, folder_of, run_all, status_of
from tests.trainers.test_report import checked, evaluation, update

ROOT = Path(__file__).parents[2]


def plan(seeds: int = 2) -> Plan:
    return make_plan(["grpo", "gspo"], seeds=seeds, suite="persistence", updates=2)


def fill(out: Path, made: Plan) -> None:
    """Metrics as a training writes them; each arm and seed has its own success."""
    for place, run in enumerate(made.runs()):
        rows = [evaluation(0), update(1), update(2) | {"success": 0.1 * place}, evaluation(2)]
        rows[1]["tokens"] = rows[2]["tokens"] = 500
        folder_of(out, run).mkdir(parents=True)
        (folder_of(out, run) / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_all_have_the_budget_of_the_first_and_the_rest_of_their_own() -> None:
    made = make_plan(["simpletir", "sft"], seeds=3, updates=7, overrides=["rollout.groups=5"])
    first, second = (arm.recipe for arm in made.arms)
    assert (second.suite, second.updates, second.rollout) == (first.suite, 7, first.rollout)
    assert second.rollout.groups == 5 and second.optim != first.optim and second.loss.uses == "sft"
    assert [(run.arm, run.seed, run.recipe.seed) for run in made.runs()] == [
        (arm, seed, seed) for seed in range(3) for arm in ("simpletir", "sft")
    ]


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        ([], {}, "give the recipes"),
        (["grpo", "gspoo"], {}, "did you mean 'gspo'"),
        (["grpo", "grpo"], {}, "two of the recipes are named 'grpo'"),
        (["grpo"], {"seeds": 0}, "--seeds is 0"),
        (["grpo"], {"updates": 0}, "--updates is 0"),
        (["grpo"], {"overrides": ["updtes=3"]}, "did you mean 'updates'"),
        (["grpo", "simpletir"], {"overrides": ["rollout.group_size=2"]}, "min_n is 4"),
    ],
)
def test_what_cannot_be_compared_is_refused(names: list[str], options: dict[str, object], words: str) -> None:
    with pytest.raises((UserError, ConfigError), match=words):
        make_plan(names, **({"seeds": 2} | options))  # type: ignore[arg-type]


async def test_done_runs_stay_a_failed_one_is_told_and_tried_again_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, trained, said = plan(), list[str](), list[str]()
    broken = {"gspo-0"}

    async def train(path: Path, hub: str | None, tasks: Sequence[Path]) -> str | None:
        trained.append(path.name)
        if path.name in broken:
            return "Traceback\nValueError: <b>boom</b>"
        rows = [update(1), update(2), evaluation(2)]
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return None

    monkeypatch.setattr(running, "_train", train)
    states = await run_all(made, tmp_path, note=said.append, after=lambda: None)
    assert trained == ["grpo-0", "gspo-0", "grpo-1", "gspo-1"]
    assert [one.state for one in states] == [State.DONE, State.FAILED, State.DONE, State.DONE]
    page = write_comparison(compared(made, tmp_path), tmp_path, command="c", date="d").read_text()
    checked(page)
    assert "gspo, seed 0, failed: Traceback\nValueError: &lt;b&gt;boom" in page
    broken.clear()
    trained.clear()
    states = await run_all(made, tmp_path, note=said.append, after=lambda: None)
    assert trained == ["gspo-0"] and {one.state for one in states} == {State.DONE}
    with pytest.raises(UserError, match="holds a run of another comparison"):
        await run_all(make_plan(["grpo"], seeds=1, updates=3), tmp_path, note=said.append, after=lambda: None)


def test_a_run_counts_as_done_with_its_last_evaluation_alone(tmp_path: Path) -> None:
    made = plan(1)
    run = made.runs()[0]
    fill(tmp_path, made)
    assert status_of(tmp_path, run).state is State.DONE
    file = folder_of(tmp_path, run) / "metrics.jsonl"
    file.write_text("\n".join(file.read_text().splitlines()[:-1]) + '\n{"upd')
    assert status_of(tmp_path, run).state is State.WAITING


def test_the_numbers_are_means_and_deviations_over_seeds(tmp_path: Path) -> None:
    made = plan()
    fill(tmp_path, made)
    found = compared(made, tmp_path)
    curve = found.curve("grpo", CURVES[0])
    assert (list(curve.x), curve.y, curve.low, curve.high) == ([1, 2], [0.1, 0.1], [0.1, 0.0], [0.1, 0.2])
    cells = {column.key: found.cell("grpo", column) for column in columns(held_out=True, tokens=found.least_tokens())}
    late = cells["success"]
    assert late is not None and late.mean == pytest.approx(0.1) and late.deviation == pytest.approx(0.02**0.5)
    # Each of the two updates sampled 500 tokens, so a run that had as many again would be cut at its first half.
    halved = columns(held_out=True, tokens=found.least_tokens() / 2)
    (early,) = [found.cell("grpo", column) for column in halved if column.key == "success_same_tokens"]
    assert early is not None and early.mean == pytest.approx(curve.y[0])
    assert cells["success_same_tokens"] == late
    assert list(found.over_tokens("grpo").x) == [0.5, 1.0] and found.over_tokens("grpo").y == curve.y
    assert cells["gain"] == Spread(0.0, 0.0, 2) and cells["tokens"] == Spread(1.0, 0.0, 2)
    assert cells["seconds"] is not None and cells["seconds"].mean == pytest.approx(1.4)


def test_the_report_stands_alone_and_tells_what_is_missing(tmp_path: Path) -> None:
    made = plan()
    fill(tmp_path, plan(1))
    out = tmp_path / "report"
    page = write_comparison(compared(made, tmp_path), out, command="agenthub <x>", date="today").read_text()
    assert checked(page).tags.count("svg") == 8
    assert "2 runs are still to be done" in page and "agenthub &lt;x&gt;" in page
    text = (out / "README.md").read_text()
    assert "| grpo | 1/2 |" in text and "![held_out](plots/held_out.svg)" in text
    assert all((out / f"plots/{curve.key}.svg").read_text().startswith("<svg xmlns=") for curve in CURVES)
    assert [run["state"] for run in json.loads((out / "compare.json").read_text())["runs"]] == [
        "done",
        "done",
        "waiting",
        "waiting",
    ]


@pytest.mark.slow
def test_the_command_runs_resumes_and_shows_a_recipe_that_fails(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    text = (ROOT / "trainers" / "recipes" / "grpo.yaml").read_text().replace("name: grpo", "name: broken")
    broken.write_text(text + "teacher: /nowhere\n")
    settings = ["rollout.groups=2", "rollout.group_size=4", "eval=null"]
    command = [sys.executable, "-m", "agenthub", "compare", "grpo", str(broken), "--seeds", "1", "--updates", "1"]
    command += ["--suite", "persistence", "--out", str(tmp_path / "out")]
    command += [part for one in settings for part in ("--set", one)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "broken, seed 0, failed" in done.stdout and "Traceback" not in done.stdout
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert "grpo, seed 0: done before" in again.stdout
