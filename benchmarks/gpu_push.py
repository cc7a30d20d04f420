"""Seconds of a push of weights from a learner on a GPU into the vLLM that serves beside it, and how exact it is.

    python benchmarks/gpu_push.py [--quick] [--shape 1.5b] [--sync ipc] [--pushes N] [--devices 1]
    python benchmarks/gpu_push.py --device cpu --shape tiny --sync directory     # the same lines without a GPU

One JSON object a line. The model is randomly initialised in the shape of Qwen2.5, computed in bf16 on a GPU. A push is
whole: paused, sent, caches dropped, resumed, version asked for, log-probabilities probed. `ipc` serves on the learner's
GPU, `nccl` on those of `--devices`; a route that this machine cannot take is skipped by name.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from gpu_learner import SHAPES, model_of, settled, tidied
from transformers.utils.logging import disable_progress_bar

from agenthub.errors import AgenthubError, UserError
from agenthub.policies.embedded import TINY
from agenthub.policies.vllm import VllmPolicy
from agenthub.policies.vllm_server import Engine, VllmServer, find_engine, vllm_server
from agenthub.trainers.sync.directory import start_directory
from agenthub.trainers.sync.native import NativeSync
from agenthub.trainers.sync.transfer import transfer_of
from agenthub.trainers.sync.vllm import VllmSync

CONTEXT = 2048


def sync_of(name: str, policy: VllmPolicy, folder: Path, *, half: bool) -> tuple[Any, Any]:
    """(the weight sync, its transfer or None)"""
    bound = 0.05 if half else 1e-3
    if name == "directory":
        return VllmSync(policy, folder, bound=bound, untie=not half, rounded=half), None
    transfer = transfer_of(name)
    return NativeSync(policy, transfer, bound=bound, dtype=torch.bfloat16 if half else None), transfer


def check(given: argparse.Namespace, engine: Engine) -> None:
    """Raises UserError where this machine cannot take the route."""
    if given.sync == "directory":
        return
    if engine.device != "cuda":
        raise UserError(
            f"{given.sync} needs a vLLM for CUDA, {engine.python} has {engine.version}: pip install 'agenthub[vllm]', "
            "or name an interpreter that has one in $AGENTHUB_VLLM_PYTHON"
        )
    if given.sync == "nccl" and torch.cuda.device_count() < 2:
        raise UserError("nccl needs a GPU for the server beside the learner's, and there is one here")


async def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Figures of a few pushes."""
    device, half = torch.device(given.device), given.device == "cuda"
    engine = await asyncio.to_thread(find_engine)
    check(given, engine)
    model = model_of(SHAPES[given.shape], device).to(torch.bfloat16 if half else torch.float32)
    # The server takes a share of what it finds free.
    tidied()
    base = await asyncio.to_thread(start_directory, model, TINY, folder / "base", untie=engine.device == "cpu")
    server = VllmServer(
        model=base,
        dtype="bfloat16" if half else "float32",
        context=CONTEXT,
        gpu_memory=0.3,
        transfer="nccl" if given.sync == "nccl" else "ipc",
        devices=given.devices if given.sync == "nccl" else None,
    )
    async with vllm_server(server, log=folder / "vllm.log", engine=engine) as running:
        policy = VllmPolicy(running.url, ended=running.ended)
        await policy.attach()
        sync, transfer = sync_of(given.sync, policy, folder, half=half)
        times, errors = [], []
        try:
            for version in range(given.pushes + 1):
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter += 0.002 * torch.randn_like(parameter)
                started = settled(device)
                errors.append(await sync.push(model, version))
                times.append(time.perf_counter() - started)
        finally:
            if transfer is not None:
                transfer.close()
            await policy.close()
    return {"first_push_s": times[0], "push_s": median(times[1:]), "parity": max(errors)}


def main() -> None:
    """Push a few times over one route."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="1.5b")
    parser.add_argument("--sync", choices=("ipc", "nccl", "directory"), default="ipc")
    parser.add_argument("--devices", default="1", help="GPUs of the server with nccl")
    parser.add_argument("--pushes", type=int, default=5)
    given = parser.parse_args()
    given.pushes = 2 if given.quick else given.pushes
    row = {"bench": "gpu_push", "case": f"qwen2.5-{given.shape}-{given.sync}"}
    if given.device == "cuda" and not torch.cuda.is_available():
        print(json.dumps(row | {"skipped": "torch finds no GPU here"}))
        return
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = asyncio.run(measure(given, Path(folder)))
        except AgenthubError as error:
            print(json.dumps(row | {"skipped": str(error)}))
            return
    extra = {"quick": True} if given.quick else {}
    name = torch.cuda.get_device_name() if given.device == "cuda" else "cpu"
    for metric, value in found.items():
        unit = "nats" if metric == "parity" else "s"
        print(json.dumps(row | {"device": name, "metric": metric, "value": value, "unit": unit} | extra))


if __name__ == "__main__":
    main()
