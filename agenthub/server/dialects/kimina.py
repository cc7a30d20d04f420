"""Kimina Lean server's routes: what Lean says of a snippet, in the shape that its clients read.

Served at the root, as its client expects, and below /kimina. Snippets are compiled in the boxes that the hub's own Lean
tool uses, each in a fresh one; nothing is reused between two of them, whatever `reuse` says. It is feedback and no
verdict: rewards come from the check `lean`.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from agenthub.errors import AgenthubError, BoxLost, HostFault, UserError
from agenthub.isolation import Limits
from agenthub.sandbox import ProgramRun, Programs, SandboxSpec
from agenthub.server.answers import JSON, boundary, dumps
from agenthub.server.dialects.caller import Caller, Callers
from agenthub.server.params import parse_json, read
from agenthub.server.routes import retry_after_s

__all__ = ["KIMINA_ROUTES", "Kimina"]

KIMINA_ROUTES = tuple(("POST", path) for path in ("/api/check", "/verify", "/kimina/api/check", "/kimina/verify"))
_MOST = 1024
_MOST_S = 900.0
_SPEC = SandboxSpec(limits=Limits(memory_mb=3072), request_mb=1024)


class Snippet(BaseModel):
    """One text to check."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str | int
    code: str


class CheckIn(BaseModel):
    """Body of POST /api/check."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    snippets: list[Snippet] = Field(max_length=_MOST)
    timeout: float = Field(default=30.0, gt=0, le=_MOST_S)


class Proof(BaseModel):
    """One text to check, as the older route has it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    custom_id: str | int
    proof: str | None = None
    code: str | None = None


class VerifyIn(BaseModel):
    """Body of POST /verify."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    codes: list[Proof] = Field(max_length=_MOST)
    timeout: float = Field(default=300.0, gt=0, le=_MOST_S)


class Kimina:
    """The routes of the dialect."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    def add_routes(self, app: web.Application) -> None:
        """Serve at the root and below /kimina."""
        for method, path in KIMINA_ROUTES:
            app.router.add_route(method, path, self._check if path.endswith("check") else self._verify)

    async def _check(self, request: web.Request) -> web.Response:
        async def answer(caller: Caller) -> dict[str, Any]:
            asked = read(CheckIn, parse_json(await request.read()))
            rows = await _all(caller, [(one.id, one.code) for one in asked.snippets], asked.timeout)
            return {"results": rows}

        return await self._answered(request, answer)

    async def _verify(self, request: web.Request) -> web.Response:
        async def answer(caller: Caller) -> dict[str, Any]:
            asked = read(VerifyIn, parse_json(await request.read()))
            texts = [(one.custom_id, one.proof if one.proof is not None else one.code or "") for one in asked.codes]
            rows = await _all(caller, texts, asked.timeout)
            return {"results": [{"custom_id": row.pop("id"), **row} for row in rows]}

        return await self._answered(request, answer)

    async def _answered(self, request: web.Request, answer: Any) -> web.Response:
        try:
            body, status, headers = await answer(self._callers.of(request)), 200, {}
        except AgenthubError as error:
            refused = boundary(error)
            status = refused.status
            headers = {"Retry-After": str(retry_after_s(refused))} if status in (429, 503) else {}
            body = {"detail": str(refused)}
        return web.Response(body=dumps(body), status=status, content_type=JSON, headers=headers)


async def _all(caller: Caller, texts: list[tuple[str | int, str]], seconds: float) -> list[dict[str, Any]]:
    """What Lean says of every text, in order. Raises UserError where this hub has no Lean or no room."""
    hub = caller.dispatcher
    for _ in texts:
        caller.who.account.step()
    (ticket,) = hub.admission.admit(_SPEC.request_mb, 1, caller.who.account, 1)
    try:
        box = await hub.workbench.box("lean", _SPEC)
        try:
            if not isinstance(box, Programs):
                raise UserError("the Lean sandbox of this hub checks no files")
            return list(await asyncio.gather(*(_one(box, identity, text, seconds) for identity, text in texts)))
        finally:
            await box.close()
    finally:
        ticket.release()


async def _one(box: Programs, identity: str | int, text: str, seconds: float) -> dict[str, Any]:
    try:
        ran = (await box.program(text, stdin=b"", compile_s=seconds, run_s=0.0))["compile"]
    except (BoxLost, HostFault) as lost:
        return {"id": identity, "time": 0.0, "error": f"Lean failed: {lost}", "response": None}
    row: dict[str, Any] = {"id": identity, "time": ran.seconds, "error": None, "response": None}
    if ran.code is None:
        return row | {"error": f"Lean REPL command timed out in {seconds:g} seconds"}
    if ran.err:
        return row | {"error": f"Lean failed: {ran.err.decode()}"}
    return row | {"response": _response(ran), "diagnostics": {"repl_uuid": uuid.uuid4().hex}}


def _response(ran: ProgramRun) -> dict[str, Any]:
    messages = [
        {
            "severity": "info" if one["severity"] == "information" else one["severity"],
            "pos": {"line": one["line"], "column": one["col"]},
            "endPos": {"line": one["end_line"], "column": one["end_col"]},
            "data": one["message"],
        }
        for one in json.loads(ran.out)
    ]
    # The REPL lists each `sorry`; the compiler warns once for each declaration that has one.
    used = [one for one in messages if one["severity"] == "warning" and "declaration uses" in one["data"]]
    sorries = [{"pos": one["pos"], "endPos": one["endPos"], "goal": "", "proofState": -1} for one in used]
    return {"env": 0, "messages": messages} | ({"sorries": sorries} if sorries else {})
