"""The golden cases of the methods, through the public plug-ins; `$AGENTHUB_GOLDEN` names another file of that form."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from tests.golden.adapters import ADAPTERS

FILE = Path(os.environ.get("AGENTHUB_GOLDEN", Path(__file__).with_name("methods.json")))
CASES = json.loads(FILE.read_text(encoding="utf-8"))["cases"]


def agrees(expected: Any, actual: Any, tol: float, where: str) -> None:
    """Fail where `actual` is not `expected` to within `tol`, with the place; truth values and names agree exactly."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert key in actual, f"{where}: no answer for {key!r}"
            agrees(value, actual[key], tol, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(actual) == len(expected), f"{where}: {actual} for {expected}"
        for place, (one, other) in enumerate(zip(expected, actual, strict=True)):
            agrees(one, other, tol, f"{where}[{place}]")
    elif isinstance(expected, bool) or expected is None or isinstance(expected, str):
        assert actual == expected, f"{where}: {actual} for {expected}"
    else:
        # A bound of 0 stands for equality of whole numbers.
        assert math.isclose(actual, expected, rel_tol=0.0, abs_tol=tol), f"{where}: {actual} for {expected}"


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_golden(case: dict[str, Any]) -> None:
    adapter = ADAPTERS[case["kind"], case["plugin"]]
    agrees(case["expected"], adapter({"params": {}} | case), case["tol"], case["id"])
