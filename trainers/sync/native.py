"""Weight sync to a vLLM server by its native weight transfer: no file, and no code of ours in the server.

meet once:  /get_world_size   /init_weight_transfer_engine
each push:  /pause   /start_weight_update   /update_weights (while the trainer sends)   /finish_weight_update
            caches dropped, version told and asked for   /resume   parity probe
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, Protocol, TypeVar

import torch

from agenthub.errors import HostFault
from agenthub.trainers.sync.transfer import Transfer
from agenthub.trainers.sync.vllm import Probed, Serves
from agenthub.trainers.sync.weights import Weights

__all__ = ["NativeSync", "TakesTransfers"]

T = TypeVar("T")
Receive = Callable[[Mapping[str, Any]], Awaitable[None]]


class TakesTransfers(Serves, Protocol):
    """A policy whose server takes weights from a trainer."""

    async def world_size(self) -> int:
        """Workers that take weights."""

    async def join_transfer(self, init: Mapping[str, Any]) -> None:
        """Have the workers meet a trainer."""

    async def load_transferred(
        self, send: Callable[[Receive], Awaitable[None]], version: int, *, mode: Literal["keep", "wait", "abort"]
    ) -> None:
        """Serve weights that a trainer sends."""


class NativeSync(Probed):
    """Sends weights over a `Transfer`, and compares log-probabilities."""

    def __init__(
        self,
        policy: TakesTransfers,
        transfer: Transfer,
        *,
        bound: float,
        mode: Literal["keep", "wait", "abort"] = "keep",
        dtype: torch.dtype | None = None,
        untie: bool = False,
    ) -> None:
        """
        Args:
            dtype: that of the server; None sends weights as they are.
            bound, mode, untie: as `VllmSync`.
        """
        super().__init__(policy, bound=bound, rounded=dtype is torch.bfloat16)
        self._server, self._transfer = policy, transfer
        self._mode: Literal["keep", "wait", "abort"] = mode
        self._dtype, self._untie = dtype, untie
        self._met = False

    async def deliver(self, model: Any, version: int) -> None:
        """Send the model's weights.

        Raises:
            UserError: this machine or the server cannot do it.
            HostFault: it broke off; the server stays paused, as what it holds is mixed.
        """
        device = next(model.parameters()).device
        if not self._met:
            await self._meet(model, device)
        weights = Weights(model, dtype=self._dtype, untie=self._untie)

        async def send(receive: Receive) -> None:
            parts = self._transfer.parts(weights)
            while (part := await _in_thread(lambda: next(parts, None), device)) is not None:
                await _together(receive(part.update), _in_thread(part.send, device))

        await self._server.load_transferred(send, version, mode=self._mode)
        await _in_thread(self._transfer.done, device)

    async def _meet(self, model: Any, device: torch.device) -> None:
        self._transfer.check(model)
        world = await self._server.world_size()
        init = self._transfer.init(world)
        join = _in_thread(lambda: self._transfer.join(world), device)
        await _together(self._server.join_transfer(init), join)
        self._met = True


async def _together(told: Awaitable[None], moved: Awaitable[None]) -> None:
    """Both, or the error of the one that fails first: the other one may wait for it for ever."""
    tasks = [asyncio.ensure_future(told), asyncio.ensure_future(moved)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    except (RuntimeError, ValueError, OSError) as error:
        raise HostFault(f"the transfer of weights broke off: {error}") from error
    finally:
        for task in tasks:
            task.cancel()


async def _in_thread(work: Callable[[], T], device: torch.device) -> T:
    """Run it in a thread that the end of the process does not wait for, on the model's GPU."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if result.cancelled():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        try:
            with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
                outcome: tuple[T | None, BaseException | None] = (work(), None)
        except BaseException as error:
            outcome = (None, error)
        with contextlib.suppress(RuntimeError):
            # The loop may be over: then nobody waits.
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, daemon=True, name="weight-transfer").start()
    return await result
