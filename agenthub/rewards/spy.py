"""The check `spy`: one spy among players who see one room, and what the game was worth to the seat of the policy.

Everybody sees the same room but the spy, for whom one thing has another colour. Each says one thing of the room, then
all vote. The other seats are rules: a player suspects who says what it sees otherwise, or, of the policy, who says
nothing new. The spy is caught where every other player votes for it.
Source: Vision-Zero, arXiv 2509.25541; wangqinsi1/Vision-Zero. Its players see images, and all of them are the policy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from agenthub.config import ConfigModel
from agenthub.rewards.arguments import check
from agenthub.rewards.score import Context, Score

__all__ = ["COLOURS", "SpyArgs", "claims", "detective_reward", "spy", "spy_reward", "votes"]

COLOURS = ("red", "blue", "green", "white", "black", "brown", "pink", "grey")
_MOST_CHARS = 1_000
"""A longer clue says nothing."""


class SpyArgs(ConfigModel):
    """Arguments of `spy`: the game without what the policy says. Seats count from 1."""

    seat: int
    """Of the policy."""
    spy: int
    """Of the spy; the same where the policy plays it."""
    room: dict[str, str] = Field(min_length=1)
    """What everybody but the spy sees: things and their colours."""
    odd: str
    """The thing that the spy sees in another colour."""
    seen: str
    """That colour."""
    clues: tuple[str, ...] = Field(min_length=3)
    """What each seat says; empty at the policy's."""
    suspicion: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.6
    """What all votes against a player that is no spy cost it."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in ("seat", "spy"):
            if not 1 <= getattr(self, name) <= len(self.clues):
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 to {len(self.clues)}")
        if self.odd not in self.room:
            raise ValueError(f"odd is {self.odd!r}, which is not in the room")
        return self

    def view(self, seat: int) -> Mapping[str, str]:
        """The room as a seat sees it."""
        return {**self.room, self.odd: self.seen} if seat == self.spy else self.room


def detective_reward(votes: float, players: int, *, caught: bool, suspicion: float = 0.6) -> float:
    """1 where the spy was caught, less `suspicion` times the share of the others who voted for the player."""
    return float(caught) - suspicion * votes / (players - 1)


def spy_reward(votes: float, players: int) -> float:
    """1 less the share of the others who voted for the spy."""
    return 1.0 - votes / (players - 1)


def claims(clue: str, room: Mapping[str, str]) -> dict[str, str]:
    """The things of the room that a clue gives a colour: `the cup is red`, `a red cup`. The first colour of each."""
    colours, found = "|".join(COLOURS), {}
    text = clue.lower() if len(clue) <= _MOST_CHARS else ""
    for thing in room:
        said = re.search(rf"\b(?:({colours})\s+{re.escape(thing)}\b|{re.escape(thing)}\s+is\s+({colours})\b)", text)
        if said:
            found[thing] = said[1] or said[2]
    return found


def votes(game: SpyArgs, clue: str, vote: int) -> list[int]:
    """The seat that each seat votes for, in order, where the policy says `clue` and votes for `vote`."""
    said = [claims(clue if seat == game.seat else own, game.room) for seat, own in _seats(game.clues)]
    known = set().union(*said[: game.seat - 1])
    evasive = not set(said[game.seat - 1]) - known
    return [vote if seat == game.seat else _suspect(game, seat, said, evasive) for seat, _ in _seats(game.clues)]


def _suspect(game: SpyArgs, seat: int, said: Sequence[Mapping[str, str]], evasive: bool) -> int:
    """Whom a seat that is a rule votes for."""
    view = game.view(seat)
    others = [other for other, _ in _seats(game.clues) if other != seat]
    liars = [other for other in others if any(view[thing] != colour for thing, colour in said[other - 1].items())]
    if liars:
        # Two who lie divide the table.
        return liars[seat % len(liars)]
    return game.seat if evasive else next(other for other in others if other != game.seat)


def _seats(clues: Sequence[str]) -> enumerate[str]:
    return enumerate(clues, start=1)


@check(SpyArgs)
async def spy(context: Context, args: SpyArgs) -> Score:
    """The game's reward, at least 0, with the first call's code as the clue; 0 without a vote for another player."""
    players = len(args.clues)
    given = (context.answer or "").strip()
    vote = int(given) if re.fullmatch(r"[0-9]{1,3}", given) else 0
    if not 1 <= vote <= players or vote == args.seat:
        return Score(value=0.0, reason="no vote for another player")
    calls = [call for turn in context.turns for call in turn.calls]
    clue = calls[0].arguments.get("code") if calls else ""
    cast = votes(args, clue if isinstance(clue, str) else "", vote)
    against = cast.count(args.seat)
    caught = all(chosen == args.spy for seat, chosen in enumerate(cast, start=1) if seat != args.spy)
    own = spy_reward(against, players)
    if args.seat != args.spy:
        own = detective_reward(against, players, caught=caught, suspicion=args.suspicion)
    told = f"{against} of {players - 1} voted for the policy; the spy was {'' if caught else 'not '}caught"
    return Score(value=max(0.0, own), reason=told)
