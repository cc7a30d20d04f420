"""report.html of a run: curves, evaluations, what was dropped, sample episodes. One file that opens from anywhere.

Reads what is in the run's folder, also of a run that has not finished; everything that a policy or a tool wrote is
escaped.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from agenthub.errors import UserError
from agenthub.trainers.checkpoint import write_atomically
from agenthub.trainers.plots import Points, Series, bars, line_plot

__all__ = ["RunData", "read_metrics", "read_run", "render", "write_report"]

PLAYED = ("success", "reward", "void_rate")
"""Keys that are null in an update for which the policy played nothing."""
SHOWN = 6
"""Sample episodes from either end of the run."""
STYLE = """
:root{color-scheme:light dark;--line:#8884}body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;
padding:0 1em}.plots{display:flex;flex-wrap:wrap;gap:1em}figure{margin:0;width:470px}figcaption{font-weight:600}
svg{width:100%;height:auto}svg text{font-size:10px;fill:currentColor}.grid{stroke:var(--line)}
.legend span{margin-right:1em;font-size:13px}.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.3em}
table{border-collapse:collapse}td,th{padding:.1em .8em .1em 0;text-align:left;font-weight:400}
.bar{display:inline-block;height:.7em;background:#2f6fb0}pre{white-space:pre-wrap;overflow-wrap:anywhere;
background:#8881;padding:.5em;margin:.3em 0}pre.tool{border-left:3px solid #3d8a4f}.none,.dim{opacity:.7}
.warn{border-left:4px solid #c2571a;padding-left:.8em}
"""


@dataclass(slots=True)
class RunData:
    """What could be read of a run."""

    path: Path
    updates: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    first: list[dict[str, Any]] = field(default_factory=list)
    """Trajectories from the start of the run."""
    last: list[dict[str, Any]] = field(default_factory=list)
    """Trajectories from its end."""
    config: str = ""
    problems: list[str] = field(default_factory=list)
    """What could not be read, for a person."""


def read_run(path: Path) -> RunData:
    """Read a run's folder; lines that make no sense are counted and left out.

    Raises:
        UserError: it is no folder of a run.
    """
    if not path.is_dir():
        raise UserError(f"{path} is no folder; expected the --out of a training run, or a file of trajectories")
    if not any((path / name).exists() for name in ("config.yaml", "metrics.jsonl")):
        raise UserError(f"{path} holds no run: neither config.yaml nor metrics.jsonl")
    data = read_metrics(path)
    data.first, data.last = _ends(_raw(path / "trajectories.jsonl", data.problems), data.problems)
    config = path / "config.yaml"
    data.config = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
    return data


def read_metrics(path: Path) -> RunData:
    """The updates and evaluations of a run's folder alone; lines that make no sense are counted and left out."""
    data = RunData(path=path)
    for row in _lines(path / "metrics.jsonl", data.problems):
        if "eval" in row and _is_evaluation(row):
            data.evaluations.append(row)
        elif "eval" not in row and _is_update(row):
            data.updates.append(row)
        else:
            data.problems.append("metrics.jsonl: a line is neither an update nor an evaluation")
    return data


def _raw(path: Path, problems: list[str]) -> Iterable[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error.strerror}")


def _lines(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    rows, bad = [], 0
    for line in _raw(path, problems):
        row = _parsed(line)
        if row is None:
            bad += 1
        else:
            rows.append(row)
    if bad:
        problems.append(f"{path.name}: {bad} of {bad + len(rows)} lines are no JSON objects and were left out")
    return rows


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _ends(lines: Iterable[bytes], problems: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The first and the last trajectories, without parsing those between."""
    head: list[bytes] = []
    tail: deque[bytes] = deque(maxlen=SHOWN)
    for line in lines:
        if len(head) < SHOWN:
            head.append(line)
        else:
            tail.append(line)
    rows = [[row for row in map(_parsed, part) if row is not None and _is_trajectory(row)] for part in (head, tail)]
    bad = len(head) + len(tail) - len(rows[0]) - len(rows[1])
    if bad:
        problems.append(f"trajectories.jsonl: {bad} of the lines at its ends are no trajectories")
    return rows[0], rows[1]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_update(row: Mapping[str, Any]) -> bool:
    numbers = ("update", "grad_norm", "entropy", "kept")
    mappings = ("seconds", "dropped")
    played = all(key in row and (row[key] is None or _is_number(row[key])) for key in PLAYED)
    return (
        played
        and all(_is_number(row.get(key)) for key in numbers)
        and all(isinstance(row.get(key), dict) and all(map(_is_number, row[key].values())) for key in mappings)
    )


def _is_evaluation(row: Mapping[str, Any]) -> bool:
    body = row["eval"]
    if not (_is_number(row.get("update")) and isinstance(body, dict) and isinstance(body.get("pass_at"), dict)):
        return False
    intervals = [body.get("avg"), *body["pass_at"].values()]
    return all(
        isinstance(one, dict) and all(_is_number(one.get(k)) for k in ("mean", "low", "high")) for one in intervals
    )


def _is_trajectory(row: Mapping[str, Any]) -> bool:
    turns = row.get("turns")
    return isinstance(turns, list) and all(
        isinstance(turn, dict) and isinstance(turn.get("observations", []), list) for turn in turns
    )


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the report of a run's folder; returns its path.

    Raises:
        UserError: it is no folder of a run, or the file cannot be written.
    """
    target = out or run / "report.html"
    page = render(read_run(run))
    try:
        write_atomically(target, page.encode("utf-8", errors="replace"))
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def render(data: RunData) -> str:
    """The page."""
    name = escape(data.path.resolve().name)
    warn = "".join(f'<p class="warn">{escape(text)}</p>' for text in dict.fromkeys(data.problems))
    body = [f"<h1>{name}</h1>", warn, _summary(data), f'<div class="plots">{"".join(_plots(data))}</div>']
    for title, rows in (("First episodes", data.first), ("Last episodes", data.last)):
        body.append(f"<h2>{title}</h2>" + ("".join(map(_episode, rows)) or '<p class="none">none</p>'))
    body.append(f"<h2>Config</h2><pre>{escape(data.config) or 'not there'}</pre>")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{name}</title><style>{STYLE}</style><body>{''.join(body)}</body></html>\n"
    )


def _summary(data: RunData) -> str:
    if not data.updates and not data.evaluations:
        return '<p class="warn">The run has no update and no evaluation yet.</p>'
    rows = []
    for row in data.evaluations:
        body = row["eval"]
        passes = "".join(f"<td>pass@{escape(str(j))} {_interval(one)}</td>" for j, one in body["pass_at"].items())
        after = f"after {row['update']} updates"
        k = escape(str(body.get("k", "?")))
        rows.append(f"<tr><th>{after}</th><td>avg@{k} {_interval(body['avg'])}</td>{passes}</tr>")
    seconds = sum(sum(row["seconds"].values()) for row in data.updates)
    count = len(data.updates)
    each = f", {seconds / count:.2f} s each" if count else ""
    return f"<p>{count} updates in {seconds:.1f} s{each}.</p><table>{''.join(rows)}</table>"


def _interval(row: Mapping[str, float]) -> str:
    return f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _plots(data: RunData) -> list[str]:
    x = [row["update"] for row in data.updates]

    def series(name: str, key: str | None = None) -> Series:
        rows = [row for row in data.updates if row[key or name] is not None]
        return Series(name=name, x=[row["update"] for row in rows], y=[float(row[key or name]) for row in rows])

    evaluated = Points(
        name="held out",
        x=[row["update"] for row in data.evaluations],
        y=[row["eval"]["avg"]["mean"] for row in data.evaluations],
        low=[row["eval"]["avg"]["low"] for row in data.evaluations],
        high=[row["eval"]["avg"]["high"] for row in data.evaluations],
    )
    stages = sorted({stage for row in data.updates for stage in row["seconds"]})
    times = [Series(name=s, x=x, y=[float(row["seconds"].get(s, 0.0)) for row in data.updates]) for s in stages]
    dropped: Counter[str] = Counter()
    for row in data.updates:
        dropped.update(row["dropped"])
    return [
        line_plot("Success", [series("rollout", "success")], [evaluated] if data.evaluations else [], y_range=(0, 1)),
        line_plot("Reward", [series("reward")]),
        line_plot("Void trajectories", [series("void_rate")], y_range=(0, 1)),
        line_plot("Gradient norm before clipping", [series("grad_norm")]),
        line_plot("Entropy, nats a token", [series("entropy")]),
        line_plot("Trajectories in the loss", [series("kept")]),
        line_plot("Seconds", times),
        bars("Dropped, all updates", {name: float(count) for name, count in dropped.items()}),
    ]


def _episode(row: Mapping[str, Any]) -> str:
    metadata = row.get("metadata")
    update = metadata.get("update", "?") if isinstance(metadata, dict) else "?"
    head = (
        f"{row.get('task')} · update {update} · {row.get('stop')} · reward {row.get('reward')}"
        f"{' · ' + str(row.get('reason')) if row.get('reason') else ''}"
    )
    return f"<details><summary>{escape(head)}</summary>{''.join(map(_turn, row['turns']))}</details>"


def _turn(turn: Mapping[str, Any]) -> str:
    parts = [f"<pre>{escape(str(turn.get('text', '')))}</pre>"]
    if turn.get("parse_error"):
        parts.append(f'<p class="dim">{escape(str(turn["parse_error"]))}</p>')
    shown = "".join(_texts(turn.get("observations", [])))
    if shown:
        parts.append(f'<pre class="tool">{escape(shown)}</pre>')
    return "".join(parts)


def _texts(observations: Sequence[Any]) -> list[str]:
    found = []
    for observation in observations:
        parts = observation.get("parts", []) if isinstance(observation, dict) else []
        found += [str(part.get("text", "")) for part in parts if isinstance(part, dict)]
    return found
