"""softmax and log_softmax over the rows of a matrix (any other dimension is moved there, which is exact).

Written order, every operation rounded once to binary32 (R1), ``S`` an exact sum rounded once (R2), exp and log the
library's own (R3)::

    m = max x      s = x - m      e = exp(s)      Z = S(e)
    softmax        p = e / Z              grad_x = p * (g - S(g * p))
    log_softmax    l = s - log(Z)         grad_x = g - (p * S(g))

The largest ``e`` is ``exp(0) = 1``, so the window of the largest term is always 0 and ``Z`` is one integer sum,
``sum(trunc(e * 2**32))`` rounded to 24 bits, times ``2**-32``. A row holding NaN or +Inf, or nothing but -Inf, has no
softmax: all its results are the canonical NaN. A -Inf beside finite values is a probability of +0.
Batch-invariant: a row's result depends on that row alone.
"""

import math
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.exact import compiled_elementwise
from dettriton.exact._jit import compiles
from dettriton.exact.elementary import exp
from dettriton.exact.ieee import canonical_nan
from dettriton.ops._contract import contract
from dettriton.ops._device_elementary import log_f32
from dettriton.ops._device_rows import (
    add_terms,
    exp_over_total,
    largest_bits,
    rounded_sum,
    row_plan,
    row_tile,
    row_variants,
    softmax_statistics,
    store_row_tile,
)
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._launch import kernel, tl
from dettriton.ops.elementary import LOG
from dettriton.ops.sum import exact_sum


