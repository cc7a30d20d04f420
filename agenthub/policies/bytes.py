"""The tiny policy's tokenizer: bytes, five role tokens and some fixed strings, as a Hugging Face fast tokenizer.

Any text can be encoded, and what is encoded decodes to itself. There are no merges.
"""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from agenthub.renderers.plain import END, ROLES

__all__ = ["FIXED", "VOCABULARY", "byte_tokenizer"]

FIXED = (
    "```python\n",
    "\n```",
    "\\boxed{",
    "print(",
    "sum(range(",
    "+1))",
    "**2",
    "sum ",
    " to ",
    "square ",
    "```output\n",
    "```error\n",
    "```notice\n",
    "(no output)",
    "Traceback (most recent call last):\n",
    "SyntaxError: ",
    "NameError: ",
    "TypeError: ",
    "ZeroDivisionError: ",
)
"""Strings of the arithmetic suite and of the text protocols that are one token each."""

VOCABULARY = 256 + 1 + len(ROLES) + len(FIXED)


def _byte_symbols() -> dict[str, int]:
    """The printable stand-ins of the 256 bytes (GPT-2's table), by byte value."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    return {symbols[byte]: byte for byte in range(256)}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer: ids 0-255 are bytes, then the end and role tokens, then the fixed strings."""
    core = Tokenizer(BPE(vocab=_byte_symbols(), merges=[]))
    core.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = ByteLevelDecoder()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (END, *ROLES.values())])
    core.add_tokens([AddedToken(text, normalized=False) for text in FIXED])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=END,
        pad_token=END,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
