"""What a native transfer says and sends: names, order, parts, and what it refuses on this machine."""

from __future__ import annotations

import base64
import pickle
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from agenthub.errors import UserError
from agenthub.trainers.adapters import LoraConfig, add_adapters
from agenthub.trainers.sync.packing import flat, until_over, within
from agenthub.trainers.sync.transfer import Broadcast, Ipc, Nccl
from agenthub.trainers.sync.weights import Weights, plain_name
from tests.trainers.fakes import tiny_model

SIZES = st.lists(st.integers(1, 50), max_size=30)


@given(SIZES, st.integers(1, 120))
def test_a_broadcast_is_cut_where_the_workers_cut_it(sizes: list[int], limit: int) -> None:
    # As `packed_nccl_broadcast_consumer` counts.
    expected, total, count = [], 0, 0
    for size in sizes:
        total, count = total + size, count + 1
        if total > limit:
            expected.append(count)
            total, count = 0, 0
    expected += [count] if count else []
    assert [cut.stop - cut.start for cut in until_over(sizes, limit)] == expected


@given(SIZES, st.integers(50, 120))
def test_no_part_of_a_shared_buffer_is_larger_than_it_and_none_is_left_out(sizes: list[int], limit: int) -> None:
    cuts = within(sizes, limit)
    assert [size for cut in cuts for size in sizes[cut]] == sizes
    assert all(0 < sum(sizes[cut]) <= limit for cut in cuts)
    assert all(sum(sizes[a]) + sizes[b.start] > limit for a, b in pairwise(cuts))


def test_a_weight_larger_than_the_buffer_is_refused() -> None:
    with pytest.raises(ValueError, match="weight 1 has 9 bytes, the buffer 8"):
        within([4, 9], 8)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("_orig_mod.model.layers.0._checkpoint_wrapped_module.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("module.lm_head.weight", "lm_head.weight"),
        ("model.layers.0.mlp.up_proj.base.weight", "model.layers.0.mlp.up_proj.weight"),
        ("model.layers.0.mlp.up_proj.lora_A", None),
    ],
)
def test_wrappers_leave_no_trace_in_a_name(name: str, plain: str | None) -> None:
    assert plain_name(name) == plain


def test_weights_are_listed_as_a_checkpoint_holds_them_and_tied_ones_once_or_twice() -> None:
    model = tiny_model()
    once, twice = Weights(model), Weights(model, untie=True, dtype=torch.bfloat16)
    assert {meta.name for meta in once.metas()} == set(model.state_dict()) - {"lm_head.weight"}
    assert {meta.name for meta in twice.metas()} == set(model.state_dict())
    for weights in (once, twice):
        assert [meta for meta, _ in weights] == weights.metas()
        for meta, tensor in weights:
            assert (tensor.dtype, tuple(tensor.shape), tensor.nbytes) == (meta.dtype, meta.shape, meta.nbytes)
    rows = {meta.name: tensor for meta, tensor in twice}
    assert torch.equal(rows["lm_head.weight"], rows["model.embed_tokens.weight"])
    assert {meta.dtype_name for meta in twice.metas()} == {"bfloat16"}


def test_adapters_stay_out_of_the_weights_of_their_model() -> None:
    names = {meta.name for meta in Weights(tiny_model()).metas()}
    adapted = add_adapters(tiny_model(), LoraConfig(rank=2))
    assert {meta.name for meta in Weights(adapted).metas()} == names


class Wire(Broadcast):
    """Broadcasts into a list."""

    backend = "wire"

    def __init__(self, buffer_bytes: int) -> None:
        super().__init__(buffer_bytes=buffer_bytes)
        self.sent: list[Tensor] = []

    def meet(self, host: str, port: int, size: int) -> Any:
        return self

    def broadcast(self, tensor: Tensor, src: int) -> None:
        self.sent.append(tensor.clone())


def unpacked(update: dict[str, Any], rows: Tensor, sizes: list[int]) -> dict[str, Tensor]:
    """What a worker makes of bytes."""
    parts = torch.split(rows, sizes)
    described = zip(update["names"], update["dtype_names"], update["shapes"], parts, strict=True)
    return {name: part.clone().view(getattr(torch, kind)).view(shape) for name, kind, shape, part in described}


@pytest.mark.parametrize("limit", [1, 3000, 1 << 20])
def test_what_is_broadcast_is_every_weight_in_the_order_that_was_told(limit: int) -> None:
    model, wire = tiny_model(), Wire(limit)
    init = wire.init(2)
    assert (init["rank_offset"], init["world_size"], init["packed_buffer_size_bytes"]) == (1, 3, limit)
    wire.join(2)
    weights = Weights(model, dtype=torch.bfloat16)
    (part,) = wire.parts(weights)
    part.send()
    sizes = [meta.nbytes for meta in weights.metas()]
    assert [tensor.numel() for tensor in wire.sent] == [sum(sizes[cut]) for cut in until_over(sizes, limit)]
    rows = unpacked(part.update, torch.cat(wire.sent), sizes)
    for name, value in model.state_dict().items():
        if name != "lm_head.weight":
            assert torch.equal(rows[name], value.bfloat16())


class Shared(Ipc):
    """Shares a buffer of this process."""

    def buffer(self, size: int) -> Tensor:
        self.memory = torch.empty(size, dtype=torch.uint8)
        return self.memory

    def share(self, buffer: Tensor) -> dict[str, tuple[Any, ...]]:
        return {"GPU-0": (buffer.numel(),)}

    def settle(self) -> None:
        """A copy on a CPU is done when it returns."""


@pytest.mark.parametrize("limit", [1, 5000, 1 << 20])
def test_a_shared_buffer_holds_each_part_while_the_server_reads_it(limit: int) -> None:
    model, shared = tiny_model(), Shared(buffer_bytes=limit)
    assert shared.init(1) == {"packed": True}
    rows: dict[str, Tensor] = {}
    largest = max(flat(value).numel() for value in model.state_dict().values())
    for part in shared.parts(Weights(model)):
        sizes = part.update["tensor_sizes"]
        assert sum(sizes) <= shared.memory.numel()
        handles = pickle.loads(base64.b64decode(part.update["ipc_handles_pickled"]))
        assert handles == {"GPU-0": (shared.memory.numel(),)}
        rows |= unpacked(part.update, shared.memory[: sum(sizes)], sizes)
    assert shared.memory.numel() >= largest
    for name, value in model.state_dict().items():
        if name != "lm_head.weight":
            assert torch.equal(rows[name], value)


def test_a_shared_buffer_is_for_one_worker() -> None:
    with pytest.raises(UserError, match="sync is ipc, the server has 2 workers; expected 1, or take nccl"):
        Ipc().init(2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("transfer", [Nccl(), Ipc()])
def test_a_machine_without_a_gpu_refuses_by_name(transfer: Nccl | Ipc) -> None:
    with pytest.raises(UserError, match=f"sync is {transfer.backend}, which needs a GPU, and there is none here"):
        transfer.check(tiny_model())
