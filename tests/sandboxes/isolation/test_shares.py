"""A box gets the share of the processor that its limits name, under either version of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sandboxes.boxes import SMALL, groups_of, python_factory, small


async def test_the_quota_is_counted_over_the_period_that_it_was_made_for() -> None:
    async with python_factory() as factory:
        await factory.start(small())
        path = groups_of(factory).get("cpu")
        if path is None:
            pytest.skip("no cpu controller can be written here")
        shares = _shares(path)
        assert SMALL.cpus in shares, shares


def _shares(path: str) -> list[float]:
    return [share for folder in Path(path).iterdir() if folder.is_dir() for share in _share(folder)]


def _share(folder: Path) -> list[float]:
    """Processors that a group may use; nothing where it has no limit."""
    if (folder / "cpu.cfs_quota_us").exists():
        words = [(folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")]
    elif (folder / "cpu.max").exists():
        words = (folder / "cpu.max").read_text().split()
    else:
        return []
    return [] if words[0] in ("-1", "max") else [int(words[0]) / int(words[1])]
