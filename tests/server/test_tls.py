"""TLS: from 1.2 on, with a client that trusts whom it is told to."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import warnings
from pathlib import Path
from typing import cast

import aiohttp
import pytest
import trustme

from agenthub.client import BlockingHub, Hub
from agenthub.errors import ConfigError, HubUnreachable, UserError
from agenthub.server.config import ServeConfig
from agenthub.server.door import Tls
from agenthub.server.serve import running
from tests.server.loops import LOOPS


@pytest.fixture(scope="module", params=LOOPS)
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """Both loops that `agenthub serve` may run on."""
    return cast(asyncio.AbstractEventLoopPolicy, request.param())


def files(folder: Path, authority: trustme.CA) -> Tls:
    """A certificate for loopback, its key, and the authority's own certificate beside them."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    cert, key = folder / "cert.pem", folder / "key.pem"
    issued.private_key_pem.write_to_path(key)
    cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return Tls(cert=cert, key=key)


async def test_a_client_that_trusts_the_authority_plays_and_another_says_why_not(tmp_path: Path) -> None:
    config = ServeConfig(port=0, log=tmp_path / "log.sqlite", tls=files(tmp_path, trustme.CA()))
    async with running(config) as url:
        assert url.startswith("https://127.0.0.1:")
        async with Hub(url, verify=tmp_path / "ca.pem") as hub:
            assert await hub.capabilities()
        async with Hub(url, verify=False) as hub:
            assert await hub.capabilities()
        async with Hub(url) as hub:
            with pytest.raises(UserError, match="not trusted"):
                await hub.capabilities()
        async with Hub(url.replace("https", "http"), retry_s=0.1) as hub:
            with pytest.raises(HubUnreachable):
                await hub.capabilities()


async def test_old_versions_are_refused(tmp_path: Path) -> None:
    config = ServeConfig(port=0, log=tmp_path / "log.sqlite", tls=files(tmp_path, trustme.CA()))
    async with running(config) as url, aiohttp.ClientSession() as session:
        old = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        old.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore"):  # that they are old is the point
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"{url}/healthz", ssl=old)
        good = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        good.maximum_version = ssl.TLSVersion.TLSv1_2
        async with session.get(f"{url}/healthz", ssl=good) as response:
            assert response.status == 200


async def test_a_renewed_certificate_is_taken_up(tmp_path: Path) -> None:
    config = ServeConfig(port=0, log=tmp_path / "log.sqlite", tls=files(tmp_path, trustme.CA()))
    async with running(config) as url:
        async with Hub(url, verify=tmp_path / "ca.pem") as hub:
            assert await hub.capabilities()
        files(tmp_path, trustme.CA())
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)
        async with Hub(url, verify=tmp_path / "ca.pem") as hub:
            assert await hub.capabilities()


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    good = files(tmp_path, trustme.CA())
    with pytest.raises(ConfigError, match=r"missing.*No such file"):
        Tls(cert=tmp_path / "missing", key=good.key).context()
    (tmp_path / "other").mkdir()
    other = files(tmp_path / "other", trustme.CA())
    with pytest.raises(ConfigError, match="KEY_VALUES_MISMATCH"):
        Tls(cert=good.cert, key=other.key).context()
    with pytest.raises(UserError, match="no certificates to trust"):
        Hub("https://127.0.0.1:1", verify=good.key)
    with pytest.raises(UserError, match="no certificates to trust"):
        BlockingHub("https://127.0.0.1:1", verify=tmp_path / "missing")
