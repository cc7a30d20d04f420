"""Without the C parts boxes are made by forking the mold: only copies of live ones are missing, and that is said."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agenthub.errors import ForkRefused
from agenthub.isolation import LayerState
from agenthub.sandboxes.isolation import native, probe
from tests.sandboxes.boxes import need_jail, python_factory, run, shown, small
from tests.sandboxes.test_lifetime import supervisor_of

_PTRACE, _NO_SUCH_CALL = 101, 9999


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of this user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def no_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(cache))


@pytest.mark.usefixtures("no_compiler")
async def test_a_box_works_and_its_copies_are_made_by_replay() -> None:
    async with python_factory() as factory:
        assert factory.capabilities().fork == "replay"
        box = await factory.start(small())
        await run(box, "x = 41\nopen('a', 'w').write('a')")
        with pytest.raises(ForkRefused, match="no C compiler"):
            await box.fork(2)
        assert await shown(box, "x + 1, open('a').read()") == "(42, 'a')\n"
        others = [await factory.start(small()) for _ in range(3)]
        assert [await shown(it, "6 * 7") for it in others] == ["42\n"] * 3
        await box.close()
        assert supervisor_of(factory) > 0


@pytest.mark.usefixtures("no_compiler")
def test_the_layer_says_what_is_missing_and_what_it_costs() -> None:
    need_jail()
    layer = next(it for it in probe.layers() if it.name == "copies")
    assert layer.state is LayerState.DEGRADED and "replay" in layer.detail
    if os.geteuid() == 0:
        assert "C compiler" in layer.detail


def test_the_parts_are_built_once_and_found_again(cache: Path) -> None:
    if native.compiler() is None:
        pytest.skip("no C compiler here")
    assert native.find() is None
    parts = native.built()
    made = os.stat(parts.library).st_mtime_ns
    assert native.find() == parts == native.built() and os.stat(parts.library).st_mtime_ns == made
    assert stat.S_IMODE(os.stat(parts.program).st_mode) & stat.S_IXUSR
    assert [it.name for it in (cache / "agenthub").iterdir()] == [Path(parts.library).parent.name]


def test_parts_that_others_may_write_are_not_used(cache: Path) -> None:
    if native.compiler() is None:
        pytest.skip("no C compiler here")
    library = Path(native.built().library)
    library.chmod(0o777)
    assert native.find() is None
    assert native.built().library == str(library) and not library.stat().st_mode & stat.S_IWOTH


def test_a_compiler_that_fails_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = cache / "bin" / "cc"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'twin.c:1: error: no such header' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with pytest.raises(native.NotBuilt, match="no such header"):
        native.built()


def filtered_hub(refused: int) -> list[str]:
    need_jail()
    if os.geteuid() != 0:
        pytest.skip("copies of live boxes need root")
    command = [sys.executable, "-m", "tests.sandboxes.filtered_hub", str(refused)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_where_no_process_may_be_traced_copies_are_made_by_replay() -> None:
    fork, value = filtered_hub(_PTRACE)
    assert fork.startswith("replay|") and "cannot be held" in fork and value == "42"


def test_where_the_hub_is_filtered_itself_every_copy_loads_its_own_filter() -> None:
    if native.compiler() is None and native.find() is None:
        pytest.skip("no C compiler here")
    assert filtered_hub(_NO_SUCH_CALL) == ["native|", "42", "(42, 1)"]
