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
from dettriton.ops._device import grid_exponent, round_dot
from dettriton.ops._epilogue import FUSED_CONSTANTS, PLAIN, PLAIN_CONSTANTS, Epilogue, store_finished
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._launch import blocks, kernel, tl
from dettriton.ops._plans import LARGE, NARROW, SMALL, choose, planned
from dettriton.ops._product import add_products, carried, exact_total, part_of_columns, round_totals
from dettriton.ops._row_planes import row_planes

ERROR = "1.7e-6 relative on Gaussian data (medium: 2.1e-4); K * 2^-p of the product of the rows' largest magnitudes"


@kernel(
    "*i8 *i8 *i32 *i32 *fp32 *i64 *fp32 *fp32 i64 i64 i64 i64 i64 i64",
    *(planned(LARGE[d], {"DIGITS": d, "SPLIT": s, **PLAIN_CONSTANTS}) for d in (3, 2) for s in (False, True)),
    *(planned(p[d], {"DIGITS": d, "SPLIT": False, **PLAIN_CONSTANTS}) for p in (SMALL, NARROW) for d in (3, 2)),
    *(planned(LARGE[3], {"DIGITS": 3, "SPLIT": False, **fused}) for fused in FUSED_CONSTANTS),
)
def _dot_rows_kernel(
    a_ptr, b_ptr, a_top_ptr, b_top_ptr, y_ptr, total_ptr, bias_ptr, before_ptr,
    m, n, sixteenths, split_steps, a_plane_sixteenths, b_plane_sixteenths,
    DIGITS: tl.constexpr, SPLIT: tl.constexpr, HAS_BIAS: tl.constexpr, KEEP: tl.constexpr, ACTIVATION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PARTS: tl.constexpr,
    GROUP: tl.constexpr = 8,
):  # fmt: skip
    """y (batch, m, n) from digit planes a (batch, m, terms) and b (batch, n, terms), which end in zeros.

    Of the terms, ``16 * sixteenths``, a program adds ``split_steps`` blocks, to ``total`` if SPLIT. Lengths in
    sixteenths tell the compiler that every row begins at a multiple of 16 bytes.
    """
    row_tiles, col_tiles = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    batch = tl.program_id(0).to(tl.int64) // (row_tiles * col_tiles)
    tile = tl.program_id(0).to(tl.int64) % (row_tiles * col_tiles)
    # Neighbours in time share rows and columns, which then come from the cache.
    first = tile // (GROUP * col_tiles) * GROUP
    grouped = tl.minimum(row_tiles - first, GROUP)
    row_tile = first + tile % (GROUP * col_tiles) % grouped
    col_tile = tile % (GROUP * col_tiles) // grouped
    rows = row_tile * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = col_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    start = tl.program_id(1).to(tl.int64) * split_steps
    steps = tl.minimum(sixteenths * 16 // BLOCK_K - start, split_steps)
    ks = start * BLOCK_K + tl.arange(0, BLOCK_K)
    a_at = a_ptr + (batch * m + tl.minimum(rows, m - 1))[:, None] * sixteenths * 16 + ks[None, :]
    b_at = b_ptr + (batch * n + tl.minimum(cols, n - 1))[None, :] * sixteenths * 16 + ks[:, None]
    c0 = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.int32)
    c1, c2, c3, c4 = c0, c0, c0, c0
    for _ in range(steps):
        c0, c1, c2, c3, c4 = add_products(
            a_at, b_at, a_plane_sixteenths * 16, b_plane_sixteenths * 16, c0, c1, c2, c3, c4, DIGITS
        )
        a_at += BLOCK_K
        b_at += BLOCK_K
    low, rest = carried(c0, c1, c2, c3, c4, DIGITS)
    a_exp = grid_exponent(tl.load(a_top_ptr + batch * m + rows, mask=rows < m, other=0))
    # Part by part, because 64-bit totals of all results at once would spill registers.
    for part in tl.static_range(PARTS):
        total = exact_total(part_of_columns(low, part, PARTS), part_of_columns(rest, part, PARTS), DIGITS)
        cols = col_tile * BLOCK_N + part * (BLOCK_N // PARTS) + tl.arange(0, BLOCK_N // PARTS)
        at = (batch * m + rows)[:, None] * n + cols[None, :]
        mask = (rows < m)[:, None] & (cols < n)[None, :]
        if SPLIT:
            tl.atomic_add(total_ptr + at, total, mask=mask, sem="relaxed")
        else:
            b_exp = grid_exponent(tl.load(b_top_ptr + batch * n + cols, mask=cols < n, other=0))
            y = round_dot(total, a_exp[:, None] + b_exp[None, :] - 2 * (7 * DIGITS - 1))
            store_finished(y, bias_ptr, cols, cols < n, before_ptr, y_ptr, at, mask, HAS_BIAS, KEEP, ACTIVATION)


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
    pa, pb = row_planes(a, precision, a_top), row_planes(b, precision)
    plan = choose(pa.count, m, n, k, a.device, problems=batch)
    y = torch.empty(batch, m, n, dtype=torch.float32, device=a.device)
    kept, pointers, finish = epilogue.launch(y)
    splits = max(blocks(k, plan.split_terms), 1)
    total = torch.zeros(y.shape if splits > 1 else (0,), dtype=torch.int64, device=a.device)
    _dot_rows_kernel(
        (batch * plan.tiles(m, n), splits),
        pa.digits, pb.digits, pa.top, pb.top, y, total, *pointers,
        m, n, pa.sixteenths, plan.split_terms // plan.block_k, pa.plane_sixteenths, pb.plane_sixteenths,
        DIGITS=pa.count, SPLIT=splits > 1, **(PLAIN_CONSTANTS if splits > 1 else finish),
        **plan.constants, **plan.options,
    )  # fmt: skip
    if splits > 1:
        # Result (row, column) is on the grids of its row and of its column, which is its channel.
        round_totals(total, pa.top, pb.top, y, pointers, (n, m * n, n, 1, n), pa.count, finish)
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
        to_a, to_b, _ = ctx.needs_input_grad
        ctx.save_for_backward(a if to_b else None, b if to_a else None)
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
