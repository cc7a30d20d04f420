"""What a learner computes lies on its model's device: an update whose model is elsewhere than its batch, without a GPU.

The model lies on torch's `meta` device, whose tensors have a shape and no numbers. No operation may take tensors of two
devices, as on a GPU; what a program reads from a device is counted and read as 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.fx.experimental import _config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from agenthub.records import ints
from agenthub.registry import registry
from agenthub.trainers.aggregate import MODES
from agenthub.trainers.attention import _by_lengths, causal, layout_of
from agenthub.trainers.config import OptimConfig
from agenthub.trainers.critic import Critic, CriticConfig
from agenthub.trainers.learner import Learner
from agenthub.trainers.losses import PPO
from agenthub.trainers.packing import packs
from agenthub.trainers.plugins import make
from agenthub.trainers.scoring import Models
from agenthub.trainers.sharded import checkpoint_activations
from agenthub.trainers.types import EXPERT, REFINED, Batch
from tests.trainers.contracts import rich_batch
from tests.trainers.fakes import mixed_batch, tiny_model

META = torch.device("meta")
ATEN = torch.ops.aten


class OneDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses operations on tensors of two devices, and stands in for reads from one."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reads: int = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        away = [tensor for tensor in given if tensor.device == META]
        if func is ATEN._local_scalar_dense.default and away:
            self.reads += 1
            return True if given[0].dtype == torch.bool else 1
        if func is ATEN._to_copy.default and away and kwargs.get("device") == torch.device("cpu"):
            self.reads += 1
            return torch.ones(given[0].shape, dtype=kwargs.get("dtype") or given[0].dtype)
        moves = func in (ATEN._to_copy.default, ATEN.copy_.default)
        # A GPU takes numbers and, as places of another tensor, indices from the host.
        beside = [tensor for tensor in given if tensor.device != META and tensor.dim() and not _is_index(func, tensor)]
        if away and beside and not moves:
            raise AssertionError(f"{func} takes tensors of {META} and of {beside[0].device}")
        return func(*args, **kwargs)


def _is_index(func: Any, tensor: Tensor) -> bool:
    takes = func in (ATEN.index.Tensor, ATEN.index_put_.default, ATEN._index_put_impl_.default)
    return takes and tensor.dtype in (torch.int64, torch.bool)


def reads(loss: Any, batch: Batch, *, checkpoints: bool = False, kept: int = 4096) -> int:
    """How often one update reads from the device."""
    model = tiny_model().to(META)
    if checkpoints:
        checkpoint_activations(model)
    learner = Learner(model, loss, OptimConfig(minibatches=1, graph_tokens=kept))
    advantage = np.where(batch.action_mask, 1.0, 0.0)
    # Without numbers a mask has no places; all of them stand in.
    with OneDevice() as watch, _config.patch(meta_nonzero_assume_all_nonzero=True):  # type: ignore[attr-defined]
        learner.update(batch, advantage, seed=0, weights=np.ones_like(advantage))
    return int(watch.reads)


@pytest.mark.parametrize(("checkpoints", "kept"), [(False, 4096), (True, 4096), (False, 1)])
def test_an_update_mixes_no_devices_and_reads_little(checkpoints: bool, kept: int) -> None:
    # Loss, entropy, norm, and a number for each of the loss's metrics; none for each token or layer.
    assert 3 <= reads(PPO(), mixed_batch(), checkpoints=checkpoints, kept=kept) <= 12


@pytest.mark.parametrize(
    ("name", "mode"),
    [*((name, "traj-mean-turn-mean") for name in registry("loss").names()), *(("ppo", mode) for mode in MODES)],
)
def test_every_loss_computes_where_the_model_lies(name: str, mode: str) -> None:
    batch = rich_batch()
    names = list(batch.policy_of_sample)
    names[4], names[5] = EXPERT, REFINED
    batch = replace(batch, policy_of_sample=tuple(names)).with_peers()
    options = {"aggregation": mode, "max_length": 64 if mode == "seq-mean-token-sum-norm" else 0}
    assert reads(make("loss", name, options), batch) > 0


def test_scores_and_values_are_read_once_for_each_batch() -> None:
    batch, model = mixed_batch(), tiny_model().to(META)
    critic = Critic(16, CriticConfig(), META)
    learner = Learner(model, PPO(), OptimConfig(), beside=Models(reference=tiny_model().to(META), critic=critic))
    with OneDevice() as watch:
        scored = learner.scored(batch, {"ref", "value", "sum_pi_sq"})
    assert scored.scores.values is not None
    assert scored.scores.ref_logprobs is not None
    assert watch.reads <= 6


def test_tensors_of_two_devices_are_noticed() -> None:
    with OneDevice(), pytest.raises(AssertionError, match="takes tensors of meta and of cpu"):
        torch.ones(3, device=META) + torch.ones(3)


def test_the_kernel_for_rows_of_many_lengths_is_called_as_this_torch_knows_it() -> None:
    varlen = pytest.importorskip("torch.nn.attention.varlen").varlen_attn
    runs = [ints([*range(64), *range(100 * n, 100 * n + n)]) for n in (3, 9)]
    (pack,) = packs(runs, max_tokens=1000)
    sides = [
        torch.randn(pack.ids.size, heads, 64, dtype=torch.bfloat16, device=META, requires_grad=True)
        for heads in (4, 2, 2)
    ]
    out = _by_lengths(causal(varlen), sides, layout_of(pack, META, varlen=True), None)
    out.sum().backward()  # type: ignore[no-untyped-call]
    assert [side.grad.shape for side in sides if side.grad is not None] == [side.shape for side in sides]
