"""vLLM's native weight transfer from the trainer's side: what is said over HTTP, and what moves beside it.

`Nccl` broadcasts from a GPU of its own to the server's GPUs. `Ipc` lends the server, on the same GPU, a buffer. Both
pack weights as the engines of vLLM 0.32 unpack them.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import pickle
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from agenthub.errors import UserError
from agenthub.trainers.sync.packing import flat, until_over, within
from agenthub.trainers.sync.weights import Meta, Weights

__all__ = ["Broadcast", "Ipc", "Nccl", "Part", "Transfer", "transfer_of"]

BUFFER_BYTES = 1 << 30
BUFFERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Weights that the server takes in one request."""

    update: dict[str, Any]
    """The request's `update_info`."""
    send: Callable[[], None]
    """Moves the bytes; called while the request is open, in a thread."""


class Transfer(Protocol):
    """One backend of vLLM's weight transfer."""

    backend: str

    def check(self, model: Any) -> None:
        """Raises UserError where this machine or this model's place does not allow the backend."""

    def init(self, world: int) -> dict[str, Any]:
        """The `init_info` for a server of so many workers; called once, before `join`."""

    def join(self, world: int) -> None:
        """Meet the workers; called in a thread while they are told `init`."""

    def parts(self, weights: Weights) -> Iterator[Part]:
        """All weights, part by part; the next part is asked for when the server has the last one."""

    def done(self) -> None:
        """The server has all of them, and serves them."""

    def close(self) -> None:
        """Leave the workers; safe to call again."""


class Broadcasts(Protocol):
    """A group of processes in which the trainer is rank 0."""

    def broadcast(self, tensor: Tensor, src: int) -> None:
        """Send the tensor, or start to."""


class Broadcast:
    """What is common to backends in which the trainer broadcasts to all workers at once."""

    backend = ""

    def __init__(self, *, host: str = "127.0.0.1", buffer_bytes: int = BUFFER_BYTES) -> None:
        """
        Args:
            host: an address of this machine that the workers reach.
            buffer_bytes: what travels together; the server takes twice as much memory.
        """
        self._host, self._buffer = host, buffer_bytes
        self._port = 0
        self._group: Broadcasts | None = None

    def check(self, model: Any) -> None:
        """As `Transfer`."""

    def init(self, world: int) -> dict[str, Any]:
        """As `Transfer`: where to meet, as rank 1 and up, and how weights are packed."""
        self._port = _free_port(self._host)
        return {
            "master_address": self._host,
            "master_port": self._port,
            "rank_offset": 1,
            "world_size": world + 1,
            "packed": True,
            "packed_buffer_size_bytes": self._buffer,
            "packed_num_buffers": BUFFERS,
        }

    def join(self, world: int) -> None:
        """As `Transfer`."""
        self._group = self.meet(self._host, self._port, world + 1)

    def meet(self, host: str, port: int, size: int) -> Broadcasts:
        """The group of `size`, as rank 0."""
        raise NotImplementedError

    def parts(self, weights: Weights) -> Iterator[Part]:
        """As `Transfer`: one, since the workers read all of it in one request."""
        metas = weights.metas()
        yield Part(update=described(metas), send=lambda: self._send(weights, metas))

    def _send(self, weights: Weights, metas: list[Meta]) -> None:
        group, rows = self._group, iter(weights)
        if group is None:
            raise RuntimeError("weights are sent before the workers were met")
        with self.settled():
            for cut in until_over([meta.nbytes for meta in metas], self._buffer):
                group.broadcast(torch.cat([flat(next(rows)[1]) for _ in range(cut.start, cut.stop)]), src=0)

    @contextlib.contextmanager
    def settled(self) -> Iterator[None]:
        """Broadcasts that the body only starts are over when it is left."""
        yield

    def done(self) -> None:
        """As `Transfer`."""

    def close(self) -> None:
        """As `Transfer`."""
        self._group = None


