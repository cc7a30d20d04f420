"""docs/suites.md: its examples load and win, and it knows every key."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from agenthub.config import parse_document, validate
from agenthub.episodes import Workbench
from agenthub.registry import registry
from agenthub.rewards.arguments import TypedCheck
from agenthub.suites import schema
from agenthub.suites.lint import Plan, lint
from agenthub.suites.load import load_suite
from agenthub.suites.schema import SuiteFile

PAGE = Path(__file__).resolve().parents[2] / "docs" / "suites.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def names() -> list[str]:
    return [validate(parse_document(example, "docs"), SuiteFile).suite.name for example in EXAMPLES]


@pytest.mark.parametrize("index", range(len(EXAMPLES)), ids=names())
async def test_an_example_loads_and_its_oracle_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    if "reasoning_gym" in EXAMPLES[index]:
        pytest.importorskip("reasoning_gym")
    monkeypatch.setenv("MY_DATA", str(tmp_path))
    (tmp_path / "questions.jsonl").write_text(json.dumps({"question": "6 * 7?", "answer": "6*7\n#### 42"}))
    path = tmp_path / "suite.yaml"
    path.write_text(EXAMPLES[index], encoding="utf-8")
    bench = Workbench()
    try:
        assert [hole.what for hole in await lint(load_suite(path).tasks[::5], bench, Plan(episodes=2))] == []
    finally:
        await bench.close()


def keys() -> set[str]:
    models = [item for item in vars(schema).values() if isinstance(item, type) and issubclass(item, BaseModel)]
    found = {info.alias or name for model in models for name, info in model.model_fields.items()}
    for kind in ("check", "turn_check", "generator", "protocol"):
        found |= set(registry(kind).names())
    return found


def arguments() -> set[str]:
    checks = [registry("check").load(name) for name in registry("check").names() if name != "reasoning_gym"]
    return {name for check in checks if isinstance(check, TypedCheck) for name in check.model.model_fields}


@pytest.mark.parametrize("key", sorted(keys() | arguments()))
def test_every_key_is_on_the_page(key: str) -> None:
    assert re.search(rf"`{key}\b", TEXT), f"{key} is not in docs/suites.md"


def test_every_link_leads_to_a_file() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", TEXT):
        assert (PAGE.parent / target).exists(), target
