"""cumprod: products from left to right, each rounded once (R1): ``y[0] = x[0]``, ``y[i] = y[i-1] * x[i]``.

Gradient, from right to left, without a division and so right where terms are zero::

    s[n-1] = grad[n-1]      s[i] = grad[i] + x[i+1] * s[i+1]
    grad_x[0] = s[0]        grad_x[i] = y[i-1] * s[i]

Half precision is computed as binary32 and rounded once more. Batch-invariant: a row's result depends on that row alone.
"""

import math
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.ops._contract import contract
from dettriton.ops._float_types import narrowed, require_float, widened
from dettriton.ops._function import first_derivative_only
from dettriton.ops._launch import blocks, kernel, tl
from dettriton.ops.sum import reduced_dims

BLOCK = 128


@kernel("*fp32 *fp32 i64 i64 i64")
def _cumprod_fwd_kernel(x_ptr, y_ptr, R, C, inner, BLOCK: tl.constexpr = BLOCK):
    """One row of an (outer, C, inner) array a lane; ``R = outer * inner`` rows. binary32 or binary64."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = rows < R
    first = (rows // inner) * C * inner + rows % inner
    y = tl.full([BLOCK], 1.0, y_ptr.dtype.element_ty)
    for column in range(0, C):
        y = y * tl.load(x_ptr + first + column * inner, mask=inside, other=1.0)
        tl.store(y_ptr + first + column * inner, y, mask=inside)


@kernel("*fp32 *fp32 *fp32 *fp32 i64 i64 i64")
def _cumprod_bwd_kernel(grad_ptr, x_ptr, y_ptr, grad_x_ptr, R, C, inner, BLOCK: tl.constexpr = BLOCK):
    rows = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = rows < R
    place = (rows // inner) * C * inner + rows % inner + (C - 1) * inner
    s = tl.load(grad_ptr + place, mask=inside, other=0.0)
    for _ in range(1, C):
        before = place - inner
        y = tl.load(y_ptr + before, mask=inside, other=1.0)
        tl.store(grad_x_ptr + place, y * s, mask=inside)
        grad = tl.load(grad_ptr + before, mask=inside, other=0.0)
        s = grad + tl.load(x_ptr + place, mask=inside, other=0.0) * s
        place = before
    tl.store(grad_x_ptr + place, s, mask=inside)


def cumprod_torch(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    for column in range(1, x.shape[1]):
        torch.mul(y[:, column - 1], x[:, column], out=y[:, column])
    return y


def cumprod_grad_torch(grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    s = grad.clone()
    for column in range(x.shape[1] - 2, -1, -1):
        s[:, column] += x[:, column + 1] * s[:, column + 1]
    s[:, 1:] *= y[:, :-1]
    return s


def cumprod_triton(x: torch.Tensor) -> torch.Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    outer, length, inner = x.shape
    _cumprod_fwd_kernel((blocks(outer * inner, BLOCK),), x, y, outer * inner, length, inner)
    return y


def cumprod_grad_triton(grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    grad, x, y = grad.contiguous(), x.contiguous(), y.contiguous()
    grad_x = torch.empty_like(x)
    outer, length, inner = x.shape
    _cumprod_bwd_kernel((blocks(outer * inner, BLOCK),), grad, x, y, grad_x, outer * inner, length, inner)
    return grad_x


FORWARD = {"torch": cumprod_torch, "triton": cumprod_triton}
BACKWARD = {"torch": cumprod_grad_torch, "triton": cumprod_grad_triton}


class CumProd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        y = FORWARD[engine_for(x)](x)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        x, y = ctx.saved_tensors
        return BACKWARD[engine_for(grad, x)](grad, x, y)


def along_middle(op: str, function: type[torch.autograd.Function], x: torch.Tensor, dim: int) -> torch.Tensor:
    """A scan of (outer, n, inner) arrays along ``dim`` of ``x``, with half precision computed as binary32."""
    require_float(op, x)
    if not isinstance(dim, int) or isinstance(dim, bool):
        raise InputError(f"{op}: dim must be one integer, got {dim!r}")
    reduced_dims(op, x, dim)
    if x.numel() == 0:
        return x.clone()
    shape = x.shape or (1,)
    dim %= len(shape)
    middle = widened(x).reshape(math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :]))
    return narrowed(function.apply(middle).reshape(x.shape), x.dtype)


@contract(
    "Reductions",
    definition="y[i] = y[i-1] * x[i] from left to right; gradient: y[i-1] * s[i], s[i] = grad[i] + x[i+1] * s[i+1]",
    error="i half ulps for y[i]",
    batch_invariant=True,
    kernels=True,
    mirrors="cumprod",
)
def cumprod(input: torch.Tensor, dim: int, *, dtype: None = None) -> torch.Tensor:
    """Cumulative product along a dimension, as :func:`torch.cumprod`, from left to right.

    Args:
        input: binary32, binary64, binary16 or bfloat16, any shape.
        dim: the dimension to walk along.
        dtype: only None: the result has the input's type.

    Returns:
        ``y[i] = y[i-1] * x[i]``, each rounded once: a relative error of at most ``i`` half ulps, barring underflow. The
        gradient is ``y[i-1] * s[i]`` with ``s[i] = grad[i] + x[i+1] * s[i+1]``, also where terms are zero.

    Raises:
        InputError: ``input`` is not floating-point, or ``dim`` is out of range or no integer.
    """
    if dtype is not None:
        raise InputError("cumprod: dtype is not supported; convert the result with .to(dtype)")
    return along_middle("cumprod", CumProd, input, dim)
