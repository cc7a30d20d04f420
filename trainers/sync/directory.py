"""Weights as a directory: what a server starts from, and what it reloads.

Written beside and renamed into place, so that a killed trainer leaves no half of one. Tied embeddings are written as
two matrices where the server keeps a packed copy of the output layer, which a reload of the input layer does not reach.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from agenthub.trainers.sync.weights import plain_name

__all__ = ["full_state", "start_directory", "write_weights"]

_WEIGHTS = (".safetensors", ".bin", ".pt", ".index.json")


def full_state(model: Any, *, untie: bool) -> dict[str, Tensor]:
    """The plain model's weights, whole, on the CPU: sharded ones are gathered, which every rank must take part in.

    Args:
        untie: two names of one tensor become two tensors.
    """
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        plain = plain_name(name)
        if plain is not None:
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            state[plain] = whole.detach().to("cpu", copy=untie)
    return state


def write_weights(model: Any, folder: Path, *, untie: bool) -> Path:
    """Write the model's weights and config as a Hugging Face directory, whole or not at all; the directory.

    Raises:
        OSError: the disk is full or not writable.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    state = full_state(model, untie=untie)
    with torch.no_grad(), _untied(model.config, untie):
        model.save_pretrained(partial, state_dict=state)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def start_directory(model: Any, source: Path, folder: Path, *, untie: bool) -> Path:
    """What a server starts from: these weights with the tokenizer and templates of the directory they came from."""
    write_weights(model, folder, untie=untie)
    for path in source.iterdir():
        if path.is_file() and not path.name.endswith(_WEIGHTS) and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    return folder


@contextlib.contextmanager
def _untied(config: Any, untie: bool) -> Iterator[None]:
    before = config.tie_word_embeddings
    config.tie_word_embeddings = before and not untie
    try:
        yield
    finally:
        config.tie_word_embeddings = before
