"""Sessions that outlive a request: by an id that nobody can guess, for their owner alone, as long as they are used."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

from agenthub.errors import WireError
from agenthub.server.dialects.player import Player

__all__ = ["Session", "Sessions"]


@dataclass(slots=True)
class Session:
    """One session. Its episode's lease is the hub's; this is only the way to it."""

    id: str
    owner: str
    player: Player
    expires: float
    """Time of the loop's clock."""
    attached: bool = False
    """A socket uses it: it does not expire, and its episode's lease is renewed."""
    closing: bool = False
    """It ends when the socket leaves it."""


class Sessions:
    """The sessions of one dialect."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._sessions: dict[tuple[str, str], Session] = {}

    def add(self, owner: str, player: Player, *, id: str | None = None) -> Session:
        """A new session, by the client's own id where it has one.

        Raises:
            WireError: 429 `too_many_sessions`.
        """
        self._sweep()
        if len(self._sessions) >= self._most:
            raise WireError("too_many_sessions", 429, f"this hub holds at most {self._most} sessions")
        session = Session(id=id or secrets.token_hex(16), owner=owner, player=player, expires=0.0)
        self._sessions[owner, session.id] = session
        self.touch(session)
        return session

    def get(self, owner: str, id: str) -> Session | None:
        """The owner's session of that id, its time begun anew; None where there is none."""
        session = self._sessions.get((owner, id))
        if session is not None:
            self.touch(session)
        return session

    def touch(self, session: Session) -> None:
        """Begin its time anew."""
        session.expires = asyncio.get_running_loop().time() + session.player.lease_s

    async def close(self, session: Session) -> None:
        """Forget a session and end its episode."""
        self._sessions.pop((session.owner, session.id), None)
        await session.player.close()

    def _sweep(self) -> None:
        """Forget what was not used for its lease: the hub has ended the episodes."""
        now = asyncio.get_running_loop().time()
        for key in [key for key, it in self._sessions.items() if it.expires < now and not it.attached]:
            del self._sessions[key]
