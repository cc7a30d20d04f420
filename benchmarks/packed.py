"""An update of the learner beside one of TRL's GRPOTrainer: the same model, trajectories and loss, in one process.

    python benchmarks/packed.py [--quick] [--case update_60m] [--repeats N] [--threads N]

One JSON object a line. Groups of episodes of two tool turns with a prompt in common, lengths drawn from a fixed seed,
the advantage of none of them 0; PPO's clipped loss, mean over tokens, against given old log-probabilities. An update is
forward, backward, clipping and AdamW; runs of both take turns, and a rate is that of the median one. Tokens are those
of the episodes, prompts counted for each. `grad_error` is the greatest difference of any weight's gradient, over the
greatest gradient. TRL keeps activations as ours does (no checkpoints of them) and takes the batch in one pass.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
CLIPS = (0.2, 0.28)
SHAPES: dict[str, dict[str, int]] = {
    "update_60m": {
        "vocab_size": 32000,
        "hidden_size": 512,
        "num_hidden_layers": 11,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "intermediate_size": 2048,
    },
    "update_tiny": {
        "vocab_size": 280,
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 384,
    },
}
BATCHES: dict[str, tuple[int, int, int, float]] = {
    "update_60m": (1, 8, 128, 58.0),
    "update_tiny": (16, 8, 24, 8.0),
}
"""Groups, episodes of each, tokens of the prompt, median tokens of a turn."""
THREADS = {"update_60m": 2, "update_tiny": 1}
"""As the recipes have it: at the tiny size a second thread is worth more to the hub."""


def model_of(case: str) -> Any:
    """A randomly initialised model of the Qwen2.5 family in float32."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(**SHAPES[case], tie_word_embeddings=True, max_position_embeddings=4096, use_cache=False)
    return Qwen2ForCausalLM(config)


def episodes(case: str) -> list[Any]:
    """Trajectories of two turns with an observation between them; rewards alternate within a group."""
    from agenthub.records import (
        Call,
        Finish,
        Generation,
        Outcome,
        Stop,
        Trajectory,
        Turn,
        floats,
        frozen,
        ints,
    )

    groups, size, prompt, median = BATCHES[case]
    vocabulary = SHAPES[case]["vocab_size"]
    rng = np.random.default_rng(0)

    def drawn(length: int) -> list[int]:
        return [int(one) for one in rng.integers(3, vocabulary, length)]

    def length(median: float) -> int:
        return max(2, round(median * float(np.exp(rng.normal(0.0, 0.5)))))

    rows = []
    for group in range(groups):
        opened = drawn(prompt)
        for member in range(size):
            context, turns = opened, []
            for index in range(2):
                ids = drawn(length(median))
                reward = float(member % 2) if index else 0.0
                turns.append(
                    Turn(
                        index=index,
                        generation=Generation(
                            policy="policy",
                            prompt_ids=ints(context),
                            ids=ints(ids),
                            logprobs=floats([-1.0] * len(ids)),
                            versions=((0, 0),),
                            finish=Finish.STOP,
                        ),
                        text="",
                        calls=() if index else (Call(id="0", tool="python", arguments=frozen({})),),
                        rewards=frozen({"outcome": reward} if index else {}),
                    )
                )
                context = [*context, *ids, *drawn(max(2, round(median / 6)))]
            rows.append(
                Trajectory(
                    task=f"bench/{group}",
                    group=str(group),
                    member=member,
                    turns=tuple(turns),
                    stop=Stop.ANSWERED,
                    outcome=Outcome.OK,
                    rewards=frozen({"outcome": float(member % 2)}),
                    reward=float(member % 2),
                )
            )
    return rows


class Ours:
    """The learner."""

    def __init__(self, case: str, batch: Any, advantage: Any) -> None:
        from agenthub.trainers.config import OptimConfig
        from agenthub.trainers.learner import Learner
        from agenthub.trainers.losses import PPO

        loss = PPO(clip_low=CLIPS[0], clip_high=CLIPS[1], dual_clip=None, aggregation="token-mean")
        optim = OptimConfig(lr=1e-6, minibatches=1, view_tokens=8192)
        self.learner = Learner(model_of(case), loss, optim)
        self._batch, self._advantage = batch, advantage

    def gradient(self) -> dict[str, Any]:
        """Of every weight."""
        self.learner.gradient(self._batch, self._advantage)
        return {name: one.grad.clone() for name, one in self.learner.model.named_parameters() if one.grad is not None}

    def update(self) -> None:
        """One."""
        self.learner.update(self._batch, self._advantage, seed=0)


