"""A trajectory as a film strip: one page with every screen that was shown, and the next action drawn on it.

The page holds its images, needs no network, and is walked with the arrow keys. What a policy or a world wrote is text
on it and nothing else.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from agenthub.codec import decode
from agenthub.records import Call, ImageRef, Trajectory, Turn

__all__ = ["Frame", "film", "frames_of"]

_MOST_TEXT = 4000
_POINTED = re.compile(
    r"\bmouse(?:_|\.)(\w+)\(\s*(?:x\s*=\s*)?(\d+)\s*,\s*(?:y\s*=\s*)?(\d+)(?:\s*,\s*(\d+)\s*,\s*(\d+))?"
)
"""Calls with a place in an action that is text: BrowserGym's `mouse_click(3, 4)`, and `mouse.click(3, 4)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One screen and what was done on it."""

    title: str
    image: ImageRef | None
    """None where the world showed none."""
    action: str = ""
    shown: str = ""
    """What came with the screen as text."""
    marks: tuple[tuple[int, int, str], ...] = ()
    """Where the action points, in pixels of the image, each with its verb."""
    rewards: Mapping[str, float] = field(default_factory=dict)


def frames_of(trajectory: Trajectory) -> list[Frame]:
    """The frames of a trajectory: the screen before each turn, with that turn's action, and the last one."""
    openings = [decode(ImageRef, row) for row in trajectory.metadata.get("opening_images", ())]
    image, shown = (openings[-1] if openings else None), ""
    made: list[Frame] = []
    for turn in trajectory.turns:
        action, marks = _acted(turn)
        title = f"turn {turn.index + 1}"
        made.append(Frame(title=title, image=image, action=action, shown=shown, marks=marks, rewards=turn.rewards))
        images = [part for it in turn.observations for part in it.parts if isinstance(part, ImageRef)]
        for between in images[:-1]:
            made.append(Frame(title=f"{title}, on the way", image=between))
        image = images[-1] if images else image
        shown = "\n".join(it.text for it in turn.observations)
    made.append(Frame(title="the end", image=image, shown=shown))
    return made


def _acted(turn: Turn) -> tuple[str, tuple[tuple[int, int, str], ...]]:
    lines: list[str] = []
    marks: list[tuple[int, int, str]] = []
    for call in turn.calls:
        for row in _actions(call):
            if isinstance(row, str):
                lines.append(row)
                marks += _in_text(row)
            else:
                lines.append(json.dumps(row, ensure_ascii=False))
                marks += _in_row(row)
    return "\n".join(lines) or turn.answer or turn.text, tuple(marks)


def _actions(call: Call) -> Sequence[Any]:
    given = call.arguments
    if isinstance(given.get("actions"), list):
        return [row if isinstance(row, Mapping) else str(row) for row in given["actions"]]
    code = given.get("code")
    return [code] if isinstance(code, str) else [dict(given)]


def _in_row(row: Mapping[str, Any]) -> list[tuple[int, int, str]]:
    verb = str(row.get("action", row.get("action_type", "")))
    pairs = ((row.get("x"), row.get("y")), (row.get("x2"), row.get("y2")))
    return [(int(x), int(y), verb) for x, y in pairs if isinstance(x, int | float) and isinstance(y, int | float)]


def _in_text(text: str) -> list[tuple[int, int, str]]:
    found: list[tuple[int, int, str]] = []
    for match in _POINTED.finditer(text[:_MOST_TEXT]):
        verb, x, y, x2, y2 = match.groups()
        found.append((int(x), int(y), verb))
        if x2 is not None:
            found.append((int(x2), int(y2), verb))
    return found


