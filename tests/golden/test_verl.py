"""verl's own functions as an oracle on random inputs, where the package is at hand.

`make oracle` fetches it without its dependencies; `$AGENTHUB_VERL` names another folder that holds it. Single files are
read with the heavy imports stubbed, so that torch alone is needed.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agenthub.trainers.aggregate import Axes, aggregate
from agenthub.trainers.losses import PolicyLoss, kl_estimate
from agenthub.trainers.plugins import LossState, make
from agenthub.trainers.types import Batch
from tests.golden.batches import Row, flat


def _folder() -> Path | None:
    if named := os.environ.get("AGENTHUB_VERL"):
        return Path(named)
    fetched = Path(__file__).parents[2] / ".cache" / "verl"
    return fetched if (fetched / "verl").is_dir() else None


FOLDER = _folder()
pytestmark = pytest.mark.skipif(FOLDER is None, reason="verl 0.9.1 is not here; scripts/verl-oracle fetches it")


class _Any(ModuleType):
    """A module that has everything: what the functions under test never call."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"get": None, "__class_getitem__": classmethod(lambda cls, item: cls)})


def _masked_sum(values: Any, mask: Any, axis: Any = None) -> Any:
    return torch.where(mask.bool(), values, 0.0).sum(dim=axis)


def _masked_mean(values: Any, mask: Any, axis: Any = None) -> Any:
    return _masked_sum(values, mask, axis) / (mask.sum(axis=axis) + 1e-8)


