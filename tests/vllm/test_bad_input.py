"""What can be known to be wrong before a server starts is said before it starts, with its place."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path

import pytest
import torch

from agenthub.errors import UserError
from agenthub.policies.embedded import TINY
from agenthub.policies.vllm_server import INTERPRETER, Engine, VllmServer, check_model, find_engine, vllm_server, why
from agenthub.trainers.config import Recipe, load_recipe
from agenthub.trainers.run import load_models
from agenthub.trainers.serving import serving
from tests.policies.models import save_model
from tests.vllm.fake_server import serving as fake


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


async def test_a_server_that_runs_out_of_memory_says_what_to_make_smaller(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ValueError: No available memory for the cache blocks.'\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(
        UserError, match=r"did not start: out of memory; make kv_cache_mb or max_num_seqs smaller: .*No av"
    ):
        async with vllm_server(
            VllmServer(model=TINY),
            log=tmp_path / "vllm.log",
            engine=Engine(python=str(python), version="0", device="cpu"),
        ):
            pass


async def test_a_port_in_use_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 cannot be used: Address already in use"):
            async with vllm_server(
                VllmServer(model=TINY, port=port),
                log=tmp_path / "vllm.log",
                engine=Engine(python="/no/such", version="0", device="cpu"),
            ):
                pass
    assert not (tmp_path / "vllm.log").exists()


def recipe(*changes: str) -> Recipe:
    return load_recipe("grpo", ["policy.uses=vllm", *changes])


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("tokenizer.json", (), "no tokenizer; expected one of"),
        (None, ("renderer=chat",), "no chat template; use renderer: plain"),
        (None, ("policy.vllm.context=4096",), "context of 4096 tokens was asked for, the model's is 1024"),
    ],
)
def test_a_run_is_refused_before_a_model_is_loaded(
    model: Path, name: str | None, changes: tuple[str, ...], message: str
) -> None:
    if name is not None:
        (model / name).unlink()
    with pytest.raises(UserError, match=message):
        load_models(recipe(f"policy.model={model}", *changes))


async def _served(used: Recipe, folder: Path) -> None:
    """Begin to serve a run's policy, and push its first weights."""
    models = load_models(used)
    async with serving(used, models, folder) as served:
        await served.sync.push(models.learner, 0)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("model", "other", "serves 'other', not 'policy'; name that, or start it with --served-model-name policy"),
        ("engine_version", "0.27.1", "vLLM 0.27.1; expected 0.28 or newer"),
        ("version", "step-7b", "names its weights 'step-7b'"),
        ("context", 40, "rollout.max_tokens is 40, the server's context is 40 tokens: no room for a prompt"),
        ("root", "other", "hidden_size is 128, the server's model has 32"),
    ],
)
async def test_a_server_that_does_not_fit_is_refused_before_the_first_rollout(
    tmp_path: Path, attribute: str, value: str | int, message: str
) -> None:
    async with fake() as (server, url):
        if attribute == "root":
            value = str(save_model(tmp_path / "other", "qwen3"))
        setattr(server, attribute, value)
        with pytest.raises(UserError, match=message):
            await _served(recipe(f"policy.vllm.url={url}"), tmp_path)
        assert server.bodies == []


async def test_an_address_of_something_else_is_told_from_a_vllm_server(tmp_path: Path) -> None:
    async with fake() as (server, url):
        server.engine_version = ""
        with pytest.raises(UserError, match="is no vLLM server: its /version tells none"):
            await _served(recipe(f"policy.vllm.url={url}"), tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("sync", ["nccl", "ipc"])
async def test_a_transfer_between_gpus_is_refused_without_one(tmp_path: Path, sync: str) -> None:
    async with fake() as (server, url):
        with pytest.raises(UserError, match=f"policy.vllm.sync is {sync}, which needs a GPU, and there is none here"):
            await _served(recipe(f"policy.vllm.url={url}", f"policy.vllm.sync={sync}"), tmp_path)
        assert server.bodies == []


async def test_adapters_travel_as_a_directory_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"policy.vllm.sync is nccl; adapters travel as a directory, take auto"):
        await _served(
            recipe("policy.vllm.url=http://127.0.0.1:9", "policy.vllm.sync=nccl", "policy.lora.rank=4"), tmp_path
        )


def test_the_command_follows_the_fields() -> None:
    server = VllmServer(model=Path("m"), context=512, kv_cache_mb=64, transfer="ipc", extra=("--seed", "1"))
    cpu = server.command(Engine(python="py", version="1", device="cpu"), 80)
    assert cpu[:3] == ["py", "-m", "vllm.entrypoints.openai.api_server"]
    assert cpu[cpu.index("--kv-cache-memory-bytes") + 1] == str(64 << 20)
    assert "--enforce-eager" in cpu and cpu[-2:] == ["--seed", "1"]
    card = Engine(python="py", version="1", device="cuda")
    gpu = VllmServer(model=Path("m")).command(card, 80)
    assert "--enforce-eager" not in gpu and "--gpu-memory-utilization" in gpu and "--enable-lora" not in gpu
    other = VllmServer(model=Path("m"), transfer="ipc", devices="1", lora_rank=12)
    command = other.command(card, 80)
    assert command[command.index("--max-lora-rank") + 1] == "16"
    assert command[command.index("--weight-transfer-config") + 1] == '{"backend":"ipc"}'
    environment = other.environment(card)
    assert environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert environment["VLLM_ALLOW_INSECURE_SERIALIZATION"] == "1"
    assert environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert "VLLM_ALLOW_INSECURE_SERIALIZATION" not in VllmServer(model=Path("m")).environment(card)