def film(trajectory: Trajectory, blob: Callable[[str], bytes | None]) -> str:
    """The page. `blob` gives an image's bytes by its hash, None where they are gone."""
    frames = frames_of(trajectory)
    figures = "".join(_figure(index, frame, blob) for index, frame in enumerate(frames))
    reward = "none" if trajectory.reward is None else f"{trajectory.reward:g}"
    told = f"{trajectory.stop}, {trajectory.outcome}, reward {reward}. {trajectory.reason}"
    name = escape(trajectory.task)
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{name}</title><style>{_STYLE}</style></head>"
        f'<body><h1>{name}</h1><p>{escape(told)}</p><p id="place" role="status">{len(frames)} screens</p>'
        f"<p>Keys: left and right, home and end.</p>{figures}<script>{_SCRIPT}</script></body></html>"
    )


def _figure(index: int, frame: Frame, blob: Callable[[str], bytes | None]) -> str:
    rewards = ", ".join(f"{name} {value:g}" for name, value in frame.rewards.items() if value)
    return (
        f'<figure tabindex="0" id="f{index}"><figcaption>{escape(frame.title)}'
        f"{escape(f' ({rewards})') if rewards else ''}</figcaption>{_picture(frame, blob)}"
        f"<pre class=action>{escape(frame.action[:_MOST_TEXT])}</pre>"
        f"<pre>{escape(frame.shown[:_MOST_TEXT])}</pre></figure>"
    )


def _picture(frame: Frame, blob: Callable[[str], bytes | None]) -> str:
    ref = frame.image
    data = blob(ref.sha256) if ref is not None else None
    if ref is None or data is None:
        return "<p class=none>no screen</p>"
    source = f"data:{escape(ref.media_type)};base64,{base64.b64encode(data).decode()}"
    drawn = "".join(
        f'<circle cx="{x}" cy="{y}" r="12"/><circle cx="{x}" cy="{y}" r="2"/>'
        f'<text x="{x + 15}" y="{y - 8}">{number}. {escape(verb)}</text>'
        for number, (x, y, verb) in enumerate(frame.marks, 1)
    )
    line = " ".join(f"{x},{y}" for x, y, _ in frame.marks)
    path = f'<polyline points="{line}"/>' if len(frame.marks) > 1 else ""
    return (
        f'<div class=screen><img src="{source}" width="{ref.width}" height="{ref.height}" alt="{escape(frame.title)}">'
        f'<svg viewBox="0 0 {ref.width} {ref.height}">{path}{drawn}</svg></div>'
    )


_STYLE = """
body{font:14px sans-serif;margin:16px;max-width:1320px}figure{margin:0 0 24px;padding:8px;border:2px solid #ddd}
figure.now{border-color:#c30}.screen{position:relative;display:inline-block;max-width:100%}
.screen img{display:block;max-width:100%;height:auto}
.screen svg{position:absolute;inset:0;width:100%;height:100%;fill:none;stroke:#c30;stroke-width:3}
.screen text{fill:#c30;stroke:#fff;stroke-width:3;paint-order:stroke;font:bold 15px sans-serif}
pre{white-space:pre-wrap;margin:4px 0;color:#555}pre.action{color:#000;font-weight:bold}
"""
_SCRIPT = """
const all = [...document.querySelectorAll('figure')], place = document.getElementById('place');
let now = 0;
function show(next, scroll = true) {
  now = Math.max(0, Math.min(all.length - 1, next));
  all.forEach((figure, index) => figure.classList.toggle('now', index === now));
  if (scroll) all[now].scrollIntoView({block: 'start'});
  const image = all[now].querySelector('img');
  const size = image ? (image.naturalWidth ? `${image.naturalWidth} x ${image.naturalHeight}` : 'not loaded') : 'none';
  place.textContent = `screen ${now + 1} of ${all.length}, image ${size}`;
  document.title = place.textContent;
}
const steps = {ArrowRight: 1, ArrowDown: 1, j: 1, ArrowLeft: -1, ArrowUp: -1, k: -1};
addEventListener('keydown', event => {
  if (event.key in steps) show(now + steps[event.key]);
  else if (event.key === 'Home') show(0);
  else if (event.key === 'End') show(all.length - 1);
  else return;
  event.preventDefault();
});
addEventListener('load', () => show(0, false));
"""
