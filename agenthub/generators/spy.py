"""Tables of a game with one spy: a room, what each player sees of it, and what the other players say."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from agenthub.errors import UnknownName, UserError
from agenthub.generators.parts import part_of
from agenthub.rewards.spy import COLOURS

__all__ = ["THINGS", "generate"]

THINGS = ("cup", "hat", "box", "lamp", "rug", "cat", "door", "chair", "bag", "book", "coat", "vase", "bed", "dog")
_KEYS = ("part", "players", "role", "things")
_ROLES = ("spy", "detective")
_TRIES = 2_000


def generate(config: Mapping[str, Any], seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Task rows, for a suite's source; the policy never speaks first. The oracle knows who the spy is and what differs.

    Args:
        config: `part` (`train` or `eval`), `players` (3 to 6, 4 where absent), `things` in the room (8; at least two
            more than players), `role` of the policy (`spy` or `detective`, both by turns where absent).

    Raises:
        UserError: a setting is wrong, or there are not `count` distinct tasks.
    """
    for key in config:
        if key not in _KEYS:
            raise UnknownName("setting of the spy generator", str(key), _KEYS)
    part, role = config.get("part"), config.get("role")
    players, things = config.get("players", 4), config.get("things", 8)
    if part not in (None, "train", "eval"):
        raise UnknownName("part of the tables", str(part), ("train", "eval"))
    if role not in (None, *_ROLES):
        raise UnknownName("role at the table", str(role), _ROLES)
    if type(players) is not int or not 3 <= players <= 6:
        raise UserError(f"generator spy: players is {players!r}; expected a number from 3 to 6")
    if type(things) is not int or not players + 2 <= things <= len(THINGS):
        raise UserError(f"generator spy: things is {things!r}; expected a number from {players + 2} to {len(THINGS)}")
    rng, seen = random.Random(f"spy/{seed}"), set[str]()
    for index in range(count):
        for _ in range(_TRIES):
            row = _row(rng, index, role or _ROLES[index % len(_ROLES)], players, things)
            told = row["prompt"]["user"]
            if told not in seen and part in (None, part_of(told)):
                break
        else:
            raise UserError(f"generator spy has only {index} distinct tasks here; {count} were asked for")
        seen.add(told)
        yield row


def _row(rng: random.Random, index: int, role: str, players: int, things: int) -> dict[str, Any]:
    room = {thing: rng.choice(COLOURS) for thing in rng.sample(THINGS, things)}
    seat = rng.randint(2, players)
    spy = seat if role == "spy" else rng.choice([other for other in range(1, players + 1) if other != seat])
    # The spy tells of what it sees otherwise; every other player of something of its own, and some things are left.
    odd, *told = rng.sample(list(room), players + 1)
    seen = rng.choice([colour for colour in COLOURS if colour != room[odd]])
    own = [odd if other == spy else thing for other, thing in enumerate(told[:players], start=1)]
    view = {**room, odd: seen} if spy == seat else room
    clues = [
        "" if other == seat else _clue(thing, seen if thing == odd else room[thing])
        for other, thing in enumerate(own, start=1)
    ]
    left = next(thing for thing in room if thing not in own and thing != odd)
    said = [f"player {other}: {clue}" for other, clue in enumerate(clues, start=1)]
    args = {"seat": seat, "spy": spy, "room": room, "odd": odd, "seen": seen, "clues": clues}
    vote = spy if spy != seat else 1
    return {
        "id": f"{index:05d}",
        "prompt": {"user": "\n".join([_opening(view, seat, players, role), *said[: seat - 1]])},
        "tools": [{"uses": "table", "config": {"after": said[seat:]}}],
        "verifier": {"checks": [{"uses": "spy", "args": args}]},
        "solution": {"turns": [f"```\n{_clue(left, room[left])}\n```", f"\\boxed{{{vote}}}"]},
        "metadata": {"role": role, "difficulty": players},
    }


def _clue(thing: str, colour: str) -> str:
    return f"the {thing} is {colour}"


def _opening(view: Mapping[str, str], seat: int, players: int, role: str) -> str:
    room = ", ".join(f"{colour} {thing}" for thing, colour in view.items())
    part = "the spy: one thing has another colour for the others" if role == "spy" else "not the spy"
    return f"You see: {room}.\nYou are player {seat} of {players}, {part}."
