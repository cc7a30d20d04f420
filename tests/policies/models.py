"""Small random models of three families, saved as Hugging Face directories, and a reference that keeps no cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from agenthub.policies.bytes import VOCABULARY, byte_tokenizer
from agenthub.policy import Request, Sampling
from agenthub.records import Ints, ints

STOP = 256
_CONFIGS: dict[str, tuple[Any, Any]] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}
FAMILIES = tuple(_CONFIGS)


def save_model(folder: Path, family: str, *, context: int = 128) -> Path:
    """A two-layer model with sharp random weights, and the byte tokenizer."""
    config_class, model_class = _CONFIGS[family]
    torch.manual_seed(7)
    config = config_class(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        max_position_embeddings=context,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=STOP,
        pad_token_id=STOP,
    )
    model_class(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def never(ids: Sequence[int]) -> bool:
    """An action that is never complete."""
    del ids
    return False


def request(
    prompt: Sequence[int] | Ints,
    seed: int = 0,
    *,
    temperature: float = 1.0,
    max_tokens: int = 12,
    episode: str = "",
    complete: Callable[[Sequence[int]], bool] = never,
) -> Request:
    """A request that ends with token STOP."""
    return Request(
        prompt_ids=ints(prompt),
        sampling=Sampling(temperature=temperature, max_tokens=max_tokens),
        seed=seed,
        stop_ids=frozenset({STOP}),
        complete=complete,
        episode=episode,
    )


def prompts(count: int, seed: int = 0, longest: int = 20) -> list[Ints]:
    """Random prompts of different lengths."""
    rng = np.random.default_rng(seed)
    return [ints(rng.integers(0, 256, rng.integers(1, longest))) for _ in range(count)]


@torch.no_grad()
def reference(model: Any, asked: Request) -> tuple[list[int], list[float]]:
    """Tokens and log-probabilities of one request, from a full forward pass a token, without batch or cache."""
    sampling = asked.sampling
    uniforms = np.random.Generator(np.random.Philox(key=asked.seed)).random(sampling.max_tokens, dtype=np.float32)
    ids: list[int] = []
    logprobs: list[float] = []
    for uniform in uniforms:
        context = torch.tensor([[*asked.prompt_ids.tolist(), *ids]])
        logits = model(input_ids=context).logits[0, -1].double()
        chances = torch.softmax(logits / (sampling.temperature or 1.0), dim=-1)
        token = int(chances.argmax()) if sampling.temperature == 0 else int((chances.cumsum(0) <= uniform).sum())
        ids.append(token)
        logprobs.append(float(chances[token].log()))
        if token in asked.stop_ids or asked.complete(ids):
            break
    return ids, logprobs
