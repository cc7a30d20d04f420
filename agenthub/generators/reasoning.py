"""Tasks from reasoning-gym's datasets, scored by the dataset's own scorer. Needs the extra `reasoning-gym`.

Some scorers evaluate the answer as Python or sympy in our process. Such answers are only handed over when they are
plain expressions: literals, arithmetic of bounded size and named mathematical functions; anything else scores 0.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import json
import re
import tokenize
from collections.abc import Iterator, Mapping
from typing import Any

from agenthub.errors import HostFault, TaskBroken, UnknownName, UserError
from agenthub.rewards.score import Score

__all__ = ["generate", "plain_expression", "score"]

NEEDS = ("reasoning_gym",)
"""Packages without which a suite that uses this generator is listed as unavailable."""
MAX_CHARS = 20_000
MAX_EXPONENT = 64
_EVALUATES = re.compile(r"(?<![\w.])(?:eval|exec)\(|\bparse_expr\(|\bsympify\(")
_HUGE = re.compile(r"[eE][-+]?\d{4,}")
# Without parentheses, dots, braces, operators but minus, and loops, text is at worst an unknown name: a board, say.
_INERT = re.compile(r"""[\w\s,'"\[\]-]*""", re.ASCII)
_FUNCTIONS = frozenset(
    ["sin", "cos", "tan", "exp", "log", "ln", "sqrt", "Abs", "abs", "asin", "acos", "atan", "sinh", "cosh", "tanh"]
)
_NODES = (
    ast.Expression,
    ast.Constant,
    ast.Name,
    ast.List,
    ast.Tuple,
    ast.Dict,
    ast.UnaryOp,
    ast.BinOp,
    ast.Call,
    ast.Load,
    ast.operator,
    ast.unaryop,
)
_SCORER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
)


def generate(config: Mapping[str, Any], seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Task rows of one dataset.

    Args:
        config: `variant` (the dataset's name; `uses: reasoning_gym:NAME` sets it) and `config` (its settings).

    Raises:
        UserError: the extra is missing, the dataset or one of its settings is not known, or a value does not fit.
    """
    for key in config:
        if key not in ("variant", "config"):
            raise UnknownName("setting of generator reasoning_gym", str(key), ("variant", "config"))
    if "variant" not in config:
        raise UserError("generator reasoning_gym needs a dataset: write uses: reasoning_gym:NAME")
    name, settings = str(config["variant"]), dict(config.get("config", {}))
    dataset = _open(name, json.dumps(settings, sort_keys=True), seed, count)
    for index in range(count):
        entry = dataset[index]
        answer = entry["answer"]
        args = {"dataset": name, "config": settings, "seed": seed, "size": count, "index": index}
        yield {
            "id": f"{name}-{index:05d}",
            "prompt": {"user": entry["question"]},
            "verifier": {"checks": [{"uses": "reasoning_gym", "args": args}]},
            "solution": {"turns": [] if answer is None else [f"\\boxed{{{answer}}}"]},
            "metadata": {"kind": name, "source": "reasoning-gym"},
        }


def score(name: str, config: Mapping[str, Any], seed: int, size: int, index: int, answer: str) -> Score:
    """The dataset's score of an answer; what its scorer cannot read scores 0.

    Raises:
        TaskBroken: the dataset cannot be opened as the task says.
        HostFault: the scorer gave something that is no number.
    """
    try:
        dataset = _open(name, json.dumps(dict(config), sort_keys=True), seed, size)
    except UserError as error:
        raise TaskBroken(str(error)) from error
    text = answer.strip()
    if len(text) > MAX_CHARS or _HUGE.search(text):
        return Score(value=0.0, reason="the answer is too large")
    if _evaluates(name) and not plain_expression(text):
        return Score(value=0.0, reason="the answer is not a plain expression")
    try:
        value = dataset.score_answer(text, dataset[index])
    except _SCORER_ERRORS as error:
        return Score(value=0.0, reason=f"the answer cannot be read: {type(error).__name__}")
    if not isinstance(value, int | float):
        raise HostFault(f"reasoning-gym's {name} scored {value!r}")
    return Score(value=min(1.0, max(0.0, float(value))), reason="" if value >= 1 else "the answer is another one")


def plain_expression(text: str) -> bool:
    """True where evaluating `text` runs nothing and stays small."""
    if _INERT.fullmatch(text) and not re.search(r"\bfor\b", text):
        return True
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_plain(node) for node in ast.walk(tree))


def _plain(node: ast.AST) -> bool:
    if not isinstance(node, _NODES):
        return False
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, int) or abs(node.value) < 10**18
    if isinstance(node, ast.Name):
        return "__" not in node.id
    if isinstance(node, ast.Call):
        known = isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
        return known and len(node.args) == 1 and not node.keywords
    if isinstance(node, ast.BinOp):
        return _small(node)
    return True


def _small(node: ast.BinOp) -> bool:
    """No power of a power, no large exponent or shift, no repeated sequence."""
    if isinstance(node.op, ast.LShift | ast.RShift | ast.MatMult):
        return False
    if isinstance(node.op, ast.Mult | ast.Mod):
        sides = (node.left, node.right)
        sequence = any(isinstance(side, ast.List | ast.Tuple) for side in sides)
        return not sequence and not any(isinstance(s, ast.Constant) and isinstance(s.value, str | bytes) for s in sides)
    if not isinstance(node.op, ast.Pow):
        return True
    inner = any(isinstance(below, ast.Pow) for side in (node.left, node.right) for below in ast.walk(side))
    exponents = [below.value for below in ast.walk(node.right) if isinstance(below, ast.Constant)]
    products = any(isinstance(below, ast.Mult | ast.Add) for below in ast.walk(node.right))
    bounded = all(isinstance(value, int | float) and abs(value) <= MAX_EXPONENT for value in exponents)
    return not inner and not products and bounded


@functools.lru_cache(maxsize=64)
def _open(name: str, settings: str, seed: int, size: int) -> Any:
    try:
        factory = importlib.import_module("reasoning_gym.factory")
        importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise UserError(
            f"generator reasoning_gym needs the extra: pip install 'agenthub[reasoning-gym]' ({error})"
        ) from error
    if name not in factory.DATASETS:
        raise UnknownName("reasoning-gym dataset", name, factory.DATASETS)
    config_cls = factory.DATASETS[name][1]
    known = set(inspect.signature(config_cls).parameters) - {"seed", "size"}
    chosen = json.loads(settings)
    for key in chosen:
        if key not in known:
            raise UnknownName(f"setting of reasoning-gym's {name}", key, known)
    try:
        return factory.create_dataset(name, **chosen, seed=seed, size=size)
    except (AssertionError, TypeError, ValueError) as error:
        raise UserError(f"reasoning-gym's {name} refuses its settings: {error}") from error


@functools.cache
def _evaluates(name: str) -> bool:
    """True where the scorer's own source evaluates text."""
    dataset_cls: Any = importlib.import_module("reasoning_gym.factory").DATASETS[name][0]
    return _EVALUATES.search(inspect.getsource(dataset_cls.score_answer)) is not None
