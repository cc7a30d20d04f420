"""`POST /retrieve` in the shapes of Search-R1, its online variant and ZeroSearch, on a hub that is really served."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agenthub.client import Hub
from agenthub.suites.load import default_folder, load_suite
from agenthub.wire import Action, CallIn
from tests.served import served

FOLDER = default_folder() / "search"
ONE = load_suite(FOLDER / "multihop.yaml").tasks[0]
QUERY = ONE.solution[0].removeprefix("<search> ").removesuffix(" </search>")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(FOLDER, tmp_path_factory.mktemp("hub")) as found:
        yield found


def post(url: str, body: object) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_search_r1(url: str) -> None:
    status, said = post(f"{url}/retrieve/multihop", {"queries": [QUERY, "zzzz"], "topk": 5, "return_scores": True})
    assert status == 200 and [len(rows) for rows in said["result"]] == [5, 0]
    first = said["result"][0][0]
    assert set(first) == {"document", "score"} and set(first["document"]) == {"id", "contents"}
    title, _, text = first["document"]["contents"].partition("\n")
    assert title.startswith('"') and title.endswith('"') and title.strip('"') in text
    scores = [row["score"] for row in said["result"][0]]
    assert scores == sorted(scores, reverse=True)
    _, bare = post(f"{url}/retrieve/multihop", {"queries": [QUERY], "topk": 5, "return_scores": False})
    assert bare["result"][0] == [row["document"] for row in said["result"][0]]
    _, default = post(f"{url}/retrieve/multihop", {"queries": [QUERY], "return_scores": True})
    assert default["result"][0] == said["result"][0][:3]


def test_online_and_zerosearch(url: str) -> None:
    _, said = post(f"{url}/retrieve/multihop", {"queries": [QUERY]})
    assert len(said["result"][0]) == 3 and all(set(row["document"]) == {"contents"} for row in said["result"][0])
    _, rows = post(f"{url}/retrieve/multihop", {"query": QUERY, "top_k": 3})
    assert [row["text"] for row in rows] == [row["document"]["contents"] for row in said["result"][0]]


async def test_the_native_route_shows_the_same_documents(url: str) -> None:
    _, said = post(f"{url}/retrieve/multihop", {"queries": [QUERY], "topk": 7, "return_scores": True})
    async with Hub(url) as hub:
        (handle,) = await hub.create("multihop", task=ONE.id)
        done = await handle.step(Action(calls=[CallIn(tool="search", arguments={"query": QUERY, "k": 7})]))
        parts = done.observation["observations"][0]["parts"]
        await handle.close()
    shown = {name: [part["text"] for part in parts if part.get("channel") == name] for name in ("title", "passage")}
    native = [f'"{title}"\n{text}' for title, text in zip(shown["title"], shown["passage"], strict=True)]
    assert native == [row["document"]["contents"] for row in said["result"][0]]
    ids = [part["text"].strip(" ()") for part in parts if part.get("channel") == "source"]
    assert ids == [row["document"]["id"] for row in said["result"][0]]


def test_a_query_that_cannot_be_searched_for_does_not_spoil_the_batch(url: str) -> None:
    status, said = post(f"{url}/retrieve/multihop", {"queries": ["", "x" * 5000, QUERY], "topk": 1})
    assert status == 200 and [len(rows) for rows in said["result"]] == [0, 0, 1]
    assert post(f"{url}/retrieve/multihop", {"queries": []}) == (200, {"result": []})


@pytest.mark.parametrize(
    ("path", "body", "status", "why"),
    [
        ("/retrieve/multihop", b"{", 400, "JSON"),
        ("/retrieve/multihop", {"queries": "x"}, 422, "queries"),
        ("/retrieve/multihop", {"queries": ["x"], "topk": 1_000_000}, 422, "topk"),
        ("/retrieve/multihop", {"queries": ["x"] * 4000, "topk": 100}, 422, "at most 20000"),
        ("/retrieve/multihop", {"nothing": 1}, 422, "queries"),
        ("/retrieve/multihopp", {"queries": ["x"]}, 404, "multihop"),
        ("/retrieve", {"queries": ["x"]}, 422, "one of multihop, multihop_cited"),
    ],
)
def test_a_request_that_cannot_be_answered_is_told(url: str, path: str, body: object, status: int, why: str) -> None:
    code, said = post(url + path, body)
    assert code == status and why in str(said)


def test_the_only_corpus_needs_no_name(tmp_path: Path) -> None:
    with served(FOLDER / "multihop.yaml", tmp_path) as url:
        _, said = post(f"{url}/retrieve", {"queries": [QUERY], "topk": 2, "return_scores": True})
        assert len(said["result"][0]) == 2
