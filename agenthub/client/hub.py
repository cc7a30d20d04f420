"""`Hub`: a hub's suites and episodes over one WebSocket, with safe retries and automatic leases."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
from pydantic import BaseModel

from agenthub.client.episode import BEATS_PER_LEASE, EpisodeHandle
from agenthub.client.retry import Again, Patience, refusal
from agenthub.client.socket import Socket
from agenthub.client.tls import tls_context
from agenthub.errors import AgenthubError, HostFault, HubUnreachable, UserError, WireError
from agenthub.wire import (
    Action,
    Batch,
    CreateEpisodes,
    EpisodesCreated,
    GenerationIn,
    LimitsIn,
    StepDone,
    StepLate,
    StepOf,
)

__all__ = ["BatchStep", "Hub"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStep:
    """One step of `Hub.steps`."""

    episode: EpisodeHandle
    action: Action
    generation: GenerationIn | None = None


class Hub:
    """A client of one hub. Use it as an asynchronous context, or call `close`."""

    def __init__(
        self, url: str, token: str | None = None, *, retry_s: float = 60.0, verify: Path | str | bool = True
    ) -> None:
        """
        Args:
            url: `http://host:port`, or `https://...`.
            token: bearer token; the environment's AGENTHUB_TOKEN where it is not given.
            retry_s: seconds without an answer after which HubUnreachable is raised.
            verify: of an https hub: a PEM file of certificate authorities to trust beside the system's; False takes
                any certificate, so that whoever is on the way reads the token.

        Raises:
            UserError: the URL or the file cannot be used.
        """
        if not url.startswith(("http://", "https://")):
            raise UserError(f"url is {url!r}; expected http://host:port or https://host:port")
        self.url = url.rstrip("/")
        self._token = token or os.environ.get("AGENTHUB_TOKEN")
        self._retry_s = retry_s
        self._tls = tls_context(verify) if self.url.startswith("https://") else True
        self._session: aiohttp.ClientSession | None = None
        self._socket: Socket | None = None
        self._open: dict[str, EpisodeHandle] = {}
        self._beating: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Hub:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def suites(self) -> list[dict[str, Any]]:
        """Every suite: name, version, description, license, tasks, splits."""
        return list((await self.call("suites", {}))["suites"])

    async def suite(self, name: str) -> dict[str, Any]:
        """One suite. Raises WireError 404."""
        return dict(await self.call("suite", {"suite": name}))

    async def tasks(self, suite: str, split: str | None = None) -> list[dict[str, Any]]:
        """Public facts of every task of a suite, or of one split. Raises WireError 404."""
        rows: list[dict[str, Any]] = []
        while True:
            asked = {"suite": suite, "split": split, "offset": len(rows), "limit": 1000}
            page = await self.call("tasks", asked)
            rows += page["tasks"]
            if len(rows) >= page["total"] or not page["tasks"]:
                return rows

    async def capabilities(self) -> dict[str, Any]:
        """What the hub can do."""
        return dict(await self.call("capabilities", {}))

    async def create(
        self,
        suite: str,
        task: str | None = None,
        *,
        seed: int | None = None,
        split: str | None = None,
        count: int = 1,
        group: str | None = None,
        first_member: int = 0,
        limits: LimitsIn | None = None,
        lease_s: float = 60.0,
    ) -> list[EpisodeHandle]:
        """Open `count` episodes of one task: `task`, or the one that `seed` draws.

        Raises:
            WireError: unknown suite or task; the task cannot be had on that hub.
            HostFault: opening failed on the hub's side; nothing was left open.
            HubUnreachable: no answer within the budget.
        """
        asked = CreateEpisodes(
            request_id=uuid.uuid4().hex,
            suite=suite,
            task=task,
            seed=seed,
            split=split,
            count=count,
            group=group,
            first_member=first_member,
            limits=limits,
            lease_s=lease_s,
        )
        return self._opened(await self.call("create", asked))

    async def fork(self, episode: EpisodeHandle, count: int, turn: int | None = None) -> list[EpisodeHandle]:
        """As `EpisodeHandle.fork`."""
        asked = {"episode": episode.id, "request_id": uuid.uuid4().hex, "count": count, "turn": turn}
        return self._opened(await self.call("fork", asked))

    async def steps(
        self, steps: Sequence[BatchStep], *, deadline_s: float | None = None
    ) -> list[StepDone | StepLate | AgenthubError]:
        """Play a batch of turns of different episodes in one HTTP request; results in order.

        A step that is late goes on in the hub: the same step again joins it. One that is refused gives its error.

        Raises:
            UserError: two steps are of one episode.
            WireError: the batch as a whole is refused.
            HubUnreachable: no answer within the budget.
        """
        asked = [
            StepOf(
                episode=it.episode.id,
                turn=it.episode.next_turn,
                action=it.action,
                timeout_s=None,
                generation=it.generation,
            )
            for it in steps
        ]
        if len({step.episode for step in asked}) < len(asked):
            raise UserError("a batch has at most one step of an episode")
        found: dict[str, StepDone | StepLate | AgenthubError] = {}
        patience = Patience(self._retry_s, self.url)
        while True:
            missing = [step for step in asked if step.episode not in found]
            if not missing:
                break
            try:
                await self._batch(Batch(steps=missing, deadline_s=deadline_s), found)
            except Again as why:
                await patience.wait(why)
        for step in steps:
            result = found[step.episode.id]
            if isinstance(result, StepDone):
                step.episode.played(result)
        return [found[step.episode] for step in asked]

    async def get_blob(self, sha256: str) -> bytes:
        """A blob, an image say, by its content's hash; the octets travel as they are. Raises WireError 404."""
        return await self._octets("GET", sha256, None)

    async def put_blob(self, sha256: str, data: bytes) -> None:
        """Keep a blob. Raises WireError where the hash is not that of the data."""
        await self._octets("PUT", sha256, data)

    async def call(self, op: str, params: BaseModel | dict[str, Any]) -> Any:
        """Any operation by name. Raises WireError, HostFault, HubUnreachable."""
        values = params.model_dump(exclude_none=True) if isinstance(params, BaseModel) else params
        try:
            text = json.dumps(values, separators=(",", ":"), allow_nan=False)
        except ValueError as error:
            raise UserError(f"{op}: a number is not finite: {error}") from None
        if self._socket is None:
            self._socket = Socket(self._http(), f"{self.url}/v1/ws", budget_s=self._retry_s)
        return await self._socket.call(op, text)

    def forget(self, handle: EpisodeHandle) -> None:
        """Stop renewing a handle's lease."""
        self._open.pop(handle.id, None)

    async def close(self) -> None:
        """Close the connection. Episodes that are still open end when their leases run out."""
        self._open.clear()
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait([self._beating])
        if self._socket is not None:
            await self._socket.close()
        if self._session is not None:
            await self._session.close()
        self._socket = self._session = self._beating = None

    def _opened(self, answer: Any) -> list[EpisodeHandle]:
        """Handles of new episodes; their leases are renewed from now on."""
        created = EpisodesCreated.model_validate(answer)
        handles = [EpisodeHandle(self, opened, created.group) for opened in created.episodes]
        self._open |= {handle.id: handle for handle in handles}
        if self._beating is None or self._beating.done():
            self._beating = asyncio.get_running_loop().create_task(self._beat())
        return handles

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0)
            connector = aiohttp.TCPConnector(ssl=self._tls)
            self._session = aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector)
        return self._session

    async def _octets(self, method: str, sha256: str, data: bytes | None) -> bytes:
        patience = Patience(self._retry_s, self.url)
        while True:
            try:
                async with self._http().request(method, f"{self.url}/v1/blobs/{sha256}", data=data) as response:
                    body = await response.read()
                if response.status < 300:
                    return body
                refused = refusal(response.status, json.loads(body).get("error"))
            except (aiohttp.ClientError, OSError, ValueError) as error:
                refused = Again(str(error) or type(error).__name__)
            if not isinstance(refused, Again):
                raise refused
            await patience.wait(refused)

    async def _batch(self, batch: Batch, found: dict[str, StepDone | StepLate | AgenthubError]) -> None:
        """One request; what it answers goes into `found`. Raises Again where it ends early."""
        body = json.dumps(batch.model_dump(exclude_none=True), separators=(",", ":"), allow_nan=False)
        try:
            async with self._http().post(f"{self.url}/v1/steps", data=body) as response:
                if response.status != 200:
                    row = json.loads(await response.read())
                    raise refusal(response.status, row.get("error"))
                async for line in response.content:
                    row = json.loads(line)
                    result = _result(row)
                    if not isinstance(result, Again):
                        found[row["episode"]] = result
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Again(str(error) or type(error).__name__) from error
        if any(step.episode not in found for step in batch.steps):
            raise Again("the answer ended early")

    async def _beat(self) -> None:
        """Renew leases until no episode is open."""
        while self._open:
            await asyncio.sleep(min(handle.lease_s for handle in self._open.values()) / (2 * BEATS_PER_LEASE))
            now = asyncio.get_running_loop().time()
            due = [handle for handle in self._open.values() if handle.beat_due(now)]
            asked = (self.call("lease", {"episode": it.id, "lease_s": it.lease_s}) for it in due)
            for handle, result in zip(due, await asyncio.gather(*asked, return_exceptions=True), strict=True):
                if isinstance(result, WireError | HostFault):
                    self.forget(handle)
                elif isinstance(result, BaseException) and not isinstance(result, HubUnreachable):
                    raise result


def _result(row: dict[str, Any]) -> StepDone | StepLate | AgenthubError | Again:
    if "error" in row:
        return refusal(int(row.get("status", 500)), row["error"], op="step")
    return StepLate.model_validate(row) if row.get("late") else StepDone.model_validate(row)
