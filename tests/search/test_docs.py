"""docs/search.md knows every setting, tool, template, engine and variable."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from agenthub.registry import registry
from agenthub.sandboxes.search.sandbox import TOOLS
from agenthub.sandboxes.search.settings import MODES, Settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "search.md"
TEXT = PAGE.read_text(encoding="utf-8")
SOURCE = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "sandboxes" / "search").glob("*.py")))
NAMES = {it.name for it in dataclasses.fields(Settings)} | {tool.name for tool in TOOLS} | set(MODES)
NAMES |= {name for name in registry("protocol").names() if name.startswith("search_")}
NAMES |= set(registry("engine").names()) | set(registry("corpus").names())
NAMES |= {name for tool in TOOLS for name in tool.parameters["properties"]}
NAMES |= set(re.findall(r"AGENTHUB_[A-Z_]+", SOURCE)) - {f"AGENTHUB_{it}_URL" for it in ("SERPER", "TAVILY", "BRAVE")}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_is_on_the_page(name: str) -> None:
    assert re.search(rf"[`$ {{(]{name}\b", TEXT), f"{name} is not in docs/search.md"


def test_every_link_leads_to_a_file() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", TEXT):
        assert (PAGE.parent / target).exists(), target
