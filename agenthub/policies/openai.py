"""The openai policy: any server that speaks OpenAI's chat completions, for evaluation and play alone.

Such a server tells text and no tokens. A context is kept in the byte tokenizer, whose role tokens say where a message
begins, and a turn's ids are the bytes of its text: nothing that the server consumed or sampled, so nothing to train on.
Its generations carry the weight version UNTRAINABLE, which the trainer refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Sequence
from typing import Any

import aiohttp
import numpy as np

from agenthub.errors import HostFault, UserError
from agenthub.policies.bytes import byte_tokenizer
from agenthub.policy import Request
from agenthub.records import Finish, Generation, Ints, floats, ints
from agenthub.renderers.plain import END, ROLES

__all__ = ["KEY", "UNTRAINABLE", "OpenaiPolicy"]

KEY = "OPENAI_API_KEY"
"""Environment variable: the key that is sent, where there is one."""
UNTRAINABLE = -1
"""Weight version of turns whose tokens are not the engine's."""
TRIES, FIRST_WAIT_S = 5, 0.5
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_TOLD = {"tool": "user"}
"""Observations are told as the user's: a `tool` message would have to answer a call of the server's own syntax."""


class OpenaiPolicy:
    """Text in, text out. Use it with the renderer `told`, which tells the protocol's instructions."""

    lockstep = False

    def __init__(
        self, url: str, *, name: str = "policy", in_flight: int = 32, timeout_s: float = 600.0, key: str | None = None
    ) -> None:
        """
        Args:
            url: base of the API and, after a `#`, the model: `http://127.0.0.1:8000/v1#policy`.
            in_flight: most requests at the server; more wait here.
            timeout_s: of one request.
            key: None takes $OPENAI_API_KEY.

        Raises:
            UserError: the url names no model.
        """
        base, _, model = url.partition("#")
        if not base.startswith(("http://", "https://")) or not model:
            raise UserError(f"policy {url!r}: expected the API and its model, as http://127.0.0.1:8000/v1#MODEL")
        self.name, self.url, self.model = name, base.rstrip("/"), model
        self.tokenizer = byte_tokenizer()
        self._roles = {self.tokenizer.convert_tokens_to_ids(token): role for role, token in ROLES.items()}
        self._end = int(self.tokenizer.convert_tokens_to_ids(END))
        self._slots, self._timeout_s = asyncio.Semaphore(in_flight), timeout_s
        key = os.environ.get(KEY) if key is None else key
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._session: aiohttp.ClientSession | None = None

    async def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Ask for one turn for each request, in order. Its log-probabilities are 0: the server tells none.

        Raises:
            UserError: the server refuses a request or knows no such model, or a prompt is of another renderer.
            HostFault: it does not answer.
        """
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._turn(request)) for request in requests]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [task.result() for task in tasks]

    def weight_version(self) -> int:
        """0: what the server serves is its own affair."""
        return 0

    async def forget(self, episodes: Sequence[str]) -> None:
        """Nothing is kept by episode."""

    async def close(self) -> None:
        """Close the connections; safe to call again."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def messages(self, prompt: Ints) -> list[dict[str, str]]:
        """A context as messages; the empty one at its end, which the server is to write, is left out.

        Raises:
            UserError: it does not begin with a role token.
        """
        places = [int(place) for place in np.flatnonzero(np.isin(prompt, list(self._roles)))]
        if not places or places[0] != 0:
            raise UserError(f"policy {self.name!r} reads prompts of the renderer told alone")
        rows = []
        for begin, end in zip(places, [*places[1:], prompt.size], strict=True):
            role = self._roles[int(prompt[begin])]
            body = [int(token) for token in prompt[begin + 1 : end] if token != self._end]
            rows.append({"role": _TOLD.get(role, role), "content": str(self.tokenizer.decode(body))})
        return rows[:-1] if rows and rows[-1] == {"role": "assistant", "content": ""} else rows

    async def _turn(self, request: Request) -> Generation:
        body = {
            "model": self.model,
            "messages": self.messages(request.prompt_ids),
            "temperature": request.sampling.temperature,
            "max_tokens": request.sampling.max_tokens,
            "seed": request.seed % (1 << 31),
        }
        async with self._slots:
            answer = await self._asked(body)
        choice = answer["choices"][0]
        ids = list(self.tokenizer.encode(choice["message"].get("content") or "", add_special_tokens=False))
        cut = choice.get("finish_reason") == "length"
        ids = ids if cut else [*ids, self._end]
        return Generation(
            policy=self.name,
            prompt_ids=request.prompt_ids,
            ids=ints(ids),
            logprobs=floats([0.0] * len(ids)),
            versions=((0, UNTRAINABLE),) if ids else (),
            finish=Finish.LENGTH if cut else Finish.STOP,
        )

    async def _asked(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer, asked for again while the server is busy or away."""
        said = ""
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
            try:
                status, text = await self._post(body)
            except (aiohttp.ClientError, TimeoutError) as error:
                said = str(error) or type(error).__name__
                continue
            if status == 200:
                return dict(json.loads(text))
            said = f"{status} {_message(text)}"
            if status not in _BUSY:
                raise UserError(f"{self.url} refuses model {self.model!r}: {said}")
        raise HostFault(f"{self.url} gave no answer in {TRIES} tries: {said}")

    async def _post(self, body: dict[str, Any]) -> tuple[int, str]:
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers)
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        async with self._session.post(f"{self.url}/chat/completions", json=body, timeout=timeout) as answer:
            return answer.status, await answer.text()


def _message(text: str) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(text)["error"]["message"])[:300]
    return text.strip()[:300]
