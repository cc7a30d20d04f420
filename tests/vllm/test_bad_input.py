"""What can be known to be wrong before a server starts is said before it starts, with its place."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from agenthub.errors import UserError
from agenthub.policies.embedded import TINY
from agenthub.policies.vllm_server import INTERPRETER, Engine, VllmServer, check_model, find_engine, vllm_server, why


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def test_the_packaged_model_is_fine(model: Path) -> None:
    assert check_model(model, context=1024)["model_type"] == "qwen3"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no weights; expected"),
        ("tokenizer.json", "no tokenizer; expected one of tokenizer.json"),
    ],
)
def test_a_directory_that_lacks_a_part_names_it(model: Path, name: str, message: str) -> None:
    (model / name).unlink()
    with pytest.raises(UserError, match=message):
        check_model(model)


def test_a_chat_renderer_needs_a_chat_template(model: Path) -> None:
    with pytest.raises(UserError, match="no chat template; use renderer: plain"):
        check_model(model, chat=True)
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": "{{ messages }}"}))
    check_model(model, chat=True)


def test_a_context_longer_than_the_models_and_a_broken_config_are_refused(model: Path) -> None:
    with pytest.raises(UserError, match="context of 4096 tokens was asked for, the model's is 1024"):
        check_model(model, context=4096)
    (model / "config.json").write_text('{\n"model_type": \n}')
    with pytest.raises(UserError, match=r"config.json:3: "):
        check_model(model)


def test_an_interpreter_without_vllm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INTERPRETER, "/no/such/python")
    find_engine.cache_clear()
    with pytest.raises(UserError, match="/no/such/python"):
        find_engine()
    find_engine.cache_clear()


async def test_a_server_that_ends_before_it_answers_says_why(tmp_path: Path) -> None:
    broken = Engine(python=sys.executable, version="0", device="cpu")
    with pytest.raises(UserError, match=r"did not start: .*vllm"):
        async with vllm_server(VllmServer(model=TINY), log=tmp_path / "vllm.log", engine=broken):
            pass


def test_a_log_tells_memory_from_other_errors(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("(APIServer pid=1) INFO 11-21 01:00:00 [a.py:1] fine\n(E pid=2) ValueError: no such thing\nbye\n")
    assert why(log) == "ValueError: no such thing"
    log.write_text("ERROR: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n")
    assert why(log).startswith("out of memory; make kv_cache_mb or max_num_seqs smaller")
    log.write_text("")
    assert why(log) == "it said nothing"


def test_the_command_follows_the_fields() -> None:
    server = VllmServer(model=Path("m"), context=512, kv_cache_mb=64, transfer="ipc", extra=("--seed", "1"))
    cpu = server.command(Engine(python="py", version="1", device="cpu"), 80)
    assert cpu[:3] == ["py", "-m", "vllm.entrypoints.openai.api_server"]
    assert cpu[cpu.index("--kv-cache-memory-bytes") + 1] == str(64 << 20)
    assert "--enforce-eager" in cpu and cpu[-2:] == ["--seed", "1"]
    gpu = VllmServer(model=Path("m")).command(Engine(python="py", version="1", device="cuda"), 80)
    assert "--enforce-eager" not in gpu and "--gpu-memory-utilization" in gpu
