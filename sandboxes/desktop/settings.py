"""The settings of one desktop episode, `config` of its tool: screen, channels, and the procedures around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from agenthub.errors import UnknownName, UserError

__all__ = ["CHANNELS", "PROCEDURES", "Settings", "Step", "settings_of"]

CHANNELS = ("windows", "pointer", "screenshot", "frames")
"""What can be shown after an action; `frames` are the screens between the last two."""
PROCEDURES: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "write": (frozenset(("path", "text")), frozenset()),
    "launch": (frozenset(("argv",)), frozenset(("title",))),
    "wait_for": (frozenset(("title",)), frozenset()),
    "wait_gone": (frozenset(("title",)), frozenset()),
    "run": (frozenset(("argv",)), frozenset()),
    "act": (frozenset(("actions",)), frozenset()),
    "settle": (frozenset(), frozenset()),
}
"""Steps of a procedure: what each needs, and what it may have."""
_MOST_PIXELS = 4096
_MOST_FRAMES = 32

Step = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a task's tool says under `config`."""

    width: int = 800
    height: int = 600
    channels: tuple[str, ...] = ("windows", "screenshot")
    frames: int = 4
    """Most screens between two actions that are shown, where `frames` is a channel."""
    settle_s: float = 5.0
    """An action is done when no program of the desktop has work, or after so many seconds."""
    reset: tuple[Step, ...] = ()
    """Done before the policy's first turn."""
    evaluate: tuple[Step, ...] = ()
    """Done when the episode is over, before everything is stopped and looked at."""
    cleanup: tuple[Step, ...] = ()
    """Done at the end; the box goes in any case."""


def settings_of(params: Mapping[str, Any]) -> Settings:
    """The settings of a tool's config.

    Raises:
        UserError: a key is not known, or a value does not fit.
    """
    known = {field.name: str(field.type) for field in fields(Settings)}
    given: dict[str, Any] = {}
    for name, value in params.items():
        if name not in known:
            raise UnknownName("setting of the desktop", name, known)
        if name in ("reset", "evaluate", "cleanup"):
            value = _procedure(name, value)
        elif name == "channels":
            value = tuple(value) if isinstance(value, list | tuple) else value
        wanted: Any = {"int": int, "float": (int, float)}.get(known[name], tuple)
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise UserError(f"desktop setting {name} is {value!r:.100}; expected {known[name]}")
        given[name] = value
    settings = Settings(**given)
    for channel in settings.channels:
        if channel not in CHANNELS:
            raise UnknownName("channel of the desktop", str(channel), CHANNELS)
    if not (64 <= settings.width <= _MOST_PIXELS and 64 <= settings.height <= _MOST_PIXELS):
        raise UserError(f"a screen has 64 to {_MOST_PIXELS} pixels a side, not {settings.width} x {settings.height}")
    if not (0 < settings.settle_s <= 30 and 0 < settings.frames <= _MOST_FRAMES):
        raise UserError(f"desktop settings: settle_s is above 0 and at most 30, frames is 1 to {_MOST_FRAMES}")
    return settings


def _procedure(name: str, steps: Any) -> tuple[Step, ...]:
    if not isinstance(steps, Sequence) or isinstance(steps, str):
        raise UserError(f"desktop setting {name}: expected a list of steps")
    for index, step in enumerate(steps):
        where = f"desktop setting {name}[{index}]"
        if not isinstance(step, Mapping) or not isinstance(step.get("do"), str):
            raise UserError(f"{where}: expected an object with `do`")
        if step["do"] not in PROCEDURES:
            raise UnknownName("step of a procedure", step["do"], PROCEDURES, where)
        needed, more = PROCEDURES[step["do"]]
        names = set(step) - {"do"}
        if not needed <= names or not names <= needed | more:
            raise UserError(f"{where}: {step['do']} needs {sorted(needed)} and may have {sorted(more)}")
    return tuple(steps)
