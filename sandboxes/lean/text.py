"""A file's compile: in a compiler that waits with the library imported, where the text can be put there; else cold."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from agenthub.sandboxes.lean.box import NOT_BEGUN, PARTS, Ahead, Compiler, Ran
from agenthub.sandboxes.lean.lexer import Unreadable, tokens

__all__ = ["AHEAD", "compiled"]

_HEARTBEATS = 200_000
_OUTPUT = ("-o", "Main.olean", "Main.lean")
AHEAD = Ahead(arguments=("--agenthub-ahead", "-j2", "--json", f"-DmaxHeartbeats={_HEARTBEATS}", *_OUTPUT))
"""The compiler that waits: it has imported what a file without imports has, under the limit that tasks mostly have."""
_MOST_BYTES = 60_000
_HEADER_WORDS = ("import", "module", "prelude", "\r")
_NO_CODE = "noncomputable section"
"""The WebAssembly build has no code of many library functions, and a definition that uses one is an error there where
code is made of it. Here a definition is compiled where that is possible, and kept where it is not; what is proved of it
is the same."""


async def compiled(compiler: Compiler, source: str, *, heartbeats: int, seconds: float) -> Ran:
    """Compile a file in a box of its own; its parts are taken out. Raises as Compiler.run does."""
    if compiler.toolchain.native:
        return await _compiled(compiler, source, heartbeats=heartbeats, seconds=seconds)
    ran = await _compiled(compiler, _without_code(source), heartbeats=heartbeats, seconds=seconds)
    last = None if ran.last is None else (ran.last[0] - 1, ran.last[1])
    return replace(ran, above=ran.above + 1, last=last)


def _without_code(source: str) -> str:
    """With one line more, behind the imports."""
    if "import" in source:
        try:
            found = [*tokens(source)]
        except Unreadable:
            return f"{_NO_CODE}\n{source}"
        named = [after for word, after in pairwise(found) if word.text == "import"]
        if named:
            end = named[-1].at + len(named[-1].text)
            return f"{source[:end]}\n{_NO_CODE}{source[end:]}"
    return f"{_NO_CODE}\n{source}"


async def _compiled(compiler: Compiler, source: str, *, heartbeats: int, seconds: float) -> Ran:
    if compiler.warm and heartbeats == _HEARTBEATS and _fits(source):
        ran = await compiler.go_on(AHEAD, {"agenthub-text": source.encode()}, seconds=seconds, collect=PARTS)
        if ran.code != NOT_BEGUN:
            lines = source.split("\n")
            return replace(ran, above=1, last=(len(lines), len(lines[-1])))
    arguments = ("-j2", "--json", f"-DmaxHeartbeats={heartbeats}", *_OUTPUT)
    text = source.encode("utf-8", "surrogatepass")
    return await compiler.run({"Main.lean": text}, arguments, seconds=seconds, collect=PARTS)


def _fits(source: str) -> bool:
    """True where it surely has no header of its own, and is text that takes the room there is."""
    try:
        return len(source.encode()) <= _MOST_BYTES and not any(word in source for word in _HEADER_WORDS)
    except UnicodeEncodeError:
        return False