def _read(name: str, path: str) -> Any:
    assert FOLDER is not None
    spec = importlib.util.spec_from_file_location(name, FOLDER / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def verl() -> Iterator[Any]:
    """The two files, with everything else of verl stubbed while they are read."""
    names = [
        "omegaconf",
        "verl",
        "verl.protocol",
        "verl.trainer",
        "verl.trainer.config",
        "verl.trainer.config.algorithm",
        "verl.utils",
        "verl.utils.import_utils",
        "verl.utils.torch_functional",
        "verl.workers",
        "verl.workers.config",
        "verl.workers.config.actor",
    ]
    before = {name: sys.modules.get(name) for name in names}
    stubs = {name: _Any(name) for name in names}
    for name, module in stubs.items():
        parent, _, leaf = name.rpartition(".")
        if parent:
            setattr(stubs[parent], leaf, module)
    functional: Any = stubs["verl.utils.torch_functional"]
    functional.masked_sum, functional.masked_mean = _masked_sum, _masked_mean
    parents: Any = stubs["verl.utils"]
    parents.torch_functional = functional
    parents.as_torch_index = lambda index, device=None: torch.as_tensor(np.unique(index, return_inverse=True)[1])
    helpers: Any = stubs["verl.utils.import_utils"]
    helpers.deprecated = lambda *args, **kwargs: lambda function: function
    sys.modules.update(stubs)
    try:
        yield SimpleNamespace(
            core=_read("verl_core_algos", "verl/trainer/ppo/core_algos.py"),
            corr=_read("verl_rollout_corr", "verl/trainer/ppo/rollout_corr_helper.py"),
        )
    finally:
        for name, was in before.items():
            sys.modules.pop(name)
            if was is not None:
                sys.modules[name] = was


SEEDS = st.integers(0, 2**31 - 1)
FEW = settings(max_examples=25, deadline=None)


class Case:
    """A random padded batch of two prompts, as verl has it and as we do."""

    def __init__(self, seed: int, *, gaps: bool = False) -> None:
        rng = np.random.default_rng(seed)
        rows, width = int(rng.integers(3, 8)), int(rng.integers(3, 9))
        self.mask = np.arange(width) < rng.integers(1, width + 1, rows)[:, None]
        if gaps:
            self.mask[:, 1:] &= rng.random((rows, width - 1)) < 0.7
        self.group = rng.integers(0, 2, rows)
        self.rewards = rng.normal(size=rows)
        self.old = rng.normal(-1.0, 0.3, (rows, width))
        self.lp = self.old + rng.normal(0.0, 0.3, (rows, width))
        self.rollout = self.old + rng.normal(0.0, 0.3, (rows, width))
        self.sum_pi_sq = np.exp(2 * self.old) + 0.2 * rng.random((rows, width))
        self.A = rng.normal(size=rows)[:, None] * np.ones(width)

    @property
    def token_rewards(self) -> torch.Tensor:
        out = np.zeros(self.mask.shape)
        last = self.mask.shape[1] - 1 - np.argmax(self.mask[:, ::-1], axis=1)
        out[np.arange(len(out)), last] = self.rewards
        return torch.tensor(out)

    @property
    def batch(self) -> Batch:
        return flat(
            [
                Row(
                    mask=mask.astype(int).tolist(),
                    reward=float(self.rewards[n]),
                    group=int(self.group[n]),
                    old=self.old[n],
                    rollout=self.rollout[n],
                    scores={"sum_pi_sq": self.sum_pi_sq[n]},
                )
                for n, mask in enumerate(self.mask)
            ]
        )

    def tensor(self, name: str) -> torch.Tensor:
        return torch.tensor(getattr(self, name)).double()


def same(ours: Any, theirs: torch.Tensor, mask: np.ndarray[Any, Any]) -> None:
    assert np.asarray(ours).reshape(mask.shape)[mask] == pytest.approx(theirs.numpy()[mask], abs=1e-5)


@FEW
@given(seed=SEEDS)
def test_group_advantages(verl: Any, seed: int) -> None:
    case = Case(seed)
    alone = np.array([(case.group == g).sum() == 1 for g in case.group])
    known = (case.token_rewards, case.tensor("mask"), case.group)
    for name, function, options in (
        ("grpo", verl.core.compute_grpo_outcome_advantage, {"norm_adv_by_std_in_grpo": True}),
        ("dr_grpo", verl.core.compute_grpo_outcome_advantage, {"norm_adv_by_std_in_grpo": False}),
        ("rloo", verl.core.compute_rloo_outcome_advantage, {}),
    ):
        theirs, _ = function(*known, **options)
        # A group of one gets its reward there and nothing here.
        mask = case.mask & ~alone[:, None]
        same(make("credit", name, {}).advantage(case.batch), theirs, mask)


@FEW
@given(seed=SEEDS, gaps=st.booleans())
def test_optimal_token_baselines(verl: Any, seed: int, gaps: bool) -> None:
    case = Case(seed, gaps=gaps)
    for name, function, tail in (
        ("otb", verl.core.compute_optimal_token_baseline_advantage, gaps),
        ("tir_otb", verl.core.compute_multi_turn_optimal_token_baseline_advantage, False),
    ):
        theirs, _ = function(
            token_level_rewards=case.token_rewards,
            response_mask=case.tensor("mask"),
            index=case.group,
            old_log_probs=case.tensor("old"),
            sum_pi_squared=case.tensor("sum_pi_sq"),
            handle_zero_tail=not tail,
        )
        ours = make("credit", name, {"handle_zero_tail": not tail}).advantage(case.batch)
        same(ours, theirs, case.mask)


MODES = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean")


@FEW
@given(seed=SEEDS, mode=st.sampled_from(MODES))
def test_policy_losses_and_their_gradients(verl: Any, seed: int, mode: str) -> None:
    case, core = Case(seed, gaps=True), verl.core
    settings_of = {
        "clip_ratio": 0.2,
        "clip_ratio_low": 0.2,
        "clip_ratio_high": 0.28,
        "clip_ratio_c": 3.0,
        "tau_pos": 1.0,
        "tau_neg": 1.05,
        "global_batch_info": {},
    }
    config = SimpleNamespace(**settings_of, policy_loss=SimpleNamespace(**settings_of), get=settings_of.get)
    clips = {"clip_low": 0.2, "clip_high": 0.28}
    core.ActorConfig = SimpleNamespace
    for name, function, options in (
        ("ppo", core.compute_policy_loss_vanilla, clips),
        ("gspo", core.compute_policy_loss_gspo, clips),
        ("sapo", core.compute_policy_loss_sapo, {}),
        ("cispo", core.compute_policy_loss_cispo, {"low": 0.8, "high": 1.28}),
    ):
        theirs_lp = case.tensor("lp").requires_grad_(True)
        theirs = function(
            case.tensor("old"), theirs_lp, case.tensor("A"), case.tensor("mask"), loss_agg_mode=mode, config=config
        )[0]
        (their_slope,) = torch.autograd.grad(theirs, theirs_lp)
        ours_lp = case.tensor("lp").flatten().requires_grad_(True)
        # Its SAPO knows one aggregation alone.
        used = "seq-mean-token-mean" if name == "sapo" else mode
        plugin: PolicyLoss = make("loss", name, options | {"aggregation": used})
        batch, A = case.batch, case.tensor("A").flatten()
        (term,) = plugin.terms(ours_lp, batch, A, torch.ones_like(A), LossState())
        ours = aggregate(term.loss, term.mask, Axes.of(batch, torch.device("cpu")), used)
        (slope,) = torch.autograd.grad(ours, ours_lp)
        assert ours.item() == pytest.approx(theirs.item(), abs=1e-6), name
        same(slope, their_slope, case.mask)


@FEW
@given(seed=SEEDS, level=st.sampled_from(["token", "sequence"]), normalise=st.booleans())
def test_correction_weights(verl: Any, seed: int, level: str, normalise: bool) -> None:
    case = Case(seed, gaps=True)
    gap = case.tensor("old") - case.tensor("rollout")
    for name, threshold, options in (
        ("tis", 1.2, {"cap": 1.2}),
        ("icepop", "0.8_1.3", {"low": 0.8, "high": 1.3}),
    ):
        ours, _ = make("correction", name, options | {"level": level, "normalise": normalise}).weights(case.batch)
        if not ours[case.mask.flatten()].any():
            continue  # its metrics divide by the sum of the weights
        theirs, _ = verl.corr.compute_rollout_correction_weights(
            gap, case.tensor("mask"), level, threshold, rollout_is_batch_normalize=normalise
        )
        same(ours, theirs, case.mask)


@FEW
@given(
    seed=SEEDS,
    option=st.sampled_from(
        ["token_k1", "token_k2", "token_k3", "seq_sum_k1", "seq_mean_k1", "seq_mean_k3", "seq_max_k2", "seq_max_k3"]
    ),
)
def test_rejection(verl: Any, seed: int, option: str) -> None:
    case = Case(seed, gaps=True)
    over, measure = option.rsplit("_", 1)
    bounds: dict[str, float] = {"low": 0.7, "high": 1.2} if measure == "k1" else {"high": 0.05}
    kept, _ = verl.corr.compute_rollout_rejection_mask(
        case.tensor("old") - case.tensor("rollout"),
        case.tensor("mask"),
        option,
        "0.7_1.2" if measure == "k1" else "0.05",
    )
    plugin = make("correction", "rejection", bounds | {"over": over, "measure": measure})
    same(plugin.weights(case.batch)[1].astype(float), kept, case.mask)


@FEW
@given(seed=SEEDS)
def test_divergences(verl: Any, seed: int) -> None:
    case = Case(seed)
    lp, ref = case.tensor("lp"), case.tensor("old")
    for ours, theirs in (("k1", "kl"), ("k2", "mse"), ("k3", "low_var_kl")):
        # verl bounds its third estimate at 10.
        assert torch.allclose(kl_estimate(lp, ref, ours), verl.core.kl_penalty_forward(lp, ref, theirs), atol=1e-6)
