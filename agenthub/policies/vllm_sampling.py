"""One turn on vLLM's wire: the request's body, and the stream read back token by token.

Every chunk is checked as it comes, so that a token which the engine did not consume or sample never becomes a record.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agenthub.errors import HostFault
from agenthub.policies.vllm_http import Lost
from agenthub.policy import Request
from agenthub.records import Finish, Generation, Ints, floats, ints

__all__ = ["Reading", "entropy_of", "first_difference", "request_body"]


def request_body(request: Request, *, request_id: str, model: str, budget: int, top_k: int) -> dict[str, Any]:
    """The body of `/inference/v1/generate`: ids in, ids and log-probabilities out, nothing decoded on the way."""
    return {
        "request_id": request_id,
        "model": model,
        "token_ids": request.prompt_ids.tolist(),
        "stream": True,
        "return_token_ids": True,
        "sampling_params": {
            "temperature": request.sampling.temperature,
            "max_tokens": budget,
            # vLLM takes seeds of 63 bits.
            "seed": request.seed % (1 << 63),
            "stop_token_ids": sorted(request.stop_ids),
            # The model's own end token stops nothing that the renderer does not name.
            "ignore_eos": True,
            "logprobs": top_k,
            "detokenize": False,
            "skip_special_tokens": False,
        },
    }


class Reading:
    """What has come of one attempt at a request."""

    def __init__(self, request: Request, *, budget: int, top_k: int) -> None:
        self._request, self._budget, self._top_k = request, budget, top_k
        self.request_id: str | None = None
        """The server's own name of the request, by which it can be given up; None before the first chunk."""
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.entropies: list[float] = []
        self.kept: int | None = None
        """Tokens up to the end of the action; None while there is none."""
        self.finish: Finish | None = None
        self._spans: list[tuple[int, int]] = []

    def add(self, event: Mapping[str, Any]) -> bool:
        """Take one chunk; True as soon as nothing more is needed, though the server may sample on.

        Raises:
            HostFault: the chunk is not what was asked for; the message says where.
            Lost: the server gave the request up by itself.
        """
        self.request_id = str(event["request_id"])
        echoed = event.get("prompt_token_ids")
        if echoed is not None:
            self._check_prompt(echoed)
        for choice in event["choices"]:
            self._add_tokens(choice.get("token_ids") or [], (choice.get("logprobs") or {}).get("content") or [])
            if choice.get("weight_versions"):
                self._spans = [(int(span["start"]), _version(span["version"])) for span in choice["weight_versions"]]
            reason = choice.get("finish_reason")
            if reason is not None:
                self._end(reason)
        return self.kept is not None

    def _check_prompt(self, echoed: Sequence[int]) -> None:
        sent = self._request.prompt_ids
        if len(echoed) == sent.size and np.array_equal(sent, echoed):
            return
        place = first_difference(sent, ints(echoed))
        raise HostFault(
            f"the server consumed another prompt: {len(echoed)} tokens for {sent.size}, "
            f"token {place} is {_at(echoed, place)}, not {_at(sent, place)}"
        )

    def _add_tokens(self, ids: Sequence[int], content: Sequence[Mapping[str, Any]]) -> None:
        if len(ids) != len(content):
            raise HostFault(f"the server told {len(content)} log-probabilities for {len(ids)} tokens")
        for token, told in zip(ids, content, strict=True):
            place, logprob = len(self.ids), told["logprob"]
            if told["token_id"] != token:
                raise HostFault(f"token {place} is {token}, its log-probability is told for {told['token_id']}")
            if logprob is None or not math.isfinite(logprob) or logprob > 1e-4:
                raise HostFault(f"the log-probability of token {place} ({token}) is {logprob}")
            self.ids.append(int(token))
            self.logprobs.append(min(float(logprob), 0.0))
            if self._top_k:
                self.entropies.append(entropy_of([row["logprob"] for row in told["top_logprobs"]]))
            if self.kept is None and (token in self._request.stop_ids or self._request.complete(self.ids)):
                self.kept, self.finish = len(self.ids), Finish.STOP
        if len(self.ids) > self._budget:
            raise HostFault(f"the server sampled {len(self.ids)} tokens where {self._budget} were asked for")

    def _end(self, reason: str) -> None:
        if self.kept is not None:
            return
        if reason == "abort":
            raise Lost(f"the server gave the request up after {len(self.ids)} tokens")
        self.kept = len(self.ids)
        self.finish = Finish.LENGTH if reason == "length" else Finish.STOP

    def generation(self, policy: str) -> Generation:
        """The record. Call it when the stream is read to its end, which tells the weight versions."""
        kept = self.kept or 0
        if kept and not self._spans:
            raise HostFault("the server did not tell which weights sampled; expected vLLM 0.28 or newer")
        return Generation(
            policy=policy,
            prompt_ids=ints(self._request.prompt_ids),
            ids=ints(self.ids[:kept]),
            logprobs=floats(self.logprobs[:kept]),
            versions=_merged([span for span in self._spans if span[0] < kept]),
            finish=self.finish or Finish.ABORT,
            entropies=floats(self.entropies[:kept]) if self._top_k else None,
            dropped=len(self.ids) - kept,
        )


def entropy_of(logprobs: Sequence[float]) -> float:
    """Entropy in nats of a distribution known by its most likely tokens: what is left counts as one outcome.

    A lower bound; exact where the tokens are the whole vocabulary.
    """
    logs = np.asarray(logprobs, np.float64)
    chances = np.exp(logs)
    rest = max(0.0, 1.0 - float(chances.sum()))
    return float(-(chances * logs).sum() - (rest * math.log(rest) if rest > 0.0 else 0.0))


def first_difference(left: Ints, right: Ints) -> int:
    """Index of the first token in which two sequences differ; the length of the shorter one where it is a prefix."""
    size = min(left.size, right.size)
    places = np.flatnonzero(left[:size] != right[:size])
    return int(places[0]) if places.size else size


def _at(ids: Sequence[int] | Ints, place: int) -> str:
    return str(int(ids[place])) if place < len(ids) else "missing"


def _version(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise HostFault(
            f"the server's weights are named {text!r}; expected a number: they were not pushed from here"
        ) from None


def _merged(spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Spans of which neighbours differ in version."""
    out: list[tuple[int, int]] = []
    for offset, version in spans:
        if not out or out[-1][1] != version:
            out.append((offset, version))
    return tuple(out)
