"""Runs one turn's code as a notebook cell: state stays, the last expression's value is shown, tracebacks are short.

Part of the guest: standard library only, and everything it says is untrusted on the other side.
"""

from __future__ import annotations

import ast
import linecache
import traceback
import types
from typing import Any

__all__ = ["SHOWN_CHARS", "clip", "run_cell", "show_error"]

SHOWN_CHARS = 16_384
_NAME = "<turn "


def run_cell(code: str, turn: int, names: dict[str, Any]) -> dict[str, Any]:
    """Run code in a namespace: `value` is the repr of a last expression that is not None, `error` a traceback.

    Raises:
        SystemExit: the code asked to exit.
    """
    filename = f"{_NAME}{turn}>"
    linecache.cache[filename] = (len(code), None, code.splitlines(keepends=True), filename)
    try:
        body, last = _split(code, filename)
        exec(body, names)
        if last is None:
            return {"value": None, "error": None}
        value = eval(last, names)
        if value is None:
            return {"value": None, "error": None}
        names["_"] = value
        return {"value": clip(repr(value)), "error": None}
    except SystemExit:
        raise
    except BaseException as error:
        return {"value": None, "error": show_error(error)}


def _split(code: str, filename: str) -> tuple[types.CodeType, types.CodeType | None]:
    """The statements, and a last expression apart."""
    tree = ast.parse(code, filename)
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        return compile(tree, filename, "exec"), None
    tree.body.pop()
    return compile(tree, filename, "exec"), compile(ast.Expression(last.value), filename, "eval")


def show_error(error: BaseException, name: str = _NAME) -> str:
    """The traceback, with the frames of the user's own code alone: those of files whose names begin with `name`."""
    try:
        report = traceback.TracebackException.from_exception(error, compact=True)
        seen: set[int] = set()
        link: traceback.TracebackException | None = report
        while link is not None and id(link) not in seen:
            seen.add(id(link))
            kept = [frame for frame in link.stack if frame.filename.startswith(name)]
            link.stack = traceback.StackSummary.from_list(kept)
            link = link.__cause__ or link.__context__
        text = "".join(report.format())
    except BaseException:
        # A hostile __str__ or metaclass; the name of the type is read past it.
        text = f"{type.__getattribute__(type(error), '__name__')}: its message cannot be shown\n"
    return clip(text)


def clip(text: str) -> str:
    """Head and tail of a long text, and how much is missing between them."""
    if len(text) <= SHOWN_CHARS:
        return text
    half = SHOWN_CHARS // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters cut ...\n{text[-half:]}"
