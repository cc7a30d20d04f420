"""The learner on a GPU: tokens a second, MFU, memory above the states, and parity of bf16 with float32.

    python benchmarks/gpu_learner.py [--quick] [--shape 1.5b --shape 7b] [--tokens 8192] [--updates N] [--offload]
    torchrun --nproc-per-node 8 benchmarks/gpu_learner.py                       # sharded over eight GPUs
    python benchmarks/gpu_learner.py --device cpu --shape tiny --tokens 256     # the same lines without a GPU

One JSON object a line. Models are randomly initialised in the shapes of Qwen2.5; weights and AdamW's states are
float32, computations bf16, blocks of the 7B model are checkpointed (`checkpointing` in the row). A batch is one packed
view of `--tokens` tokens for each process, episodes of an eighth of it each, the second half of each episode in the
loss. An update is forward, backward, clipping and AdamW. MFU is 6 (N T + V d M) + 6 L d sum(length^2) floating point
operations over time and the GPUs' peak: N weights of the blocks, T tokens, M of them before one that is scored;
recomputation is not counted. Memory is that of one GPU: `above_states_gb` is the peak that was allocated over the
weights and optimiser states there, `activations_gb` what a forward and backward pass takes beside weights, states and
gradients. `parity` is the mean difference of log-probabilities from float32, nats.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from torch.distributed.tensor import DTensor

from agenthub.records import Call, Finish, Generation, Outcome, Stop, Trajectory, Turn, floats, frozen, ints
from agenthub.trainers.batch import build_batch
from agenthub.trainers.config import OptimConfig
from agenthub.trainers.door import Door
from agenthub.trainers.learner import Learner
from agenthub.trainers.losses import PPO
from agenthub.trainers.ranks import Ranks, joined
from agenthub.trainers.scoring import Reader
from agenthub.trainers.sharded import checkpoint_activations, spread
from agenthub.trainers.slim import slim
from agenthub.trainers.types import Batch

PEAK_TFLOPS = 989.5
"""Of an H100 or H200 in dense bf16, by its data sheet."""
GB = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model of the Qwen2.5 family."""

    width: int
    layers: int
    heads: int
    groups: int
    inner: int
    vocabulary: int
    tied: bool
    checkpointing: bool


SHAPES = {
    "1.5b": Shape(
        width=1536, layers=28, heads=12, groups=2, inner=8960, vocabulary=151936, tied=True, checkpointing=False
    ),
    "7b": Shape(
        width=3584, layers=28, heads=28, groups=4, inner=18944, vocabulary=152064, tied=False, checkpointing=True
    ),
    "tiny": Shape(width=128, layers=2, heads=4, groups=2, inner=128, vocabulary=512, tied=True, checkpointing=True),
}


def model_of(shape: Shape, device: torch.device) -> Any:
    """Randomly initialised, float32."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.groups,
        intermediate_size=shape.inner,
        max_position_embeddings=32768,
        tie_word_embeddings=shape.tied,
        use_cache=False,
    )
    with device:
        return Qwen2ForCausalLM(config).eval()


def batch_of(tokens: int, vocabulary: int, ranks: int = 1) -> Batch:
    """Eight episodes of a turn for each rank; the first half of each is its prompt, and no two begin alike."""
    rng = np.random.default_rng(0)
    rows = []
    for member in range(8 * ranks):
        ids = rng.integers(0, vocabulary, tokens // 8 + 1)
        ids[0] = member
        half = ids.size // 2
        generation = Generation(
            policy="policy",
            prompt_ids=ints(ids[:half]),
            ids=ints(ids[half:]),
            logprobs=floats([-1.0] * (ids.size - half)),
            versions=((0, 0),),
            finish=Finish.STOP,
        )
        turn = Turn(
            index=0,
            generation=generation,
            text="",
            calls=(Call(id="0", tool="python", arguments=frozen({})),),
            rewards=frozen({"outcome": float(member % 2)}),
        )
        rows.append(
            Trajectory(
                task="bench/0",
                group="0",
                member=member,
                turns=(turn,),
                stop=Stop.ANSWERED,
                outcome=Outcome.OK,
                rewards=frozen({"outcome": float(member % 2)}),
                reward=float(member % 2),
            )
        )
    return build_batch(rows)


def operations(model: Any, shape: Shape, batch: Batch) -> float:
    """Floating point operations of an update, forward and backward."""
    head = shape.vocabulary * shape.width
    blocks = sum(parameter.numel() for parameter in model.parameters()) - head * (1 if shape.tied else 2)
    lengths = (np.bincount(batch.sample_of_token) - 1).astype(float)
    attention = shape.layers * shape.width * (lengths**2).sum()
    return float(6.0 * (blocks * lengths.sum() + head * batch.action_mask.sum() + attention))


class Memory:
    """Bytes that the process holds on the device; on a CPU its resident set, where a peak is the last value."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def now(self) -> float:
        """Allocated."""
        return float(torch.cuda.memory_allocated() if self._cuda else psutil.Process().memory_info().rss)

    def peak(self) -> float:
        """Since `forget`."""
        return float(torch.cuda.max_memory_allocated()) if self._cuda else self.now()

    def forget(self) -> None:
        """Begin a new peak."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()


def settled(device: torch.device) -> float:
    """Seconds on a clock, once the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def bytes_of(tensors: Any, device: torch.device) -> float:
    """Of what lies on the device; of sharded tensors this process's part."""
    parts = [one.to_local() if isinstance(one, DTensor) else one for one in tensors]
    return float(sum(part.nbytes for part in parts if part.device.type == device.type))


