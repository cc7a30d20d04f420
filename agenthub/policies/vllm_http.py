"""The way to a vLLM server: its routes as methods, and its errors as ours.

Owns one HTTP session and how often a request is tried. It knows the routes of vLLM 0.28 and later that are switched on
by `VLLM_SERVER_DEV_MODE=1` and `--enable-scale-out`, and nothing of sampling.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp

from agenthub.errors import HostFault, UserError

__all__ = ["Lost", "PauseMode", "Served", "VllmHttp", "check_transfers"]

PauseMode = Literal["keep", "wait", "abort"]
"""What becomes of requests in flight: they go on afterwards under the new weights, end first, or are given up."""
OLDEST = (0, 28)
OLDEST_TRANSFERS = (0, 32)
"""The first one whose transfer engines were read for what `trainers.sync.transfer` says and sends."""
_BUSY = frozenset({429, 502, 503, 504})
_PUSH_S = 600.0


class Lost(Exception):
    """The server gave no whole answer: the connection broke, it is busy, or it gave the request up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a server says of itself."""

    model: str
    """The name under which it is asked."""
    root: str
    """The directory that it was started with."""
    context: int
    """Tokens of prompt and answer together."""
    version: str
    """Of vLLM."""


class VllmHttp:
    """One vLLM server, by its address."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        ended: Callable[[], str | None] = lambda: None,
        silent_s: float = 120.0,
    ) -> None:
        """
        Args:
            ended: why the server's process is over, where this side can know; None while it lives.
            silent_s: longest wait for the next byte of a stream, a pause for new weights included.
        """
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._ended, self._silent_s = ended, silent_s
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections; safe to call again."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def check_alive(self) -> None:
        """Raises HostFault where the server's process is known to be over."""
        reason = self._ended()
        if reason is not None:
            raise HostFault(reason)

    async def served(self, model: str) -> Served:
        """What this server serves under the name `model`.

        Raises:
            UserError: it serves another model, is too old, or lacks the routes that a policy needs.
            Lost: it does not answer.
        """
        version = str((await self.call("GET", "/version")).get("version", ""))
        if not version:
            raise UserError(f"{self.url} is no vLLM server: its /version tells none")
        if _number(version) < OLDEST:
            raise UserError(
                f"{self.url} is vLLM {version}; expected {OLDEST[0]}.{OLDEST[1]} or newer, which names its weights"
            )
        rows = (await self.call("GET", "/v1/models"))["data"]
        for row in rows:
            if row["id"] == model:
                return Served(
                    model=model, root=str(row.get("root") or ""), context=int(row["max_model_len"]), version=version
                )
        names = ", ".join(repr(row["id"]) for row in rows)
        raise UserError(
            f"{self.url} serves {names}, not {model!r}; name that, or start it with --served-model-name {model}"
        )

    async def weight_version(self) -> str:
        """What the server calls its weights; `default` until it has been told."""
        return str((await self.call("GET", "/weight_info"))["weight_version"])

    async def set_weight_version(self, version: int) -> None:
        """Name the weights that serve from now on."""
        await self.call("POST", "/update_weight_version", {"new_version": str(version)})

    async def pause(self, mode: PauseMode) -> None:
        """Sample no token until `resume`."""
        await self.call("POST", f"/pause?mode={mode}", timeout_s=_PUSH_S)

    async def resume(self) -> None:
        """Go on sampling."""
        await self.call("POST", "/resume")

    async def reload(self, folder: Path) -> None:
        """Load the weights in a directory into the model that serves; its shapes must fit."""
        body = {"method": "reload_weights", "kwargs": {"weights_path": _seen_by_server(folder)}}
        await self.call("POST", "/collective_rpc", body, timeout_s=_PUSH_S)

    async def world_size(self) -> int:
        """Workers that take weights."""
        return int((await self.call("GET", "/get_world_size"))["world_size"])

    async def join_transfer(self, init: Mapping[str, Any]) -> None:
        """Have the workers meet a trainer, as vLLM's weight transfer engine of the server's backend wants it."""
        await self.call("POST", "/init_weight_transfer_engine", {"init_info": dict(init)}, timeout_s=_PUSH_S)

    async def start_update(self) -> None:
        """Make ready for weights that are transferred; `finish_update` ends it, and one left open."""
        try:
            await self.call("POST", "/start_weight_update", timeout_s=_PUSH_S, alone=True)
        except HostFault as fault:
            if "already active" not in str(fault):
                raise
            await self.call("POST", "/finish_weight_update", timeout_s=_PUSH_S)
            await self.call("POST", "/start_weight_update", timeout_s=_PUSH_S)

    async def receive(self, update: Mapping[str, Any]) -> None:
        """Have the workers take part of the weights; back when they have them."""
        await self.call("POST", "/update_weights", {"update_info": dict(update)}, timeout_s=_PUSH_S)

    async def finish_update(self, version: int) -> None:
        """Serve what was transferred, under this version."""
        await self.call("POST", "/finish_weight_update", {"weight_version": str(version)}, timeout_s=_PUSH_S)

    async def load_adapter(self, name: str, folder: Path) -> None:
        """Serve a LoRA adapter beside the model under a name of its own, in place of the one that has it now."""
        body = {"lora_name": name, "lora_path": _seen_by_server(folder), "load_inplace": True}
        await self.call("POST", "/v1/load_lora_adapter", body, timeout_s=_PUSH_S)

    async def forget_prefixes(self) -> None:
        """Drop every cached key and value, those of paused requests too, which are computed again.

        Raises:
            HostFault: the server kept them; they belong to the old weights.
        """
        answer = await self.call("POST", "/reset_prefix_cache?reset_running_requests=true")
        if not answer.get("success", False):
            raise HostFault(f"{self.url} kept its prefix cache, which belongs to other weights")

    async def abort(self, request_id: str) -> None:
        """Give one request up; an unknown one is ignored."""
        await self.call("POST", "/inference/v1/abort_requests", {"request_ids": [request_id]})

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = 60.0,
        alone: bool = False,
    ) -> dict[str, Any]:
        """One request and its JSON answer ({} where it has none).

        Args:
            alone: no other request uses its connection, which a server that fails at it may close.

        Raises:
            UserError: the server refuses what was asked.
            HostFault: it failed at it, or its process is over.
            Lost: no answer.
        """
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        headers = {"Connection": "close"} if alone else None
        try:
            async with self._open().request(
                method, self.url + path, json=body, timeout=timeout, headers=headers
            ) as answer:
                text = await answer.text()
                self._check(answer.status, path, text)
                return dict(json.loads(text)) if text.strip().startswith("{") else {}
        except (aiohttp.ClientError, TimeoutError) as error:
            self.check_alive()
            raise Lost(f"{self.url}{path}: {error or type(error).__name__}") from error

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a streamed answer. Raises as `call`; Lost where the stream breaks off before its end."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30.0, sock_read=self._silent_s)
        try:
            async with self._open().post(self.url + path, json=body, timeout=timeout) as answer:
                if answer.status != 200:
                    self._check(answer.status, path, await answer.text())
                async for line in answer.content:
                    if not line.startswith(b"data: "):
                        continue
                    if line.startswith(b"data: [DONE]"):
                        return
                    event = json.loads(line[6:])
                    if "error" in event:
                        error = event["error"]
                        self._check(int(error.get("code") or 500), path, str(error.get("message")))
                    yield event
        except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError) as error:
            self.check_alive()
            raise Lost(f"{self.url}{path}: {error or type(error).__name__}") from error
        self.check_alive()
        raise Lost(f"{self.url}{path}: the stream ended early")

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), headers=self._headers, read_bufsize=1 << 20
            )
        return self._session

    def _check(self, status: int, path: str, text: str) -> None:
        if status < 400:
            return
        said = _message(text)
        if status in _BUSY:
            raise Lost(f"{self.url}{path}: {status} {said}")
        if status in (403, 404) and path == "/v1/load_lora_adapter":
            raise UserError(
                f"{self.url}{path}: {status} {said}; start it with --enable-lora and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
            )
        if status in (403, 404) and not path.startswith("/v1/"):
            raise UserError(
                f"{self.url}{path}: {status} {said}; start it with VLLM_SERVER_DEV_MODE=1 and --enable-scale-out "
                "(`agenthub doctor` prints the command)"
            )
        if status < 500:
            raise UserError(f"{self.url}{path}: {status} {said}")
        raise HostFault(f"{self.url}{path}: {status} {said}")


def check_transfers(served: Served) -> None:
    """Raises UserError where a server's native transfers are not those that this trainer speaks."""
    if _number(served.version) < OLDEST_TRANSFERS:
        oldest = ".".join(map(str, OLDEST_TRANSFERS))
        raise UserError(
            f"the server is vLLM {served.version}; policy.vllm.sync: nccl and ipc need {oldest} or newer, "
            "directory does not"
        )


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())


def _message(text: str) -> str:
    """The message within an error body."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return text.strip()[:500]
    error = found.get("error", found) if isinstance(found, dict) else found
    return str(error.get("message", error) if isinstance(error, dict) else error)[:500]


def _seen_by_server(folder: Path) -> str:
    """The whole path: the server is in a folder of its own."""
    return str(folder.absolute())
