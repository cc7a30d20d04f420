"""Byte tokenizers with the control tokens of the model families, for tests that need no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

TEMPLATES = Path(__file__).parents[1] / "data" / "chat_templates"
QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_PLAIN = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
LLAMA_SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|python_tag|>",
)
FAMILIES = ("qwen2.5", "qwen3", "llama3")


def template(family: str) -> str:
    """The published template of a family."""
    return (TEMPLATES / f"{family}.jinja").read_text().rstrip("\n")


def chat_tokenizer(family: str) -> Any:
    """A byte tokenizer with the family's control tokens and template."""
    llama = family == "llama3"
    core = Tokenizer(BPE(vocab={symbol: index for index, symbol in enumerate(sorted(ByteLevel.alphabet()))}, merges=[]))
    core.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = ByteLevelDecoder()
    core.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in (LLAMA_SPECIAL if llama else QWEN_SPECIAL)]
    )
    if not llama:
        core.add_tokens([AddedToken(text, normalized=False) for text in QWEN_PLAIN])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|begin_of_text|>" if llama else None,
        eos_token="<|eot_id|>" if llama else "<|im_end|>",
        chat_template=template(family),
        clean_up_tokenization_spaces=False,
    )
