"""The processes that share one model: who is asked for which part, and what they tell each other.

Every rank calls the same methods of a learner with the same arguments, in the same order; sums and bounds over ranks
are all that flows between them beside weights and gradients. One process alone is the same code with nothing to tell.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from agenthub.errors import HostFault, UserError

__all__ = ["ALONE", "Ranks", "joined", "world"]

_WAIT = datetime.timedelta(days=30)
"""How long a rank waits to be told what to do next: episodes take their time."""


def world() -> tuple[int, int]:
    """(rank, number of ranks) as torchrun says; (0, 1) where it did not start this process.

    Raises:
        UserError: what it says makes no sense.
    """
    texts = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    try:
        rank, size = int(texts[0]), int(texts[1])
    except ValueError:
        rank, size = -1, 0
    if not 0 <= rank < size:
        raise UserError(f"RANK is {texts[0]!r} and WORLD_SIZE {texts[1]!r}; expected what torchrun sets")
    return rank, size


class Ranks:
    """One process among those that share a model."""

    def __init__(self, rank: int = 0, size: int = 1, orders: Any = None) -> None:
        """
        Args:
            orders: the process group over which rank 0 tells the others what to do; None where it is alone.
        """
        self.rank, self.size, self._orders = rank, size, orders

    def total(self, values: Tensor) -> Tensor:
        """The sum over ranks, in place.

        Raises:
            HostFault: a rank is gone.
        """
        if self.size > 1:
            with _told():
                dist.all_reduce(values)
        return values

    def most(self, value: int, device: torch.device) -> int:
        """The highest over ranks. Raises HostFault: a rank is gone."""
        if self.size == 1:
            return value
        row = torch.tensor([value], device=device)
        with _told():
            dist.all_reduce(row, op=dist.ReduceOp.MAX)
        return int(row)

    def tell(self, order: Any = None) -> Any:
        """What rank 0 says; the others wait for it as long as it takes.

        Raises:
            HostFault: a rank is gone.
        """
        if self.size == 1:
            return order
        row = [order]
        with _told():
            dist.broadcast_object_list(row, src=0, group=self._orders)
        return row[0]


ALONE = Ranks()


@contextmanager
def _told() -> Iterator[None]:
    """What torch says of a peer that is gone, as what the project says."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise HostFault(f"a rank of the training processes is gone or late: {reason}") from error


@contextmanager
def joined(*, device: str, timeout_s: float, alone: bool = False) -> Iterator[Ranks]:
    """Join the processes that torchrun started until the body ends.

    Args:
        device: `cpu` or `cuda`; a CUDA device is taken by the local rank.
        timeout_s: how long a rank waits for the others in the middle of an update.
        alone: also make a group where there is but one process, which sharding needs.

    Raises:
        HostFault: the others do not come in time.
    """
    rank, size = world()
    if size == 1 and not alone:
        yield ALONE
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    timeout = datetime.timedelta(seconds=timeout_s)
    where: dict[str, Any] = {}
    if size == 1:
        where = {"store": dist.HashStore(), "rank": 0, "world_size": 1}  # type: ignore[attr-defined]
    with _told():
        dist.init_process_group(backend, timeout=timeout, **where)
        orders = dist.new_group(backend="gloo", timeout=_WAIT)
    try:
        yield Ranks(rank, size, orders)
    finally:
        dist.destroy_process_group()
