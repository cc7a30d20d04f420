"""Admission: what a hub has promised its boxes, before any of them is started.

As in Kubernetes, a box has a small request and a hard limit. The sum of the requests of all live episodes stays within
a budget; the boxes may use more than they asked for as long as the machine has it.
"""

from __future__ import annotations

import os
from pathlib import Path

from agenthub.episodes.boxes import distinct
from agenthub.errors import WireError
from agenthub.server.quotas import Account
from agenthub.suites.task import Task

__all__ = ["Admission", "Ticket", "default_budget_mb", "request_mb"]

_SHARE = 0.8
"""Of the machine's memory; the rest is the hub's own, the grading boxes' and the warm pools'."""


class Ticket:
    """What one episode holds of the budget, and of its owner's quotas."""

    def __init__(self, admission: Admission, request_mb: int, account: Account | None = None, boxes: int = 0) -> None:
        """`boxes` run for `account` until the ticket is released."""
        self._admission, self._request_mb = admission, request_mb
        self._account, self._boxes = account, boxes
        admission.held_mb += request_mb
        if account is not None:
            account.hold(boxes)

    def release(self) -> None:
        """Give it back. Safe to call again."""
        held, self._request_mb = self._request_mb, 0
        account, self._account = self._account, None
        self._admission.held_mb -= held
        if account is not None:
            account.release(self._boxes)


class Admission:
    """The memory budget of one hub."""

    def __init__(self, budget_mb: int) -> None:
        self.budget_mb = budget_mb
        self.held_mb = 0
        """Sum of the requests of what was admitted and is not released."""

    def admit(self, request_mb: int, count: int, account: Account | None = None, boxes: int = 0) -> list[Ticket]:
        """Tickets for `count` episodes that ask for `request_mb` and run `boxes` each; all of them or none.

        Raises:
            WireError: 429 `over_capacity`, or `quota_exceeded` of the account's: not now; 422 `refused`: not even on an
                empty hub.
        """
        if account is not None:
            account.check(count)
        asked = request_mb * count
        detail = {"asked_mb": asked, "held_mb": self.held_mb, "budget_mb": self.budget_mb}
        soon = {"retry_after_s": 1.0}
        if asked > self.budget_mb:
            raise WireError("refused", 422, f"{asked} MiB are asked for; this hub has {self.budget_mb} in all", detail)
        if self.held_mb + asked > self.budget_mb:
            text = f"{asked} MiB are asked for; {self.held_mb} of this hub's {self.budget_mb} are promised to others"
            raise WireError("over_capacity", 429, text, detail | soon)
        return [Ticket(self, request_mb, account, boxes) for _ in range(count)]


def request_mb(task: Task) -> int:
    """MiB that one episode of the task asks for: its boxes, and where a lost one is restored a copy of each."""
    copies = 2 if task.on_lost == "restore" else 1
    return copies * sum(spec.request_mb for spec in distinct(task))


def default_budget_mb(root: Path = Path("/")) -> int:
    """80% of the machine's memory, or of this process's cgroup limit where that is less.

    Args:
        root: where proc and sys are found.
    """
    machine_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    return max(1, int(_SHARE * min([machine_mb, *_cgroup_mb(root)])))


def _cgroup_mb(root: Path) -> list[int]:
    """Memory limits of the cgroups that this process is in, the parents' too, version 1 and 2."""
    try:
        rows = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    limits = []
    for row in rows:
        _, controllers, path = row.split(":", 2)
        if controllers == "":
            mounted, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mounted, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        inner = Path(path.lstrip("/"))
        # Inside a container the path may be the host's: the mount's own root then holds the container's limit.
        limits += [_limit_mb(mounted / folder / name) for folder in (inner, *inner.parents)]
    return [limit for limit in limits if limit is not None]


def _limit_mb(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    # Version 1 says "no limit" with a number of pages near 2^63.
    return int(text) >> 20 if text.isdigit() and int(text) < 1 << 60 else None
