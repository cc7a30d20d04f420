"""The report of a comparison: report.html, and README.md with its plots, both of the same numbers."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import agenthub
from agenthub.errors import UserError
from agenthub.trainers.checkpoint import write_atomically
from agenthub.trainers.compare.numbers import CURVES, LAST_SHARE, Column, Compared, Spread, columns
from agenthub.trainers.compare.runs import State
from agenthub.trainers.plots import Band, band_plot, band_svg
from agenthub.trainers.report import STYLE

__all__ = ["write_comparison"]

HELD_OUT = "Success on held-out tasks"
OVER_TOKENS = "Success of what was played, over what was sampled"


def write_comparison(compared: Compared, out: Path, *, command: str, date: str) -> Path:
    """Write the report into a folder; returns the path of report.html.

    Args:
        command: what made it, for the reader. date: of today.

    Raises:
        UserError: a file cannot be written.
    """
    python = f"Python {platform.python_version()}, {platform.machine()}"
    facts = [f"Made on {date} with agenthub {agenthub.__version__}, {python}.", _budget(compared)]
    figures = _figures(compared)
    files = {
        "report.html": _html(compared, figures, command, facts),
        "README.md": _markdown(compared, [it.name for it in figures], command, facts),
        "compare.json": json.dumps(_numbers(compared), indent=1) + "\n",
    }
    for it in figures:
        files[f"plots/{it.name}.svg"] = band_svg(it.title, it.bands, y_range=it.y_range, x_name=it.x_name, alone=True)
    try:
        (out / "plots").mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_atomically(out / name, text.encode("utf-8", errors="replace"))
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from error
    return out / "report.html"


@dataclass(frozen=True, slots=True)
class _Figure:
    name: str
    title: str
    bands: list[Band]
    y_range: tuple[float, float] | None = None
    x_name: str = "update"


def _figures(compared: Compared) -> list[_Figure]:
    arms = [arm.name for arm in compared.plan.arms]
    made = [_Figure(c.key, c.title, [compared.curve(arm, c) for arm in arms], c.y_range) for c in CURVES]
    sampled = [compared.over_tokens(arm) for arm in arms]
    made.insert(1, _Figure("success_over_tokens", OVER_TOKENS, sampled, (0.0, 1.0), "thousand tokens"))
    if compared.plan.first.eval is None:
        return made
    return [_Figure("held_out", HELD_OUT, [compared.held_out(arm) for arm in arms], (0.0, 1.0)), *made]


def _budget(compared: Compared) -> str:
    budget = compared.plan.budget()
    seeds = ", ".join(map(str, budget["seeds"]))
    held_out = compared.plan.first.eval
    evaluated = f" Held out: {held_out.tasks} tasks, {held_out.k} episodes each." if held_out else ""
    return (
        f"Suite {budget['suite']}, {budget['updates']} updates of {budget['groups']} groups of {budget['group_size']}, "
        f"temperature {budget['temperature']:g}, seeds {seeds}.{evaluated} Optimiser and everything else are each "
        "recipe's own."
    )


def _legend(compared: Compared) -> str:
    return (
        "Lines are means over seeds, bands reach from the lowest seed to the highest; cells are the mean over seeds "
        f"and its standard deviation. `late` is the mean of the last {LAST_SHARE:.0%} of the updates; `thousand "
        "tokens` are those that the policy sampled for training; `same tokens` is late among the updates before a run "
        f"had sampled {compared.least_tokens() / 1000:.0f} thousand of them, the fewest of any run; `seconds` is the "
        "wall time of the updates, evaluations left out."
    )


def _rows(compared: Compared) -> tuple[list[Column], list[tuple[str, str, list[str]]]]:
    """(columns, (arm, runs done, cells) of each arm)."""
    shown = columns(compared.plan.first.eval is not None, compared.least_tokens())
    rows = []
    for arm in compared.plan.arms:
        done = f"{len(compared.runs[arm.name])}/{len(compared.plan.seeds)}"
        rows.append((arm.name, done, [_cell(compared.cell(arm.name, column), column.digits) for column in shown]))
    return shown, rows


def _cell(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return "-"
    if spread.count == 1:
        return f"{spread.mean:.{digits}f}"
    return f"{spread.mean:.{digits}f} ± {spread.deviation:.{digits}f}"


def _notes(compared: Compared) -> list[str]:
    """What is missing."""
    notes = [f"{one.run.arm}, seed {one.run.seed}, failed: {one.error}" for one in compared.failed()]
    waiting = compared.waiting()
    return [*notes, *([f"{waiting} runs are still to be done; the same command goes on."] if waiting else [])]


def _html(compared: Compared, figures: Sequence[Any], command: str, facts: Sequence[str]) -> str:
    shown, rows = _rows(compared)
    head = "".join(f"<th>{escape(title)}</th>" for title in ("method", "runs", *(column.title for column in shown)))
    body = "".join(
        f"<tr><th>{escape(arm)}</th><td>{done}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for arm, done, cells in rows
    )
    plots = "".join(band_plot(it.title, it.bands, y_range=it.y_range, x_name=it.x_name) for it in figures)
    warn = "".join(f'<p class="warn">{escape(note)}</p>' for note in _notes(compared))
    told = "".join(f"<p>{escape(fact)}</p>" for fact in facts)
    methods = "".join(
        f"<tr><th>{escape(arm.name)}</th><td>{escape(arm.recipe.description)}</td><td>{escape(arm.recipe.source)}</td></tr>"
        for arm in compared.plan.arms
    )
    legend = escape(_legend(compared).replace("`", ""))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Comparison</title><style>{STYLE}.wide{{overflow-x:auto}}.wide td{{white-space:nowrap}}</style><body>"
        f"<h1>{escape(_title(compared))}</h1>{warn}{told}<pre>{escape(command)}</pre>"
        f'<div class="wide"><table><tr>{head}</tr>{body}</table></div><p class="dim">{legend}</p>'
        f'<div class="plots">{plots}</div><h2>Methods</h2><table>{methods}</table></body></html>\n'
    )


def _title(compared: Compared) -> str:
    return f"{len(compared.plan.arms)} methods on {compared.plan.first.suite}"


def _markdown(compared: Compared, plots: Sequence[str], command: str, facts: Sequence[str]) -> str:
    shown, rows = _rows(compared)
    titles = ["method", "runs", *(column.title for column in shown)]
    lines = [f"# {_title(compared)}", "", *(f"{fact}\n" for fact in facts), "```", command, "```", ""]
    lines += [f"**{_plain(note)}**\n" for note in _notes(compared)]
    lines += ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    lines += ["| " + " | ".join([arm, done, *cells]) + " |" for arm, done, cells in rows]
    lines += ["", _legend(compared), "", "[report.html](report.html) has the same with values at each point.", ""]
    lines += [f"![{name}](plots/{name}.svg)" for name in plots]
    lines += ["", "| method | what it is | source |", "|---|---|---|"]
    lines += [f"| {a.name} | {_plain(a.recipe.description)} | {_plain(a.recipe.source)} |" for a in compared.plan.arms]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text on one line that opens no table cell and no tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("`", "'")


def _numbers(compared: Compared) -> dict[str, Any]:
    """The table, and how far each run is."""
    shown = columns(compared.plan.first.eval is not None, compared.least_tokens())
    arms: dict[str, dict[str, Any]] = {}
    for arm in compared.plan.arms:
        cells = {column.key: compared.cell(arm.name, column) for column in shown}
        arms[arm.name] = {
            key: None if cell is None else {"mean": cell.mean, "deviation": cell.deviation, "runs": cell.count}
            for key, cell in cells.items()
        }
    runs = [
        {"method": one.run.arm, "seed": one.run.seed, "state": one.state.value}
        | ({"error": one.error} if one.state is State.FAILED else {})
        for one in compared.statuses
    ]
    return {"budget": compared.plan.budget(), "methods": arms, "runs": runs}
