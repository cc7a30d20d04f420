"""URLs and addresses that are refused before anything is sent."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.errors import UserError
from agenthub.sandboxes.search.addresses import Refused, check_addresses, target

REFUSED = [
    ("http://127.1/", "another form"),
    ("http://2130706433/", "another form"),
    ("http://0x7f000001/", "another form"),
    ("http://0x7f.0.0.1/", "another form"),
    ("http://0177.0.0.1/", "another form"),
    ("http://127.0.0.1./x", "leads to 127.0.0.1"),
    ("http://①②⑦.⓪.⓪.①/", "leads to 127.0.0.1"),
    ("http://１２７。０。０。１/", "leads to 127.0.0.1"),
    ("http://user@127.0.0.1/", "user name"),
    ("http://example.org@127.0.0.1/", "user name"),
    ("http://user:pass@example.org/", "user name"),
    ("file:///etc/passwd", "scheme"),
    ("gopher://example.org/", "scheme"),
    ("ftp://example.org/", "scheme"),
    ("data:text/html,x", "scheme"),
    ("javascript:alert(1)", "scheme"),
    ("//example.org/", "scheme"),
    ("example.org", "scheme"),
    ("ws://example.org/", "scheme"),
    ("http://example.org:22/", "port 22"),
    ("http://example.org:8080/", "port 8080"),
    ("http://example.org:99999/", "cannot be read"),
    ("http://localhost/", "private network"),
    ("http://LOCALHOST/", "private network"),
    ("http://a.localhost/", "private network"),
    ("http://printer.local/", "private network"),
    ("http://metadata.google.internal/", "private network"),
    ("http://router/", "private network"),
    ("http://a.home.arpa/", "private network"),
    ("http:///x", "no host"),
    ("http://exa mple.org/", "white space"),
    ("http://example.org\\@127.0.0.1/", "backslash"),
    ("http://example.org/\r\nHost: x", "white space"),
    ("http://example.org..", "no host name"),
    ("http://-a.org/", "no host name"),
    ("http://a/b/" + "x" * 3000, "characters"),
    ("http://[::1", "cannot be read"),
    ("http://[fe80::1%25eth0]/", "no address"),
    ("http://huggingface.co/datasets", "denied"),
    ("https://datasets-server.huggingface.co/", "denied"),
]
PRIVATE = [
    "127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 198.18.0.1 0.0.0.0 255.255.255.255 224.0.0.1",
    "192.0.2.1 198.51.100.1 203.0.113.1 192.0.0.1 192.88.99.1 240.0.0.1",
    "::1 :: fe80::1 fec0::1 fc00::1 fd00:ec2::254 ff02::1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::127.0.0.1 64:ff9b::7f00:1",
    "64:ff9b:1::1 2002:7f00:1::1 2002:808:808::1 2001:0:1:2::3 2001:db8::1 100::1 5f00::1 3fff::1",
]


@pytest.mark.parametrize(("url", "why"), REFUSED)
def test_a_url_is_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        made = target(url)
        check_addresses(made.host, [made.host])


@pytest.mark.parametrize("address", " ".join(PRIVATE).split())
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    for addresses in ([address], ["93.184.216.34", address], [address, "2606:2800:220:1::1"]):
        with pytest.raises(Refused, match="not a public address"):
            check_addresses("example.org", addresses)


def test_a_name_without_an_address_is_refused() -> None:
    with pytest.raises(Refused, match="no address"):
        check_addresses("example.org", [])


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("http://Example.ORG", "http://example.org/"),
        ("https://example.org:443/a?b#c", "https://example.org/a?b"),
        ("http://example.org:443/", "http://example.org:443/"),
        ("http://example.org./a", "http://example.org/a"),
        ("http://bücher.example.org/", "http://xn--bcher-kva.example.org/"),
        ("http://аpple.com/", "http://xn--pple-43d.com/"),
        ("http://93.184.216.34/", "http://93.184.216.34/"),
        ("http://[2606:2800:220:1::1]/", "http://[2606:2800:220:1::1]/"),
        ("http://a_b.example.org/", "http://a_b.example.org/"),
    ],
)
def test_a_public_url_is_asked_for_in_ascii(url: str, clean: str) -> None:
    assert target(url).url == clean


def test_only_the_hosts_that_a_task_allows() -> None:
    assert target("http://docs.example.org/", allow=["example.org"]).host == "docs.example.org"
    for url in ("http://badexample.org/", "http://example.org.evil.net/"):
        with pytest.raises(Refused, match="may reach"):
            target(url, allow=["example.org"])


@given(st.text(max_size=60) | st.text(max_size=40).map("http://".__add__))
def test_any_text_is_a_target_or_is_refused(text: str) -> None:
    try:
        made = target(text)
    except Refused:
        return
    assert made.scheme in ("http", "https") and made.port in (80, 443) and made.url.isascii()
    again = target(made.url)
    assert (again.host, again.port) == (made.host, made.port)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_what_is_let_through_is_global_unicast(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    try:
        check_addresses("h", [str(address)])
    except Refused:
        return
    assert address.is_global and not address.is_multicast and not address.is_private
