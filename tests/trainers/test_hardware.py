"""The keys of `learner`: wrong ones are refused with their place and the nearest name, before anything starts."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from agenthub.errors import ConfigError, UserError
from agenthub.trainers.config import load_recipe
from agenthub.trainers.hardware import LearnerConfig, device_of
from agenthub.trainers.lead import shares


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("learner.precison=bfloat16", "precision"),
        ("learner.precision=float16", "bfloat16"),
        ("learner.shards=0", "shards"),
        ("lerner.shards=2", "learner"),
    ],
)
def test_a_wrong_key_or_value_is_refused_with_what_would_do(setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_recipe("grpo", [setting])


def test_offloading_from_a_cpu_makes_no_sense() -> None:
    with pytest.raises(ValidationError, match="offload moves weights off a GPU"):
        LearnerConfig(device="cpu", offload=True)


def test_the_device_that_trains_is_one_that_is_here() -> None:
    assert device_of(LearnerConfig(device="cpu")) == torch.device("cpu")
    if torch.cuda.is_available():
        assert device_of(LearnerConfig()).type == "cuda"
    else:
        assert device_of(LearnerConfig()).type == "cpu"
        with pytest.raises(UserError, match=r"learner\.device is cuda, and torch finds no GPU"):
            device_of(LearnerConfig(device="cuda"))


def test_a_model_lies_in_shards_where_several_share_it_or_types_differ() -> None:
    assert not shares(LearnerConfig(), 1)
    assert shares(LearnerConfig(), 2)
    assert shares(LearnerConfig(precision="bfloat16"), 1)
