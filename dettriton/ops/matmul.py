"""matmul: exact integer dot products on one grid per row of the first operand and per column of the second (rule R2).

Gradients are dot products too: to the first operand with one grid per row of the gradient and per row of the second
operand, to the second with one grid per column of the first operand and of the gradient. Relative error on Gaussian
data about 1.7e-6 (``high``) and 2.1e-4 (``medium``); at most ``K * 2**-p`` of the product of the rows' largest
magnitudes. Batch-invariant: an output row depends only on its own row.
"""

import math
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.exact import compiled_dot
from dettriton.exact._jit import compiles
from dettriton.exact.dot import integer_bmm
from dettriton.exact.grid import bits_of, check_terms, grid_exponents, quantize
from dettriton.exact.grid import round_dot as round_dot_torch
from dettriton.ops._broadcast import expand
from dettriton.ops._contract import contract
from dettriton.ops._device import FLUSH, grid_exponent, round_dot
from dettriton.ops._digits import digit_planes
from dettriton.ops._epilogue import FUSED_CONSTANTS, PLAIN, PLAIN_CONSTANTS, Epilogue, store_finished
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._launch import Variant, blocks, kernel, tl

BLOCK_M, BLOCK_N, BLOCK_K = 64, 64, 64

ERROR = "1.7e-6 relative on Gaussian data (medium: 2.1e-4); K * 2^-p of the product of the rows' largest magnitudes"


@kernel(
    "*i8 *i8 *i32 *i32 *fp32 *fp32 *fp32 i64 i64 i64 i64 i64",
    *(Variant({"DIGITS": digits, **PLAIN_CONSTANTS}) for digits in (3, 2)),
    *(Variant({"DIGITS": 3, **fused}) for fused in FUSED_CONSTANTS),
)
def _dot_rows_kernel(
    a_ptr, b_ptr, a_top_ptr, b_top_ptr, y_ptr, bias_ptr, before_ptr, m, n, k, plane_a, plane_b,
    DIGITS: tl.constexpr, HAS_BIAS: tl.constexpr, KEEP: tl.constexpr, ACTIVATION: tl.constexpr,
    BLOCK_M: tl.constexpr = BLOCK_M, BLOCK_N: tl.constexpr = BLOCK_N, BLOCK_K: tl.constexpr = BLOCK_K,
):  # fmt: skip
    """y (batch, m, n) from digit planes a (batch, m, k) and b (batch, n, k)."""
    tiles = tl.cdiv(m, BLOCK_M)
    batch = tl.program_id(0).to(tl.int64) // tiles
    rows = tl.program_id(0).to(tl.int64) % tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    a_rows = a_ptr + (batch * m + rows)[:, None] * k
    b_cols = b_ptr + (batch * n + cols)[None, :] * k
    total = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.int64)
    for start in range(0, k, FLUSH):
        stop = tl.minimum(start + FLUSH, k)
        # One digit weight at a time: five accumulators at once would spill registers.
        for weight in tl.static_range(2 * DIGITS - 1):
            acc = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.int32)
            for k0 in range(start, stop, BLOCK_K):
                ks = k0 + tl.arange(0, BLOCK_K)
                a_mask = (rows < m)[:, None] & (ks < stop)[None, :]
                b_mask = (ks < stop)[:, None] & (cols < n)[None, :]
                for i in tl.static_range(DIGITS):
                    if weight - i >= 0 and weight - i < DIGITS:
                        a = tl.load(a_rows + i * plane_a + ks[None, :], mask=a_mask, other=0)
                        b = tl.load(b_cols + (weight - i) * plane_b + ks[:, None], mask=b_mask, other=0)
                        acc = tl.dot(a, b, acc, out_dtype=tl.int32)
            total += acc.to(tl.int64) << (7 * weight)
    a_exp = grid_exponent(tl.load(a_top_ptr + batch * m + rows, mask=rows < m, other=0))
    b_exp = grid_exponent(tl.load(b_top_ptr + batch * n + cols, mask=cols < n, other=0))
    y = round_dot(total, a_exp[:, None] + b_exp[None, :] - 2 * (7 * DIGITS - 1))
    y_at = (batch * m + rows)[:, None] * n + cols[None, :]
    y_mask = (rows < m)[:, None] & (cols < n)[None, :]
    store_finished(y, bias_ptr, cols, cols < n, before_ptr, y_ptr, y_at, y_mask, HAS_BIAS, KEEP, ACTIVATION)