def exact_scores(model: Any, batch: Batch, tokens: int) -> Any:
    """f32[T]: log-probabilities in float32; what it took is given back."""
    found = Reader(view_tokens=tokens).scores(Door(model), batch, batch.action_mask)["lp"]
    tidied()
    return found


def tidied() -> None:
    """Give memory back: modules that are sharded hold each other."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def passes(learner: Learner, batch: Batch, tokens: int, memory: Memory) -> float:
    """Most bytes that a forward and backward pass takes where all gradients lie there already."""
    (view, *_) = learner.door.views(batch, batch.action_mask, max_tokens=tokens)
    before = memory.now()
    memory.forget()
    scores = learner.door.scores(view, temperature=1.0)
    torch.autograd.backward([scores.lp, scores.logsumexp], [torch.zeros_like(scores.lp)] * 2)
    return memory.peak() - before


def measure(name: str, given: argparse.Namespace, ranks: Ranks) -> list[dict[str, Any]]:
    """The rows of a shape."""
    # The current GPU is this rank's.
    device = torch.device(given.device, torch.cuda.current_device()) if given.device == "cuda" else torch.device("cpu")
    shape, memory = SHAPES[name], Memory(device)
    batch = batch_of(given.tokens, shape.vocabulary, ranks.size)
    advantage = np.where(batch.action_mask, np.where(batch.trajectory_of_token % 2, 1.0, -1.0), 0.0)
    model = model_of(shape, device)
    work = operations(model, shape, batch)
    exact = exact_scores(model, batch, given.tokens)
    slim(model)
    door = Door(model, dtype=torch.bfloat16)
    if shape.checkpointing:
        checkpoint_activations(model)
    spread(door, ranks, offload=given.offload)
    optim = OptimConfig(lr=1e-6, minibatches=1, view_tokens=given.tokens, graph_tokens=given.tokens)
    learner = Learner(door, PPO(), optim, ranks=ranks)
    half = learner.logprobs(batch, batch.action_mask)
    for number in range(2):
        learner.update(batch, advantage, seed=number)
    states = [value for row in learner.optimiser.state.values() for value in row.values()]
    held = bytes_of([*model.parameters(), *states], device)
    passing = passes(learner, batch, given.tokens, memory)
    memory.forget()
    times = []
    for number in range(given.updates):
        started = settled(device)
        learner.update(batch, advantage, seed=number)
        times.append(settled(device) - started)
    second = statistics.median(times)
    tokens = int((np.bincount(batch.sample_of_token) - 1).sum())
    gap = np.abs(exact - half)[batch.action_mask]
    row = {
        "bench": "gpu_learner",
        "case": f"qwen2.5-{name}",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "devices": ranks.size,
        "tokens": tokens,
        "states": "float32, offloaded" if given.offload else "float32",
        "checkpointing": shape.checkpointing,
    }
    figures = [
        ("tokens_per_s", tokens / second, "1/s"),
        ("mfu", work / second / (PEAK_TFLOPS * 1e12 * ranks.size), "share"),
        ("states_gb", held / GB, "GB"),
        ("above_states_gb", (memory.peak() - held) / GB, "GB"),
        ("activations_gb", passing / GB, "GB"),
        ("parity", float(gap.mean()), "nats"),
        ("parity_worst", float(gap.max()), "nats"),
    ]
    extra = {"quick": True} if given.quick else {}
    return [row | {"metric": metric, "value": value, "unit": unit} | extra for metric, value, unit in figures]


def main() -> None:
    """Measure each shape; without a GPU say so and end well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two updates, the smaller model")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", action="append", choices=sorted(SHAPES))
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--offload", action="store_true", help="weights and states in the host's memory")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print(json.dumps({"bench": "gpu_learner", "skipped": "torch finds no GPU here"}))
        return
    given.updates = 2 if given.quick else given.updates
    with joined(device=given.device, timeout_s=600.0, alone=True) as ranks:
        for name in given.shape or (["1.5b"] if given.quick else ["1.5b", "7b"]):
            for row in measure(name, given, ranks):
                if ranks.rank == 0:
                    print(json.dumps(row), flush=True)
            tidied()


if __name__ == "__main__":
    main()
