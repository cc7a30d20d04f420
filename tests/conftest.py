"""What every test shares: no deadline for examples, and the time budget of each area, reported at the end."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine makes a sound test slow; time is not what these tests are about.
settings.register_profile("agenthub", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("agenthub")

ROOT = Path(__file__).parent
BUDGET_S = {
    "client": 60,
    "cli": 90,
    "contract": 60,
    "dialects": 120,
    "docker": 180,
    "lean": 270,
    "search": 75,
    "security": 120,
    "server": 150,
    "trainers": 150,
    "vllm": 200,
}
"""Seconds of `make test` on two cores, by folder under tests/; what is not named has 45. Reported, never asserted."""
DEFAULT_BUDGET_S = 45

_spent: dict[str, float] = defaultdict(float)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    parts = Path(report.nodeid.split("::")[0]).parts
    area = parts[1] if len(parts) > 2 else "core"
    _spent[area] += report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _spent:
        return
    terminalreporter.section("seconds by area (budget)")
    for area, spent in sorted(_spent.items(), key=lambda item: -item[1]):
        budget = BUDGET_S.get(area, DEFAULT_BUDGET_S)
        over = "  over its budget" if spent > budget else ""
        terminalreporter.write_line(f"{area:12} {spent:7.1f} ({budget}){over}")
