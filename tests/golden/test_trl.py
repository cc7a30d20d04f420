"""TRL's GRPO loss as an oracle on random inputs, in an environment of its own."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agenthub.trainers.aggregate import Axes, total
from agenthub.trainers.plugins import LossState, make
from agenthub.trainers.types import Batch
from tests.dialects.peers import interpreter
from tests.golden.batches import Row, flat

LENGTHS = [0, 79, 80, 81, 95, 100, 101, 400]
CLIPS = {"clip_low": 0.2, "clip_high": 0.28}
PLAIN = CLIPS | {"dual_clip": None}
SEQ_NORM = {"aggregation": "seq-mean-token-sum-norm", "max_length": 32}
FORMS: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {
    ("grpo", "token"): ("ppo", PLAIN | {"aggregation": "seq-mean-token-mean"}),
    ("bnpo", "token"): ("ppo", PLAIN | {"aggregation": "token-mean"}),
    ("dr_grpo", "token"): ("ppo", PLAIN | SEQ_NORM),
    ("dapo", "token"): ("ppo", PLAIN | {"aggregation": "token-mean"}),
    ("luspo", "sequence"): ("gspo", CLIPS | {"aggregation": "seq-mean-token-sum"}),
    ("grpo", "sequence"): ("gspo", CLIPS | {"aggregation": "seq-mean-token-mean"}),
    ("sapo", "token"): ("sapo", {}),
    ("cispo", "token"): ("cispo", {"high": 5.0, "aggregation": "token-mean"}),
}
"""TRL's loss type and level, and what it is here."""


def random_case(seed: int, loss_type: str, level: str) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    rows, width = int(rng.integers(2, 6)), int(rng.integers(2, 8))
    mask = np.arange(width) < rng.integers(1, width + 1, rows)[:, None]
    mask[:, 1:] &= rng.random((rows, width - 1)) < 0.8  # observations between turns
    old = rng.normal(-1.0, 0.3, (rows, width))
    near = {name: old + rng.normal(0.0, 0.4, (rows, width)) for name in ("lp", "ref", "rollout")}
    arrays = {"mask": mask.astype(int), "old": old, "A": rng.normal(size=rows), **near}
    beta = 0.1 if seed % 2 and level == "token" and loss_type in ("grpo", "bnpo") else 0.0
    return {"loss_type": loss_type, "level": level, "beta": beta} | {name: row.tolist() for name, row in arrays.items()}


CASES = [random_case(seed, *form) for form in FORMS for seed in range(12)]


@pytest.fixture(scope="module")
def theirs() -> Any:
    asked = json.dumps({"cases": CASES, "lengths": LENGTHS})
    script = Path(__file__).with_name("trl_oracle.py")
    done = subprocess.run([interpreter("trl"), str(script)], input=asked, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def batch_of(case: dict[str, Any]) -> Batch:
    rows = zip(case["mask"], case["old"], case["ref"], case["rollout"], strict=True)
    return flat([Row(mask=m, old=o, rollout=r, scores={"ref_logprobs": ref}) for m, o, ref, r in rows])


@pytest.mark.parametrize("form", FORMS, ids=["-".join(form) for form in FORMS])
def test_losses_and_gradients(theirs: Any, form: tuple[str, str]) -> None:
    name, options = FORMS[form]
    asked = [(case, got) for case, got in zip(CASES, theirs["cases"], strict=True) if case["loss_type"] == form[0]]
    for case, got in [(case, got) for case, got in asked if case["level"] == form[1]]:
        batch = batch_of(case)
        lp = torch.tensor(case["lp"], dtype=torch.float64).flatten().requires_grad_(True)
        A = torch.tensor(case["A"], dtype=torch.float64)[torch.from_numpy(batch.sample_of_token).long()]
        parts = [make("loss", name, options)]
        if case["beta"]:
            shared = {"aggregation": options["aggregation"], "coefficient": case["beta"], "estimator": "k3"}
            parts.append(make("loss", "kl", shared))
        terms = [term for part in parts for term in part.terms(lp, batch, A, torch.ones_like(A), LossState())]
        loss = total(terms, Axes.of(batch, torch.device("cpu")))
        (slope,) = torch.autograd.grad(loss, lp)
        assert loss.item() == pytest.approx(got["loss"], abs=1e-9)
        assert slope.tolist() == pytest.approx([value for row in got["slope"] for value in row], abs=1e-9)


def test_off_policy_sequences(theirs: Any) -> None:
    dropped = 0
    for case, got in zip(CASES, theirs["cases"], strict=True):
        batch = batch_of(case)
        advantages = np.asarray(case["A"])[batch.sample_of_token] * batch.action_mask
        _, keep = make("correction", "opsm", {"delta": 0.1}).weights(replace(batch, advantages=advantages))
        ours = [bool(keep[batch.sample_of_token == s].all()) for s in range(batch.samples)]
        assert ours == [bool(value) for value in got["keep"]]
        dropped += ours.count(False)
    assert dropped > 10


def test_soft_overlong(theirs: Any) -> None:
    plugin = make("shaping", "soft_overlong", {"max_length": 100, "cache": 20})
    assert [plugin.penalty(length) for length in LENGTHS] == pytest.approx(theirs["overlong"])
