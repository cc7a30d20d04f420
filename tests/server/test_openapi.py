"""/openapi.json against what is served: schemathesis asks a real hub anything that the document allows, and more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS

from agenthub.server.openapi import document
from agenthub.server.routes import ROUTES
from tests.server.background import background_hub
from tests.server.tenants import TOKENS, tenants

schemathesis.checks.load_all_checks()
TOKEN = "a-token-for-schemathesis"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
DOCUMENT = document(ROUTES, open_to_all=False)
OPERATIONS = [(method, path) for path, row in DOCUMENT["paths"].items() for method in row]
WITH_PARAMETERS = [
    (method, path)
    for method, path in OPERATIONS
    if DOCUMENT["paths"][path][method].get("parameters") or "requestBody" in DOCUMENT["paths"][path][method]
]
# What fits the schema may still be refused: exactly one of two fields, a hash that is not the data's.
EXCEPT: list[Any] = [CHECKS.get_one("positive_data_acceptance")]


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with background_hub(tmp_path_factory.mktemp("openapi"), token=TOKEN) as served:
        yield schemathesis.openapi.from_url(f"{served.url}/openapi.json", headers=HEADERS)


def conforms(schema: Any, method: str, path: str, mode: schemathesis.GenerationMode, most: int) -> None:
    """Every answer has a documented status, type, schema and headers; none is a 500, and none takes half a minute."""

    @settings(max_examples=most, suppress_health_check=list(HealthCheck))
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def any_request(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(headers=HEADERS, timeout=30, excluded_checks=EXCEPT)

    any_request()


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_what_the_document_allows_is_answered_as_it_says(schema: Any, method: str, path: str) -> None:
    conforms(schema, method, path, schemathesis.GenerationMode.POSITIVE, 12)


@pytest.mark.parametrize(("method", "path"), WITH_PARAMETERS)
def test_what_it_does_not_allow_is_refused(schema: Any, method: str, path: str) -> None:
    conforms(schema, method, path, schemathesis.GenerationMode.NEGATIVE, 12)


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
@pytest.mark.parametrize(("method", "path"), WITH_PARAMETERS)
def test_a_thousand_requests_of_each(schema: Any, method: str, path: str, mode: schemathesis.GenerationMode) -> None:
    conforms(schema, method, path, mode, 1000)


def test_every_operation_says_its_errors() -> None:
    for method, path in OPERATIONS:
        answers = DOCUMENT["paths"][path][method]["responses"]
        security = DOCUMENT["paths"][path][method].get("security", DOCUMENT["security"])
        assert ("401" in answers) == bool(security), path
        for status in {"429", "503"} & answers.keys() - ({"503"} if path == "/readyz" else set()):
            assert "Retry-After" in answers[status]["headers"], (path, status)
    for path, method in (("/v1/episodes", "post"), ("/v1/episodes/{episode}/fork", "post")):
        assert "429" in DOCUMENT["paths"][path][method]["responses"]
    assert DOCUMENT["security"] == [{"token": []}]
    assert {} in document(ROUTES)["security"], "a hub without tokens says so"


async def test_what_is_refused_at_the_door_is_in_the_document_too(tmp_path: Path) -> None:
    async with tenants(tmp_path, {"live_episodes": 1}) as served, aiohttp.ClientSession() as session:
        async with session.get(f"{served.url}/openapi.json") as response:
            assert response.status == 401
        headers = {"Authorization": f"Bearer {TOKENS['alice']}"}
        async with session.get(f"{served.url}/openapi.json", headers=headers) as response:
            assert (await response.json())["security"] == [{"token": []}]
