"""Files of a workspace that somebody hostile owns and changes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agenthub.errors import UserError
from agenthub.sandboxes.isolation import files


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    folder = tmp_path / "workspace"
    folder.mkdir()
    (tmp_path / "secret").write_text("outside")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    yield folder, descriptor
    os.close(descriptor)


Workspace = tuple[Path, int]


def test_a_link_is_not_followed(workspace: Workspace) -> None:
    folder, descriptor = workspace
    (folder / "link").symlink_to("../secret")
    (folder / "absolute").symlink_to("/etc/passwd")
    (folder / "inside").symlink_to("real")
    (folder / "real").write_text("x")
    (folder / "folder").symlink_to("/etc")
    (folder / "magic").symlink_to("/proc/self/fd/0")
    for path in ("link", "absolute", "inside", "folder/passwd", "magic"):
        with pytest.raises(UserError, match="link is in the way"):
            files.read_file(descriptor, path, max_bytes=100)
        with pytest.raises(UserError):
            files.write_file(descriptor, path, b"x", owner=None)
    assert (folder.parent / "secret").read_text() == "outside"
    assert files.list_files(descriptor, most=10) == ["real"]


def test_a_pipe_does_not_block(workspace: Workspace) -> None:
    folder, descriptor = workspace
    os.mkfifo(folder / "pipe")
    with pytest.raises(UserError, match="no regular file"):
        files.read_file(descriptor, "pipe", max_bytes=10)
    with pytest.raises(UserError, match="no regular file"):
        files.write_file(descriptor, "pipe", b"x", owner=None)
    assert files.list_files(descriptor, most=10) == []


def test_a_folder_is_no_file(workspace: Workspace) -> None:
    folder, descriptor = workspace
    (folder / "sub").mkdir()
    for path in ("sub", "sub/missing", "missing/file"):
        with pytest.raises(UserError):
            files.read_file(descriptor, path, max_bytes=10)
    (folder / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        files.write_file(descriptor, "file/below", b"", owner=None)


def test_a_sparse_file_is_refused_by_its_size(workspace: Workspace) -> None:
    folder, descriptor = workspace
    with open(folder / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="1099511627776 bytes"):
        files.read_file(descriptor, "sparse", max_bytes=1 << 20)


@pytest.mark.parametrize("path", ["..", "../secret", "a/../../secret", "/etc/passwd", "", "a//b", "a/", "x\0y", "./x"])
def test_a_path_out_of_the_workspace_is_refused(workspace: Workspace, path: str) -> None:
    _, descriptor = workspace
    with pytest.raises(UserError, match="path"):
        files.read_file(descriptor, path, max_bytes=10)
    with pytest.raises(UserError, match="path"):
        files.write_file(descriptor, path, b"x", owner=None)


def test_odd_names_are_listed_and_read(workspace: Workspace) -> None:
    folder, descriptor = workspace
    names = ["with space", "new\nline", "\udcff", "é", "-rf"]
    for name in names:
        (folder / name).write_bytes(b"x")
    assert files.list_files(descriptor, most=10) == sorted(names)
    assert all(files.read_file(descriptor, name, max_bytes=1) == b"x" for name in names)


def test_writing_over_a_longer_file_leaves_nothing_of_it(workspace: Workspace) -> None:
    folder, descriptor = workspace
    files.write_file(descriptor, "a/b", b"long text", owner=None)
    files.write_file(descriptor, "a/b", b"x", owner=None)
    assert (folder / "a" / "b").read_bytes() == b"x"


def test_the_list_is_bounded(workspace: Workspace) -> None:
    folder, descriptor = workspace
    for number in range(30):
        (folder / f"f{number}").touch()
    assert len(files.list_files(descriptor, most=7)) == 7
