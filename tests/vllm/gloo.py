"""The trainer's side of `gloo_engine`: the same broadcasts as over NCCL."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from agenthub.trainers.sync.transfer import Broadcast
from tests.vllm.gloo_engine import meet


class Gloo(Broadcast):
    """Broadcasts over gloo, on a CPU."""

    backend = "gloo"

    def meet(self, host: str, port: int, size: int) -> Any:
        return Group(meet(host, port, 0, size))


class Group:
    """A gloo group with the one call that a transfer makes."""

    def __init__(self, group: Any) -> None:
        self._group = group

    def broadcast(self, tensor: Tensor, src: int) -> None:
        self._group.broadcast(tensor, src).wait()
