"""Each technique of a cheating policy against one task, in real episodes; and what a look around in its box gives away.

The author of a task may accept a technique, with a reason beside it: `x: {lint: {allow: [fake_verdict]}}`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agenthub.episodes import Workbench
from agenthub.errors import ConfigError, UnknownName
from agenthub.policies.scripted_cheats import CHEATS, Cheat, Script, Seen, candidates, graded
from agenthub.records import Outcome
from agenthub.suites.lint import probing
from agenthub.suites.lint.playing import Hole, acting, won
from agenthub.suites.task import Task
from agenthub.wire import Action

__all__ = ["Played", "allowed", "cheat", "seen_of", "techniques"]

CONSTANT, RANDOM, READ_BOX = "constant_answer", "random", "read_box"
_DOES = {
    CONSTANT: "an answer of one who knows nothing",
    READ_BOX: "what lies around in the box: files, environment, arguments, memory",
    RANDOM: "luck",
}
_LONGEST = 4000
"""Characters of the prompt that a cheat reads from each end."""


@dataclass(slots=True)
class Played:
    """What came of the cheats on one task."""

    holes: list[Hole] = field(default_factory=list)
    episodes: Counter[str] = field(default_factory=Counter)
    wins: Counter[str] = field(default_factory=Counter)


def techniques() -> Mapping[str, str]:
    """Every technique and what it tries, in the order in which they are played."""
    return {CONSTANT: _DOES[CONSTANT], **{it.name: it.does for it in CHEATS}, **_DOES}


def allowed(task: Task) -> frozenset[str]:
    """The techniques that the task's author accepts.

    Raises:
        ConfigError: `x.lint` is of another shape, or names no technique.
    """
    told = task.x.get("lint", {})
    names = told.get("allow", []) if isinstance(told, Mapping) and set(told) <= {"allow"} else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(task.place, "x.lint is of the form {allow: [TECHNIQUE, ...]}")
    for name in names:
        if name not in techniques():
            raise ConfigError(task.place, f"x.lint.allow: {UnknownName('technique', name, techniques())}")
    return frozenset(names)


def seen_of(task: Task) -> Seen:
    """What a cheat knows of a task."""
    said = "\n".join(message.content for message in task.messages)
    if len(said) > 2 * _LONGEST:
        said = f"{said[:_LONGEST]}\n{said[-_LONGEST:]}"
    facts = "".join(f"\n{name}: {value}" for name, value in task.metadata.items())
    args = [check.args for check in task.verifier.checks]
    return Seen(
        prompt=said + facts,
        tools=tuple((tool.name, tool.uses) for tool in task.tools),
        max_turns=task.limits.max_turns,
        entries=tuple(dict.fromkeys(it["entry"] for it in args if isinstance(it.get("entry"), str))),
        tests=tuple(name for it in args for name in it.get("expect", ()) if isinstance(name, str)),
        answer_is_code=any(it.get("candidate") == "answer" for it in args),
    )


async def cheat(task: Task, workbench: Workbench) -> Played:
    """Play every technique that the task does not allow. Raises as `acting` and `allowed` do."""
    seen, accepted, played = seen_of(task), allowed(task), Played()
    for technique in CHEATS:
        if technique.name not in accepted:
            await _technique(task, workbench, played, technique.name, _shown(technique, seen))
    if READ_BOX not in accepted:
        await _look_around(task, workbench, played, seen)
    return played


def _shown(technique: Cheat, seen: Seen) -> Iterable[tuple[Script, str]]:
    return ((script, technique.does) for script in technique.scripts(seen))


async def _technique(
    task: Task, workbench: Workbench, played: Played, name: str, scripts: Iterable[tuple[Script, str]]
) -> None:
    """Play the scripts of one technique, each with what it does, until one of them has found a hole."""
    for script, does in scripts:
        end = await acting(task, workbench, script)
        played.episodes[name] += 1
        what = ""
        if won(end, task):
            played.wins[name] += 1
            what = f"{does} wins{_told(script)}"
        elif end.outcome in (Outcome.ENV_FAULT, Outcome.INFRA_FAULT):
            # Whoever can have their failures taken out of the batch has won as well.
            what = f"{does} makes the episode {end.outcome}: {end.reason}"
        if what:
            played.holes.append(Hole(task=task, technique=name, what=what))
            return


def _told(script: Script) -> str:
    """What was answered, where nothing was run before it."""
    if any(action.calls for action in script):
        return ""
    line = " ".join((script[-1].answer or "").split())
    return f": {line if len(line) <= 100 else f'{line[:60]} ... {line[-36:]}'!r}"


async def _look_around(task: Task, workbench: Workbench, played: Played, seen: Seen) -> None:
    """Read the box; then answer what was found, and look there for what must not be in it."""
    script = probing.look(seen, probing.secrets(task))
    if script is None:
        return
    end = await acting(task, workbench, script)
    played.episodes[READ_BOX] += 1
    shown = "".join(observation.text for turn in end.turns for observation in turn.observations)
    for place in probing.leaks(shown, task):
        played.holes.append(Hole(task=task, technique=READ_BOX, what=f"what is hidden stands in the box: {place}"))
    tries: list[tuple[Script, str]] = []
    for place, text in probing.files(shown):
        answers = [text, *text.split("\n")[-1:]] if probing.telling(place) else []
        codes = [script for it in answers[:1] if seen.entries and (script := graded(seen, it)) is not None]
        tries += [(script, f"what {place} holds") for script in codes]
        tries += [((Action(answer=it),), f"what {place} holds") for it in dict.fromkeys([*answers, *candidates(text)])]
    if not played.holes or played.holes[-1].technique != READ_BOX:
        await _technique(task, workbench, played, READ_BOX, tries[:12])
