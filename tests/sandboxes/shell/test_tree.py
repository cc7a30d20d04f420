"""Folders as data: what a tar file may not say, and that changes make one folder of the other."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.errors import UserError
from agenthub.sandboxes.shell.tree import Entry, applied, changes, pack, unpack, with_files

NAMES = st.sampled_from(["a", "b", "a/x", "a/y", "a/x/z", "b/q", "c"])
ENTRIES = st.one_of(
    st.builds(Entry, data=st.binary(max_size=4), mode=st.sampled_from([0o644, 0o755])),
    st.builds(Entry, link=st.sampled_from(["a", "/etc"]), mode=st.just(0o777)),
    st.builds(Entry, mode=st.just(0o755)),
)
TREES = st.dictionaries(NAMES, ENTRIES).map(lambda tree: applied(tree, ()))


@given(TREES, TREES)
def test_changes_make_one_folder_of_the_other(before: dict[str, Entry], after: dict[str, Entry]) -> None:
    assert applied(before, changes(before, after)) == after


@given(TREES)
def test_a_folder_comes_back_from_its_tar_file(tree: dict[str, Entry]) -> None:
    assert unpack(pack(tree), max_bytes=1 << 20) == tree
    assert pack(unpack(pack(tree), max_bytes=1 << 20)) == pack(tree)


@given(TREES, st.dictionaries(NAMES, st.binary(max_size=3), max_size=1))
def test_trusted_files_are_there_whatever_stood_in_their_way(tree: dict[str, Entry], files: dict[str, bytes]) -> None:
    result = with_files(tree, files)
    for path, data in files.items():
        assert result[path].data == data
    assert all(not path.startswith(f"{link}/") for link, entry in result.items() if entry.link for path in result)


def archive(*members: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for member in members:
            file.addfile(member, io.BytesIO(b"x" * member.size))
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.size, made.linkname = kind, size, link
    return made


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a/.."])
def test_a_name_that_leaves_the_folder_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="outside the folder"):
        unpack(archive(member(name)), max_bytes=10)


def test_what_is_neither_file_nor_folder_nor_link_is_left_out() -> None:
    made = archive(
        member("./dev", tarfile.CHRTYPE), member("./pipe", tarfile.FIFOTYPE), member("./a", size=2),
        member("./b", tarfile.LNKTYPE, link="./a"), member("/c/d", size=1),
    )  # fmt: skip
    assert {path: entry.data for path, entry in unpack(made, max_bytes=10).items()} == {
        "a": b"xx", "b": b"xx", "c/d": b"x",
    }  # fmt: skip


def test_what_is_too_large_or_no_archive_is_refused() -> None:
    with pytest.raises(UserError, match="more than"):
        unpack(archive(member("a", size=6), member("b", size=6)), max_bytes=10)
    with pytest.raises(UserError, match="no readable form"):
        unpack(b"not a tar file", max_bytes=10)
    with pytest.raises(UserError, match="no readable form"):
        unpack(archive(member("a", size=2000))[:1000], max_bytes=10_000)
