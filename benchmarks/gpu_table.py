"""What only a GPU can show, as one table: runs tests/gpu, `gpu_learner.py` and `gpu_push.py`.

    python benchmarks/gpu_table.py [--quick] [--shape 1.5b --shape 7b]
    python benchmarks/gpu_table.py --device cpu --shape tiny --tokens 256     # the same lines without a GPU

Each runs in a process of its own. A vLLM for CUDA is that of $AGENTHUB_VLLM_PYTHON or of this interpreter; where
neither has one, `scripts/peer-environment vllm-cuda` makes an environment for it. What cannot run is named under the
table. Exit status 1 where a test fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
VLLM = "AGENTHUB_VLLM_PYTHON"
COLUMNS = {
    "tokens_per_s": ("tokens/s", "{:,.0f}"),
    "mfu": ("MFU", "{:.1%}"),
    "states_gb": ("states GB", "{:.1f}"),
    "activations_gb": ("activations, logits GB", "{:.1f}"),
    "above_states_gb": ("with gradients GB", "{:.1f}"),
    "parity": ("parity nats", "{:.4f}"),
    "push_s": ("push s", "{:.2f}"),
    "push_parity": ("push parity nats", "{:.4f}"),
}

Row = dict[str, Any]


def rows_of(script: str, *arguments: str) -> list[Row]:
    """What a benchmark prints; one row that says why where it ends with an error."""
    # One process holds nearly all of a GPU: pieces too small to use would be missed. Not for what shares memory.
    own = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"} if script == "gpu_learner.py" else {}
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | own, capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        rows.append({"case": script, "skipped": f"status {done.returncode}: {said}"})
    return rows


def vllm_for_cuda() -> str | None:
    """Have an interpreter with a vLLM for CUDA; why there is none."""
    if os.environ.get(VLLM) or importlib.util.find_spec("vllm") is not None:
        return None
    command = [sys.executable, str(ROOT / "scripts" / "peer-environment"), "vllm-cuda"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return (done.stderr or done.stdout).strip()
    os.environ[VLLM] = done.stdout.strip()
    return None


def measured(shape: str, given: argparse.Namespace, missing: str | None) -> list[Row]:
    """The rows of a shape."""
    common = ["--device", given.device, "--shape", shape, *(["--quick"] if given.quick else [])]
    rows = rows_of("gpu_learner.py", *common, "--tokens", str(given.tokens))
    case = f"qwen2.5-{shape}"
    if missing is not None:
        return [*rows, {"case": case, "skipped": f"push: {missing}"}]
    sync = "ipc" if given.device == "cuda" else "directory"
    for row in rows_of("gpu_push.py", *common, "--sync", sync):
        renamed = {"metric": "push_parity"} if row.get("metric") == "parity" else {}
        told = {"skipped": f"push: {row['skipped']}"} if "skipped" in row else {}
        rows.append(row | {"case": case} | renamed | told)
    return rows


def table(rows: list[Row]) -> str:
    """Markdown, a line for each model."""
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        if row.get("metric") in COLUMNS:
            known = cells.setdefault(row["case"], {})
            known[row["metric"]] = COLUMNS[row["metric"]][1].format(row["value"])
            if "states" in row:
                known["model"] = f"{row['case']}, {row['tokens']} tokens, states {row['states']}" + (
                    ", blocks checkpointed" if row["checkpointing"] else ""
                )
    heads = ["model", *(head for head, _ in COLUMNS.values())]
    lines = [heads, ["---"] * len(heads)]
    lines += [[known.get("model", case), *(known.get(name, "") for name in COLUMNS)] for case, known in cells.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Run all and print; without a GPU say so and end well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", action="append")
    parser.add_argument("--tokens", type=int, default=8192)
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print(json.dumps({"bench": "gpu_table", "skipped": "torch finds no GPU here"}))
        return
    tests = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu"]
    failed = subprocess.run(tests, cwd=ROOT, env=os.environ | {"AGENTHUB_GPU_TESTS": given.device}, check=False)
    missing = vllm_for_cuda() if given.device == "cuda" else None
    rows: list[Row] = []
    for shape in given.shape or (["1.5b"] if given.quick else ["1.5b", "7b"]):
        rows += measured(shape, given, missing)
    print(torch.cuda.get_device_name() if given.device == "cuda" else "cpu", f"torch {torch.__version__}\n", sep=", ")
    print(table(rows))
    for row in rows:
        if "skipped" in row:
            print(f"\n{row['case']}: {row['skipped']}")
    sys.exit(1 if failed.returncode else 0)


if __name__ == "__main__":
    main()
