"""Tokens: their file, how they are made, and that one which is revoked ends at once."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner

from agenthub.cli.tokens import app
from agenthub.errors import ConfigError, UnknownName
from agenthub.server.access import Scope
from agenthub.server.config import ServeConfig
from agenthub.server.quotas import Accounts, Quotas
from agenthub.server.serve import running
from agenthub.server.tokens import Keyring, add_token, read_tokens, remove_token
from tests.server.faces import WebSocket
from tests.server.tenants import TOKENS, tenants, write_tokens

HASH = "a" * 64


def test_a_token_is_shown_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    token = add_token(file, "alice", (Scope.PLAY,), Quotas(live_episodes=3))
    add_token(file, "root", (Scope.ADMIN, Scope.METRICS), Quotas())
    assert token not in file.read_text() and len(token) > 40
    assert file.stat().st_mode & 0o777 == 0o600
    keyring = Keyring(Accounts(), file=file)
    who = keyring.find(token)
    assert who is not None and (who.name, who.scopes, who.admin) == ("alice", frozenset({Scope.PLAY}), False)
    assert who.account.quotas.live_episodes == 3
    for wrong in ("", token[:-1], token + " ", token.upper(), HASH, "\udcff", read_tokens(file).tokens["alice"].sha256):
        assert keyring.find(wrong) is None


def test_editing_keeps_comments_and_other_tokens(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    add_token(file, "alice", (Scope.PLAY,), Quotas())
    file.write_text("# ours\n" + file.read_text())
    add_token(file, "bob", (Scope.PLAY,), Quotas())
    remove_token(file, "alice")
    assert "# ours" in file.read_text() and list(read_tokens(file).tokens) == ["bob"]
    with pytest.raises(UnknownName, match="did you mean 'bob'"):
        remove_token(file, "bobb")
    with pytest.raises(ConfigError, match="revoke it first"):
        add_token(file, "bob", (Scope.PLAY,), Quotas())
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.yaml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"tokens:\n  alice:\n    sha256: {HASH}\n    scopes: [pley]\n", r"tokens.yaml:4: .*did you mean 'play'"),
        (f"tokens:\n  alice:\n    sha256: {HASH}\n    scope: [play]\n", r"tokens.yaml:4: .*did you mean 'scopes'"),
        ("tokens:\n  alice:\n    sha256: abc\n    scopes: [play]\n", r"tokens.yaml:3: "),
        (f"tokens:\n  Alice!:\n    sha256: {HASH}\n    scopes: [play]\n", r"tokens.yaml:2: "),
        (f"tokens:\n  local:\n    sha256: {HASH}\n    scopes: [play]\n", "the hub's own"),
        (
            f"tokens:\n  a:\n    sha256: {HASH}\n    scopes: [play]\n  b:\n    sha256: {HASH}\n    scopes: [play]\n",
            "has the hash of tokens.a",
        ),
        (
            f"tokens:\n  a:\n    sha256: {HASH}\n    scopes: [play]\n    quotas: {{live_episodes: 0}}\n",
            r"tokens.yaml:5: ",
        ),
        ("tokens: [", "tokens.yaml:1"),
    ],
)
def test_a_wrong_file_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "tokens.yaml"
    file.touch(0o600)
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Keyring(Accounts(), file=file)


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o602, 0o604])
def test_a_file_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "tokens.yaml"
    write_tokens(file)
    file.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_tokens(file)
    with pytest.raises(ConfigError, match="No such file"):
        read_tokens(tmp_path / "missing")


def test_the_command_makes_lists_and_revokes(tmp_path: Path) -> None:
    run, file = CliRunner(), str(tmp_path / "t.yaml")
    made = run.invoke(app, ["new", "alice", "--tokens", file, "--scope", "play", "--steps-per-s", "5"])
    assert made.exit_code == 0 and made.stdout.startswith("aht_") and "once" in made.stderr
    shown = run.invoke(app, ["list", "--tokens", file])
    assert shown.stdout == "alice\tplay\tsteps_per_s 5\n"
    wrong = run.invoke(app, ["new", "bob", "--tokens", file, "--scope", "plya"])
    assert isinstance(wrong.exception, UnknownName) and "did you mean 'play'" in str(wrong.exception)
    bad = run.invoke(app, ["new", "bob", "--tokens", file, "--live-episodes", "0"])
    assert isinstance(bad.exception, ConfigError) and "--live-episodes" in str(bad.exception)
    assert run.invoke(app, ["revoke", "alice", "--tokens", file]).exit_code == 0
    assert run.invoke(app, ["list", "--tokens", file]).stdout == ""


async def test_a_revoked_token_ends_at_once_with_its_connections_and_the_others_go_on(tmp_path: Path) -> None:
    async with tenants(tmp_path) as served, aiohttp.ClientSession() as session:
        headers = {name: {"Authorization": f"Bearer {token}"} for name, token in TOKENS.items()}
        hers = await session.ws_connect(f"{served.url}/v1/ws", headers=headers["alice"])
        async with WebSocket(served.url, TOKENS["bob"]) as his:
            await hers.send_json({"id": 1, "op": "create", "request_id": "r", "suite": "fakes", "task": "t0"})
            made = (await hers.receive_json(timeout=20))["result"]["episodes"][0]["id"]
            slow = {"calls": [{"tool": "python", "arguments": {"code": "slow 30"}}]}
            await hers.send_json({"id": 2, "op": "step", "episode": made, "turn": 0, "action": slow})
            write_tokens(served.file, names=("bob", "root"))
            assert served.guard.reload() == 2
            await hers.send_str('{"id": 3, "op": "suites"}')
            assert (await hers.receive(timeout=20)).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE)
            async with session.get(f"{served.url}/v1/suites", headers=headers["alice"]) as response:
                assert response.status == 401
            assert (await his.call("suites"))[0] == 200
            async with WebSocket(served.url, TOKENS["root"]) as root:
                assert (await root.call("state", episode=made))[1]["done"] is False
                assert (await root.call("delete", episode=made))[0] == 200
        write_tokens(served.file, names=("alice", "bob", "root"))
        served.guard.reload()
        async with session.get(f"{served.url}/v1/episodes/{made}", headers=headers["alice"]) as response:
            assert response.status == 200, "a name that comes back is the owner that it was"


async def test_a_file_that_broke_changes_nothing(tmp_path: Path) -> None:
    async with tenants(tmp_path) as served, WebSocket(served.url, TOKENS["alice"]) as alice:
        served.file.write_text("tokens: [")
        served.guard.try_reload()
        assert (await alice.call("suites"))[0] == 200
        async with WebSocket(served.url, TOKENS["bob"]) as bob:
            assert (await bob.call("suites"))[0] == 200


async def test_a_hub_beyond_loopback_starts_with_a_file_and_follows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tokens.yaml"
    write_tokens(file)
    config = ServeConfig(host="0.0.0.0", port=0, log=tmp_path / "log.sqlite", tokens=file)
    async with running(config) as url, aiohttp.ClientSession() as session:
        here = url.replace("0.0.0.0", "127.0.0.1")

        async def status(name: str) -> int:
            headers = {"Authorization": f"Bearer {TOKENS[name]}"}
            async with session.get(f"{here}/v1/capabilities", headers=headers) as response:
                return response.status

        assert (await status("alice"), await status("meter")) == (200, 403)
        write_tokens(file, names=("bob",))
        for _ in range(500):
            if await status("alice") == 401:
                break
            await asyncio.sleep(0.02)
        assert (await status("alice"), await status("bob")) == (401, 200)
        write_tokens(file, names=("alice",))
        os.kill(os.getpid(), 1)
        for _ in range(500):
            if await status("alice") == 200:
                break
            await asyncio.sleep(0.02)
        assert await status("alice") == 200
    told = capsys.readouterr().err
    assert "in the clear" in told
    assert not any(token in told for token in TOKENS.values())
