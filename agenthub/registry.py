"""Names of plug-ins: one lazy table per kind, filled by us and by third parties' entry points.

Nothing is imported until a plug-in is asked for by name, so `import agenthub` stays light. A third party declares
`[project.entry-points."agenthub.<kind>"]` in its own pyproject.toml. A kind without a working member is not declared.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from agenthub.errors import UnknownName, UserError

__all__ = ["KINDS", "Registry", "registry"]


class Registry:
    """`name -> "module:attr"` for one kind of plug-in."""

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)
        self._scanned = False

    def names(self) -> list[str]:
        """Every known name, sorted; entry points of third parties included."""
        self._scan()
        return sorted(self._entries)

    def add(self, name: str, target: str) -> None:
        """Add one entry.

        Raises:
            UserError: the name is taken by something else, or the target has no `module:attr` form.
        """
        if ":" not in target:
            raise UserError(f"{self.kind} {name!r}: {target!r} is not of the form module:attr")
        if self._entries.get(name, target) != target:
            raise UserError(f"{self.kind} {name!r} is already {self._entries[name]!r}")
        self._entries[name] = target

    def load(self, name: str, where: str = "") -> Any:
        """The object behind `name`; `where` is the place that the error names.

        Raises:
            UnknownName: nothing has that name; the nearest one is named.
            UserError: the module that provides it cannot be imported here.
        """
        self._scan()
        if name not in self._entries:
            raise UnknownName(self.kind, name, self._entries, where)
        module, attribute = self._entries[name].split(":", 1)
        try:
            return getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            missing = error.name or "a package"
            raise UserError(f"{self.kind} {name!r} needs {missing}, which is not installed ({error})") from error

    def target(self, name: str) -> str:
        """`module:attr` behind a name, without importing it."""
        self._scan()
        return self._entries[name]

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        for entry in entry_points(group=f"agenthub.{self.kind}"):
            self.add(entry.name, entry.value)


_CORE: dict[str, dict[str, str]] = {
    "isolation": {
        "docker": "agenthub.sandboxes.isolation.docker:Docker",
        "gvisor": "agenthub.sandboxes.isolation.gvisor:Gvisor",
        "jail": "agenthub.sandboxes.isolation.jail:Jail",
    },
    "sandbox": {
        "echo": "agenthub.sandboxes.echo:EchoSandbox",
        "language": "agenthub.sandboxes.languages.sandbox:LanguageSandbox",
        "python": "agenthub.sandboxes.python.sandbox:PythonSandbox",
        "shell": "agenthub.sandboxes.shell.sandbox:ShellSandbox",
    },
    "policy": {
        "embedded": "agenthub.policies.embedded:EmbeddedPolicy",
        "scripted": "agenthub.policies.scripted:ScriptedPolicy",
    },
    "protocol": {
        "boxed": "agenthub.renderers.text:Boxed",
        "fence_simpletir": "agenthub.renderers.text:FenceSimpletir",
        "fence_strict": "agenthub.renderers.text:FenceStrict",
        "native": "agenthub.renderers.text:Native",
    },
    "renderer": {
        "chat": "agenthub.renderers.chat:ChatRenderer",
        "plain": "agenthub.renderers.plain:PlainRenderer",
    },
    "check": {
        "exact": "agenthub.rewards.checks:exact",
        "io_cases": "agenthub.rewards.code:io_cases",
        "numeric": "agenthub.rewards.checks:numeric",
        "reasoning_gym": "agenthub.rewards.checks:reasoning_gym",
        "regex": "agenthub.rewards.checks:regex",
        "shell_tests": "agenthub.rewards.shell:shell_tests",
        "unittest": "agenthub.rewards.code:unittest",
    },
    "turn_check": {
        "answered": "agenthub.rewards.turns:answered",
        "call_ok": "agenthub.rewards.turns:call_ok",
        "output_has_target": "agenthub.rewards.turns:output_has_target",
    },
    "generator": {
        "arithmetic": "agenthub.generators.arithmetic:generate",
        "reasoning_gym": "agenthub.generators.reasoning:generate",
    },
}
_TRAINER: dict[str, dict[str, str]] = {
    "filter": {"none": "agenthub.trainers.filters:NoFilter", "simpletir": "agenthub.trainers.filters:SimpleTIR"},
    "credit": {"grpo": "agenthub.trainers.credit:GRPO", "mt_grpo": "agenthub.trainers.credit:MTGRPO"},
    "loss": {"ppo": "agenthub.trainers.losses:PPO"},
    "sampler": {"uniform": "agenthub.trainers.samplers:Uniform"},
    "sync": {"embedded": "agenthub.trainers.sync.embedded:EmbeddedSync"},
}

KINDS: Mapping[str, Registry] = {kind: Registry(kind, rows) for kind, rows in (_CORE | _TRAINER).items()}


def registry(kind: str) -> Registry:
    """The table of one kind.

    Raises:
        UnknownName: there is no such kind.
    """
    if kind not in KINDS:
        raise UnknownName("kind of plug-in", kind, KINDS)
    return KINDS[kind]
