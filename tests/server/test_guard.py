"""Nobody comes in without the token, over any route or frame; on loopback, no page of a stranger's does."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
import pytest

from agenthub.errors import ConfigError, UserError
from agenthub.server.config import AUTO_TOKEN, ServeConfig, find_token
from agenthub.server.guard import is_loopback
from agenthub.server.routes import ROUTES
from agenthub.server.serve import running
from tests.server.harness import hub

TOKEN = "correct-horse-battery"
ADDRESSES = [(route.method, re.sub(r"{\w+}", "x", route.path)) for route in ROUTES] + [
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/v1/ws"),
    ("GET", "/v1/unknown"),
    ("PATCH", "/v1/suites"),
]


@pytest.mark.parametrize("header", [None, "Bearer wrong-token-entirely", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"])
async def test_every_address_needs_the_token(tmp_path: Path, header: str | None) -> None:
    async with hub(tmp_path, token=TOKEN) as served, aiohttp.ClientSession() as session:
        for method, path in ADDRESSES:
            headers = {"Authorization": header} if header else {}
            async with session.request(method, served.url + path, headers=headers, data=b"") as response:
                assert response.status == 401, (method, path)
                assert response.headers["WWW-Authenticate"] == "Bearer"
                assert (await response.json())["error"]["code"] == "unauthorized"
        async with session.get(f"{served.url}/healthz") as response:
            assert response.status == 200


async def test_the_token_opens_every_address(tmp_path: Path) -> None:
    async with hub(tmp_path, token=TOKEN) as served, aiohttp.ClientSession() as session:
        for method, path in ADDRESSES:
            headers = {"Authorization": f"Bearer {TOKEN}", "Host": "hub.example"}
            async with session.request(method, served.url + path, headers=headers, data=b"") as response:
                assert response.status not in (401, 403, 500), (method, path)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "localhost.evil.example:80"},
        {"Host": "192.168.0.7"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
async def test_without_a_token_only_loopback_names_are_answered(tmp_path: Path, headers: dict[str, str]) -> None:
    async with hub(tmp_path) as served, aiohttp.ClientSession() as session:
        for method, path in ADDRESSES:
            async with session.request(method, served.url + path, headers=headers, data=b"") as response:
                assert response.status == 403, (method, path)


async def test_loopback_names_pass(tmp_path: Path) -> None:
    async with hub(tmp_path) as served, aiohttp.ClientSession() as session:
        for host in ("localhost", "localhost:8700", "127.0.0.1:1", "127.8.8.8", "[::1]:8700"):
            headers = {"Host": host, "Origin": f"http://{host}"}
            async with session.get(f"{served.url}/v1/suites", headers=headers) as response:
                assert response.status == 200, host
    for name in ("", "example.com", "127.0.0.1.example.com", "0.0.0.0"):
        assert not is_loopback(name)


async def test_beyond_loopback_no_token_means_no_start(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="AGENTHUB_TOKEN"):
        async with running(ServeConfig(host="0.0.0.0", port=0, log=tmp_path / "log.sqlite")):
            pass


def test_a_token_never_comes_from_a_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="only `auto`"):
        find_token(TOKEN, None)
    assert find_token(AUTO_TOKEN, None) == AUTO_TOKEN
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert find_token(None, tmp_path / "token") == TOKEN
    with pytest.raises(ConfigError, match="cannot be read"):
        find_token(None, tmp_path / "missing")
    monkeypatch.setenv("AGENTHUB_TOKEN", TOKEN)
    assert find_token(None, None) == TOKEN
    assert TOKEN not in repr(ServeConfig(token=TOKEN))
    with pytest.raises(ConfigError, match="16"):
        ServeConfig(token="short")


def test_a_hub_does_not_start_with_an_isolation_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match="isolation: is 'jial'; did you mean 'jail'"):
        ServeConfig(isolation="jial")
