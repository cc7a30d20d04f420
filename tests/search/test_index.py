"""Indexes: incremental, resumable, one writer and many readers, and what breaks leaves the old one serving."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agenthub.errors import UnknownName, UserError
from agenthub.sandboxes.search import builder, places
from agenthub.sandboxes.search.builder import build
from agenthub.sandboxes.search.corpus import MAX_K, Corpus, check
from agenthub.sandboxes.search.documents import Document, Skipped
from tests.search.corpora import jsonl, made, rows


@pytest.fixture
def index(tmp_path: Path) -> Path:
    made(jsonl(tmp_path / "c.jsonl", rows(300)), tmp_path / "index")
    return tmp_path / "index"


def test_a_hit_names_its_document_and_its_span(tmp_path: Path) -> None:
    long = "First part. " * 200 + "The needle stands here. " + "Last part. " * 200
    made(jsonl(tmp_path / "c.jsonl", [{"id": "a", "title": "T", "text": long, "url": "http://a.org/"}]), tmp_path / "i")
    corpus = Corpus(tmp_path / "i")
    (hit,) = [it for it in corpus.search("needle", 5) if "needle" in it.text]
    assert long[hit.start : hit.end] == hit.text and (hit.id, hit.title, hit.url) == ("a", "T", "http://a.org/")
    assert corpus.page("a").text == long == corpus.page("http://a.org/").text


def test_ties_stand_in_the_order_of_ids_whatever_the_order_of_writing(tmp_path: Path) -> None:
    same = [{"id": f"{n:05d}", "text": "twin words"} for n in range(3000)]
    made(jsonl(tmp_path / "a.jsonl", same), tmp_path / "a")
    first = jsonl(tmp_path / "b1.jsonl", reversed(same[1000:]))
    made(first, tmp_path / "b", prune=False)
    made(jsonl(tmp_path / "b2.jsonl", same[:1000]), tmp_path / "b", prune=False)
    for folder in ("a", "b"):
        assert [hit.id for hit in Corpus(tmp_path / folder).search("twin", 30)] == [f"{n:05d}" for n in range(30)]


def test_a_second_run_writes_what_is_new_and_removes_what_is_gone(tmp_path: Path) -> None:
    first = rows(100)
    path = jsonl(tmp_path / "c.jsonl", first)
    assert made(path, tmp_path / "i").added == 100
    again = made(path, tmp_path / "i")
    assert (again.added, again.unchanged, again.passages) == (0, 100, 0)
    reader = Corpus(tmp_path / "i")
    first[3]["text"] = "changed entirely"
    jsonl(path, [*first[:50], {"id": "new", "title": "", "text": "brand new"}])
    third = made(path, tmp_path / "i")
    assert (third.added, third.unchanged, third.removed) == (2, 49, 50)
    assert [hit.id for hit in reader.search("brand", 3)] == ["new"], "an open reader takes over the commit"
    assert [hit.id for hit in reader.search("entirely", 3)] == ["d0003"]
    assert not reader.search("w99x", 3) and not reader.search("w3x", 3)


def test_a_document_that_comes_twice_is_there_once_as_it_was_last(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl", [{"id": "a", "text": "one"}, {"id": "a", "text": "two"}])
    made(path, tmp_path / "i")
    corpus = Corpus(tmp_path / "i")
    assert not corpus.search("one", 3) and len(corpus.search("two", 3)) == 1


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl", rows(5000))
    program = f"""
        import os
        from pathlib import Path
        from agenthub.sandboxes.search import builder, documents
        builder.COMMIT_DOCUMENTS = 500
        def killed():
            for number, document in enumerate(documents.read_corpus(Path({str(path)!r}))):
                if number == 1700:
                    os.kill(os.getpid(), 9)
                yield document
        builder.build(killed(), Path({str(tmp_path / "i")!r}), name="small")
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=60)
    assert ended.returncode == -9
    with pytest.raises(UserError, match="no finished index"):
        Corpus(tmp_path / "i")
    built = made(path, tmp_path / "i")
    assert built.unchanged == 1500 and built.added == 3500
    corpus = Corpus(tmp_path / "i")
    assert corpus.facts["documents"] == corpus.facts["passages"] == 5000
    assert [len(corpus.search(f"w{n}x", 5)) for n in (0, 1499, 1500, 1699, 1700, 4999)] == [1] * 6


