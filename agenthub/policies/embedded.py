"""The embedded policy: a Hugging Face causal language model in this process.

Owns loading and weights; `decoding` owns the loop. The torch work runs in one thread of its own, so the event loop
stays free, and one batch runs at a time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agenthub.errors import HostFault, UserError
from agenthub.policies.decoding import Decoder
from agenthub.policies.sampling import Row
from agenthub.policy import Request
from agenthub.records import Generation

__all__ = ["TINY", "EmbeddedPolicy", "load_model"]

_UNBOUNDED = 1 << 20
"""Context of a model whose config names none."""
TINY = Path(__file__).parent / "tiny"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")


class EmbeddedPolicy:
    """Samples with a model of its own. The same requests in the same order give the same bits.

    `keep_cache` keeps the keys and values of an episode's last turn, so that only new tokens are computed; it changes
    log-probabilities by float noise, and a batch's bits then depend on which of its episodes were played here before.
    """

    lockstep = True

    def __init__(
        self,
        path_or_dir: str | Path = "tiny",
        *,
        name: str = "policy",
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        keep_cache: bool = True,
        batch_rows: int = 256,
    ) -> None:
        """
        Args:
            path_or_dir: a Hugging Face model directory, or `tiny` for the one that comes with the package.
            batch_rows: most rows computed at once; more requests are taken in turns.

        Raises:
            UserError: the directory has no model or no tokenizer that can be loaded.
        """
        self.name = name
        self.path = TINY if str(path_or_dir) == "tiny" else Path(path_or_dir)
        self.model, self.tokenizer = load_model(self.path, device=device, dtype=dtype)
        self.context = int(getattr(self.model.config.get_text_config(), "max_position_embeddings", _UNBOUNDED))
        self._decoder = Decoder(self.model, keep_cache=keep_cache)
        self._batch_rows = batch_rows
        self._version = 0
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedded-policy")
        self._closed = False

    async def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Sample one turn for each request, in order.

        Raises:
            UserError: a prompt is empty or fills the model's context.
            HostFault: the policy is closed.
        """
        if self._closed:
            raise HostFault(f"policy {self.name!r} is closed")
        for request in requests:
            if not 0 < request.prompt_ids.size < self.context:
                raise UserError(
                    f"policy {self.name!r}: a prompt has {request.prompt_ids.size} tokens; "
                    f"expected 1 to {self.context - 1}, so that the context of {self.context} has room for an answer"
                )
        if not requests:
            return []
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, list(requests))

    def weight_version(self) -> int:
        """Version of the weights that serve now; 0 until `load_state`."""
        return self._version

    def load_state(self, state: Mapping[str, Tensor], version: int) -> None:
        """Serve other weights; waits for the batch that runs now. Kept caches are dropped.

        Raises:
            UserError: names or shapes do not fit the model.
        """
        with self._lock:
            try:
                self.model.load_state_dict(state)
            except RuntimeError as error:
                raise UserError(f"policy {self.name!r}: the weights do not fit the model: {error}") from error
            self._decoder.kept.clear()
            self._version = version

    async def forget(self, episodes: Sequence[str]) -> None:
        """Drop what is kept for these episodes, after the batch that runs now."""
        if not self._closed:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self._decoder.kept.forget, list(episodes))

    async def close(self) -> None:
        """Wait for what runs, end the thread and drop the kept caches; safe to call again."""
        self._closed = True
        await asyncio.to_thread(self._thread.shutdown)
        self._decoder.kept.clear()

    def _run(self, requests: Sequence[Request]) -> list[Generation]:
        with self._lock:
            rows = [
                Row.of(place, request, self.context - request.prompt_ids.size) for place, request in enumerate(requests)
            ]
            for start in range(0, len(rows), self._batch_rows):
                self._decoder.sample(rows[start : start + self._batch_rows])
            return [row.generation(self.name, self._version) for row in rows]


def load_model(path: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Model (in evaluation mode) and tokenizer of a Hugging Face directory; nothing is looked up elsewhere.

    Raises:
        UserError: the directory, its config.json, its weights or its tokenizer is missing or cannot be read.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not path.is_dir():
        raise UserError(f"{path}: no such directory; a policy is 'tiny' or a Hugging Face model directory")
    if not (path / "config.json").is_file():
        raise UserError(f"{path}: no config.json; expected a Hugging Face model directory")
    if not any((path / name).is_file() for name in _TOKENIZERS):
        raise UserError(f"{path}: no tokenizer; expected one of {', '.join(_TOKENIZERS)}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, dtype=dtype)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"{path}: cannot be loaded as a causal language model: {error}") from error
    tokenizer.clean_up_tokenization_spaces = False
    return model.to(device).eval(), tokenizer
