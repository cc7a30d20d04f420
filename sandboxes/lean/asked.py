"""Challenges, compiled apart from any submission: once for each toolchain, together, and kept."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import os
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from agenthub.errors import HostFault, UserError
from agenthub.sandboxes.lean.box import Compiler, Ran
from agenthub.sandboxes.lean.challenge import Challenge
from agenthub.sandboxes.lean.feedback import first_error
from agenthub.sandboxes.lean.gather import Gather
from agenthub.sandboxes.lean.lexer import Unreadable, tokens
from agenthub.sandboxes.lean.olean import BadOlean, Table
from agenthub.sandboxes.lean.read import Asked, decode, name_of
from agenthub.sandboxes.lean.text import compiled
from agenthub.sandboxes.lean.toolchain import TESTED

__all__ = ["Challenges"]

_MOST = 48
_SECONDS = 240.0
_Made = Asked | str | HostFault
"""A compiled challenge, or why it does not compile, or our fault."""
_HEARTBEATS = 200_000
_REACHES = {"instance", "attribute", "notation", "notation3", "infix", "infixl", "infixr", "prefix", "postfix", "macro"}
_REACHES |= {"macro_rules", "syntax", "elab", "elab_rules", "declare_syntax_cat", "binder_predicate", "unif_hint", "@"}
_REACHES |= {"initialize", "simproc", "dsimproc", "grind_pattern"}
"""What may change how a text in another namespace is read; `@` begins attributes."""


class Challenges:
    """What was asked, as compiled parts."""

    def __init__(self, compiler: Compiler, cache: Path) -> None:
        self._compiler = compiler
        self._folder = cache / compiler.toolchain.identity / "challenges"
        self._known: dict[str, Asked] = {}
        self._gathers: dict[tuple[str, ...], Gather[Challenge, _Made]] = {}

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
            if isinstance(made, HostFault):
                raise made
            found = made
        self._known[key] = found
        return found

    async def _together(self, imports: tuple[str, ...], asked: Sequence[Challenge]) -> list[_Made]:
        """All that keep to themselves in one file, each in a namespace of its own; the others one by one."""
        groups = [[one] for one in asked if not _keeps_to_itself(one)]
        made = await self._groups(imports, [*groups, [one for one in asked if _keeps_to_itself(one)]])
        return [made[one.digest()] for one in asked]

    async def _groups(self, imports: tuple[str, ...], groups: Sequence[Sequence[Challenge]]) -> dict[str, _Made]:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self._group(imports, group)) for group in groups if group]
        return {key: found for task in running for key, found in task.result().items()}

    async def _group(self, imports: tuple[str, ...], group: Sequence[Challenge]) -> dict[str, _Made]:
        """One file of all; where it does not compile, one of each half, as some do not stand a namespace."""
        names = [f"AgenthubChallenge{index}" if len(group) > 1 else "" for index in range(len(group))]
        texts = [one.asked() for one in group]
        if len(group) > 1:
            texts = [f"namespace {name}\n{text}end {name}\n" for name, text in zip(names, texts, strict=True)]
        try:
            ran = await self._compile(imports, "".join(texts))
            made = {one.digest(): self._checked(ran, one, name) for one, name in zip(group, names, strict=True)}
        except HostFault as fault:
            return {one.digest(): fault for one in group}
        if len(group) > 1 and any(isinstance(found, str) for found in made.values()):
            return await self._groups(imports, (group[: len(group) // 2], group[len(group) // 2 :]))
        for key, found in made.items():
            if isinstance(found, Asked):
                self._store(key, found)
        return {**made}

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


def _keeps_to_itself(challenge: Challenge) -> bool:
    """True where it surely means the same in a namespace, and changes no other that stands behind it."""
    try:
        found = tokens(challenge.asked())
    except Unreadable:
        return False
    if challenge.open_scopes or any(token.text in _REACHES for token in found):
        return False
    pairs = [(word.text, after.text) for word, after in pairwise(found)]
    # In a namespace of the library the library's names are short, which they are not below ours.
    types = {after for word, after in pairs if word in ("inductive", "structure", "class")}
    return all(after.split(".")[0] in types for word, after in pairs if word == "namespace")
