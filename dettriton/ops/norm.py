"""norm: vector norms of order 2, 1, 0, Inf and -Inf; each operation rounded once, ``S`` the exact sum.

Order 2, for ``m = max |x|`` and ``e`` the exponent for which ``2**(e-1) <= m < 2**e`` (but at least that of the
smallest normal number)::

    y = (x * 2**a) * 2**b       a = floor(-e / 2), b = -e - a: in range for any x
    norm = (sqrt(S(y * y)) * 2**c) * 2**d       c = floor(e / 2), d = e - c

so neither overflow nor underflow of a square can spoil it. Order 1: ``S(|x|)``. Inf and -Inf: the largest and smallest
magnitude. 0: how many terms are not zero. A NaN gives the canonical NaN; an infinity gives Inf, as in torch (but for
the orders 0 and -Inf, where it is one term of many).

Gradients: order 2 ``grad * (x / norm)``, +0 where the norm is 0; order 1 ``grad``, ``-grad`` or +0 by the sign of
``x``; Inf and -Inf ``grad / c`` with the sign of ``x`` for each of the ``c`` elements that have the norm's magnitude;
0: +0.

Half precision is computed as binary32 and rounded once more. Composed.
"""

import math
from functools import reduce
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.ops._contract import contract
from dettriton.ops._float_types import (
    narrowed,
    require_float,
    widened,
    with_canonical_nan,
)
from dettriton.ops._function import first_derivative_only
from dettriton.ops._order import magnitude_keys
from dettriton.ops.sum import exact_sum, exact_sum_of_parts, reduced_dims
from dettriton.ops.var import rooted

ORDERS = (2.0, 1.0, 0.0, math.inf, -math.inf)

_FIELDS = {torch.float32: (23, 126, 254), torch.float64: (52, 1022, 2046)}


