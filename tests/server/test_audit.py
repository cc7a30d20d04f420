"""Every route and every operation of every face: with no token, a wrong one, a lesser one, and another tenant's.

The routes are asked of the router itself: one that is added without a row here or in a table of scopes fails.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agenthub.server.access import OPERATION_SCOPES, ROUTE_SCOPES, Scope
from agenthub.server.app import make_app
from agenthub.server.dialects import DIALECT_SCOPES
from agenthub.server.dispatcher import Dispatcher
from agenthub.server.guard import Guard
from agenthub.server.operations import OPERATIONS
from agenthub.server.quotas import Accounts
from agenthub.server.routes import ROUTES
from tests.server.faces import FACES, Face
from tests.server.harness import CALL, RunningHub, hub, winning
from tests.server.tenants import TOKENS, tenants

BLOB = b"what alice knows"
SHA = hashlib.sha256(BLOB).hexdigest()
WRONG = (None, "Bearer aht_nobody-0123456789abcdef", "Bearer", "Bearer ", f"Basic {TOKENS['root']}", TOKENS["root"])
SCOPES = {**{(it.method, it.path): OPERATION_SCOPES[it.op] for it in ROUTES}, **ROUTE_SCOPES, **DIALECT_SCOPES}


def served_routes(dispatcher: Dispatcher) -> Iterator[tuple[str, str]]:
    """Method and path of every route that the application serves, HEAD as the GET that it is."""
    app = make_app(dispatcher, Guard(Accounts()), max_body=1)
    for route in app.router.routes():
        assert route.resource is not None
        yield ("GET" if route.method == "HEAD" else route.method), route.resource.canonical


def address(path: str) -> str:
    return re.sub(r"{\w+}", "x", path.replace("{asked}", "task"))


async def test_every_route_and_operation_has_a_row(tmp_path: Path) -> None:
    async with hub(tmp_path) as served:
        assert set(served_routes(served.dispatcher)) == set(SCOPES)
    assert set(OPERATION_SCOPES) == set(OPERATIONS)
    open_to_all = {route for route, scope in SCOPES.items() if scope is None}
    assert open_to_all == {("GET", "/healthz"), ("GET", "/readyz")}
    assert {op for op, scope in OPERATION_SCOPES.items() if scope is Scope.ADMIN} == {"quarantine", "release"}


async def test_without_a_token_and_with_a_wrong_one_no_route_answers(tmp_path: Path) -> None:
    async with tenants(tmp_path) as served, aiohttp.ClientSession() as session:
        routes = [*SCOPES, ("GET", "/nothing"), ("PATCH", "/v1/suites"), ("GET", "/v1/quarantine/a/b/c")]
        for (method, path), header in itertools.product(routes, WRONG):
            if SCOPES.get((method, path), Scope.ADMIN) is None:
                continue
            headers = {"Authorization": header} if header is not None else {}
            url = served.url + address(path)
            async with session.request(method, url, headers=headers, data=b"{" * 99) as response:
                assert response.status == 401, (method, path, header)
                assert response.headers["WWW-Authenticate"] == "Bearer"
                assert (await response.json())["error"]["code"] == "unauthorized"


async def test_a_lesser_token_gets_as_far_as_its_scope(tmp_path: Path) -> None:
    async with tenants(tmp_path) as served, aiohttp.ClientSession() as session:
        for (method, path), name in itertools.product(SCOPES, TOKENS):
            scope = SCOPES[method, path]
            has = {"alice": Scope.PLAY, "bob": Scope.PLAY, "meter": Scope.METRICS, "root": Scope.ADMIN}[name]
            headers = {"Authorization": f"Bearer {TOKENS[name]}"}
            async with session.request(method, served.url + address(path), headers=headers) as response:
                refused = scope is not None and has not in (scope, Scope.ADMIN)
                assert (response.status == 403) == refused, (method, path, name, response.status)
                assert response.status not in (401, 500), (method, path, name)
                if refused:
                    assert (await response.json())["error"]["code"] == "forbidden"


async def test_a_websocket_opens_with_a_token_that_may_play_and_holds_each_frame_to_its_scope(tmp_path: Path) -> None:
    async with tenants(tmp_path) as served, aiohttp.ClientSession() as session:
        for name, status in ((None, 401), ("meter", 403)):
            headers = {"Authorization": f"Bearer {TOKENS[name]}"} if name else {}
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await session.ws_connect(f"{served.url}/v1/ws", headers=headers)
            assert caught.value.status == status
        for name in ("alice", "root"):
            headers = {"Authorization": f"Bearer {TOKENS[name]}"}
            async with session.ws_connect(f"{served.url}/v1/ws", headers=headers) as socket:
                for number, (op, scope) in enumerate(OPERATION_SCOPES.items()):
                    await socket.send_json({"id": number, "op": op, "nonsense": 1})
                    row = await socket.receive_json(timeout=20)
                    refused = scope is Scope.ADMIN and name != "root"
                    assert (row["status"] == 403) == refused, (op, name)
                    assert row["status"] in (403, 422), (op, name)


def theirs(episode: str) -> list[tuple[str, dict[str, Any]]]:
    """Every operation that names an episode, and how it is asked for one that is somebody else's."""
    return [
        ("step", {"episode": episode, "turn": 0, "action": CALL}),
        ("step", {"episode": episode, "turn": 0, "action": winning()}),
        ("step", {"episode": episode, "turn": 7, "action": CALL}),
        ("state", {"episode": episode}),
        ("lease", {"episode": episode, "lease_s": 1}),
        ("trajectory", {"episode": episode}),
        ("fork", {"episode": episode, "request_id": "f", "count": 1}),
        ("file_get", {"episode": episode, "path": "a.txt"}),
        ("file_put", {"episode": episode, "path": "a.txt", "data": b"x"}),
        ("delete", {"episode": episode}),
    ]


