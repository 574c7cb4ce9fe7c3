"""index_add: slices added at their index along a dimension, as one exact sum with what was there.

``y[t] = S(x[t], alpha * source[n] for all n with index[n] == t)``: the element itself is one more term of the exact
windowed sum (R2), which is rounded once; each product by ``alpha`` is rounded once (R1), and none is made for alpha 1.
An element that no slice goes to keeps its bits. Gradient: ``grad`` for the input; for the source ``grad[index]``, times
``alpha``.
"""

from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.ops._contract import contract
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._index_sum import index_sum
from dettriton.ops._indexing import checked_index, dimension, from_rows, rows_along, take


def _scaled(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return x if alpha == 1 else x * torch.full((), alpha, dtype=x.dtype, device=x.device)


class AddRows(torch.autograd.Function):
    """Rows added to the rows of a matrix that ``index`` names; SKIP adds nothing."""

    @staticmethod
    def forward(
        ctx: Any, op: str, x: torch.Tensor, index: torch.Tensor, source: torch.Tensor, alpha: float
    ) -> torch.Tensor:
        engine_for(x, index, source)
        ctx.op, ctx.alpha = op, alpha
        ctx.save_for_backward(index)
        return index_sum(_scaled(source, alpha), index, x.shape[0], x)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        grad_source = _scaled(take(grad, index), ctx.alpha) if ctx.needs_input_grad[3] else None
        return None, grad, None, grad_source, None


def checked_slices(
    op: str, input: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor
) -> tuple[int, torch.Tensor]:
    """The dimension and the int64 index of an op that takes a slice of ``source`` for each index."""
    require_float32(op, input=input, source=source)
    if input.dim() == 0 or index.dim() > 1:
        raise InputError(
            f"{op}: input must have a dimension and index one, got shapes {tuple(input.shape)} and {tuple(index.shape)}"
        )
    dim = dimension(op, input, dim)
    index = checked_index(op, index.reshape(-1), input.shape[dim])
    expected = (*input.shape[:dim], len(index), *input.shape[dim + 1 :])
    if tuple(source.shape) != expected:
        raise InputError(f"{op}: source must have shape {expected} for this input and index, got {tuple(source.shape)}")
    return dim, index


@contract(
    "Indexing",
    definition="exact windowed sum of the element and alpha * each slice added to it, rounded once; "
    "gradient: grad, and alpha * grad at the index",
    error="half an ulp + 2^-32 of the largest term for each term",
    batch_invariant=False,
    kernels=True,
    mirrors="index_add",
)
def index_add(
    input: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, *, alpha: float = 1
) -> torch.Tensor:
    """Slices added at their index along a dimension, as :func:`torch.index_add`; their order does not matter.

    Args:
        input: binary32, at least one dimension.
        dim: the dimension that ``index`` counts along.
        index: int64 or int32, (N,).
        source: binary32, the input's shape with N along ``dim``.
        alpha: a factor for the source, rounded to binary32.

    Returns:
        A tensor of the input's shape: for each element the exact sum of its input value and of what is added to it,
        rounded to nearest even once; where nothing is added, the input's bits. Error at most half an ulp plus
        ``2**-32`` of the largest magnitude for each term. The canonical NaN where a term is NaN or infinite.

    Raises:
        InputError: a type or shape is wrong, or, on the CPU, an index is out of range. On a GPU, where looking would
            stall the device, such a slice is left out.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    op = "index_add"
    dim, index = checked_slices(op, input, dim, index, source)
    rows = AddRows.apply(op, rows_along(input, dim), index, rows_along(source, dim), alpha)
    return from_rows(rows, dim, input.shape)
