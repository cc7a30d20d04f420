"""Checkpoints: whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from agenthub.errors import UserError
from agenthub.trainers.checkpoint import Apart, Checkpoints, write_atomically


def saved(folder: Path, updates: int = 3, keep: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep)
    for update in range(1, updates + 1):
        checkpoints.save(update, {"weight": torch.full((3,), float(update)), "note": "x"}, {"metrics.jsonl": update})
    return checkpoints


def test_the_newest_is_read_back_and_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    checkpoint, broken = saved(tmp_path).latest()
    assert checkpoint is not None
    assert (checkpoint.update, dict(checkpoint.sizes), broken) == (3, {"metrics.jsonl": 3}, [])
    assert torch.equal(checkpoint.state["weight"], torch.full((3,), 3.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"update-00000{update}.{ending}" for update in (2, 3) for ending in ("json", "pt")
    ]


def test_no_checkpoint_at_all_is_no_error(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path, 2).latest() == (None, [])


@pytest.mark.parametrize("harm", ["cut", "flipped", "gone", "manifest"])
def test_a_broken_one_is_named_and_the_one_before_it_serves(tmp_path: Path, harm: str) -> None:
    checkpoints = saved(tmp_path)
    state, manifest = tmp_path / "update-000003.pt", tmp_path / "update-000003.json"
    data = bytearray(state.read_bytes())
    if harm == "cut":
        state.write_bytes(data[:-10])
    elif harm == "flipped":
        data[len(data) // 2] ^= 255
        state.write_bytes(data)
    elif harm == "gone":
        state.unlink()
    else:
        manifest.write_text('{"format"')
    checkpoint, broken = checkpoints.latest()
    assert checkpoint is not None
    assert checkpoint.update == 2
    assert len(broken) == 1
    assert broken[0].startswith("update-000003.pt cannot be used: ")


def test_when_none_can_be_used_that_is_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path)
    for path in tmp_path.glob("*.pt"):
        path.write_bytes(b"junk")
    with pytest.raises(UserError, match="no checkpoint can be used"):
        checkpoints.latest()


def test_a_state_without_its_manifest_does_not_count(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path)
    (tmp_path / "update-000004.pt").write_bytes(b"half written when the power went")
    checkpoint, broken = checkpoints.latest()
    assert checkpoint is not None
    assert (checkpoint.update, broken) == (3, [])


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomically(target, b"old")
    with pytest.raises(TypeError):
        write_atomically(target, "not bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def with_shards(folder: Path) -> Checkpoints:
    """Two checkpoints whose learner writes its own part."""

    def write(target: Path) -> None:
        target.mkdir(parents=True)
        (target / "part").write_bytes(b"weights")

    checkpoints = Checkpoints(folder, keep=1)
    for update in (1, 2):
        checkpoints.save(update, {"learner": Apart({"losses": [{"low": 0.5}]}, write=write), "started": update}, {})
    return checkpoints


def test_what_ranks_write_for_themselves_lies_beside_and_goes_with_its_checkpoint(tmp_path: Path) -> None:
    checkpoint, broken = with_shards(tmp_path).latest()
    assert checkpoint is not None
    assert (checkpoint.update, broken, checkpoint.state["started"]) == (2, [], 2)
    assert checkpoint.state["learner"]["losses"] == [{"low": 0.5}]
    assert (Path(checkpoint.state["learner"]["shards"]) / "part").read_bytes() == b"weights"
    assert [path.name for path in sorted(tmp_path.glob("*.shards"))] == ["update-000002.shards"]
    with pytest.raises(KeyError):
        checkpoint.state["learner"]["optimiser"]


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_shards_that_are_not_whole_are_named(tmp_path: Path, harm: str) -> None:
    checkpoints = with_shards(tmp_path)
    part = tmp_path / "update-000002.shards" / "learner" / "part"
    part.write_bytes(b"weigh") if harm == "cut" else part.unlink()
    with pytest.raises(UserError, match="its shards are not of the sizes"):
        checkpoints.latest()