def face(name: str, served: RunningHub, token: str) -> Face:
    return FACES[name](served.url, TOKENS[token])


@pytest.mark.parametrize("name", FACES)
@pytest.mark.parametrize("state", ["live", "played", "ended"])
async def test_an_episode_of_another_tenants_is_as_unknown_as_one_that_never_was(
    tmp_path: Path, name: str, state: str
) -> None:
    async with (
        tenants(tmp_path) as served,
        face(name, served.hub, "alice") as alice,
        face(name, served.hub, "bob") as bob,
        face(name, served.hub, "root") as root,
    ):
        assert {op for op, _ in theirs("")} == {
            op for op, model in OPERATIONS.items() if "episode" in model.model_fields
        }, "an operation that names an episode is not audited"
        status, made = await alice.call("create", request_id="r", suite="fakes", task="t0", lease_s=900)
        assert status == 201
        episode = made["episodes"][0]["id"]
        if state != "live":
            await alice.call("step", episode=episode, turn=0, action=CALL if state == "played" else winning())
        _, before = await alice.call("state", episode=episode)
        for (op, params), (_, never) in zip(theirs(episode), theirs("ep-never"), strict=True):
            got, unknown = await bob.call(op, **params), await bob.call(op, **never)
            assert got[0] == 404, (op, got)
            assert json.dumps(got).replace(episode, "") == json.dumps(unknown).replace("ep-never", ""), op
        _, after = await alice.call("state", episode=episode)
        assert {**after, "lease_expires_s": 0} == {**before, "lease_expires_s": 0}
        assert (await root.call("state", episode=episode))[0] == 200
        status, row = await root.call("delete", episode=episode)
        assert (status, row["done"]) == (200, True)
        assert (await bob.call("trajectory", episode=episode))[0] == 404
        assert (await alice.call("trajectory", episode=episode))[0] == 200


@pytest.mark.parametrize("name", FACES)
async def test_request_ids_and_groups_of_two_tenants_do_not_meet(tmp_path: Path, name: str) -> None:
    async with (
        tenants(tmp_path) as served,
        face(name, served.hub, "alice") as alice,
        face(name, served.hub, "bob") as bob,
    ):
        asked = {"request_id": "same", "suite": "fakes", "task": "t0", "group": "g"}
        first, second = await asyncio.gather(alice.call("create", **asked), bob.call("create", **asked))
        again = await bob.call("create", **asked)
        assert (first[0], second[0], again) == (201, 201, second)
        assert first[1]["episodes"][0]["id"] != second[1]["episodes"][0]["id"]
        status, row = await bob.call("create", **{**asked, "task": "t1"})
        assert (status, row["error"]["code"]) == (409, "request_conflict")
        mine = second[1]["episodes"][0]["id"]
        forks = [await one.call("fork", episode=mine, request_id="same-fork", count=1) for one in (alice, bob)]
        assert [status for status, _ in forks] == [404, 201]


