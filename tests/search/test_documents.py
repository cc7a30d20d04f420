"""Reading corpora: every kind, and what cannot be used is said with its place and left out."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.errors import UserError
from agenthub.sandboxes.search import documents
from agenthub.sandboxes.search.documents import MAX_DOCUMENT_BYTES, Document, Skipped, read_corpus
from agenthub.sandboxes.search.passages import PASSAGE_CHARS, spans


def read(path: Path) -> tuple[list[Document], list[Skipped]]:
    found = list(read_corpus(path))
    return [it for it in found if isinstance(it, Document)], [it for it in found if isinstance(it, Skipped)]


def test_rows_of_both_forms_and_gzip(tmp_path: Path) -> None:
    text = '{"id": 7, "contents": "\\"The Title\\"\\nBody\\nmore"}\n{"id": "b", "title": "T", "text": "x", "url": "http://a/"}\n'
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(gzip.compress(text.encode()))
    found, skipped = read(path)
    assert [(it.id, it.title, it.text) for it in found] == [("7", "The Title", "Body\nmore"), ("b", "T", "x")]
    assert found[1].url == "http://a/" and not skipped


def test_a_folder_of_html_markdown_and_text(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.html").write_text(
        "<title>Page A</title><body><script>no()</script><p>Some <b>bold</b> text</p><p hidden>unseen</p>"
        "<p style='display: none'>unseen</p><a href='../b.md#part'>to b</a><a href='https://x.org/'>out</a></body>"
    )
    (tmp_path / "b.md").write_text("# Head B\n\nSee [a](sub/a.html).")
    (tmp_path / "c.txt").write_text("plain")
    (tmp_path / "ignored.bin").write_bytes(b"\0")
    (tmp_path / "link.txt").symlink_to("/etc/passwd")
    found, skipped = read(tmp_path)
    assert not skipped
    by_id = {it.id: it for it in found}
    assert sorted(by_id) == ["b.md", "c.txt", "sub/a.html"]
    page = by_id["sub/a.html"]
    assert page.title == "Page A" and "Some bold text" in page.text
    assert "no()" not in page.text and "unseen" not in page.text
    assert page.links == (("to b", "b.md"), ("out", "https://x.org/"))
    assert by_id["b.md"].title == "Head B" and by_id["b.md"].links == (("a", "sub/a.html"),)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"id": "a", "text": "\xff"}', "not UTF-8"),
        (b"{nonsense", "not JSON"),
        (b"[1]", "expected an object"),
        (b'{"text": "x"}', "no id"),
        (b'{"id": "", "text": "x"}', "no id"),
        (b'{"id": "a"}', "neither"),
        (b'{"id": "a", "text": 3}', "neither"),
        (b'{"id": "a", "text": "x", "url": 3}', "url"),
        (b'{"id": "a", "text": "x", "links": [["one"]]}', "links"),
        (json.dumps({"id": "a" * 600, "text": "x"}).encode(), "600 characters"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, line: bytes, why: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(b'{"id": "first", "text": "1"}\n' + line + b'\n{"id": "last", "text": "2"}\n')
    found, skipped = read(path)
    assert [it.id for it in found] == ["first", "last"]
    assert len(skipped) == 1 and skipped[0].place.endswith("c.jsonl:2") and why in skipped[0].why


def test_a_document_of_100_mb_is_left_out_and_the_next_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    with path.open("wb") as stream:
        stream.write(b'{"id": "huge", "text": "')
        for _ in range(100):
            stream.write(b"x" * (1 << 20))
        stream.write(b'"}\n{"id": "next", "text": "1"}\n')
    found, skipped = read(path)
    assert [it.id for it in found] == ["next"]
    assert f"larger than {MAX_DOCUMENT_BYTES >> 20} MiB" in skipped[0].why
    page = tmp_path / "pages"
    page.mkdir()
    (page / "huge.txt").write_bytes(b"x" * (MAX_DOCUMENT_BYTES + 1))
    assert "larger" in read(page)[1][0].why


def test_a_broken_gzip_is_named_and_what_came_before_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl.gz"
    whole = gzip.compress(b"".join(b'{"id": "%d", "text": "x%d"}\n' % (n, n * 7919) for n in range(5000)))
    path.write_bytes(whole[: len(whole) // 2])
    found, skipped = read(path)
    assert 0 < len(found) < 5000 and len(skipped) == 1 and "cannot be read further" in skipped[0].why


def test_what_is_no_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("a,b")
    for name in ("missing", "c.csv"):
        with pytest.raises(UserError, match=name):
            read_corpus(tmp_path / name)


def test_a_page_nested_without_end_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<div>" * 200_000 + "x")
    with pytest.raises(UserError, match="nested"):
        list(documents.read_corpus(tmp_path))


@given(st.text(alphabet="ab. \n", max_size=6000))
def test_passages_are_the_text(text: str) -> None:
    cut = list(spans(text))
    assert "".join(text[start:end] for start, end in cut) == text
    assert all(end - start <= PASSAGE_CHARS * 3 // 2 for start, end in cut)
    assert [start for start, _ in cut[1:]] == [end for _, end in cut[:-1]]
