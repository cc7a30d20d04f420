"""When to ask again, and how long to wait: every request of ours is safe to repeat."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Any

from agenthub.errors import AgenthubError, HostFault, HubUnreachable, WireError

__all__ = ["Again", "Patience", "refusal"]

_FIRST_S = 0.05
_LONGEST_S = 5.0
_ASK_AGAIN = frozenset({"over_capacity", "quota_exceeded", "stopping", "too_many_episodes"})
_QUIET_S = 3.0
"""Without an answer for so long, a person is told that it is waited for."""
_TOLD_EVERY_S = 30.0
_TOO_LONG_S = 60.0
"""A quota that is empty for longer is told to the caller."""


_logger = logging.getLogger("agenthub.client")
_told: dict[str, float] = {}
"""By address, when it was said last that its hub is waited for: one line for a thousand episodes that wait."""


class Again(Exception):
    """No answer, or one that says to ask again; the message says why. Never leaves the client."""

    def __init__(self, why: str, *, after_s: float = 0.0) -> None:
        """`after_s`: seconds before which the hub will say the same."""
        self.after_s = after_s
        super().__init__(why)


class Patience:
    """How long one request goes on without an answer: waits double from 50 ms to 5 s, within a budget."""

    def __init__(self, budget_s: float, url: str) -> None:
        self._budget_s, self._url = budget_s, url
        self._since: float | None = None
        self._wait_s = _FIRST_S

    def reset(self) -> None:
        """The hub was heard of: the budget begins anew with the next failure."""
        self._since, self._wait_s = None, _FIRST_S

    async def wait(self, why: Again) -> None:
        """Wait before the next try.

        Raises:
            HubUnreachable: the budget is spent.
        """
        now = asyncio.get_running_loop().time()
        self._since = now if self._since is None else self._since
        wait_s = max(self._wait_s, why.after_s)
        if now + wait_s - self._since > self._budget_s:
            raise HubUnreachable(f"no answer from the hub at {self._url} in {self._budget_s:g} s: {why}") from why
        if now - self._since >= _QUIET_S:
            self._tell(why)
        # Jitter keeps a thousand episodes from coming back in the same millisecond.
        await asyncio.sleep(max(why.after_s, self._wait_s * random.uniform(0.5, 1.0)))
        self._wait_s = min(_LONGEST_S, 2 * self._wait_s)

    def _tell(self, why: Again) -> None:
        now = time.monotonic()
        if now - _told.get(self._url, -_TOLD_EVERY_S) >= _TOLD_EVERY_S:
            _told[self._url] = now
            _logger.warning("waiting up to %g s for the hub at %s: %s", self._budget_s, self._url, why)


def refusal(status: int, error: Any, *, op: str = "") -> AgenthubError | Again:
    """What an error of the hub is on this side.

    A fault of the hub's own is `HostFault` (the member can be played again), except that a step is simply sent again:
    it was played, and only its logging failed.
    """
    row = error if isinstance(error, dict) else {}
    code, message = str(row.get("code", "refused")), str(row.get("message", f"status {status}"))
    after_s = _after_s(row.get("detail")) if code == "quota_exceeded" else 0.0
    if after_s > _TOO_LONG_S:
        return WireError(code, status, message, row.get("detail"))
    if code in _ASK_AGAIN or (code == "infra_fault" and op == "step"):
        return Again(f"{code}: {message}", after_s=after_s)
    if code in ("infra_fault", "episode_lost"):
        return HostFault(message)
    return WireError(code, status, message, row.get("detail"))


def _after_s(detail: Any) -> float:
    said = detail.get("retry_after_s") if isinstance(detail, dict) else None
    return float(said) if isinstance(said, int | float) else 0.0
