"""The openai policy on a server of chat completions: what it asks, and that nothing of it trains."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from agenthub.errors import ConfigError, HostFault, UserError
from agenthub.policies import openai
from agenthub.policies.bytes import byte_tokenizer
from agenthub.policies.openai import OpenaiPolicy
from agenthub.policy import Request
from agenthub.records import Finish, Message, Observation, Text
from agenthub.renderers.plain import ToldRenderer
from agenthub.renderers.text import FenceSimpletir
from agenthub.trainers.config import load_recipe
from agenthub.trainers.integrity import check_tokens
from tests.policies.models import request
from tests.trainers.fakes import ANSWER, trajectory


class Chat:
    """Answers with what it is told, after some statuses."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.refuse: list[int] = []
        self.answer: dict[str, Any] = {"message": {"content": "\\boxed{4}"}, "finish_reason": "stop"}

    async def reply(self, asked: web.Request) -> web.Response:
        self.keys.append(asked.headers.get("Authorization"))
        if self.refuse:
            return web.json_response({"error": {"message": "not this time"}}, status=self.refuse.pop(0))
        self.bodies.append(await asked.json())
        return web.json_response({"choices": [self.answer]})


def asked() -> Request:
    """A question."""
    return request(byte_tokenizer().encode("<|user|>2 + 2<|end|><|assistant|>"))


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Chat, str]]:
    monkeypatch.setattr(openai, "FIRST_WAIT_S", 0.01)
    chat, app = Chat(), web.Application()
    app.router.add_post("/v1/chat/completions", chat.reply)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    yield chat, f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1"  # type: ignore[attr-defined]
    await runner.cleanup()


@pytest.fixture
async def policy(server: tuple[Chat, str]) -> AsyncIterator[OpenaiPolicy]:
    made = OpenaiPolicy(f"{server[1]}#gpt", key="secret")
    yield made
    await made.close()


async def test_a_context_is_told_as_messages_and_the_text_comes_back(
    server: tuple[Chat, str], policy: OpenaiPolicy
) -> None:
    renderer = ToldRenderer(policy.tokenizer, FenceSimpletir())
    prompt = renderer.open([Message(role="user", content="2 + 2 = ? ünï")], [])
    (made,) = await policy.generate([request(prompt, 3, max_tokens=20)])
    body = server[0].bodies[0]
    assert (body["model"], body["max_tokens"], server[0].keys) == ("gpt", 20, ["Bearer secret"])
    assert [row["role"] for row in body["messages"]] == ["system", "user"]
    assert body["messages"][1]["content"] == "2 + 2 = ? ünï"
    parsed, kept = renderer.parse(made.ids)
    assert (parsed.answer, kept) == ("4", made.ids.size)
    shown = renderer.extend([Observation(call_id="0.0", parts=(Text(text="5"),))], ended=True)
    await policy.generate([request([*prompt.tolist(), *made.ids.tolist(), *shown.tolist()])])
    later = server[0].bodies[1]["messages"]
    assert [row["role"] for row in later] == ["system", "user", "assistant", "user"]
    assert later[2]["content"] == "\\boxed{4}" and "5" in later[3]["content"]


async def test_an_answer_that_was_cut_or_is_empty_says_so(server: tuple[Chat, str], policy: OpenaiPolicy) -> None:
    server[0].answer = {"message": {"content": "let me"}, "finish_reason": "length"}
    (made,) = await policy.generate([asked()])
    assert (made.finish, policy.tokenizer.decode(made.ids.tolist())) == (Finish.LENGTH, "let me")
    server[0].answer = {"message": {"content": None}, "finish_reason": "length"}
    assert (await policy.generate([asked()]))[0].ids.size == 0


async def test_a_busy_server_is_asked_again_and_a_refusal_is_not(
    server: tuple[Chat, str], policy: OpenaiPolicy
) -> None:
    server[0].refuse = [429, 503]
    assert len(await policy.generate([asked()])) == 1
    server[0].refuse = [404]
    with pytest.raises(UserError, match="refuses model 'gpt': 404 not this time"):
        await policy.generate([asked()])
    server[0].refuse = [503] * 9
    with pytest.raises(HostFault, match="no answer in 5 tries: 503 not this time"):
        await policy.generate([asked()])


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "127.0.0.1:8000#m", ""])
def test_an_address_without_a_model_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="expected the API and its model"):
        OpenaiPolicy(url)


async def test_a_prompt_of_another_renderer_is_refused(policy: OpenaiPolicy) -> None:
    with pytest.raises(UserError, match="reads prompts of the renderer told alone"):
        await policy.generate([request([1, 2])])


async def test_its_turns_never_train(policy: OpenaiPolicy) -> None:
    (made,) = await policy.generate([asked()])
    one = trajectory([ANSWER])
    played = replace(one, turns=(replace(one.turns[0], generation=made),))
    with pytest.raises(HostFault, match="turn 0 has text alone: its tokens are not the engine's"):
        check_tokens(played, version=0)
    check_tokens(replace(one, turns=(replace(one.turns[0], generation=replace(made, versions=((0, 0),))),)), version=0)


def test_a_recipe_that_would_train_it_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="openai tells no token ids: it can be evaluated and never trained"):
        load_recipe("grpo", ["policy.uses=openai"])
