"""Writes a tiny random chat model into a folder: `tiny_chat_model.py FOLDER`. It says tool calls, and ends.

Its tokenizer knows bytes and three whole tool calls; the bias of its last layer makes it say those.
"""

from __future__ import annotations

import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PhiConfig, PhiForCausalLM, PreTrainedTokenizerFast
from trl.chat_template_utils import qwen2_5_chat_template

CALL = '<tool_call>\n{{"name": "{}", "arguments": {{"{}": "{}"}}}}\n</tool_call>'
CALLS = [("python", "code", "6*7"), ("python", "code", "1/0"), ("submit_answer", "answer", "42")]


def main(folder: str) -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_ = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    bytes_.pre_tokenizer, bytes_.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bytes_.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    bytes_.add_tokens([CALL.format(*call) for call in CALLS])
    tokens = PreTrainedTokenizerFast(tokenizer_object=bytes_, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokens.chat_template = qwen2_5_chat_template
    end = tokens.convert_tokens_to_ids("<|im_end|>")
    torch.manual_seed(0)
    model = PhiForCausalLM(
        PhiConfig(
            vocab_size=len(tokens),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            eos_token_id=end,
            bos_token_id=None,
            pad_token_id=tokens.pad_token_id,
        )
    )
    with torch.no_grad():
        model.lm_head.bias[:end] = -20.0
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1])