def test_one_run_writes_at_a_time(tmp_path: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> Iterator[Document | Skipped]:
        yield Document(id="a", title="", text="x")
        inside.set()
        go_on.wait(30)

    thread = threading.Thread(target=lambda: build(slow(), tmp_path / "i", name="x"))
    thread.start()
    try:
        assert inside.wait(30)
        with pytest.raises(UserError, match="another run"):
            build([], tmp_path / "i", name="x")
    finally:
        go_on.set()
        thread.join()
    assert Corpus(tmp_path / "i").page("a").text == "x"


def replaced(path: Path, data: bytes) -> None:
    """Another file of that name; what is mapped already stays."""
    fresh = path.with_name("fresh")
    fresh.write_bytes(data)
    os.replace(fresh, path)


@pytest.mark.parametrize("damage", ["meta", "facts", "truncated", "removed", "garbage"])
def test_a_broken_index_is_told_and_the_open_one_goes_on(index: Path, damage: str) -> None:
    reader = Corpus(index)
    store = max((index / "segments").glob("*.store"), key=lambda path: path.stat().st_size)
    if damage == "meta":
        (index / "segments" / "meta.json").write_text("{")
    elif damage == "facts":
        (index / "corpus.json").write_text('{"format": 1}')
    elif damage == "truncated":
        replaced(store, store.read_bytes()[: store.stat().st_size // 2])
    elif damage == "removed":
        store.unlink()
    else:
        replaced(store, os.urandom(store.stat().st_size))
    os.utime(index / "corpus.json")
    if damage != "garbage":
        with pytest.raises(UserError, match=r"broken|no finished index"):
            Corpus(index)
        assert [hit.id for hit in reader.search("w7x", 3)] == ["d0007"], "what is open goes on serving"
        assert reader.trouble
    assert check(index)


def test_a_sound_index_is_sound(index: Path) -> None:
    assert check(index) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of limited size needs root")
def test_a_full_disk_is_told_and_the_old_index_serves(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        made(jsonl(tmp_path / "c.jsonl", rows(50)), disk / "i")
        reader = Corpus(disk / "i")
        big = [
            Document(id=f"b{n}", title="", text=os.urandom(300_000).hex()) for n in range(150)
        ]  # far more than the disk holds, and not to be packed
        with pytest.raises(UserError, match=r"disk is full|could not be written"):
            build(big, disk / "i", name="small", prune=False)
        assert [hit.id for hit in reader.search("w7x", 3)] == ["d0007"]
        assert [hit.id for hit in Corpus(disk / "i").search("w7x", 3)] == ["d0007"]
        made(jsonl(tmp_path / "c.jsonl", rows(60)), disk / "i")
        assert [hit.id for hit in reader.search("w59x", 3)] == ["d0059"], "what the failed run left is out of the way"
        (disk / "filler").write_bytes(b"\0" * (40 << 20))
        with pytest.raises(UserError, match="MiB are free"):
            made(tmp_path / "c.jsonl", disk / "i")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_queries_that_cannot_be_used_are_told(index: Path) -> None:
    corpus = Corpus(index)
    for query, k, why in (
        ("", 3, "empty"),
        (" \n", 3, "empty"),
        ("lamp", 0, "k is 0"),
        ("lamp", 1_000_000, f"1 to {MAX_K}"),
        ("x" * 2000, 3, "2000 characters"),
    ):
        with pytest.raises(UserError, match=why):
            corpus.search(query, k)
    assert corpus.search('title:"x" AND (', 3) == corpus.search("title x and", 3), "no query language"
    assert corpus.search("the of and", 3) and not corpus.search("!!! ???", 3)
    assert not corpus.search("zebra", 3)
    with pytest.raises(UserError, match="no document 'nowhere'"):
        corpus.page("nowhere")


def test_a_folder_that_holds_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="no index"):
        build([], tmp_path, name="x")
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_many_readers_while_one_writes(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl", rows(2000))
    made(path, tmp_path / "i")
    corpus, wrong, stop = Corpus(tmp_path / "i"), list[str](), threading.Event()

    def read() -> None:
        number = 0
        while not stop.is_set():
            number = (number + 17) % 2000
            if [hit.id for hit in corpus.search(f"w{number}x", 2)] != [f"d{number:04d}"]:
                wrong.append(f"w{number}x")

    readers = [threading.Thread(target=read) for _ in range(4)]
    for thread in readers:
        thread.start()
    for run in range(3):
        more = [{"id": f"e{run}{n}", "text": f"other {n}"} for n in range(500)]
        made(jsonl(path, [*rows(2000), *more]), tmp_path / "i")
    stop.set()
    for thread in readers:
        thread.join()
    assert not wrong and len(corpus.search("other", 100)) == 100


def test_corpora_are_found_by_name_and_by_path(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(places.VARIABLE, str(tmp_path))
    assert places.find_corpus("index", {}) == index == places.find_corpus(str(index), {})
    assert set(places.known()) == {"encyclopedia", "index"}
    with pytest.raises(UnknownName, match="did you mean 'index'"):
        places.find_corpus("indx", {})
    with pytest.raises(UserError, match="takes no settings"):
        places.find_corpus("index", {"seed": 1})
    with pytest.raises(UserError, match="seed"):
        places.find_corpus("encyclopedia", {"seeed": 1})


def test_a_generated_corpus_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = places.find_corpus("encyclopedia", {"seed": 3, "articles": 200})
    stamp = (folder / builder.FACTS).stat().st_mtime_ns
    assert places.find_corpus("encyclopedia", {"seed": 3, "articles": 200}) == folder
    assert (folder / builder.FACTS).stat().st_mtime_ns == stamp
    assert Corpus(folder).facts["documents"] == 200
    assert places.find_corpus("encyclopedia", {"seed": 4, "articles": 200}) != folder


def test_rows_read_from_gzip_index_alike(tmp_path: Path) -> None:
    plain = jsonl(tmp_path / "c.jsonl", rows(20))
    packed = tmp_path / "c.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    made(plain, tmp_path / "a")
    made(packed, tmp_path / "b")
    assert Corpus(tmp_path / "a").search("lamp", 5) == Corpus(tmp_path / "b").search("lamp", 5)
