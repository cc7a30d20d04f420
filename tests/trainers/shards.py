"""One of the gloo processes that share a model: what `test_shards` asks for, rank 0's answers written to a file.

torchrun --nproc-per-node N shards.py FOLDER CASE...
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from agenthub.errors import HostFault
from agenthub.trainers.config import OptimConfig, Recipe
from agenthub.trainers.credit import GRPO
from agenthub.trainers.door import Door
from agenthub.trainers.folder import RunFolder
from agenthub.trainers.lead import Leader, dismissed, follow, learner_of
from agenthub.trainers.learner import Learner
from agenthub.trainers.loop import Parts, Trainer
from agenthub.trainers.losses import PPO
from agenthub.trainers.ranks import Ranks, joined
from agenthub.trainers.sharded import checkpoint_activations, gather, spread, write_shards
from agenthub.trainers.sync.embedded import EmbeddedSync
from tests.trainers.fakes import Bandit, FakePolicy, Silent, mixed_batch, tiny_model

OPTIM = {"lr": 0.01, "minibatches": 2, "view_tokens": 24}
BANDIT: dict[str, Any] = {
    "format": "agenthub.recipe/1",
    "name": "bandit",
    "suite": "fake",
    "filter": {"uses": "simpletir"},
    "credit": {"uses": "grpo"},
    "loss": {"uses": "ppo"},
    "rollout": {"groups": 3, "group_size": 4},
    "optim": {"lr": 0.02, "view_tokens": 16},
    "updates": 5,
    "checkpoint_every": 2,
    "eval": None,
    "seed": 3,
}


def made(ranks: Ranks, *, shard: bool, half: bool = False, **optim: Any) -> Learner:
    """A learner of the tiny model, sharded over the ranks or whole."""
    model = tiny_model()
    if not shard:
        return Learner(model, PPO(), OptimConfig(**OPTIM | optim))
    door = Door(model, dtype=torch.bfloat16 if half else None)
    checkpoint_activations(model)
    spread(door, ranks)
    return Learner(door, PPO(), OptimConfig(**OPTIM | optim), ranks=ranks)


def trained(learner: Learner, updates: range) -> list[tuple[float, float, float]]:
    """(loss, gradient norm, entropy) of each update."""
    batch = mixed_batch()
    rows = []
    for number in updates:
        stats = learner.update(batch, GRPO().advantage(batch), seed=number)
        rows.append((stats.loss, stats.grad_norm, stats.entropy))
    return rows


def weights(learner: Learner, ranks: Ranks) -> dict[str, Any]:
    """All of the model's, whole, on rank 0."""
    whole = tiny_model(seed=1) if ranks.rank == 0 else None
    gather(learner.model, whole)
    return {} if whole is None else dict(whole.state_dict())


def same(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Three updates, log-probabilities, and weights."""
    learner, batch = made(ranks, shard=True), mixed_batch()
    rows = trained(learner, range(3))
    lp = learner.logprobs(batch, batch.action_mask)
    return {"rows": rows, "weights": weights(learner, ranks), "lp": torch.tensor(lp)}


def half(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """One update computed in bf16, and the type of the weights that it moved."""
    learner = made(ranks, shard=True, half=True)
    kinds = {str(parameter.dtype) for parameter in learner.model.parameters()}
    states = {str(v.dtype) for row in learner.optimiser.state.values() for v in row.values()}
    rows = trained(learner, range(1))
    states = {str(row["exp_avg"].dtype) for row in learner.optimiser.state.values()}
    return {"rows": rows, "weights": weights(learner, ranks), "kinds": sorted(kinds | states)}


def save(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Two updates, then a distributed checkpoint."""
    learner = made(ranks, shard=True)
    trained(learner, range(2))
    write_shards(folder / "of_two", learner.door, learner.optimiser)
    return {}


def resume(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """A distributed checkpoint that one process wrote, then one update more."""
    learner = made(ranks, shard=True)
    learner.load_state_dict({"shards": str(folder / "of_one"), "losses": [{}]})
    return {"rows": trained(learner, range(2, 3)), "weights": weights(learner, ranks)}


def adopt(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """The whole state of a process that was alone, then one update more."""
    learner = made(ranks, shard=True)
    learner.load_state_dict(torch.load(folder / "alone.pt", weights_only=True))
    return {"rows": trained(learner, range(2, 3)), "weights": weights(learner, ranks)}


def loop(ranks: Ranks, folder: Path, dies: int | None = None) -> dict[str, Any]:
    """The training loop on the bandit, led by rank 0; rank 1 is killed once it has begun update `dies`."""
    recipe = Recipe.model_validate(BANDIT)
    learner = learner_of(tiny_model(), recipe.loss.make(), recipe.optim, recipe.learner, temperature=1.0, ranks=ranks)
    if not isinstance(learner, Leader):
        learner.update = _mortal(learner.update, dies)  # type: ignore[method-assign]
        follow(learner, ranks)
        return {}
    run = RunFolder.reopen(folder) if (folder / "config.yaml").exists() else RunFolder.create(folder, recipe)
    asyncio.run(_lead(learner, run))
    return {}


async def _lead(learner: Leader, run: RunFolder) -> None:
    policy, used, failed = FakePolicy(), run.recipe, True
    bandit = Bandit(policy)
    parts = Parts(
        collector=lambda: bandit,
        evaluator=None,
        held_out=[],
        sampler=used.sampler.make().start(["a", "b", "c"], used.seed),
        filter=used.filter.make(),
        credit=used.credit.make(),
        learner=learner,
        sync=EmbeddedSync(policy, bound=used.sync_bound),
    )
    try:
        await Trainer(parts, run, Silent()).run()
        failed = False
    finally:
        run.close()
        dismissed(learner, failed)


def _mortal(update: Callable[..., Any], dies: int | None) -> Callable[..., Any]:
    count = 0

    def counted(*args: Any, **keywords: Any) -> Any:
        nonlocal count
        count += 1
        if count == dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return update(*args, **keywords)

    return counted


CASES: dict[str, Callable[[Ranks, Path], dict[str, Any]]] = {
    "same": same,
    "half": half,
    "save": save,
    "resume": resume,
    "adopt": adopt,
    "whole": lambda ranks, folder: loop(ranks, folder / "whole"),
    "killed": lambda ranks, folder: loop(ranks, folder / "cut", dies=4),
    "again": lambda ranks, folder: loop(ranks, folder / "cut"),
}


def main(folder: Path, cases: Sequence[str]) -> None:
    """Play some cases."""
    torch.set_num_threads(1)
    if "killed" in cases:
        # torchrun ends the others as soon as it sees that one is gone, at times before the leader has; what the leader
        # finds by itself is what is asked here, and torchrun waits for it.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with joined(device="cpu", timeout_s=60) as ranks:
            for case in cases:
                found = CASES[case](ranks, folder)
                if ranks.rank == 0:
                    torch.save(found, folder / f"{case}.pt")
    except HostFault as error:
        if os.environ["RANK"] == "0":
            (folder / "said").write_text(str(error))
        raise


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
