"""Challenges, compiled apart from any submission: once for each toolchain, together, and kept."""

from __future__ import annotations

import base64
import functools
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from agenthub.errors import HostFault, UserError
from agenthub.sandboxes.lean.box import Compiler, Ran
from agenthub.sandboxes.lean.challenge import Challenge
from agenthub.sandboxes.lean.feedback import first_error
from agenthub.sandboxes.lean.gather import Gather
from agenthub.sandboxes.lean.olean import BadOlean, Table
from agenthub.sandboxes.lean.read import Asked, decode, name_of
from agenthub.sandboxes.lean.text import compiled
from agenthub.sandboxes.lean.toolchain import TESTED

__all__ = ["Challenges"]

_MOST = 48
_SECONDS = 240.0
_HEARTBEATS = 200_000


class Challenges:
    """What was asked, as compiled parts."""

    def __init__(self, compiler: Compiler, cache: Path) -> None:
        self._compiler = compiler
        self._folder = cache / compiler.toolchain.identity / "challenges"
        self._known: dict[str, Asked] = {}
        self._gathers: dict[tuple[str, ...], Gather[Challenge, Asked | str]] = {}

    async def get(self, challenge: Challenge) -> Asked:
        """The compiled challenge.

        Raises:
            UserError: it does not compile; says why.
            HostFault: our side failed.
        """
        key = challenge.digest()
        found = self._known.get(key) or self._stored(key)
        if found is None:
            imports = challenge.imports
            if imports not in self._gathers:
                gather = Gather(functools.partial(self._together, imports), most=_MOST, wait_s=0.05)
                self._gathers[imports] = gather
            made = await self._gathers[imports].get(challenge)
            if isinstance(made, str):
                raise UserError(f"the Lean challenge does not compile: {made}")
            found = made
        self._known[key] = found
        return found

    async def _together(self, imports: tuple[str, ...], asked: Sequence[Challenge]) -> list[Asked | str]:
        """All in one file, each in a namespace of its own; those that do not stand that, one by one."""
        names = [f"AgenthubChallenge{index}" for index in range(len(asked))]
        made: list[Asked | str] = ["" for _ in asked]
        if len(asked) > 1:
            text = "".join(
                f"namespace {name}\n{one.asked()}end {name}\n" for name, one in zip(names, asked, strict=True)
            )
            ran = await self._compile(imports, text)
            for index, (name, one) in enumerate(zip(names, asked, strict=True)):
                made[index] = self._checked(ran, one, name)
        for index, one in enumerate(asked):
            if isinstance(made[index], str):
                made[index] = self._checked(await self._compile(imports, one.asked()), one, "")
            found = made[index]
            if isinstance(found, Asked):
                self._store(one.digest(), found)
        return made

    async def _compile(self, imports: Sequence[str], text: str) -> Ran:
        source = "".join(f"import {name}\n" for name in imports) + text
        return await compiled(self._compiler, source, heartbeats=_HEARTBEATS, seconds=_SECONDS)

    def _checked(self, ran: Ran, challenge: Challenge, inside: str) -> Asked | str:
        if ran.code != 0 or not ran.parts:
            if ran.code is None and not ran.late:
                raise HostFault(f"compiling a challenge failed: {ran.lost or 'the compiler was killed'}")
            return first_error(ran) or f"exit status {ran.code}"
        asked = Asked(parts=ran.parts, inside=name_of(inside) if inside else ())
        toolchain = self._compiler.toolchain
        try:
            module = decode(asked.parts, Table(), pointer=toolchain.pointer_bytes, versions=TESTED, inside=asked.inside)
        except BadOlean as error:
            return f"what the compiler wrote cannot be read: {error}"
        missing = [name for name in challenge.names if name_of(name) not in module.own]
        return f"it declares no theorem {missing[0]}" if missing else asked

    def _stored(self, key: str) -> Asked | None:
        try:
            row = json.loads((self._folder / f"{key}.json").read_bytes())
            parts = tuple(base64.b64decode(part) for part in row["parts"])
            return Asked(parts=parts, inside=tuple(row["inside"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _store(self, key: str, asked: Asked) -> None:
        row = {"parts": [base64.b64encode(part).decode() for part in asked.parts], "inside": list(asked.inside)}
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self._folder, delete=False, encoding="utf-8") as file:
            json.dump(row, file)
        os.replace(file.name, self._folder / f"{key}.json")