class Nccl(Broadcast):
    """Broadcast over NCCL, which wants a GPU for each rank: the trainer's is not one of the server's.

    The group is vLLM's own, so vLLM has to be importable here.
    """

    backend = "nccl"
    _stream: Any = None

    def check(self, model: Any) -> None:
        """As `Transfer`."""
        _on_gpu(model, self.backend)
        if importlib.util.find_spec("vllm") is None:
            raise UserError(
                "policy.vllm.sync is nccl, whose group is vLLM's own: install vLLM beside agenthub (pip install "
                "'agenthub[vllm]'), or take sync: ipc or directory"
            )

    def meet(self, host: str, port: int, size: int) -> Broadcasts:
        """As `Broadcast`."""
        module = importlib.import_module("vllm.distributed.weight_transfer.nccl_common")
        group: Broadcasts = module.trainer_init({"master_address": host, "master_port": port, "world_size": size})
        return group

    @contextlib.contextmanager
    def settled(self) -> Iterator[None]:
        """As `Broadcast`. All pushes go through one stream.

        vLLM would make one for each thread that sends, and the memory that torch took on it would stay with it.
        """
        if self._stream is None:
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        # The weights were written on the stream that is current before.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        self._stream.synchronize()


class Ipc:
    """A buffer on a GPU that trainer and server share, filled part by part.

    Its handle is pickled, so the server has to run with VLLM_ALLOW_INSECURE_SERIALIZATION=1.
    """

    backend = "ipc"

    def __init__(self, *, buffer_bytes: int = BUFFER_BYTES) -> None:
        """
        Args:
            buffer_bytes: of GPU memory while weights are pushed; a larger weight makes it larger.
        """
        self._limit = buffer_bytes

    def check(self, model: Any) -> None:
        """As `Transfer`."""
        _on_gpu(model, self.backend)

    def init(self, world: int) -> dict[str, Any]:
        """As `Transfer`. Raises UserError where the server has several GPUs: one of them would not see the buffer."""
        if world != 1:
            raise UserError(f"policy.vllm.sync is ipc, the server has {world} workers; expected 1, or take nccl")
        return {"packed": True}

    def join(self, world: int) -> None:
        """As `Transfer`: there is nobody to meet."""

    def parts(self, weights: Weights) -> Iterator[Part]:
        """As `Transfer`."""
        metas, rows = weights.metas(), iter(weights)
        sizes = [meta.nbytes for meta in metas]
        buffer = self.buffer(max([min(self._limit, sum(sizes)), *sizes]))
        handle = base64.b64encode(pickle.dumps(self.share(buffer))).decode()
        for cut in within(sizes, buffer.numel()):
            begin = 0
            for size in sizes[cut]:
                buffer[begin : begin + size].copy_(flat(next(rows)[1]))
                begin += size
            self.settle()
            told = described(metas[cut]) | {"tensor_sizes": sizes[cut], "ipc_handles_pickled": handle}
            yield Part(update=told, send=lambda: None)

    def buffer(self, size: int) -> Tensor:
        """u8[size] on the GPU."""
        return torch.empty(size, dtype=torch.uint8, device="cuda")

    def share(self, buffer: Tensor) -> dict[str, tuple[Any, ...]]:
        """The buffer's handle, by the GPU that it is on."""
        from torch.multiprocessing.reductions import reduce_tensor

        properties = torch.cuda.get_device_properties(buffer.device)
        return {str(properties.uuid): reduce_tensor(buffer)[1]}  # type: ignore[no-untyped-call]

    def settle(self) -> None:
        """Wait until the buffer is written."""
        torch.cuda.synchronize()

    def done(self) -> None:
        """As `Transfer`: the buffer that the server let go of is freed."""
        torch.cuda.ipc_collect()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """As `Transfer`."""


def transfer_of(backend: str, *, host: str = "127.0.0.1") -> Transfer:
    """`nccl` or `ipc`."""
    return Nccl(host=host) if backend == "nccl" else Ipc()


def described(metas: list[Meta]) -> dict[str, Any]:
    """Names, types and shapes, as every backend of vLLM's wants them."""
    return {
        "names": [meta.name for meta in metas],
        "dtype_names": [meta.dtype_name for meta in metas],
        "shapes": [list(meta.shape) for meta in metas],
    }


def _on_gpu(model: Any, backend: str) -> None:
    device = next(model.parameters()).device
    if not torch.cuda.is_available():
        raise UserError(f"policy.vllm.sync is {backend}, which needs a GPU, and there is none here; take directory")
    if device.type != "cuda":
        raise UserError(f"policy.vllm.sync is {backend}, the trained model is on {device.type}; take directory")


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
