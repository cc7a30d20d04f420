"""docs/methods.md is what the registry, the docstrings and the recipes say."""

from __future__ import annotations

from pathlib import Path

import pytest

from agenthub.registry import KINDS as REGISTRIES
from agenthub.registry import assumed
from agenthub.trainers.document import KINDS, methods

FILE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_page_is_in_step() -> None:
    assert FILE.read_text(encoding="utf-8") == methods(), "run scripts/methods-doc"


@pytest.mark.parametrize("kind", KINDS)
def test_every_plugin_says_what_it_computes_and_where_it_is_from(kind: str) -> None:
    for name in REGISTRIES[kind].names():
        text = REGISTRIES[kind].load(name).__doc__
        assert text and not text.startswith(f"{REGISTRIES[kind].load(name).__name__}("), name
        own = assumed(kind, name) or name in ("none", "uniform", "no_call", "all_calls_failed")
        assert "Source:" in text or own, f"{kind} {name} names no source"


def test_what_is_experimental_exists() -> None:
    from agenthub.registry import _EXPERIMENTAL

    for kind, rows in _EXPERIMENTAL.items():
        assert set(rows) <= set(REGISTRIES[kind].names())
