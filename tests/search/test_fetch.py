"""The fetcher against hostile names and servers, in network namespaces of the tests' own."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
REFUSED = {
    "/redirect-private": "leads to 10.0.0.1, which is not a public address",
    "/redirect-metadata": "leads to 169.254.169.254",
    "/redirect-file": "scheme 'file'",
    "/redirect-gopher": "scheme 'gopher'",
    "/redirect-port": "port 22",
    "/redirect-local": "private network",
    "/redirect-name": "leads to 127.0.0.1",
    "/redirect-decimal": "another form",
    "/redirect-user": "user name",
    "/redirect-loop": "more than 5 redirects",
    "/redirect-denied": "denied",
    "/redirect-nowhere": "leads nowhere",
    "/secret": "robots.txt",
    "/bomb": "unpacks to more",
    "/not-packed": "not packed as its header says",
    "/brotli": "content encoding 'br'",
    "/binary": "content type 'application/octet-stream'",
    "/image": "content type 'image/png'",
    "/no-type": "content type",
    "/large-header": "could not be fetched",
    "/many-headers": "could not be fetched",
    "/garbage": "could not be fetched",
    "/nothing": "could not be fetched",
    "/short": "could not be fetched",
    "/negative": "could not be fetched",
    "/declared-large": "larger than",
    "/endless": "larger than",
    "/slow-header": "within 1.5 s",
    "/slow-body": "within 1.5 s",
    "robots500.org": "robots.txt",
    "robotsaway.org": "robots.txt",
    "loop.org": "leads to 127.0.0.1",
    "private.org": "leads to 10.0.0.1",
    "metadata.org": "leads to 169.254.169.254",
    "mixed.org": "leads to 10.0.0.1",
    "mixed6.org": "leads to fd00::1",
    "private6.org": "leads to fd00::1",
    "loop6.org": "leads to ::1",
    "mapped.org": "leads to ::ffff:10.0.0.1",
    "nat64.org": "not a public address",
    "shared.org": "leads to 100.64.0.9",
    "own.org": "this machine's own address",
    "none.org": "no address",
    "https another name": "could not be fetched",
    "https not trusted": "could not be fetched",
    "flip.org again": "leads to 10.0.0.1",
    "literal 127.0.0.1": "leads to 127.0.0.1",
    "literal 10.0.0.1": "leads to 10.0.0.1",
    "literal 169.254.169.254": "leads to 169.254.169.254",
    "literal [::1]": "leads to ::1",
    "literal [::ffff:10.0.0.1]": "not a public address",
    "literal 5.5.5.1": "this machine's own address",
}
GIVEN = [
    "/page",
    "/packed",
    "/charset",
    "/refresh",
    "/cookie",
    "/missing",
    "/redirect-fine",
    "flip.org",
    "literal public",
    "https trusted",
]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of every case; one run serves all the tests."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "openssl"))):
        pytest.skip("network namespaces of our own need root, ip, unshare and openssl")
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine gives no network namespaces")
    folder = tmp_path_factory.mktemp("tls")
    files = [str(folder / "certificate.pem"), str(folder / "key.pem")]
    subject = ["-subj", "/CN=good.org", "-addext", "subjectAltName=DNS:good.org", "-days", "2"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-out", files[0], "-keyout", files[1], *subject]
    subprocess.run(make, check=True, capture_output=True, timeout=60)
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-m", "tests.search.netns_client", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("case", REFUSED)
def test_an_attack_is_refused_with_the_reason(played: dict[str, Any], case: str) -> None:
    assert REFUSED[case] in played["rows"][case].get("refused", "it was let through")


@pytest.mark.parametrize("case", GIVEN)
def test_what_is_harmless_is_fetched(played: dict[str, Any], case: str) -> None:
    assert played["rows"][case].get("status") == (404 if case == "/missing" else 200), played["rows"][case]


def test_no_case_was_forgotten(played: dict[str, Any]) -> None:
    assert set(played["rows"]) == {*REFUSED, *GIVEN}


def test_no_connection_was_begun_to_a_private_address(played: dict[str, Any]) -> None:
    assert played["syns"] == ["93.184.216.34"]
    assert all(ipaddress.ip_address(address).is_global for address in played["syns"])
    assert {"10.0.0.1", "169.254.169.254"} <= set(played["control"]), "the wire shows a connection that is made"


def test_a_name_is_asked_for_once_and_the_answer_is_what_is_connected_to(played: dict[str, Any]) -> None:
    assert played["asked"]["flip.org"] == 2, "one fetch each"


def test_no_cookie_and_no_borrowed_name(played: dict[str, Any]) -> None:
    head = played["rows"]["/cookie"]["text"].lower()
    assert "cookie:" not in head and "authorization:" not in head
    assert "user-agent: agenthub/" in head and "mozilla" not in head


def test_text_of_a_charset_that_is_none_is_read(played: dict[str, Any]) -> None:
    assert "caf" in played["rows"]["/charset"]["text"]
