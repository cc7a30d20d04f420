"""One task: what was written for it, over the suite's defaults, as the record that the hub plays."""

from __future__ import annotations

import base64
import binascii
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from agenthub.config import Document, validate
from agenthub.errors import ConfigError, TaskBroken, UnknownName, UserError, nearest
from agenthub.isolation import Layer, LayerState, Limits
from agenthub.records import Message, frozen
from agenthub.registry import registry
from agenthub.rewards.arguments import TypedCheck
from agenthub.sandbox import SandboxSpec, ToolSpec
from agenthub.suites.images import image_build
from agenthub.suites.schema import BuildIn, LimitsIn, PromptIn, SandboxIn, TaskIn, bytes_of
from agenthub.suites.task import Check, ImageBuild, Task, TaskLimits, ToolUse, TurnCheck, Verifier

__all__ = ["build_task", "merged"]

T = TypeVar("T")
DEFAULT_ISOLATION = "jail"
"""The hub's, where nothing else is said: whose layers a task's `require` is read against."""
Place = Callable[[tuple[str | int, ...]], str]


def merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` over `defaults`: mappings are merged key by key, everything else is replaced."""
    result = dict(defaults)
    for key, value in given.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def build_task(
    document: Document,
    *,
    suite: str,
    split: str,
    source: str = "",
    languages: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    isolation: str = DEFAULT_ISOLATION,
    images: dict[BuildIn, ImageBuild] | None = None,
) -> Task:
    """The task of a document that holds its keys with the defaults merged in.

    Args:
        split: where the task names none.
        source: the row that it comes from, put behind every place.
        languages: the suite's own; a tool that names one is given what it says.
        isolation: the hub's own, for tasks that name none.
        images: those of the suite that are known already; the task's own is added.

    Raises:
        ConfigError: keys that do not fit, names that no registry has, limits that contradict, no user message, no
            check, a target that its checks cannot use.
    """
    given = validate(document, TaskIn)

    def place(loc: tuple[str | int, ...]) -> str:
        return f"{document.place(loc)} ({source})" if source else document.place(loc)

    if given.id is None:
        raise ConfigError(place(()), "id is missing")
    build = given.sandbox.build
    images = {} if images is None else images
    if build is not None and build not in images:
        folder = Path(document.path).parent
        images[build] = image_build(build, suite=suite, folder=folder, place=place(("sandbox", "build")))
    image = images[build].image if build is not None else given.sandbox.image
    tools = _tools(given, place, languages, image)
    protocol = given.protocol or ("fence_strict" if tools else "boxed")
    _known("protocol", protocol, place(("protocol",)), "protocol")
    task = Task(
        id=given.id,
        suite=suite,
        split=given.split or split,
        messages=_messages(given.prompt, protocol, tools, place),
        protocol=protocol,
        tools=tools,
        verifier=_verifier(given, place),
        limits=_limits(given.limits, place),
        on_no_call=given.on_no_call,
        turn_checks=_turn_checks(given, place),
        target=tuple(given.target.answers) or given.target.answer,
        solution=given.solution.turns,
        require=_required(given.sandbox, given.sandbox.isolation or isolation, place(("sandbox", "require"))),
        languages=languages,
        deterministic=given.deterministic,
        on_lost=given.sandbox.state.on_lost,
        max_restores=given.sandbox.state.restores,
        metadata=frozen(given.metadata),
        x=frozen(given.x),
        origin=frozen(given.origin),
        place=place(()),
    )
    _inspect(task, place)
    return task


def _known(kind: str, name: str, place: str, key: str) -> None:
    names = registry(kind).names()
    if name not in names:
        near = nearest(name, names)
        tail = near if near.startswith("; did") else ""
        raise ConfigError(place, f"{key} is {name!r}; expected one of {', '.join(names)}{tail}")


def _at(place: str, look_up: Callable[[], T]) -> T:
    """What `look_up` gives; its user errors get the place."""
    try:
        return look_up()
    except UserError as error:
        raise ConfigError(place, str(error)) from error


@functools.cache
def _layers(isolation: str) -> Mapping[str, Layer]:
    return {layer.name: layer for layer in registry("isolation").load(isolation)().layers()}


def _required(sandbox: SandboxIn, isolation: str, place: str) -> tuple[str, ...]:
    """The layers that the task cannot be without. Raises ConfigError where this machine lacks one."""
    for name in sandbox.require:
        layers = _at(place, functools.partial(_layers, isolation))
        if name not in layers:
            raise ConfigError(place, f"isolation {isolation!r} has no layer {name!r}{nearest(name, layers)}")
        if layers[name].state is not LayerState.OK:
            raise ConfigError(place, f"requires layer {name!r}, which this machine lacks: {layers[name].detail}")
    return sandbox.require


def _tools(
    given: TaskIn, place: Place, languages: Mapping[str, Mapping[str, Any]], image: str | None
) -> tuple[ToolUse, ...]:
    spec = _spec(given, place, image)
    uses: dict[str, ToolUse] = {}
    for index, tool in enumerate(given.tools):
        where = place(("tools", index))
        _known("sandbox", tool.uses, where, f"tools[{index}].uses")
        name = tool.name or tool.uses
        if name in uses:
            raise ConfigError(where, f"two tools are named {name!r}; give one of them another name")
        if tool.tool:
            _at(where, functools.partial(_tool_spec, tool.uses, tool.tool))
        config = dict(tool.config)
        if tool.uses == "language" and isinstance(config.get("language"), str):
            if config["language"] not in languages:
                raise ConfigError(where, str(UnknownName("language of the suite", config["language"], languages)))
            config["language"] = languages[config["language"]]
        uses[name] = ToolUse(name=name, uses=tool.uses, tool=tool.tool, spec=replace(spec, params=frozen(config)))
    return tuple(uses.values())


def _spec(given: TaskIn, place: Place, image: str | None) -> SandboxSpec:
    sandbox = given.sandbox
    if sandbox.isolation is not None:
        _known("isolation", sandbox.isolation, place(("sandbox", "isolation")), "sandbox.isolation")
    files: dict[str, bytes] = {}
    for index, file in enumerate(given.files):
        where = place(("files", index))
        if file.path in files:
            raise ConfigError(where, f"two files have the path {file.path!r}")
        try:
            files[file.path] = (
                (file.content or "").encode() if file.b64 is None else base64.b64decode(file.b64, validate=True)
            )
        except binascii.Error as error:
            raise ConfigError(where, f"files[{index}].b64 is not base64: {error}") from error
    spec = SandboxSpec(limits=_box_limits(sandbox), files=frozen(files), isolation=sandbox.isolation or "")
    if sandbox.resources.request is not None:
        spec = replace(spec, request_mb=bytes_of(sandbox.resources.request) >> 20)
    if spec.request_mb > spec.limits.memory_mb:
        where = place(("sandbox", "resources"))
        raise ConfigError(where, f"resources.request {spec.request_mb}M is above memory {spec.limits.memory_mb}M")
    return replace(spec, image=image or spec.image)


def _box_limits(sandbox: SandboxIn) -> Limits:
    given = sandbox.resources
    values: dict[str, Any] = {
        "cpus": given.cpus,
        "pids": given.pids,
        "files": given.inodes,
        "open_files": given.nofile,
        "memory_mb": given.memory and max(1, bytes_of(given.memory) >> 20),
        "disk_mb": given.disk and max(1, bytes_of(given.disk) >> 20),
        "output_bytes": given.output and bytes_of(given.output),
    }
    return Limits(**{key: value for key, value in values.items() if value is not None})


@functools.lru_cache(maxsize=256)
def _tool_spec(uses: str, tool: str) -> ToolSpec:
    """The sandbox's tool; an empty name is its first. Raises UserError."""
    known: dict[str, ToolSpec] = {spec.name: spec for spec in registry("sandbox").load(uses).tools}
    if tool and tool not in known:
        raise UnknownName(f"tool of sandbox {uses!r}", tool, known)
    return known[tool] if tool else next(iter(known.values()))


@functools.lru_cache(maxsize=256)
def _instructions(protocol: str, tools: tuple[tuple[str, str, str], ...]) -> str:
    """What a system prompt says of the syntax; `tools` are (name, sandbox kind, sandbox's tool)."""
    specs = [replace(_tool_spec(uses, tool), name=name) for name, uses, tool in tools]
    text: str = registry("protocol").load(protocol)().instructions(specs)
    return text


def _messages(prompt: PromptIn, protocol: str, tools: Sequence[ToolUse], place: Place) -> tuple[Message, ...]:
    said = [Message(role=message.role, content=message.content) for message in prompt.messages]
    if prompt.user is not None:
        said.append(Message(role="user", content=prompt.user))
    if not any(message.role == "user" for message in said):
        raise ConfigError(place(("prompt",)), "prompt has no user message; give user or messages")
    system = prompt.system
    if system is None and not any(message.role == "system" for message in said):
        named = tuple((tool.name, tool.uses, tool.tool) for tool in tools)
        system = _at(place(("prompt",)), functools.partial(_instructions, protocol, named))
    return (Message(role="system", content=system), *said) if system else tuple(said)


def _limits(given: LimitsIn, place: Place) -> TaskLimits:
    limits = replace(TaskLimits(), **given.model_dump(exclude_none=True))
    if given.turn_seconds is None:
        # A short episode has short turns, without every suite having to say so.
        limits = replace(limits, turn_seconds=min(limits.turn_seconds, limits.episode_seconds))
    turn, episode = limits.turn_seconds, limits.episode_seconds
    if turn > episode:
        raise ConfigError(place(("limits",)), f"limits.turn_seconds {turn:g} is more than episode_seconds {episode:g}")
    return limits


def _verifier(given: TaskIn, place: Place) -> Verifier:
    if not given.verifier.checks:
        raise ConfigError(place(("verifier",)), "verifier.checks is empty; a task needs at least one check")
    checks: dict[str, Check] = {}
    for index, check in enumerate(given.verifier.checks):
        where = place(("verifier", "checks", index))
        _known("check", check.uses, where, f"verifier.checks[{index}].uses")
        identity = check.id or check.uses
        if identity in checks:
            raise ConfigError(where, f"two checks have the id {identity!r}; give one of them another id")
        checks[identity] = Check(
            id=identity, uses=check.uses, args=frozen(check.args), weight=check.weight, required=check.required
        )
    return Verifier(checks=tuple(checks.values()), combine=given.verifier.combine, scale=given.verifier.scale)


def _turn_checks(given: TaskIn, place: Place) -> tuple[TurnCheck, ...]:
    checks: dict[str, TurnCheck] = {}
    for index, check in enumerate(given.turn_checks):
        where = place(("turn_checks", index))
        _known("turn_check", check.uses, where, f"turn_checks[{index}].uses")
        name = check.name or check.uses
        if name == "outcome" or name in checks:
            taken = "is the verifier's" if name == "outcome" else "is taken"
            raise ConfigError(where, f"turn_checks[{index}]: the name {name!r} {taken}; give another name")
        checks[name] = TurnCheck(
            name=name, uses=check.uses, reward=check.reward, args=frozen(check.args), first_only=check.first_only
        )
    return tuple(checks.values())


def _inspect(task: Task, place: Place) -> None:
    """Refuse what the checks could not grade."""
    for index, check in enumerate(task.verifier.checks):
        loc = ("verifier", "checks", index)
        try:
            run = registry("check").load(check.uses)
            if isinstance(run, TypedCheck):
                root = f"verifier.checks[{index}].args"
                args = validate(Document(path=place(loc), data=dict(check.args), lines={}, root=root), run.model)
                run.inspect(task, args)
        except ConfigError:
            raise
        except (TaskBroken, UserError) as error:
            raise ConfigError(place(loc), f"check {check.id!r}: {error}") from error
    if task.target is None and any(check.uses == "output_has_target" for check in task.turn_checks):
        raise ConfigError(place(("turn_checks",)), "turn check output_has_target needs a target")
