"""prod: multiplication in one fixed tree, each product rounded once (R1).

The ``n`` terms, in row-major order, are padded with ones to ``h``, the next power of two; then, while more than one is
left, element ``i`` of the first half is multiplied by element ``i`` of the second::

    v = (x, 1, 1, ...)      v = v[: h/2] * v[h/2 :]      v = v[: h/4] * v[h/4 :]      ...

Gradient, down the same tree, without a division and so right where terms are zero: the last product has the gradient
``e = grad``; where ``v = a * b``, ``e_a = e_v * b`` and ``e_b = e_v * a``.

Half precision is computed as binary32 and rounded once more. Composed: ``log2(n)`` multiplications of tensors.
"""

import math
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.ops._contract import contract
from dettriton.ops._float_types import narrowed, require_float, widened, with_canonical_nan
from dettriton.ops._function import first_derivative_only
from dettriton.ops.sum import reduced_dims


def tree_levels(rows: torch.Tensor) -> list[torch.Tensor]:
    """All levels of the tree over the first dimension of an (n, kept) matrix, n >= 1: the padded terms first."""
    n, kept = rows.shape
    padding = (1 << (n - 1).bit_length()) - n
    if padding:
        rows = torch.cat((rows, torch.ones(padding, kept, dtype=rows.dtype, device=rows.device)))
    levels = [rows]
    while levels[-1].shape[0] > 1:
        first, second = levels[-1].chunk(2)
        levels.append(first * second)
    return levels


def tree_gradient(grad: torch.Tensor, levels: list[torch.Tensor]) -> torch.Tensor:
    """The gradient of every padded term, (h, kept), from the (1, kept) gradient of the product."""
    for level in reversed(levels[:-1]):
        first, second = level.chunk(2)
        grad = torch.cat((grad * second, grad * first))
    return grad


class Prod(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dims: tuple[int, ...], keepdim: bool) -> torch.Tensor:
        engine_for(x)
        ctx.dims = dims
        ctx.save_for_backward(x)
        shape = [1 if d in dims else s for d, s in enumerate(x.shape)]
        rows = _terms_first(x, dims)
        y = tree_levels(rows)[-1] if rows.shape[0] else torch.ones(shape, dtype=x.dtype, device=x.device)
        y = with_canonical_nan(y).view(shape)
        return y if keepdim or not dims else y.squeeze(dims)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        if x.numel() == 0:
            return torch.zeros_like(x), None, None
        rows = _terms_first(x, ctx.dims)
        found = tree_gradient(grad.reshape(1, -1), tree_levels(rows))[: rows.shape[0]]
        order = _order(x, ctx.dims)
        inverse = sorted(range(x.dim()), key=order.__getitem__)
        return found.reshape([x.shape[d] for d in order]).permute(inverse), None, None


def _order(x: torch.Tensor, dims: tuple[int, ...]) -> list[int]:
    return [*dims, *(d for d in range(x.dim()) if d not in dims)]


def _terms_first(x: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    """``x`` as an (n, kept) matrix of the terms of each product."""
    n = math.prod(x.shape[d] for d in dims)
    kept = math.prod(s for d, s in enumerate(x.shape) if d not in dims)
    return x.permute(_order(x, dims)).reshape(n, kept)


@contract(
    "Reductions",
    definition="padded with ones to a power of two, then halves multiplied pairwise; gradient: down the same tree",
    error="log2(n) half ulps of the result",
    batch_invariant=True,
    kernels=False,
    mirrors="prod",
    fake=torch.sum,
)
def prod(
    input: torch.Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False, *, dtype: None = None
) -> torch.Tensor:
    """Product over dimensions, as :func:`torch.prod`, in one fixed tree of multiplications.

    The terms in row-major order are padded with ones to a power of two; then the first half is multiplied by the
    second, element by element, until one is left. The gradient walks the same tree down, multiplying by the other
    factor, and is right where terms are zero.

    Args:
        input: binary32, binary64, binary16 or bfloat16, any shape.
        dim: the dimension, or a tuple of them, to multiply over; all of them for None.
        keepdim: whether reduced dimensions stay with size 1.
        dtype: only None: the result has the input's type.

    Returns:
        The products, 1 for no terms, the canonical NaN for NaN. Relative error at most ``ceil(log2(n))`` half ulps,
        barring underflow within the tree; half precision adds its own rounding.

    Raises:
        InputError: ``input`` is not floating-point, or ``dim`` is out of range or repeated.
    """
    require_float("prod", input)
    if dtype is not None:
        raise InputError("prod: dtype is not supported; convert the result with .to(dtype)")
    return narrowed(Prod.apply(widened(input), reduced_dims("prod", input, dim), keepdim), input.dtype)
