"""SandboxFusion's run_code: one program in one box that nothing else ever uses.

Give its client `set_endpoint("http://host:port/sandboxfusion")`. Python runs in the Python sandbox; any other language
is one that a suite of this hub declares and whose image was built. There is no episode: a run is one step of its
caller's quotas, and its box is admitted like an episode's.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from agenthub.errors import BoxLost, UnknownName, UserError, WireError
from agenthub.isolation import Limits
from agenthub.records import frozen
from agenthub.sandbox import ProgramRun, Programs, SandboxSpec
from agenthub.server.answers import JSON, dumps
from agenthub.server.dialects.caller import Caller, Callers
from agenthub.server.owner import stopping
from agenthub.server.params import parse_json, read
from agenthub.server.routes import retry_after_s

__all__ = ["SandboxFusion"]

_MEMORY_MB = (256, 512, 1024, 2048, 4096)
"""Boxes come in these sizes, so that a client's numbers do not empty the warm pool: the smallest that is enough."""
_MOST_FILES = 64
_MOST_S = 300.0


class RunIn(BaseModel):
    """Body of POST /run_code."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    code: str
    language: str
    stdin: str | None = None
    compile_timeout: float = Field(default=10.0, gt=0, le=_MOST_S)
    run_timeout: float = Field(default=10.0, gt=0, le=_MOST_S)
    memory_limit_MB: int = Field(default=-1, ge=-1)
    files: dict[str, str | None] = Field(default_factory=dict, max_length=_MOST_FILES)
    fetch_files: list[str] = Field(default_factory=list, max_length=_MOST_FILES)


class SandboxFusion:
    """The routes of the dialect."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    def add_routes(self, app: web.Application) -> None:
        """Serve below /sandboxfusion."""
        app.router.add_post("/sandboxfusion/run_code", self._run_code)

    async def _run_code(self, request: web.Request) -> web.Response:
        """What came of a program; what is wrong with the request is said as SandboxFusion (FastAPI) says it."""
        caller = self._callers.of(request)
        hub = caller.dispatcher

        async def work() -> dict[str, Any]:
            if not hub.ready:
                raise stopping()
            asked = read(RunIn, parse_json(await request.read()))
            spec, kind = await self._wanted(caller, asked)
            return await _run(caller, kind, spec, asked)

        try:
            row = await hub.journal.watch("run_code", {}, caller.who, work)
        except WireError as refused:
            if refused.code == "infra_fault":
                return _json(_row("SandboxError", f"the sandbox failed: {refused.message}"))
            headers = {"Retry-After": str(retry_after_s(refused))} if refused.status in (429, 503) else {}
            return _json({"detail": _detail(refused)}, refused.status, headers)
        return _json(row)

    async def _wanted(self, caller: Caller, asked: RunIn) -> tuple[SandboxSpec, str]:
        """The box of a request and the kind of sandbox that makes it. Raises WireError 422."""
        fitting = (size for size in _MEMORY_MB if size >= asked.memory_limit_MB)
        memory_mb = next(fitting, _MEMORY_MB[-1]) if asked.memory_limit_MB > 0 else Limits().memory_mb
        limits = Limits(memory_mb=memory_mb)
        if asked.language == "python":
            return SandboxSpec(limits=limits), "python"
        languages = await caller.dispatcher.catalog.languages()
        if asked.language not in languages:
            said = UnknownName("language", asked.language, {"python", *languages})
            raise WireError("invalid", 422, str(said), [{"field": "language", "problem": str(said)}])
        params = frozen({"language": languages[asked.language]})
        return SandboxSpec(limits=replace(limits, pids=128), params=params), "language"


async def _run(caller: Caller, kind: str, spec: SandboxSpec, asked: RunIn) -> dict[str, Any]:
    """Run the program in a fresh box. Raises UserError, HostFault."""
    files = {path: _octets(path, data) for path, data in asked.files.items() if data is not None}
    caller.who.account.step()
    async with _box(caller, kind, spec) as box:
        try:
            for path, data in files.items():
                await box.write_file(path, data)
            runs = await box.program(
                asked.code,
                stdin=(asked.stdin or "").encode(errors="surrogatepass"),
                compile_s=asked.compile_timeout,
                run_s=asked.run_timeout,
            )
            fetched = {path: await _fetched(box, path) for path in asked.fetch_files}
        except BoxLost as lost:
            run = {"status": "Error", "execution_time": None, "return_code": None, "stdout": "", "stderr": str(lost)}
            return _row("Failed", str(lost), run=run)
    compiled, ran = runs.get("compile"), runs.get("run")
    good = ran is not None and ran.code == 0
    return _row(
        "Success" if good else "Failed",
        "",
        compiled=None if compiled is None else _result(compiled),
        run=None if ran is None else _result(ran),
        files={path: data for path, data in fetched.items() if data is not None},
    )


@asynccontextmanager
async def _box(caller: Caller, kind: str, spec: SandboxSpec) -> AsyncIterator[Programs]:
    """A fresh box inside the context, on the caller's account. Raises UserError, HostFault."""
    hub = caller.dispatcher
    (ticket,) = hub.admission.admit(spec.request_mb, 1, caller.who.account, 1)
    try:
        box = await hub.workbench.box(kind, spec)
        try:
            if not isinstance(box, Programs):
                raise UserError(f"sandbox {kind!r} runs no whole programs")
            yield box
        finally:
            await box.close()
    finally:
        ticket.release()


async def _fetched(box: Programs, path: str) -> str | None:
    """A file's content in base64; None where there is no such file, as in SandboxFusion."""
    try:
        return base64.b64encode(await box.read_file(path)).decode("ascii")
    except UserError:
        return None


def _octets(path: str, data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        problem = f"not base64: {error}"
        raise WireError("invalid", 422, f"files: {problem}", [{"field": f"files.{path}", "problem": problem}]) from None


def _result(run: ProgramRun) -> dict[str, Any]:
    """One stage as `CommandRunResult`."""
    return {
        "status": "TimeLimitExceeded" if run.code is None else "Finished",
        "execution_time": round(run.seconds, 6),
        "return_code": run.code,
        "stdout": run.out.decode(errors="replace"),
        "stderr": run.err.decode(errors="replace"),
    }


def _row(
    status: str,
    message: str,
    *,
    compiled: dict[str, Any] | None = None,
    run: dict[str, Any] | None = None,
    files: dict[str, str] | None = None,
) -> dict[str, Any]:
    """`RunCodeResponse`."""
    return {
        "status": status,
        "message": message,
        "compile_result": compiled,
        "run_result": run,
        "executor_pod_name": None,
        "files": files or {},
    }


def _json(value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=dumps(value), status=status, content_type=JSON, headers=headers)


def _detail(error: WireError) -> Any:
    if error.code == "invalid" and isinstance(error.detail, list):
        return [{"loc": ["body", row["field"]], "msg": row["problem"], "type": "value_error"} for row in error.detail]
    return error.message