def _exponent(top: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``e`` of the module's definition, from the bits of the largest magnitude."""
    fraction_bits, bias, highest = _FIELDS[dtype]
    return (top >> fraction_bits).clamp(1, highest) - bias


def _power_of_two(exponent: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    fraction_bits, bias, _ = _FIELDS[dtype]
    return ((exponent + (bias + 1)) << fraction_bits).view(dtype)


def _scaled(x: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    half = exponent >> 1
    return (x * _power_of_two(half, x.dtype)) * _power_of_two(exponent - half, x.dtype)


def _squares(x: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    y = _scaled(x, -exponent)
    return y * y


def _at_infinities(y: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
    """``y``, but Inf where the largest magnitude is Inf, and the canonical NaN where it is NaN."""
    largest = top.view(y.dtype)
    return torch.where(largest < math.inf, y, with_canonical_nan(largest))


def _norm(x: torch.Tensor, p: float, dims: tuple[int, ...]) -> torch.Tensor:
    """The norm over ``dims``, which keep size 1."""
    if p == 0.0:
        there = (x != 0).sum(dims, keepdim=True) if dims else x != 0
        return there.to(x.dtype)
    if any(x.shape[d] == 0 for d in dims):
        return exact_sum(x, dims, keepdim=True)
    keys = magnitude_keys(x)
    top = keys.amax(dims, keepdim=True)
    if p == math.inf:
        return with_canonical_nan(top.view(x.dtype))
    if p == -math.inf:
        nan = top.view(x.dtype)
        return torch.where(nan == nan, keys.amin(dims, keepdim=True).view(x.dtype), with_canonical_nan(nan))
    if p == 1.0:
        return _at_infinities(exact_sum(x.abs(), dims, keepdim=True), top)
    exponent = _exponent(top, x.dtype)
    root = rooted(exact_sum(_squares(x, exponent), dims, keepdim=True))
    return _at_infinities(_scaled(root, exponent), top)


def _norm_grad(grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor, p: float, dims: tuple[int, ...]) -> torch.Tensor:
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    if p == 2.0:
        return torch.where(y == 0, zero, grad * (x / y))
    if p == 0.0:
        return torch.zeros_like(x)
    if p == 1.0:
        return _with_sign_of(x, grad)
    chosen = x.abs() == y
    count = (chosen.sum(dims, keepdim=True) if dims else chosen).to(x.dtype)
    return torch.where(chosen, _with_sign_of(x, grad / count), zero)


def _with_sign_of(x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    return torch.where(x == 0, torch.zeros((), dtype=x.dtype, device=x.device), torch.where(x < 0, -grad, grad))


class Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, p: float, dims: tuple[int, ...], keepdim: bool) -> torch.Tensor:
        engine_for(x)
        y = _norm(x, p, dims)
        ctx.p, ctx.dims = p, dims
        ctx.save_for_backward(x, y)
        return y if keepdim or not dims else y.squeeze(dims)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, y = ctx.saved_tensors
        return _norm_grad(grad.reshape(y.shape), x, y, ctx.p, ctx.dims), None, None, None


def _order(op: str, p: float | str) -> float:
    if p == "fro":
        return 2.0
    if isinstance(p, bool) or not isinstance(p, (int, float)) or float(p) not in ORDERS:
        raise InputError(f"{op}: p must be 2, 1, 0, inf, -inf or 'fro', got {p!r}")
    return float(p)


def _require_terms(op: str, p: float, count: int) -> None:
    if abs(p) == math.inf and count == 0:
        raise InputError(f"{op}: no elements, and a norm of order {p} has no value without one; use order 2, 1 or 0")


@contract(
    "Reductions",
    definition="sqrt(S(y * y)), y = x over the power of two of its maximum, scaled back; gradient: grad * (x / norm)",
    error="p = 2: 1 ulp + n * 2^-32 relative; p = 1: that of sum; p = inf, -inf, 0: exact",
    batch_invariant=True,
    kernels=True,
    mirrors="norm",
)
def norm(
    input: torch.Tensor,
    p: float | str = 2,
    dim: int | tuple[int, ...] | None = None,
    keepdim: bool = False,
    *,
    dtype: None = None,
) -> torch.Tensor:
    """Vector norm over dimensions, as :func:`torch.norm` and :func:`torch.linalg.vector_norm`.

    Args:
        input: binary32, binary64, binary16 or bfloat16, any shape.
        p: 2 (or ``"fro"``), 1, 0, ``inf`` or ``-inf``.
        dim: the dimension or dimensions to reduce; all of them, as one vector, for None.
        keepdim: whether reduced dimensions stay with size 1.
        dtype: only None: the result has the input's type.

    Returns:
        The norms, never spoilt by overflow or underflow of a square: order 2 is ``sqrt(S(y * y))``, scaled back, of the
        terms ``y`` scaled by the power of two of the largest magnitude, with ``S`` the exact sum; its error is at most
        1 ulp plus ``n * 2**-32`` relative (``n * 2**-96`` in binary64). The canonical NaN where a term is NaN, Inf
        where one is infinite (orders 2, 1 and inf). The gradient is ``grad * (x / norm)`` for order 2, and +0 where the
        norm is 0; the module has those of the other orders.

    Raises:
        InputError: ``input`` is not floating-point, ``p`` is another order, ``dim`` is out of range or repeated, or a
            reduced dimension is empty for the orders ``inf`` and ``-inf``.
    """
    require_float("norm", input)
    order = _order("norm", p)
    if dtype is not None:
        raise InputError("norm: dtype is not supported; convert the result with .to(dtype)")
    dims = reduced_dims("norm", input, dim)
    _require_terms("norm", order, math.prod(input.shape[d] for d in dims))
    return narrowed(Norm.apply(widened(input), order, dims, keepdim), input.dtype)


@torch.no_grad()
def total_norm(tensors: list[torch.Tensor], p: float | str = 2) -> torch.Tensor:
    """The norm of all elements of all tensors: that of their concatenation, bit for bit, without making it.

    Args:
        tensors: of any shapes, floating-point, on one device; mixed types are promoted as :func:`torch.cat` does.
        p: as for :func:`norm`.

    Returns:
        A 0-dim tensor outside autograd; binary32 zero for no tensors.

    Raises:
        InputError: a tensor is not floating-point, ``p`` is another order, or no elements for the orders inf and -inf.
    """
    order = _order("total_norm", p)
    _require_terms("total_norm", order, sum(t.numel() for t in tensors))
    if not tensors:
        return torch.zeros(())
    engine_for(*tensors)
    for t in tensors:
        require_float("total_norm", t)
    dtype = reduce(torch.promote_types, (t.dtype for t in tensors))
    computed = torch.float64 if dtype == torch.float64 else torch.float32
    parts = [t.to(computed) for t in tensors if t.numel()] or [tensors[0].to(computed)]
    return narrowed(_norm_of_parts(parts, order), dtype)


def _norm_of_parts(parts: list[torch.Tensor], p: float) -> torch.Tensor:
    first = parts[0]
    if p not in (1.0, 2.0) or first.numel() == 0:
        whole = torch.cat([part.reshape(-1) for part in parts])
        return _norm(whole, p, (0,)).view(())
    top = reduce(torch.maximum, (magnitude_keys(part).amax() for part in parts))
    if p == 1.0:
        return _at_infinities(exact_sum_of_parts((part.abs() for part in parts), like=first), top)
    exponent = _exponent(top, first.dtype)
    squares = (_squares(part, exponent) for part in parts)
    return _at_infinities(_scaled(rooted(exact_sum_of_parts(squares, like=first)), exponent), top)
