"""Images: what they are is read from their bytes, an episode keeps what it shows, and a client fetches it."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.blobs import BlobStore, MemoryBlobs
from agenthub.client import Hub
from agenthub.codec import decode, encode, trajectory_hash
from agenthub.episodes import Episode, Workbench
from agenthub.errors import HostFault, WireError
from agenthub.images import MAX_SIDE, image_ref
from agenthub.records import Finish, ImageRef, Observation, Outcome
from agenthub.suites.task import Task, ToolUse
from agenthub.wire import Action, CallIn, GenerationIn, ImageIn
from tests.fakes import fake_task, png
from tests.server.harness import hub

VP8X = b"RIFF\0\0\0\0WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\x0f\x00\x00" + b"\x07\x00\x00"
VP8L = b"RIFF\0\0\0\0WEBPVP8L" + struct.pack("<I", 5) + b"\x2f" + struct.pack("<I", 15 | 7 << 14)
VP8 = b"RIFF\0\0\0\0WEBPVP8 " + bytes(10) + struct.pack("<HH", 16, 8)
JPEG = b"\xff\xd8\xff\xe0\x00\x04\x00\x00" + b"\xff\xc0\x00\x0b\x08" + struct.pack(">HH", 8, 16) + bytes(4)


def task() -> Task:
    return fake_task(tools=(ToolUse(name="look", uses="fake_pictured"),))


def look(width: int) -> Action:
    return Action(text=None, calls=[CallIn(tool="look", arguments={"code": str(width)}, id=None)])


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (png(16, 8), "image/png"),
        (VP8X, "image/webp"),
        (VP8L, "image/webp"),
        (VP8, "image/webp"),
        (JPEG, "image/jpeg"),
    ],
)
def test_an_image_says_what_it_is_and_how_large(data: bytes, media_type: str) -> None:
    ref = image_ref(data)
    assert ref == ImageRef(sha256=hashlib.sha256(data).hexdigest(), media_type=media_type, width=16, height=8)


@given(st.sampled_from([png(3, 3), VP8X, VP8L, VP8, JPEG]), st.integers(0, 40), st.binary(max_size=12))
def test_what_is_no_image_is_refused_and_nothing_else_is_raised(data: bytes, kept: int, rest: bytes) -> None:
    try:
        ref = image_ref(data[:kept] + rest)
    except ValueError:
        return
    assert 0 < ref.width <= MAX_SIDE and 0 < ref.height <= MAX_SIDE


def test_a_position_outside_the_prompt_and_an_empty_image_are_refused() -> None:
    with pytest.raises(ValueError, match="pixels"):
        ImageRef(sha256="0" * 64, media_type="image/png", width=0, height=1)
    with pytest.raises(ValueError, match="position"):
        ImageRef(sha256="0" * 64, media_type="image/png", width=1, height=1, position=-1)


async def test_an_episode_keeps_what_it_shows_before_it_answers() -> None:
    bench = Workbench()
    episode = Episode(task(), bench, id="e", group="g", member=0)
    opened = await episode.open()
    (first,) = opened["images"]
    assert bench.blobs.get(first["sha256"]) == png(1, 2)
    done = await episode.step(look(5), timeout_s=None, generation=None)
    seen = decode(Observation, done.observation["observations"][0])
    image = seen.parts[1]
    assert isinstance(image, ImageRef) and (image.width, image.height) == (5, 2)
    assert bench.blobs.get(image.sha256) == png(5, 2)
    await bench.close()


async def test_an_image_that_cannot_be_kept_is_a_fault_of_ours() -> None:
    class Full(MemoryBlobs):
        full = False

        def put(self, sha256: str, data: bytes) -> None:
            if self.full:
                raise HostFault("no space is left")
            super().put(sha256, data)

    bench = Workbench()
    bench.blobs = full = Full()
    episode = Episode(task(), bench, id="e", group="g", member=0)
    await episode.open()
    full.full = True
    done = await episode.step(look(5), timeout_s=None, generation=None)
    assert (done.reward, done.info["outcome"]) == (None, Outcome.INFRA_FAULT)
    await bench.close()


async def test_a_record_with_images_comes_back_from_json_as_it_was() -> None:
    bench = Workbench()
    episode = Episode(task(), bench, id="e", group="g", member=0)
    (first,) = (await episode.open())["images"]
    told = GenerationIn(
        finish=Finish.STOP,
        prompt_tokens=3,
        completion_tokens=1,
        prompt_ids=[1, 2, 3],
        ids=[4],
        logprobs=[-1.0],
        images=[ImageIn(**{key: value for key, value in first.items() if key != "type"} | {"position": 1})],
    )
    await episode.step(look(5), timeout_s=None, generation=told)
    end = await episode.cancel()
    again = decode(type(end), encode(end))
    assert trajectory_hash(again) == trajectory_hash(end)
    generation = again.turns[0].generation
    assert generation is not None and generation.images[0].position == 1
    await bench.close()


async def test_a_position_that_the_prompt_has_not_is_refused() -> None:
    bench = Workbench()
    episode = Episode(task(), bench, id="e", group="g", member=0)
    await episode.open()
    image = ImageIn(sha256="0" * 64, media_type="image/png", width=1, height=1, position=3)
    told = GenerationIn(
        finish=Finish.STOP, prompt_tokens=1, completion_tokens=0, prompt_ids=[1], ids=[], logprobs=[], images=[image]
    )
    with pytest.raises(WireError, match="position"):
        await episode.step(look(1), timeout_s=None, generation=told)
    await episode.cancel()
    await bench.close()


async def test_a_client_is_told_references_and_fetches_octets(tmp_path: Path) -> None:
    async with hub(tmp_path) as served, Hub(served.url) as client:
        (episode,) = await client.create("pictured", "pictured")
        assert await client.get_blob(episode.observation["images"][0]["sha256"]) == png(1, 2)
        done = await episode.step(look(7))
        ref = done.observation["observations"][0]["parts"][1]
        assert (ref["type"], ref["width"], "data" in ref) == ("image", 7, False)
        assert await client.get_blob(ref["sha256"]) == png(7, 2)
        with pytest.raises(WireError) as missing:
            await client.get_blob("0" * 64)
        assert (missing.value.code, missing.value.status) == ("unknown_blob", 404)


def test_blobs_on_disk_and_in_memory_keep_the_same_and_refuse_the_same(tmp_path: Path) -> None:
    data = b"blob"
    name = hashlib.sha256(data).hexdigest()
    for blobs in (BlobStore(tmp_path), MemoryBlobs()):
        with pytest.raises(WireError, match="no blob"):
            blobs.get(name)
        with pytest.raises(WireError, match="hash"):
            blobs.put(name, b"other")
        blobs.put(name, data)
        blobs.put(name, data)
        assert blobs.get(name) == data


def test_memory_forgets_the_oldest() -> None:
    blobs = MemoryBlobs(most_bytes=6)
    names = [hashlib.sha256(bytes([n] * 4)).hexdigest() for n in range(2)]
    for n, name in enumerate(names):
        blobs.put(name, bytes([n] * 4))
    assert blobs.get(names[1]) == bytes([1] * 4)
    with pytest.raises(WireError):
        blobs.get(names[0])
