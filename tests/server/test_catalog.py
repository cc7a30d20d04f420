"""What the hub says of its suites, and the document that describes it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agenthub.errors import ConfigError, UnknownName, WireError
from agenthub.server.app import make_app
from agenthub.server.catalog import Catalog
from agenthub.server.dialects import DIALECT_SCOPES
from agenthub.server.guard import Guard
from agenthub.server.openapi import document
from agenthub.server.operations import OPERATIONS
from agenthub.server.routes import ROUTES
from agenthub.suites.task import Suite
from tests.server.harness import hub, suites
from tests.server.processes import ROOT


class LateSuites(Mapping[str, Suite]):
    """Suites that are built when they are asked for; one cannot be."""

    def __init__(self) -> None:
        self.built: list[str] = []

    def __getitem__(self, name: str) -> Suite:
        self.built.append(name)
        if name == "broken":
            raise ConfigError("broken.yaml:3", "no such check")
        return suites()["fakes"]

    def __contains__(self, name: object) -> bool:
        return name in ("fakes", "broken")

    def __iter__(self) -> Iterator[str]:
        return iter(("fakes", "broken"))

    def __len__(self) -> int:
        return 2


async def test_a_suite_is_built_once_and_when_it_is_asked_for() -> None:
    late = LateSuites()
    catalog = Catalog(late)
    assert late.built == []
    assert (await catalog.task("fakes", "t1")).id == "t1"
    assert (await catalog.draw("fakes", "test", 5)).id == "held"
    assert late.built == ["fakes"]


async def test_a_broken_suite_hides_no_other_and_says_its_place() -> None:
    catalog = Catalog(LateSuites(), {"absent": "needs a file"})
    with pytest.raises(WireError, match=r"broken\.yaml:3"):
        await catalog.task("broken", "t")
    listed = await catalog.list()
    assert [row["name"] for row in listed["suites"]] == ["fakes"]
    assert set(listed["unavailable"]) == {"broken", "absent"}
    with pytest.raises(WireError, match="needs a file"):
        await catalog.describe("absent")
    with pytest.raises(UnknownName, match="did you mean 'fakes'"):
        await catalog.describe("fake")


async def test_seeds_draw_every_task_about_as_often() -> None:
    catalog = Catalog(suites())
    drawn = Counter([(await catalog.draw("fakes", "train", seed)).id for seed in range(500)])
    assert len(drawn) == 5 and min(drawn.values()) > 60


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from ([value["$ref"]] if "$ref" in value else [])
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_the_document_has_every_route_and_no_dangling_reference() -> None:
    schema = document(ROUTES)
    served = {(route.path, route.method.lower()) for route in ROUTES}
    assert served <= {(path, method) for path, item in schema["paths"].items() for method in item}
    known = {f"#/components/schemas/{name}" for name in schema["components"]["schemas"]}
    assert set(references(schema)) <= known
    step = schema["paths"]["/v1/episodes/{episode}/step"]["post"]
    body = step["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["required"]) == {"turn", "action"} and "episode" not in body["properties"]
    assert body["additionalProperties"] is False
    assert [row["name"] for row in step["parameters"]] == ["episode"]
    tasks = schema["paths"]["/v1/suites/{suite}/tasks"]["get"]["parameters"]
    assert {row["name"]: row["in"] for row in tasks} == {
        "suite": "path", "split": "query", "offset": "query", "limit": "query"
    }  # fmt: skip


async def test_the_document_is_what_is_served(tmp_path: Path) -> None:
    async with hub(tmp_path) as served, aiohttp.ClientSession() as session:
        async with session.get(f"{served.url}/openapi.json") as response:
            paths = set((await response.json())["paths"])
        app = make_app(served.dispatcher, Guard(served.dispatcher.accounts), max_body=1)
        canonical = {resource.canonical.replace("{path:.+}", "{path}") for resource in app.router.resources()}
        dialects = {path for _, path in DIALECT_SCOPES}  # each has a document of its own
        assert canonical - dialects == paths


def test_every_operation_has_a_route_and_a_line_in_the_docs() -> None:
    assert {route.op for route in ROUTES} == set(OPERATIONS)
    page = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    for name in OPERATIONS:
        assert f"`{name}`" in page, name
    source = "".join(path.read_text() for path in (ROOT / "agenthub" / "server").glob("*.py"))
    for code in set(re.findall(r'WireError\(\s*"(\w+)"', source)):
        assert f"`{code}`" in page, code
