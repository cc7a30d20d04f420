"""The same episode through /retrieve, as Search-R1, ZeroSearch and verl ask it, and through the native route."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agenthub.client import Hub
from agenthub.records import Trajectory
from agenthub.renderers.search import SearchR1, ZeroSearch, found, transcript
from agenthub.renderers.search_calls import Verl
from agenthub.rewards.squad import covers, exact_match
from agenthub.suites.load import default_folder, load_suite
from agenthub.suites.task import Task
from tests.dialects.peers import interpreter
from tests.served import served

FILE = default_folder() / "search" / "multihop.yaml"
TASKS = load_suite(FILE).tasks[:4]
QUERY = re.compile(r"<search>\s*(.*?)\s*</search>")
MULTIHOP = FILE.read_text(encoding="utf-8")
PROTOCOLS = ("search_r1", "search_zerosearch", "search_verl")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A hub with the suite `multihop` once for each protocol."""
    folder = tmp_path_factory.mktemp("suites")
    for name in PROTOCOLS:
        text = MULTIHOP.replace("protocol: search_tags", f"protocol: {name}").replace("name: multihop", f"name: {name}")
        assert text.count(name) == 2
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    with served(folder, tmp_path_factory.mktemp("hub")) as where:
        yield where


def post(url: str, body: object) -> Any:
    asked = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return json.load(answer)


def search_r1_client(url: str, text: str) -> str:
    """Search-R1's `search_r1/llm_agent/generation.py`: `postprocess_predictions`, `_batch_search`, `_passages2string`
    and the observation of `execute_predictions`, for one episode's turn."""
    match = re.search(r"<(search|answer)>(.*?)</\1>", text, re.DOTALL)
    assert match is not None
    if match[1] == "answer":
        return ""
    payload = {"queries": [match[2].strip()], "topk": 3, "return_scores": True}
    reference = ""
    for index, item in enumerate(post(url, payload)["result"][0]):
        content = item["document"]["contents"]
        title, rest = content.split("\n")[0], "\n".join(content.split("\n")[1:])
        reference += f"Doc {index + 1}(Title: {title}) {rest}\n"
    return f"\n\n<information>{reference.strip()}</information>\n\n"


def zerosearch_client(url: str, text: str) -> list[str]:
    """The texts that ZeroSearch's wiki client gets: `{"query", "top_k"}` to `/retrieve`, a list of `{"text"}` back."""
    match = re.search(r"<search>(.*?)</search>", text, re.DOTALL)
    return [row["text"] for row in post(url, {"query": match[1].strip(), "top_k": 3})] if match else []


async def played(url: str, suite: str, task: Task, turns: Sequence[str]) -> Trajectory:
    """An episode through the native route."""
    async with Hub(url) as hub:
        (handle,) = await hub.create(suite, task=task.id)
        for text in turns:
            await handle.step(text)
        trajectory = await handle.trajectory()
        await handle.close()
    assert trajectory.reward == 1
    return trajectory


@pytest.mark.parametrize("task", TASKS, ids=lambda task: str(task.id))
async def test_search_r1s_episode_is_the_native_one(url: str, task: Task) -> None:
    native = await played(url, "search_r1", task, task.solution)
    there = [await asyncio.to_thread(search_r1_client, f"{url}/retrieve/search_r1", text) for text in task.solution]
    assert any("Doc 3" in text for text in there)
    assert transcript(native.turns, SearchR1().show).text == "".join(
        text + shown for text, shown in zip(task.solution, there, strict=True)
    )


async def test_zerosearchs_episode_finds_the_same_documents(url: str) -> None:
    native = await played(url, "search_zerosearch", TASKS[0], TASKS[0].solution)
    for turn, text in zip(native.turns, TASKS[0].solution, strict=True):
        there = await asyncio.to_thread(zerosearch_client, f"{url}/retrieve/search_zerosearch", text)
        shown = [f'"{row.title}"\n{row.text}' for observation in turn.observations for row in found(observation)]
        assert shown == there
        assert all(f"Doc {n}: " in ZeroSearch().show(turn.observations) for n, _ in enumerate(there, 1))


@pytest.mark.slow
async def test_verls_own_client_finds_what_the_native_route_shows(url: str) -> None:
    queries = [QUERY.fullmatch(text)[1] for text in TASKS[1].solution if QUERY.fullmatch(text)]  # type: ignore[index]
    queries.append("qqqq zzzz")
    answers: list[Any] = [
        ["The  Answer!", ["answer"]],
        ["an answer of it", ["Answer"]],
        ["b", ["a", "B."]],
        ["x", ["y"]],
    ]
    command = [interpreter("verl"), str(Path(__file__).with_name("verl_client.py")), f"{url}/retrieve/search_verl"]
    command += [json.dumps(queries), "3", json.dumps(answers)]
    ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr[-3000:]
    said, *scores = [json.loads(line) for line in ran.stdout.splitlines()]
    assert (said["said"]["status"], said["said"]["total_results"]) == ("success", 3 * (len(queries) - 1))
    call = {"name": "search", "arguments": {"query_list": queries}}
    turns = (f"<tool_call>{json.dumps(call)}</tool_call>", TASKS[1].solution[-1])
    native = await played(url, "search_verl", TASKS[1], turns)
    assert Verl().show(native.turns[0].observations) == f"\n<tool_response>\n{said['text']}\n</tool_response>\n"
    assert scores == [[exact_match(*pair), covers(*pair)] for pair in answers]