class Theirs:
    """TRL's GRPOTrainer, handed the same tokens where it would have generated its own."""

    def __init__(self, case: str, batch: Any, advantage: Any, folder: str) -> None:
        from datasets import Dataset
        from transformers import AutoTokenizer
        from trl import GRPOConfig, GRPOTrainer

        class Handed(GRPOTrainer):  # type: ignore[misc]
            def _prepare_inputs(self, generation_batch: Any) -> Any:
                return generation_batch

        tokenizer = AutoTokenizer.from_pretrained(ROOT / "agenthub" / "policies" / "tiny")
        arguments = GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            report_to=[],
            gradient_checkpointing=False,
            per_device_train_batch_size=batch.samples,
            num_generations=8,
            loss_type="bnpo",
            beta=0.0,
            epsilon=CLIPS[0],
            epsilon_high=CLIPS[1],
            learning_rate=1e-6,
            max_grad_norm=1.0,
        )
        self.trainer = Handed(
            model=model_of(case),
            reward_funcs=lambda **_: [],
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": ["a"] * 8}),
            processing_class=tokenizer,
        )
        self.trainer.current_gradient_accumulation_steps = 1
        self.model = self.trainer.model.train()
        self._inputs = padded(batch, advantage)
        self._optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-6, fused=True, weight_decay=0.0)

    def gradient(self) -> dict[str, Any]:
        """Of every weight."""
        self._optimiser.zero_grad()
        self.trainer.training_step(self.model, self._inputs, None)
        return {name: one.grad.clone() for name, one in self.model.named_parameters() if one.grad is not None}

    def update(self) -> None:
        """One."""
        self._optimiser.zero_grad()
        self.trainer.training_step(self.model, self._inputs, None)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimiser.step()


def padded(batch: Any, advantage: Any) -> dict[str, Any]:
    """The batch as TRL lays it out: prompts padded at the left, completions at the right, tool tokens masked."""
    rows = [np.flatnonzero(batch.sample_of_token == s) for s in range(batch.samples)]
    firsts = [int(np.flatnonzero(batch.action_mask[row])[0]) for row in rows]
    prompt, answer = max(firsts), max(row.size - first for row, first in zip(rows, firsts, strict=True))
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask")
    out: dict[str, Any] = {
        name: torch.zeros((len(rows), prompt if "prompt" in name else answer), dtype=torch.int64) for name in names
    }
    old = torch.zeros((len(rows), answer))
    for s, (row, first) in enumerate(zip(rows, firsts, strict=True)):
        ids = torch.as_tensor(np.array(batch.ids[row]), dtype=torch.int64)
        out["prompt_ids"][s, prompt - first :], out["prompt_mask"][s, prompt - first :] = ids[:first], 1
        size = row.size - first
        out["completion_ids"][s, :size], out["completion_mask"][s, :size] = ids[first:], 1
        out["tool_mask"][s, :size] = torch.as_tensor(batch.action_mask[row[first:]].astype(np.int64))
        old[s, :size] = torch.as_tensor(np.array(batch.old_logprobs[row[first:]]))
    of_sample = [float(advantage[row[first]]) for row, first in zip(rows, firsts, strict=True)]
    return out | {"old_per_token_logps": old, "advantages": torch.tensor(of_sample)}


def seconds(work: Callable[[], None]) -> float:
    """Of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(case: str, repeats: int, folder: str, extra: dict[str, Any]) -> None:
    """Print the rows of a case."""
    from dataclasses import replace

    from agenthub.records import floats
    from agenthub.trainers.batch import build_batch
    from agenthub.trainers.credit import GRPO

    batch = build_batch(episodes(case))
    advantage = GRPO().advantage(batch)
    ours = Ours(case, batch, advantage)
    # Old log-probabilities near the model's own, so that some ratios are beyond a clip and most are not.
    lp = ours.learner.logprobs(batch, batch.action_mask)
    noise = np.random.default_rng(1).normal(0.0, 0.15, batch.tokens) * batch.action_mask
    batch = replace(batch, old_logprobs=floats((lp + noise).astype(np.float32)))
    ours._batch = batch
    theirs = Theirs(case, batch, advantage, folder)
    one, other = ours.gradient(), theirs.gradient()
    if set(one) != set(other):
        raise SystemExit(f"{case}: the two models have other weights: {sorted(set(one) ^ set(other))}")
    largest = max(float(value.abs().max()) for value in other.values())
    error = max(float((one[name] - value).abs().max()) for name, value in other.items()) / largest
    both: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(repeats):
        both["ours"].append(seconds(ours.update))
        both["theirs"].append(seconds(theirs.update))
    rates = {name: batch.tokens / statistics.median(times) for name, times in both.items()}
    row = {"bench": "learner", "case": case, "tokens": batch.tokens} | extra
    rate = {"metric": "tokens_per_s", "value": round(rates["ours"], 1), "unit": "1/s", "peer": "trl"}
    print(json.dumps(row | rate | {"ratio": round(rates["ours"] / rates["theirs"], 2)}), flush=True)
    print(json.dumps(row | {"metric": "grad_error", "value": error, "unit": "share", "peer": "trl"}), flush=True)


def main() -> None:
    """Both sizes; in TRL's environment, which sees this one's packages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--case", choices=sorted(SHAPES), help="this one alone")
    parser.add_argument("--threads", type=int, help="of torch, for both; where left out THREADS of the case")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.inside:
        made = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "peer-environment"), "trl"], stdout=subprocess.PIPE, text=True
        )
        if made.returncode:
            raise SystemExit(made.returncode)
        flags = [*sys.argv[1:], "--inside"]
        raise SystemExit(subprocess.run([made.stdout.strip(), __file__, *flags], cwd=ROOT).returncode)
    extra = {"quick": True} if given.quick else {}
    with tempfile.TemporaryDirectory() as folder:
        for case in [given.case] if given.case else reversed(SHAPES):
            torch.set_num_threads(given.threads or THREADS[case])
            compare(case, 2 if given.quick else given.repeats, folder, extra)


if __name__ == "__main__":
    main()
