"""gather, index_select: elements and slices by their index. Forward is data movement.

Gradient: an element's is the exact sum (R2) of the gradients of the outputs that took it, +0 for none, whatever their
order.
"""

from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.ops._contract import contract
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._index_sum import index_sum
from dettriton.ops._indexing import checked_along, checked_index, dimension, flat_slots, from_rows, rows_along


class Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dim: int, index: torch.Tensor) -> torch.Tensor:
        engine_for(x, index)
        ctx.dim, ctx.shape = dim, x.shape
        ctx.save_for_backward(index)
        return torch.gather(x, dim, index)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        slots = flat_slots(index, ctx.dim, ctx.shape)
        return index_sum(grad.reshape(-1, 1), slots, ctx.shape.numel()).view(ctx.shape), None, None


class IndexSelect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dim: int, index: torch.Tensor) -> torch.Tensor:
        engine_for(x, index)
        ctx.dim, ctx.shape = dim, x.shape
        ctx.save_for_backward(index)
        return torch.index_select(x, dim, index)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        if not ctx.shape:
            return index_sum(grad.reshape(-1, 1), index.reshape(-1), 1).view(ctx.shape), None, None
        rows = index_sum(rows_along(grad, ctx.dim), index, ctx.shape[ctx.dim])
        return from_rows(rows, ctx.dim, ctx.shape), None, None


@contract(
    "Indexing",
    definition="data movement; gradient: exact windowed sum over the outputs that took an element",
    error="forward exact; gradient half an ulp + 2^-32 of the largest term for each term",
    batch_invariant=True,
    kernels=True,
    mirrors="gather",
)
def gather(input: torch.Tensor, dim: int, index: torch.Tensor, *, sparse_grad: bool = False) -> torch.Tensor:
    """Elements by their index along a dimension, as :func:`torch.gather`.

    Args:
        input: binary32, any shape.
        dim: the dimension that ``index`` counts along.
        index: int64 or int32, of the input's rank, not larger than it in the other dimensions.
        sparse_grad: only False.

    Returns:
        The elements, of the index's shape. The gradient of an input element is the exact sum of the gradients of the
        outputs that took it: half an ulp plus ``2**-32`` of the largest term for each term.

    Raises:
        InputError: a type or shape is wrong, or, on the CPU, an index is out of range. On a GPU that stops the device.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    require_float32("gather", input=input)
    if sparse_grad:
        raise InputError("gather: sparse gradients are not supported; leave sparse_grad=False")
    dim = dimension("gather", input, dim)
    return Gather.apply(input, dim, checked_along("gather", index, dim, input=input))


@contract(
    "Indexing",
    definition="data movement; gradient: exact windowed sum over the outputs that took a slice",
    error="forward exact; gradient half an ulp + 2^-32 of the largest term for each term",
    batch_invariant=True,
    kernels=True,
    mirrors="index_select",
)
def index_select(input: torch.Tensor, dim: int, index: torch.Tensor) -> torch.Tensor:
    """Slices by their index along a dimension, as :func:`torch.index_select`.

    Args:
        input: binary32, any shape.
        dim: the dimension that ``index`` counts along.
        index: int64 or int32, (N,) or 0-dim.

    Returns:
        The input's shape with N along ``dim``. The gradient of a slice is the exact sum of the gradients of the outputs
        that took it: half an ulp plus ``2**-32`` of the largest term for each term.

    Raises:
        InputError: a type or shape is wrong, or, on the CPU, an index is out of range. On a GPU that stops the device.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    require_float32("index_select", input=input)
    dim = dimension("index_select", input, dim)
    if index.dim() > 1:
        raise InputError(f"index_select: index must have one dimension, got shape {tuple(index.shape)}")
    index = checked_index("index_select", index, input.shape[dim] if input.dim() else 1)
    return IndexSelect.apply(input, dim, index if input.dim() == 0 else index.reshape(-1))
