"""logsumexp: ``m + log(S(exp(x - m)))`` over the rows of a matrix, with softmax's statistics; see ``softmax.py``.

Written order, every operation rounded once to binary32 (R1), ``S`` exact and rounded once (R2), exp and log the
library's own (R3)::

    m = max x      Z = S(exp(x - m))      lse = m + log(Z)      grad_x = grad * (exp(x - m) / Z)

A row holding NaN gives the canonical NaN. Otherwise a row whose maximum is infinite gives that maximum, as in torch; it
has no softmax, so its gradient is NaN. No terms: -Inf. Batch-invariant. Half precision is computed as binary32 and
rounded once more.
"""

import math
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.exact.ieee import canonical_nan
from dettriton.ops._contract import contract
from dettriton.ops._device_elementary import log_f32
from dettriton.ops._device_rows import row_plan, row_tile, row_variants, softmax_statistics
from dettriton.ops._float_types import HALF, narrowed, require_float, widened
from dettriton.ops._function import first_derivative_only
from dettriton.ops._launch import kernel, tl
from dettriton.ops.elementary import LOG
from dettriton.ops.softmax import FORWARD as SOFTMAX
from dettriton.ops.softmax import softmax_totals_torch
from dettriton.ops.sum import Sum, reduced_dims


@kernel("*fp32 *fp32 i64 i64", *row_variants())
def _logsumexp_kernel(x_ptr, y_ptr, R, C, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    top, total = softmax_statistics(x_ptr, rows, R, C, BLOCK_R, BLOCK_C)
    nans = tl.zeros((BLOCK_R, 1), tl.int32)
    largest = tl.full((BLOCK_R, 1), float("-inf"), tl.float32)
    for start in range(0, C, BLOCK_C):
        x = row_tile(x_ptr, rows, start, R, C, float("-inf"), BLOCK_C)
        nans += tl.sum((x != x).to(tl.int32), axis=1)[:, None]
        largest = tl.maximum(largest, tl.max(tl.where(x == x, x, float("-inf")), axis=1)[:, None])
    y = tl.where(total == total, top + log_f32(total), largest)
    tl.store(y_ptr + rows[:, None], tl.where(nans == 0, y, float("nan")), mask=rows[:, None] < R)


def logsumexp_torch(x: torch.Tensor) -> torch.Tensor:
    top, total = softmax_totals_torch(x)
    largest = x.amax(1, keepdim=True)
    y = torch.where(largest.abs() < math.inf, top + LOG.on_cpu(total), largest)
    return torch.where(y == y, y, canonical_nan(x)).squeeze(1)


def logsumexp_triton(x: torch.Tensor) -> torch.Tensor:
    x = x.contiguous()
    y = torch.empty(x.shape[0], dtype=x.dtype, device=x.device)
    grid, plan = row_plan(*x.shape)
    _logsumexp_kernel(grid, x, y, *x.shape, **plan)
    return y


FORWARD = {"torch": logsumexp_torch, "triton": logsumexp_triton}


class LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return FORWARD[engine_for(x)](x)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return grad[:, None] * SOFTMAX[engine_for(grad, x)](x)


@contract(
    "Reductions",
    definition="m + log(S(exp(x - m))), m = max x; gradient: grad * softmax",
    error="1.5 * 2^-23 + n * 2^-32 + 0.91 ulp of log Z + half an ulp of the result",
    batch_invariant=True,
    kernels=True,
    mirrors="logsumexp",
    fake=torch.sum,
)
def logsumexp(input: torch.Tensor, dim: int | tuple[int, ...], keepdim: bool = False) -> torch.Tensor:
    """Logarithm of the sum of exponentials over dimensions, as :func:`torch.logsumexp`.

    Args:
        input: binary32, binary16 or bfloat16, any shape. There are no binary64 elementary functions.
        dim: the dimension or dimensions to reduce.
        keepdim: whether reduced dimensions stay with size 1.

    Returns:
        ``m + log(S(exp(x - m)))`` with ``m`` the largest term and ``S`` the exact sum rounded once. For the rounded
        ``x - m`` the error is at most ``1.5 * 2**-23 + n * 2**-32``, 0.91 ulp of the logarithm and half an ulp of the
        result. A NaN gives the canonical NaN; otherwise an infinite maximum is the result. -Inf for no terms. The
        gradient is ``grad * (exp(x - m) / Z)``; NaN where the result is not finite.

    Raises:
        InputError: ``input`` is binary64 or not floating-point, or ``dim`` is out of range or repeated.
    """
    require_float("logsumexp", input, (torch.float32, *HALF))
    dims = reduced_dims("logsumexp", input, dim)
    x = widened(input)
    kept = [d for d in range(x.dim()) if d not in dims]
    rows = x.permute([*kept, *dims]).reshape(math.prod(x.shape[d] for d in kept), math.prod(x.shape[d] for d in dims))
    shape = [1 if d in dims else s for d, s in enumerate(x.shape)]
    if rows.numel() == 0:
        y = torch.full(shape, -math.inf, dtype=x.dtype, device=x.device) + Sum.apply(x, dims, True)
    else:
        y = LogSumExp.apply(rows).reshape(shape)
    return narrowed(y if keepdim or not dims else y.squeeze(dims), input.dtype)
