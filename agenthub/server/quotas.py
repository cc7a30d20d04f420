"""What one token may use, and what it has used since the hub began.

Counts are kept in memory: a restart begins them anew. Box time is the wall time between an episode's admission and the
end of its boxes, times the number of its boxes; grading boxes and warm pools are not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pydantic import Field

from agenthub.config import ConfigModel
from agenthub.errors import WireError

__all__ = ["Account", "Accounts", "Bucket", "Quotas"]

_DAY_S = 86400.0
_SOON_S = 1.0


class Quotas(ConfigModel):
    """Limits of one token; None is no limit."""

    live_episodes: int | None = Field(default=None, ge=1)
    steps_per_s: float | None = Field(default=None, gt=0, le=1e6)
    """Steps a second over all episodes, in bursts of as many as come in a second, at least one."""
    sandbox_seconds_per_day: float | None = Field(default=None, gt=0)
    """Box seconds a day: a store that is full at first and fills evenly. Where it is empty no episode is opened; those
    that run may end."""


class Bucket:
    """A token bucket that starts full."""

    def __init__(self, rate_s: float, size: float, now: float) -> None:
        """`rate_s` units flow in each second, up to `size`."""
        self._rate_s, self._size, self._level, self._at = rate_s, size, size, now

    def take(self, now: float) -> float:
        """Take one unit and give 0.0; or take nothing and give the seconds until there is one."""
        self._level = min(self._size, self._level + (now - self._at) * self._rate_s)
        self._at = now
        if self._level < 1.0:
            return (1.0 - self._level) / self._rate_s
        self._level -= 1.0
        return 0.0


class Account:
    """One token's quotas and what counts towards them."""

    def __init__(self, name: str, quotas: Quotas | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self._clock = name, clock
        self.live = 0
        """Episodes that hold a ticket now."""
        self.steps = 0
        """Steps asked for, repeated ones too."""
        self._boxes = 0
        self._spent_s = 0.0
        self._owed_s = 0.0
        self._at = clock()
        self.set(quotas or Quotas())

    def set(self, quotas: Quotas) -> None:
        """Other limits from now on; what was used stays used, but the steps' bucket is full again."""
        self.quotas, rate = quotas, quotas.steps_per_s
        self._bucket = None if rate is None else Bucket(rate, max(1.0, rate), self._clock())

    @property
    def box_seconds(self) -> float:
        """Box seconds so far, those of running boxes too."""
        self._tick()
        return self._spent_s

    def step(self) -> None:
        """Count one step.

        Raises:
            WireError: 429 `quota_exceeded`: too many steps in the last second; nothing was counted.
        """
        if self._bucket is not None:
            wait_s = self._bucket.take(self._clock())
            if wait_s > 0.0:
                raise self._refused("steps_per_s", self.quotas.steps_per_s, wait_s)
        self.steps += 1

    def check(self, count: int) -> None:
        """May `count` more episodes be opened?

        Raises:
            WireError: 429 `quota_exceeded`; 422 `refused` where `count` alone is more than the quota.
        """
        most = self.quotas.live_episodes
        if most is not None and count > most:
            raise WireError("refused", 422, f"{count} episodes are asked for; this token may hold {most}")
        if most is not None and self.live + count > most:
            raise self._refused("live_episodes", most, _SOON_S)
        a_day = self.quotas.sandbox_seconds_per_day
        if a_day is not None:
            self._tick()
            if self._owed_s >= a_day:
                wait_s = (self._owed_s - a_day) / (a_day / _DAY_S) + _SOON_S
                raise self._refused("sandbox_seconds_per_day", a_day, wait_s)

    def hold(self, boxes: int) -> None:
        """An episode with so many boxes begins."""
        self._tick()
        self.live += 1
        self._boxes += boxes

    def release(self, boxes: int) -> None:
        """An episode with so many boxes has ended."""
        self._tick()
        self.live -= 1
        self._boxes -= boxes

    def _tick(self) -> None:
        """Charge what ran since the last change; what is owed is paid back evenly over a day."""
        now = self._clock()
        spent_s, passed_s = self._boxes * (now - self._at), now - self._at
        self._at = now
        self._spent_s += spent_s
        a_day = self.quotas.sandbox_seconds_per_day
        if a_day is not None:
            self._owed_s = max(0.0, self._owed_s + spent_s - passed_s * a_day / _DAY_S)

    def _refused(self, quota: str, limit: float | None, wait_s: float) -> WireError:
        text = f"token {self.name!r} is at its quota of {quota}: {limit:g}"
        detail = {"quota": quota, "limit": limit, "retry_after_s": round(wait_s, 3)}
        return WireError("quota_exceeded", 429, text, detail)


class Accounts:
    """The accounts of one hub by token name; a name that comes back finds what it had used."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}

    def of(self, name: str) -> Account:
        """The account of that name, without limits until some are set."""
        if name not in self._accounts:
            self._accounts[name] = Account(name)
        return self._accounts[name]

    def all(self) -> list[Account]:
        """Every account, by name."""
        return [self._accounts[name] for name in sorted(self._accounts)]
