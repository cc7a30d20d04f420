"""What every test shares: no deadline for examples, which tests stay together where several workers run them, and the
time budget of each area, reported at the end."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

# A busy machine makes a sound test slow; time is not what these tests are about.
settings.register_profile("agenthub", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("agenthub")

ROOT = Path(__file__).parent
BUDGET_S = {
    "browser": 100,
    "client": 60,
    "cli": 90,
    "contract": 60,
    "desktop": 100,
    "dialects": 120,
    "docker": 180,
    "lean": 450,
    "search": 75,
    "sandboxes": 90,
    "security": 120,
    "server": 150,
    "trainers": 300,
    "vllm": 240,
}
"""Seconds of `make test` by folder under tests/, on two cores that two workers share; what is not named has 45.
Reported, never asserted."""
DEFAULT_BUDGET_S = 45

_TOGETHER = frozenset({"browser", "desktop", "dialects", "docker", "lean", "vllm"})
"""Areas whose tests share what is dear to start: one worker runs all of an area. Else one runs all of a file."""

_spent: dict[str, float] = defaultdict(float)


def _area(nodeid: str) -> str:
    parts = Path(nodeid.split("::")[0]).parts
    return parts[1] if len(parts) > 2 else "core"


def _budget(area: str) -> int:
    return BUDGET_S.get(area, DEFAULT_BUDGET_S)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest areas first, so that no worker is left with one of them at the end."""
    items.sort(key=lambda item: (_area(item.nodeid) not in _TOGETHER, -_budget(_area(item.nodeid))))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hands whole areas and whole files to the workers."""

    def scope(nodeid: str) -> str:
        area = _area(nodeid)
        return area if area in _TOGETHER else nodeid.split("::")[0]

    scheduling = LoadScopeScheduling(config, log)
    scheduling._split_scope = scope
    return scheduling


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _spent[_area(report.nodeid)] += report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _spent:
        return
    terminalreporter.section("seconds by area (budget)")
    for area, spent in sorted(_spent.items(), key=lambda item: -item[1]):
        budget = _budget(area)
        over = "  over its budget" if spent > budget else ""
        terminalreporter.write_line(f"{area:12} {spent:7.1f} ({budget}){over}")