async def test_a_batch_answers_for_ones_own_episodes_alone(tmp_path: Path) -> None:
    async with (
        tenants(tmp_path) as served,
        face("routes", served.hub, "alice") as alice,
        face("routes", served.hub, "bob") as bob,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKENS['bob']}"}) as session,
    ):
        opened = [await it.call("create", request_id="r", suite="fakes", task="t0") for it in (alice, bob)]
        hers, his = (made["episodes"][0]["id"] for _, made in opened)
        steps = [{"episode": id, "turn": 0, "action": CALL} for id in (hers, his, "ep-never")]
        async with session.post(f"{served.url}/v1/steps", json={"steps": steps}) as response:
            rows = {row["episode"]: row for row in map(json.loads, (await response.read()).splitlines())}
        assert rows[his]["reward"] == 0
        assert rows[hers]["error"]["code"] == rows["ep-never"]["error"]["code"] == "unknown_episode"
        assert (await alice.call("state", episode=hers))[1]["turn"] == 0


async def test_a_blob_is_whoevers_that_can_name_it(tmp_path: Path) -> None:
    async with (
        tenants(tmp_path) as served,
        face("websocket", served.hub, "alice") as alice,
        face("websocket", served.hub, "bob") as bob,
    ):
        assert (await bob.call("blob_get", sha256=SHA))[0] == 404
        first = await alice.call("blob_put", sha256=SHA, data=BLOB)
        assert first == await bob.call("blob_put", sha256=SHA, data=BLOB)
        assert await bob.call("blob_get", sha256=SHA) == (200, BLOB)


async def test_sessions_of_other_dialects_are_their_owners_alone(tmp_path: Path) -> None:
    async with tenants(tmp_path) as served, aiohttp.ClientSession() as session:

        async def ask(name: str, path: str, body: dict[str, Any] | None, **headers: str) -> tuple[int, Any]:
            headers |= {"Authorization": f"Bearer {TOKENS[name]}", "Accept": "application/json, text/event-stream"}
            method = "GET" if body is None else "POST"
            async with session.request(method, served.url + path, json=body, headers=headers) as response:
                return response.status, (dict(response.headers), await response.json())

        at = "/openenv/fakes"
        assert (await ask("alice", f"{at}/reset", {"task": "t0", "episode_id": "hers"}))[0] == 200
        step = {"action": {"answer": "42"}, "episode_id": "hers"}
        for path, body in ((f"{at}/step", step), (f"{at}/state?episode_id=hers", None)):
            assert (await ask("bob", path, body))[0] == 404, path
        _, (_, made) = await ask("alice", f"{at}/mcp", rpc("openenv/session/create", task="t0"))
        hers = made["result"]["session_id"]
        for method in ("tools/list", "tools/call", "openenv/session/close"):
            params = {"session_id": hers, "name": "submit_answer", "arguments": {"answer": "42"}}
            _, (_, row) = await ask("bob", f"{at}/mcp", rpc(method, **params))
            _, (_, never) = await ask("bob", f"{at}/mcp", rpc(method, **params | {"session_id": "0" * 32}))
            assert "error" in row and json.dumps(row).replace(hers, "") == json.dumps(never).replace("0" * 32, "")
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}
        _, (headers, _) = await ask("alice", "/mcp/fakes?task=t0", rpc("initialize", **hello))
        hers = headers["Mcp-Session-Id"]
        status, _ = await ask("bob", "/mcp/fakes", rpc("tools/list"), **{"Mcp-Session-Id": hers})
        assert status == (await ask("bob", "/mcp/fakes", rpc("tools/list"), **{"Mcp-Session-Id": "0" * 32}))[0] == 404
        assert (await ask("alice", "/mcp/fakes", rpc("tools/list"), **{"Mcp-Session-Id": hers}))[0] == 200


def rpc(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