@kernel("*fp32 *fp32 i64 i64", *row_variants(LOG=False), *row_variants(LOG=True))
def _softmax_fwd_kernel(x_ptr, y_ptr, R, C, LOG: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    top, total = softmax_statistics(x_ptr, rows, R, C, BLOCK_R, BLOCK_C)
    for start in range(0, C, BLOCK_C):
        x = row_tile(x_ptr, rows, start, R, C, float("-inf"), BLOCK_C)
        y = (x - top) - log_f32(total) if LOG else exp_over_total(x, top, total, BLOCK_R, BLOCK_C)
        store_row_tile(y_ptr, rows, start, R, C, tl.where(total == total, y, float("nan")), BLOCK_C)


@kernel("*fp32 *fp32 *fp32 i64 i64", *row_variants(LOG=False), *row_variants(LOG=True))
def _softmax_bwd_kernel(
    grad_ptr, kept_ptr, grad_x_ptr, R, C, LOG: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr
):
    """``kept`` is p, or x if LOG."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    if LOG:
        top, total = softmax_statistics(kept_ptr, rows, R, C, BLOCK_R, BLOCK_C)
    bits = tl.zeros((BLOCK_R, 1), tl.int32)
    hi = tl.zeros((BLOCK_R, 1), tl.int64)
    lo = tl.zeros((BLOCK_R, 1), tl.int64)
    for start in range(0, C, BLOCK_C):
        terms = row_tile(grad_ptr, rows, start, R, C, 0.0, BLOCK_C)
        if not LOG:
            terms = terms * row_tile(kept_ptr, rows, start, R, C, 0.0, BLOCK_C)
        bits = largest_bits(bits, terms)
    for start in range(0, C, BLOCK_C):
        terms = row_tile(grad_ptr, rows, start, R, C, 0.0, BLOCK_C)
        if not LOG:
            terms = terms * row_tile(kept_ptr, rows, start, R, C, 0.0, BLOCK_C)
        hi, lo = add_terms(hi, lo, terms, bits)
    row_sum = rounded_sum(hi, lo, bits)
    for start in range(0, C, BLOCK_C):
        grad = row_tile(grad_ptr, rows, start, R, C, 0.0, BLOCK_C)
        if LOG:
            x = row_tile(kept_ptr, rows, start, R, C, float("-inf"), BLOCK_C)
            grad_x = grad - exp_over_total(x, top, total, BLOCK_R, BLOCK_C) * row_sum
        else:
            grad_x = row_tile(kept_ptr, rows, start, R, C, 0.0, BLOCK_C) * (grad - row_sum)
        store_row_tile(grad_x_ptr, rows, start, R, C, grad_x, BLOCK_C)


def softmax_parts_torch(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``(m, e, Z)`` of the rows of an (R, C) matrix, shapes (R, 1), (R, C), (R, 1); ``(0, 1, NaN)`` without softmax."""
    zero = torch.zeros((), dtype=x.dtype)
    top = x.amax(1, keepdim=True)
    usable = top.abs() < math.inf
    e = exp(torch.where(usable, x - top, zero))
    total = (e * 2.0**32).to(torch.int64).sum(1, keepdim=True).to(torch.float32) * 2.0**-32
    return torch.where(usable, top, zero), e, torch.where(usable, total, canonical_nan(x))


def softmax_totals_torch(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``(m, Z)`` of the rows of an (R, C) matrix, shapes (R, 1); ``(0, NaN)`` without softmax."""
    if compiles():
        return compiled_elementwise.softmax_totals_of(x)
    top, _, total = softmax_parts_torch(x)
    return top, total


def softmax_torch(x: torch.Tensor) -> torch.Tensor:
    if compiles():
        return compiled_elementwise.softmax_of(x)
    _, e, total = softmax_parts_torch(x)
    return torch.where(total == total, e / total, canonical_nan(x))


def log_softmax_torch(x: torch.Tensor) -> torch.Tensor:
    top, total = softmax_totals_torch(x)
    return torch.where(total == total, (x - top) - LOG.on_cpu(total), canonical_nan(x))


def softmax_grad_torch(grad: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    return p * (grad - exact_sum(grad * p, (1,), keepdim=True))


def log_softmax_grad_torch(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return grad - softmax_torch(x) * exact_sum(grad, (1,), keepdim=True)


def _forward_triton(x: torch.Tensor, log_of_it: bool) -> torch.Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    grid, plan = row_plan(*x.shape)
    _softmax_fwd_kernel(grid, x, y, *x.shape, LOG=log_of_it, **plan)
    return y


def _backward_triton(grad: torch.Tensor, kept: torch.Tensor, log_of_it: bool) -> torch.Tensor:
    grad, kept = grad.contiguous(), kept.contiguous()
    grad_x = torch.empty_like(kept)
    grid, plan = row_plan(*kept.shape)
    _softmax_bwd_kernel(grid, grad, kept, grad_x, *kept.shape, LOG=log_of_it, **plan)
    return grad_x


def softmax_triton(x: torch.Tensor) -> torch.Tensor:
    return _forward_triton(x, False)


def log_softmax_triton(x: torch.Tensor) -> torch.Tensor:
    return _forward_triton(x, True)


def softmax_grad_triton(grad: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    return _backward_triton(grad, p, False)


def log_softmax_grad_triton(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return _backward_triton(grad, x, True)


FORWARD = {"torch": softmax_torch, "triton": softmax_triton}
BACKWARD = {"torch": softmax_grad_torch, "triton": softmax_grad_triton}
LOG_FORWARD = {"torch": log_softmax_torch, "triton": log_softmax_triton}
LOG_BACKWARD = {"torch": log_softmax_grad_torch, "triton": log_softmax_grad_triton}


class Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        p = FORWARD[engine_for(x)](x)
        ctx.save_for_backward(p)
        return p

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (p,) = ctx.saved_tensors
        return BACKWARD[engine_for(grad, p)](grad, p)


class LogSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return LOG_FORWARD[engine_for(x)](x)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return LOG_BACKWARD[engine_for(grad, x)](grad, x)


@contract(
    "Softmax and losses",
    definition="e = exp(x - max), e over the exact sum of e; gradient p (g - S(g p)) with S the exact sum",
    error="2.8 * 2^-23 + C * 2^-32 relative, for the rounded x - max",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.softmax",
)
def softmax(
    input: torch.Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Softmax over ``dim``, as :func:`torch.nn.functional.softmax`.

    ``m = max x``, ``e = exp(x - m)``, ``p = e / S(e)`` with ``S`` the exact sum rounded once to binary32; the gradient
    is ``p * (g - S(g * p))``. Each written operation is rounded once. For the rounded ``x - m``, the relative error of
    a probability above ``2**-126`` is at most ``2.8 * 2**-23 + C * 2**-32``.

    Args:
        input: binary32, any shape.
        dim: the dimension to normalise over; required, torch's guess for ``None`` is refused.
        _stacklevel: accepted for compatibility, unused.
        dtype: ``None`` or ``torch.float32``.

    Returns:
        A tensor of the input's shape. Where the values along ``dim`` hold NaN or +Inf, or only -Inf, all results there
        are the canonical NaN; a -Inf beside finite values gives +0.

    Raises:
        InputError: ``input`` is not binary32, ``dim`` is missing or out of range, or ``dtype`` asks for another type.
        EngineError: the engine cannot run on the input's device.
    """
    return _over_rows("softmax", Softmax, input, dim, dtype)


@contract(
    "Softmax and losses",
    definition="(x - max) - log(exact sum of exp(x - max)); gradient g - p S(g) with S the exact sum",
    error="1.5 * 2^-23 + C * 2^-32, 0.91 ulp of log Z and half an ulp",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.log_softmax",
)
def log_softmax(
    input: torch.Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Logarithm of the softmax over ``dim``, as :func:`torch.nn.functional.log_softmax`.

    ``m = max x``, ``s = x - m``, ``l = s - log(S(exp(s)))`` with ``S`` the exact sum rounded once to binary32; the
    gradient is ``g - (p * S(g))`` with ``p = exp(s) / S(exp(s))``. Each written operation is rounded once. For the
    rounded ``x - m`` the error is at most ``1.5 * 2**-23 + C * 2**-32``, 0.91 ulp of ``log Z`` and half an ulp of the
    result.

    Args:
        input: binary32, any shape.
        dim: the dimension to normalise over; required, torch's guess for ``None`` is refused.
        _stacklevel: accepted for compatibility, unused.
        dtype: ``None`` or ``torch.float32``.

    Returns:
        A tensor of the input's shape. Where the values along ``dim`` hold NaN or +Inf, or only -Inf, all results there
        are the canonical NaN; a -Inf beside finite values gives -Inf.

    Raises:
        InputError: ``input`` is not binary32, ``dim`` is missing or out of range, or ``dtype`` asks for another type.
        EngineError: the engine cannot run on the input's device.
    """
    return _over_rows("log_softmax", LogSoftmax, input, dim, dtype)


def _over_rows(
    op: str, function: type[torch.autograd.Function], x: torch.Tensor, dim: int | None, dtype: torch.dtype | None
) -> torch.Tensor:
    require_float32(op, input=x)
    if dtype not in (None, torch.float32):
        raise InputError(f"{op}: results are torch.float32, got dtype={dtype}; convert the result instead")
    rank = max(x.dim(), 1)
    if dim is None or not -rank <= dim < rank:
        raise InputError(f"{op}: dim must be an integer in [{-rank}, {rank - 1}] for this input, got {dim}")
    if x.numel() == 0:
        return x.clone()
    moved = x.reshape(x.shape or (1,)).movedim(dim, -1)
    return function.apply(moved.reshape(-1, moved.shape[-1])).reshape(moved.shape).movedim(-1, dim).reshape(x.shape)
