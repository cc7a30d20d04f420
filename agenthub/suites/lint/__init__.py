"""Lint: plays every task with an oracle that must win and with policies that must not, and names the holes.

playing    one episode in process, and what counts as won
oracle     the oracle wins, and again in the same way; an idler and constant answers do not
cheating   each technique of a cheating policy, and what a look around in the box gives away
examine    all of it over the tasks of a suite, and what only shows over many: luck, one answer for all

report = await examine(suite.tasks, workbench, Plan(seed=1))
report.holes          what is wrong, by task and technique
report.tallies        how often each technique was played, and won
"""

from __future__ import annotations

from agenthub.suites.lint.cheating import techniques
from agenthub.suites.lint.examine import Plan, Report, Tally, examine, lint
from agenthub.suites.lint.playing import Hole, play, won

__all__ = ["Hole", "Plan", "Report", "Tally", "examine", "lint", "play", "techniques", "won"]
