"""Whether this machine has the programs that a suite's sandboxes need."""

from __future__ import annotations

from agenthub.errors import UserError
from agenthub.registry import registry
from agenthub.sandbox import Equipped
from agenthub.suites.task import Suite

__all__ = ["lacking"]


def lacking(suite: Suite) -> str:
    """What is missing where not one task can be played here; empty where one can. Looks, and starts nothing."""
    reasons: dict[str, str] = {}
    for kinds in {frozenset(tool.uses for tool in task.tools) for task in suite.tasks}:
        for kind in kinds - reasons.keys():
            reasons[kind] = _lacking(kind)
        if not any(reasons[kind] for kind in kinds):
            return ""
    return "; ".join(sorted({reason for reason in reasons.values() if reason}))


def _lacking(kind: str) -> str:
    try:
        factory = registry("sandbox").load(kind)
    except UserError as missing:
        return str(missing)
    return str(factory.lacking()) if isinstance(factory, Equipped) else ""
