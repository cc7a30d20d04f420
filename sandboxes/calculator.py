"""A calculator without a box: sums in Python's notation, worked out here, and busy at first where a suite says so.

It reads a fixed small language and executes nothing: assignments, `print`, whole numbers, + - * // % **, and
`sum(range(a, b))`. Lengths, powers and ranges are bounded, so that a turn costs microseconds whatever it says. A busy
calculator is a service that has to be asked again: what a policy does after an error is what an episode is about.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from agenthub.errors import UnknownName, UserError
from agenthub.records import Call, Observation, Text
from agenthub.sandbox import Capabilities, Sandbox, SandboxSpec, ToolSpec
from agenthub.sandboxes.fileless import FilelessFactory, FilelessSandbox, code_of, failed, text_tool

__all__ = ["Calculator", "CalculatorSandbox", "work_out"]

_MOST_CHARS = 400
_MOST_BITS = 512
_MOST_EXPONENT = 64
_BUSY = "RuntimeError: the calculator is busy\n"
_OPERATORS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_TOOL = text_tool(
    "calculator",
    "Works out whole numbers: x = 3 * (4 + 5) % 7, sum(range(1, 10)), print(x). May be busy: ask again.",
    "Assignments, prints and expressions.",
)


class _Wrong(Exception):
    """The code says something that the calculator does not know."""


def work_out(code: str, names: dict[str, int]) -> str:
    """What the code shows: a line for each print, and the value of a last expression.

    Args:
        names: variables of the calls before; it is changed.

    Raises:
        ValueError: in one line, what is wrong with the code.
    """
    if len(code) > _MOST_CHARS:
        raise ValueError(f"MemoryError: more than {_MOST_CHARS} characters")
    try:
        body = ast.parse(code, mode="exec").body
        return "".join(_statement(one, names, last=one is body[-1]) for one in body)
    except (SyntaxError, UnicodeError) as error:
        raise ValueError(f"SyntaxError: {getattr(error, 'msg', 'not Unicode text')}") from None
    except ValueError:
        raise ValueError("SyntaxError: source code cannot contain null bytes") from None
    except (RecursionError, MemoryError):
        raise ValueError("SyntaxError: too many nested parentheses") from None
    except ZeroDivisionError:
        raise ValueError("ZeroDivisionError: integer division or modulo by zero") from None
    except _Wrong as error:
        raise ValueError(str(error)) from None


def _statement(node: ast.stmt, names: dict[str, int], *, last: bool) -> str:
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        names[node.targets[0].id] = _value(node.value, names)
        return ""
    if not isinstance(node, ast.Expr):
        raise _Wrong("SyntaxError: expressions, assignments and prints alone")
    call = node.value
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print":
        if call.keywords:
            raise _Wrong("TypeError: print takes values alone")
        return " ".join(str(_value(one, names)) for one in call.args) + "\n"
    value = _value(call, names)
    return f"{value}\n" if last else ""


def _value(node: ast.expr, names: Mapping[str, int]) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return _bounded(node.value)
    if isinstance(node, ast.Name):
        if node.id not in names:
            raise _Wrong(f"NameError: name '{node.id}' is not defined")
        return names[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand, names)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp):
        return _combined(node.op, _value(node.left, names), _value(node.right, names))
    if isinstance(node, ast.Call):
        return _sum_of_range(node, names)
    raise _Wrong("TypeError: whole numbers alone")


def _combined(sign: ast.operator, left: int, right: int) -> int:
    if isinstance(sign, ast.Pow):
        if not 0 <= right <= _MOST_EXPONENT or left.bit_length() * right > _MOST_BITS:
            raise _Wrong("OverflowError: the power is too large")
        return int(left**right)
    if type(sign) not in _OPERATORS:
        raise _Wrong("TypeError: + - * // % ** alone")
    return _bounded(_OPERATORS[type(sign)](left, right))


def _sum_of_range(node: ast.Call, names: Mapping[str, int]) -> int:
    """sum(range(a)) or sum(range(a, b)), without walking through it."""
    if not (isinstance(node.func, ast.Name) and node.func.id == "sum" and len(node.args) == 1 and not node.keywords):
        shown = node.func.id if isinstance(node.func, ast.Name) else "this"
        raise _Wrong(f"NameError: name '{shown}' is not defined")
    inner = node.args[0]
    named = isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id == "range"
    if not (isinstance(inner, ast.Call) and named and len(inner.args) in (1, 2) and not inner.keywords):
        raise _Wrong("TypeError: sum takes a range")
    bounds = [_value(one, names) for one in inner.args]
    low, high = (0, bounds[0]) if len(bounds) == 1 else (bounds[0], bounds[1])
    return _bounded((high - low) * (low + high - 1) // 2 if high > low else 0)


def _bounded(value: int) -> int:
    if value.bit_length() > _MOST_BITS:
        raise _Wrong("OverflowError: the number is too large")
    return value


class Calculator(FilelessSandbox):
    """A `Sandbox` that keeps its variables and how often it has been asked."""

    def __init__(self, busy: int, names: Mapping[str, int] | None = None) -> None:
        self._busy, self._names = busy, dict(names or {})

    async def call(self, call: Call, *, timeout_s: float) -> Observation:
        """As Sandbox.call says."""
        return self.call_now(call)

    def call_now(self, call: Call) -> Observation:
        """As `call`."""
        code = code_of(call)
        if code is None:
            return failed(call)
        if self._busy > 0:
            self._busy -= 1
            return failed(call, _BUSY)
        try:
            shown = work_out(code, self._names)
        except ValueError as error:
            return failed(call, f"{error}\n")
        return Observation(call_id=call.id, parts=(Text(text=shown),) if shown else ())

    async def fork(self, n: int) -> list[Sandbox]:
        """`n` others in the same state."""
        return [Calculator(self._busy, self._names) for _ in range(n)]


class CalculatorSandbox(FilelessFactory):
    """A `SandboxFactory`. Its setting `busy` is the number of calls of an episode, from the first, that fail."""

    tools: tuple[ToolSpec, ...] = (_TOOL,)

    def capabilities(self) -> Capabilities:
        """What these sandboxes can do."""
        return Capabilities(persistent=True, deterministic=True, fork="native")

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """A fresh sandbox. Raises UserError, UnknownName where the spec asks for what it has not."""
        if spec.files:
            raise UserError("the calculator has no files")
        return Calculator(_busy(spec.params))


def _busy(params: Mapping[str, Any]) -> int:
    for name in params:
        if name != "busy":
            raise UnknownName("setting of the calculator", str(name), ("busy",))
    busy = params.get("busy", 0)
    if isinstance(busy, bool) or not isinstance(busy, int) or not 0 <= busy <= 100:
        raise UserError(f"setting 'busy' of the calculator is {busy!r}; expected a whole number from 0 to 100")
    return busy