def dot_rows_torch(
    a: torch.Tensor, b: torch.Tensor, precision: str, epilogue: Epilogue, a_top: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    bits = bits_of(precision)
    if compiles():
        return epilogue.after_bias(compiled_dot.dot_rows(a, b, bits, epilogue.bias))
    ea, eb = grid_exponents(a, (2,)), grid_exponents(b, (2,))
    qa, qb = (quantize(x, e, bits).to(torch.float64) for x, e in ((a, ea), (b, eb)))
    y = round_dot_torch(integer_bmm(qa, qb.transpose(1, 2), bits), ea + eb.transpose(1, 2) - 2 * bits)
    return epilogue.finish(y, -1)


def dot_rows_triton(
    a: torch.Tensor, b: torch.Tensor, precision: str, epilogue: Epilogue, a_top: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    (batch, m, k), n = a.shape, b.shape[1]
    pa, pb = digit_planes(a, batch * m, k, precision, a_top), digit_planes(b, batch * n, k, precision)
    y = torch.empty(batch, m, n, dtype=torch.float32, device=a.device)
    kept, pointers, finish = epilogue.launch(y)
    _dot_rows_kernel(
        (batch * blocks(m, BLOCK_M), blocks(n, BLOCK_N)),
        pa.digits, pb.digits, pa.top, pb.top, y, *pointers, m, n, k, pa.plane_stride, pb.plane_stride,
        DIGITS=pa.count, **finish,
    )  # fmt: skip
    return y, kept


FORWARD = {"torch": dot_rows_torch, "triton": dot_rows_triton}


def finished_dot_rows(
    a: torch.Tensor, b: torch.Tensor, precision: str, epilogue: Epilogue
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`dot_rows` and an epilogue whose channels are the rows of ``b``: the result, and what is kept."""
    check_terms("matmul", a.shape[2])
    given = (a, b) if epilogue.bias is None else (a, b, epilogue.bias)
    return FORWARD[engine_for(*given)](a, b, precision, epilogue, None)


def dot_rows(a: torch.Tensor, b: torch.Tensor, precision: str, a_top: torch.Tensor | None = None) -> torch.Tensor:
    """Exact dot products of all rows of ``a`` (B, M, K) with all rows of ``b`` (B, N, K), one grid a row: (B, M, N).

    ``a_top`` holds the bits of the largest magnitude of each row of ``a`` where a kernel found them.
    """
    check_terms("matmul", a.shape[2])
    return FORWARD[engine_for(a, b)](a, b, precision, PLAIN, a_top)[0]


class MatMul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor, precision: str) -> torch.Tensor:
        ctx.save_for_backward(a, b)
        ctx.precision = precision
        return dot_rows(a, b.transpose(1, 2), precision)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        a, b = ctx.saved_tensors
        grad_a = dot_rows(grad, b, ctx.precision) if ctx.needs_input_grad[0] else None
        grad_b = dot_rows(a.transpose(1, 2), grad.transpose(1, 2), ctx.precision) if ctx.needs_input_grad[1] else None
        return grad_a, grad_b, None


@contract(
    "Dot products",
    definition="dot products on a grid per row of the first and per column of the second; gradients: grids per row of "
    "grad and of the second, per column of the first and of grad",
    error=ERROR,
    batch_invariant=True,
    kernels=True,
    mirrors="matmul",
)
def matmul(input: torch.Tensor, other: torch.Tensor, *, precision: str = "high") -> torch.Tensor:
    """Matrix product, as :func:`torch.matmul`: vectors, matrices and broadcast batches.

    Args:
        input: binary32 ``(..., M, K)`` or ``(K,)``; each row is one grid.
        other: binary32 ``(..., K, N)`` or ``(K,)``; each column is one grid.
        precision: ``"high"`` (20-bit grids) or ``"medium"`` (13-bit grids).

    Returns:
        ``(..., M, N)``: the exact sum of products of grid integers, rounded to 24 bits once, then scaled. The canonical
        NaN where a row or column holds a NaN or infinity. Where one operand is a single matrix, its gradient sums over
        the whole batch in one exact dot product; where both are batched, a broadcast operand's gradient is the
        exact sum of the batch's gradients.

    Raises:
        InputError: an operand is not binary32 or a scalar, shapes do not fit, K > 2**22, or the precision is unknown.
    """
    require_float32("matmul", input=input, other=other)
    bits_of(precision)
    if input.dim() == 0 or other.dim() == 0:
        raise InputError("matmul: both operands need at least one dimension; multiply scalars with *")
    a = input.unsqueeze(0) if input.dim() == 1 else input
    b = other.unsqueeze(1) if other.dim() == 1 else other
    if a.shape[-1] != b.shape[-2]:
        raise InputError(
            f"matmul: the last dimension of input {tuple(input.shape)} must equal the second to last of "
            f"other {tuple(other.shape)}"
        )
    y = _batched(a, b, precision)
    if input.dim() == 1:
        y = y.squeeze(-2)
    return y.squeeze(-1) if other.dim() == 1 else y


def _batched(a: torch.Tensor, b: torch.Tensor, precision: str) -> torch.Tensor:
    if b.dim() == 2:
        folded = MatMul.apply(a.reshape(1, math.prod(a.shape[:-1]), a.shape[-1]), b.unsqueeze(0), precision)
        return folded.view(*a.shape[:-1], b.shape[-1])
    if a.dim() == 2:
        return _batched(b.transpose(-1, -2), a.t(), precision).transpose(-1, -2)
    try:
        batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except RuntimeError as error:
        raise InputError(f"matmul: batches {tuple(a.shape[:-2])} and {tuple(b.shape[:-2])} do not broadcast") from error
    a, b = (expand(x, (*batch, *x.shape[-2:])).reshape(math.prod(batch), *x.shape[-2:]) for x in (a, b))
    return MatMul.apply(a, b, precision).view(*batch, a.shape[-2], b.shape[-1])
