"""What a push of weights into a running vLLM costs, and how exact it is.

    python benchmarks/weight_sync.py [--quick] [--pushes N]

One JSON object a line: the tiny policy of the package on a CPU, by a directory that the server reloads. `push_ms` is
the mean of whole pushes: written, paused, reloaded, caches dropped, resumed and probed; `parity_error` the worst one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from statistics import fmean

import torch
from transformers.utils.logging import disable_progress_bar

from agenthub.policies.embedded import TINY, load_model
from agenthub.policies.vllm import VllmPolicy
from agenthub.policies.vllm_server import VllmServer, vllm_server
from agenthub.trainers.sync.directory import start_directory
from agenthub.trainers.sync.vllm import VllmSync


async def measure(pushes: int, folder: Path) -> tuple[list[float], list[float]]:
    """(milliseconds, errors in nats) of each push."""
    model = load_model(TINY)[0]
    base = await asyncio.to_thread(start_directory, model, TINY, folder / "base", untie=True)
    async with vllm_server(VllmServer(model=base), log=folder / "vllm.log") as running:
        policy = VllmPolicy(running.url, ended=running.ended)
        await policy.attach()
        sync = VllmSync(policy, folder, bound=1e-3)
        await sync.push(model, 0)
        times, errors = [], []
        for version in range(1, pushes + 1):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.002 * torch.randn_like(parameter)
            started = time.perf_counter()
            errors.append(await sync.push(model, version))
            times.append(1000.0 * (time.perf_counter() - started))
        await policy.close()
    return times, errors


def main() -> None:
    """Push a few times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--pushes", type=int, default=20)
    given = parser.parse_args()
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        times, errors = asyncio.run(measure(5 if given.quick else given.pushes, Path(folder)))
    extra = {"quick": True} if given.quick else {}
    for metric, value, unit in (("push_ms", fmean(times), "ms"), ("parity_error", max(errors), "nats")):
        print(
            json.dumps(
                {"bench": "weight_sync", "case": "vllm_cpu", "metric": metric, "value": value, "unit": unit} | extra
            )
        )


if __name__ == "__main__":
    main()
