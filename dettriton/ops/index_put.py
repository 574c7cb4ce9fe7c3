"""index_put, index_copy: values written to, or added at, the elements or slices that indices name.

Without ``accumulate`` it is data movement: of several values for one element the last wins, the one of the highest
place in row-major order of the values; an integer maximum of places finds it. Its gradient: +0 for an element that was
overwritten and ``grad`` for the others; for a value that stayed the element's ``grad``, +0 for one that lost.

With ``accumulate`` it is index_add's definition: the exact sum (R2) of the element and its values, rounded once; an
element without values keeps its bits. Gradient: ``grad``; for each value its element's ``grad``.

The gradient of values that were broadcast is an exact sum.

index_copy writes slices along one dimension by the same rule.
"""

import math
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.ops._broadcast import expand
from dettriton.ops._compile import of_the_inputs_shape
from dettriton.ops._contract import contract
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._indexing import from_rows, last_writers, rows_along, take
from dettriton.ops.index_add import AddRows, checked_slices

INTEGERS = (torch.int64, torch.int32)
MASKS = (torch.bool, torch.uint8)


class WriteRows(torch.autograd.Function):
    """Rows written over the rows of a matrix that ``slots`` names, the last one of each slot."""

    @staticmethod
    def forward(ctx: Any, op: str, x: torch.Tensor, slots: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        engine_for(x, slots, values)
        ctx.op = op
        writers = last_writers(slots, x.shape[0])
        ctx.save_for_backward(slots, writers)
        return torch.where(writers[:, None] >= 0, take(values, writers), x)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        slots, writers = ctx.saved_tensors
        nothing = torch.zeros((), dtype=grad.dtype, device=grad.device)
        stayed = take(writers, slots) == torch.arange(len(slots), dtype=torch.int64, device=grad.device)
        grad_x = torch.where(writers[:, None] >= 0, nothing, grad)
        return None, grad_x, None, torch.where(stayed[:, None], take(grad, slots), nothing)


def _named_rows(op: str, shape: torch.Size, indices: tuple[torch.Tensor | None, ...]) -> tuple[torch.Tensor, int]:
    """The row-major places that the indices name among the leading dimensions they reach, and how many dimensions.

    torch's own indexing of the places themselves broadcasts, wraps negative indices and puts dimensions in order.
    """
    reached = 0
    keys: list[torch.Tensor | slice] = []
    for index in indices:
        if index is None:
            reached += 1
            keys.append(slice(None))
            continue
        if index.dtype in MASKS and index.device.type != "cpu":
            raise InputError(f"{op}: a mask's shape depends on its values; on a GPU pass mask.nonzero(as_tuple=True)")
        if index.dtype not in (*INTEGERS, *MASKS):
            raise InputError(f"{op}: indices must be torch.int64, torch.int32 or torch.bool, got {index.dtype}")
        reached += index.dim() if index.dtype in MASKS else 1
        keys.append(index.to(torch.int64) if index.dtype in INTEGERS else index.bool())
    if reached > len(shape):
        raise InputError(f"{op}: the indices reach {reached} dimensions of a tensor of shape {tuple(shape)}")
    device = next(index.device for index in indices if index is not None)
    places = torch.arange(math.prod(shape[:reached]), dtype=torch.int64, device=device).view(shape[:reached])
    try:
        return places[tuple(keys)], reached
    except (IndexError, RuntimeError) as error:
        raise InputError(f"{op}: the indices do not fit a tensor of shape {tuple(shape)}: {error}") from error


@contract(
    "Indexing",
    definition="accumulate: exact windowed sum of the element and its values; otherwise the last value in row-major "
    "order wins; gradient: data movement",
    error="exact; accumulate half an ulp + 2^-32 of the largest term for each term",
    batch_invariant=False,
    kernels=True,
    mirrors="index_put",
    fake=of_the_inputs_shape,
)
def index_put(
    input: torch.Tensor, indices: tuple[torch.Tensor | None, ...], values: torch.Tensor, accumulate: bool = False
) -> torch.Tensor:
    """``input`` with values written or added where several indices point, as :func:`torch.index_put`.

    Args:
        input: binary32, any shape with a dimension.
        indices: one tensor for each leading dimension, int64 or int32 of shapes that broadcast, negative ones counting
            from the end; None for all of a dimension; on the CPU also masks, which stand for as many dimensions as
            they have.
        values: binary32, any shape that broadcasts to that of ``input[indices]``.
        accumulate: whether values are added; otherwise the last value for an element, in row-major order of the
            broadcast values, is written.

    Returns:
        A tensor of the input's shape. A sum includes the element itself and is rounded to nearest even once: error at
        most half an ulp plus ``2**-32`` of the largest magnitude for each term, and the same bits for any order of the
        values; the canonical NaN where a term is NaN or infinite.

    Raises:
        InputError: a type or shape is wrong, a mask is on a GPU, or, on the CPU, an index is out of range. On a GPU
            that stops the device, as in torch.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    return _put("index_put", input, tuple(indices), values, accumulate)


def _put(
    op: str, input: torch.Tensor, indices: tuple[torch.Tensor | None, ...], values: torch.Tensor, accumulate: bool
) -> torch.Tensor:
    """index_put for the public ``op``."""
    require_float32(op, input=input, values=values)
    if all(index is None for index in indices):
        raise InputError(f"{op}: indices must hold at least one tensor")
    engine_for(input, values, *(index for index in indices if index is not None))
    places, reached = _named_rows(op, input.shape, indices)
    rest = input.shape[reached:]
    columns = math.prod(rest)
    named = (*places.shape, *rest)
    try:
        values = expand(values, named).reshape(places.numel(), columns)
    except RuntimeError as error:
        raise InputError(f"{op}: values of shape {tuple(values.shape)} do not broadcast to {named}") from error
    matrix = input.reshape(math.prod(input.shape[:reached]), columns)
    slots = places.reshape(-1)
    y = AddRows.apply(op, matrix, slots, values, 1) if accumulate else WriteRows.apply(op, matrix, slots, values)
    return y.view(input.shape)


@contract(
    "Indexing",
    definition="data movement, the last slice for an index wins; gradient: data movement, +0 for the losers",
    error="exact",
    batch_invariant=False,
    kernels=False,
    mirrors="index_copy",
)
def index_copy(input: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """``input`` with slices written at their index along a dimension, as :func:`torch.index_copy`.

    Args:
        input: binary32, at least one dimension.
        dim: the dimension that ``index`` counts along.
        index: int64 or int32, (N,).
        source: binary32, the input's shape with N along ``dim``.

    Returns:
        A tensor of the input's shape. Of several slices for one index the last is written, and alone gets a gradient,
        where torch leaves both open.

    Raises:
        InputError: a type or shape is wrong, or, on the CPU, an index is out of range. On a GPU, where looking would
            stall the device, such a slice is left out.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    dim, index = checked_slices("index_copy", input, dim, index, source)
    rows = WriteRows.apply("index_copy", rows_along(input, dim), index, rows_along(source, dim))
    return from_rows(rows, dim, input.shape)


@contract(
    "Indexing",
    definition="index_put on the flattened tensor",
    error="exact; accumulate half an ulp + 2^-32 of the largest term for each term",
    batch_invariant=False,
    kernels=True,
    mirrors="put",
)
def put(input: torch.Tensor, index: torch.Tensor, source: torch.Tensor, accumulate: bool = False) -> torch.Tensor:
    """``input`` with values written or added at row-major places, as :func:`torch.put`.

    Args:
        input: binary32, any shape.
        index: int64 or int32 places in the flattened input, any shape, negative ones counting from the end.
        source: binary32, as many elements as ``index``.
        accumulate: add instead of write.

    Returns:
        The input's shape: as :func:`index_put` on the flattened tensors. An element that is added to is one exact sum of
        itself and its values; of several values written to one place the last wins, and the others' gradient is +0.

    Raises:
        InputError: input or source is not binary32, index not an integer tensor, the numbers of elements differ, or an
            index is out of range (on the CPU).
    """
    require_float32("put", input=input, source=source)
    if index.dtype not in INTEGERS:
        raise InputError(f"put: index must be torch.int64 or torch.int32, got {index.dtype}")
    if index.numel() != source.numel():
        raise InputError(f"put: index has {index.numel()} elements and source has {source.numel()}; they must be equal")
    return _put("put", input.reshape(-1), (index.reshape(-1),), source.reshape(-1), accumulate).view(input.shape)
