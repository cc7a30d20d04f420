"""A tiny vision-language policy reads a screen and acts; and images as files that Python crops, beside the desktop."""

from __future__ import annotations

import io
from typing import Any

import pytest

from agenthub.codec import decode, encode
from agenthub.episodes import Episode, Workbench
from agenthub.records import Finish, ImageRef, Outcome, Trajectory, frozen
from agenthub.sandbox import SandboxSpec
from agenthub.suites.task import Check, TaskLimits, ToolUse, Verifier
from agenthub.wire import Action, CallIn, GenerationIn, ImageIn
from tests.fakes import fake_task

pytestmark = pytest.mark.gui

IMAGE, START, END, VOCABULARY = 100, 101, 102, 128
SIDE, PATCH, MERGE = 56, 14, 2
LAUNCH = {"do": "launch", "argv": ["mousepad", "--disable-server", "note.txt"], "title": "note.txt"}
LIMITS = TaskLimits(max_turns=6, turn_seconds=60.0, setup_seconds=90.0, verify_seconds=60.0)
STATE = {"tests": [{"result": {"type": "file", "path": "note.txt"}, "func": "contains", "expected": "x"}]}


def desktop(**config: Any) -> ToolUse:
    params = frozen({"reset": [LAUNCH], **config})
    return ToolUse(name="desktop", uses="desktop", spec=SandboxSpec(files={"note.txt": b"x\n"}, params=params))


def model() -> Any:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
    }
    vision = {"depth": 2, "embed_dim": 32, "num_heads": 4, "hidden_size": 32, "patch_size": PATCH, "mlp_ratio": 2}
    config = transformers.Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=IMAGE,
        vision_start_token_id=START,
        vision_end_token_id=END,
    )
    return transformers.Qwen2VLForConditionalGeneration(config).eval()


def patches(data: bytes) -> tuple[Any, Any]:
    """A screen as the model is given it: one row a patch, and the grid of patches."""
    torch = pytest.importorskip("torch")
    numpy = pytest.importorskip("numpy")
    pillow = pytest.importorskip("PIL.Image")
    shown = pillow.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE))
    pixels = torch.tensor(numpy.asarray(shown), dtype=torch.float32).permute(2, 0, 1) / 127.5 - 1.0
    grid = SIDE // PATCH
    rows = pixels.repeat(2, 1, 1, 1).reshape(1, 2, 3, grid // MERGE, MERGE, PATCH, grid // MERGE, MERGE, PATCH)
    rows = rows.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(grid * grid, 3 * 2 * PATCH * PATCH)
    return rows, torch.tensor([[1, grid, grid]])


async def test_a_tiny_qwen2_vl_reads_a_screen_and_acts(programs: None, bench: Workbench) -> None:
    torch = pytest.importorskip("torch")
    policy = model()
    check = Check(id="state", uses="world_state", args=frozen(STATE))
    task = fake_task(tools=(desktop(),), verifier=Verifier(checks=(check,)), limits=LIMITS)
    episode = Episode(task, bench, id="e", group="g", member=0)
    (shown,) = (await episode.open())["images"]
    pixels, grid = patches(bench.blobs.get(shown["sha256"]))
    prompt = [1, START, *[IMAGE] * (len(pixels) // MERGE**2), END, 2]
    asked = {"pixel_values": pixels, "image_grid_thw": grid}
    ids = torch.tensor([prompt])
    with torch.no_grad():
        blank = policy(
            input_ids=ids, mm_token_type_ids=(ids == IMAGE).int(), **{**asked, "pixel_values": pixels * 0 - 1}
        )
        seen = policy(input_ids=ids, mm_token_type_ids=(ids == IMAGE).int(), **asked)
    assert not torch.allclose(blank.logits[0, -1], seen.logits[0, -1]), "the screen did not reach the model"
    logp = torch.log_softmax(seen.logits[0, -1], -1)
    token = int(logp.argmax())
    told = GenerationIn(
        finish=Finish.STOP,
        prompt_tokens=len(prompt),
        completion_tokens=1,
        prompt_ids=prompt,
        ids=[token],
        logprobs=[float(logp[token])],
        images=[ImageIn(**{key: it for key, it in shown.items() if key != "type"} | {"position": 2})],
    )
    x, y = (token * 6) % 800, (token * 4) % 600
    click = CallIn(tool="desktop", arguments={"action": "click", "x": x, "y": y}, id=None)
    done = await episode.step(Action(text=None, calls=[click]), timeout_s=None, generation=told)
    assert not done.observation["observations"][0]["failed"]
    end = await episode.cancel()
    again = decode(Trajectory, encode(end))
    generation = again.turns[0].generation
    assert generation is not None and generation.prompt_ids[generation.images[0].position or 0] == IMAGE
    assert any(isinstance(part, ImageRef) for part in again.turns[0].observations[0].parts)


async def test_python_looks_at_a_part_of_the_screen_in_the_same_episode(programs: None, bench: Workbench) -> None:
    python = ToolUse(name="python", uses="python")
    check = Check(id="state", uses="world_state", args=frozen(STATE))
    task = fake_task(tools=(python, desktop()), verifier=Verifier(checks=(check,)), limits=LIMITS)
    episode = Episode(task, bench, id="e", group="g", member=0)
    (shown,) = (await episode.open())["images"]
    await episode.write_file("screen.png", bench.blobs.get(shown["sha256"]))
    crop = (
        "import struct, zlib\n"
        "data = open('screen.png', 'rb').read()\n"
        "width, height = struct.unpack('>II', data[16:24])\n"
        "length = struct.unpack('>I', data[33:37])[0]\n"
        "rows = zlib.decompress(data[41:41 + length])\n"
        "line = 1 + 3 * width\n"
        "part = [rows[y * line + 1 + 3 * 100:y * line + 1 + 3 * 110] for y in range(300, 310)]\n"
        "print(width, height, set(b''.join(part)))"
    )
    asked = CallIn(tool="python", arguments={"code": crop}, id=None)
    looked = await episode.step(Action(text=None, calls=[asked]), timeout_s=None, generation=None)
    assert "800 600 {255}" in looked.observation["text"]
    ends = CallIn(tool="desktop", arguments={"action": "done"}, id=None)
    done = await episode.step(Action(text=None, calls=[ends]), timeout_s=None, generation=None)
    assert (done.reward, done.info["outcome"]) == (1.0, Outcome.OK)
