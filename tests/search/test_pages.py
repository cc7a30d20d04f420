"""Pages of the web: HTML in a process with limits, PDF in a box."""

from __future__ import annotations

import os

import pytest

from agenthub.errors import UserError
from agenthub.sandboxes.search.pages import decoded, web_page
from agenthub.sandboxes.search.pdf import PdfReader
from tests.sandboxes.boxes import need_jail


def pdf(text: str) -> bytes:
    """A PDF of one page, written by hand."""
    stream = f"BT /F1 24 Tf 72 700 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    body, offsets = b"%PDF-1.4\n", []
    for number, item in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, item)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    start = len(body)
    body += b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    return body + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, start)


async def test_a_page_of_the_web_is_text_with_links() -> None:
    page = await web_page(b"<title>T &amp; U</title><h1>Head</h1><pre>a\n  b</pre><p>x <a href=/y>go <b>on</b></a></p>")
    assert page.title == "T & U" and page.links == (("go on", "/y"),)
    assert page.text.split("\n")[0] == "Head" and "a\n  b" in page.text and "x go on" in page.text


async def test_a_page_that_would_take_minutes_is_given_up() -> None:
    with pytest.raises(UserError, match="nested more than"):
        await web_page(b"<div>" * 200_000)
    with pytest.raises(UserError, match=r"takes too much|could not be read"):
        await web_page(b"<p>x" * 2_000_000)


def test_bytes_are_read_by_mark_header_and_declaration() -> None:
    assert decoded("é".encode("utf-16")) == "é"
    assert decoded("é".encode("latin-1"), "latin-1") == "é"
    assert decoded(b"<meta charset='iso-8859-1'>\xe9")[-1] == "é"
    assert decoded(b"\xff\xfe\xff", "no-such") and decoded(b"a\xffb") == "a\ufffdb"


async def test_a_pdf_is_read_in_a_box() -> None:
    need_jail()
    reader = PdfReader("jail")
    try:
        assert "Invented words" in (await reader.page(pdf("Invented words"))).text
        for broken in (b"%PDF-1.4 nothing", os.urandom(2000), b""):
            with pytest.raises(UserError, match="PDF cannot be read"):
                await reader.page(broken)
    finally:
        await reader.close()
