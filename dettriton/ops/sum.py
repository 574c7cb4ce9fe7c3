"""sum: the exact windowed sum of its terms, rounded once (R2); gradient: the upstream gradient, broadcast.

Error: at most half an ulp of the result plus ``2**-32`` of the largest term for each term truncated. Empty: +0.
A NaN or infinite term gives the canonical NaN. Batch-invariant: an output depends only on its own terms.

binary64 keeps four windows instead of two (see :mod:`dettriton.exact.window64`): ``2**-96`` of the largest term. Half
precision widens to binary32, and its result is rounded once more.
"""

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.exact.window import accumulate, outer_kept_inner, windowed_sum
from dettriton.exact.window64 import accumulate64, windowed_sum64
from dettriton.ops._contract import contract
from dettriton.ops._device import WINDOWS, magnitude_bits, round_windows, window_of_bits, window_terms
from dettriton.ops._device64 import (
    FIRST_BIN,
    NON_FINITE_FIELD,
    WINDOWS64,
    exponent_field,
    round_windows64,
    window_digits,
    window_of_field,
)
from dettriton.ops._float_types import narrowed, require_float, widened
from dettriton.ops._function import first_derivative_only
from dettriton.ops._launch import blocks, jit, kernel, tl

BLOCK = 1024
TILES = 8


@jit
def channel_offsets(j, row, kept, inner):
    """Where the terms ``j`` of a kept index are in an (outer, kept, inner) array."""
    return (j // inner) * kept * inner + row * inner + j % inner


@jit
def add_to_windows(x, row, bins_ptr, top_ptr):
    """Add a block of terms to the window sums of ``row`` and to its largest magnitude; zeros change neither.

    A term's bits go to absolute windows, so nothing is rescaled when a larger magnitude appears later.
    """
    bits = magnitude_bits(x)
    top = tl.max(bits, axis=0)
    window = window_of_bits(tl.minimum(top, 0x7F7FFFFF))
    hi, lo = window_terms(tl.where(bits < 0x7F800000, x, 0.0), window)
    bin_ptr = bins_ptr + row * WINDOWS + window + 6
    tl.atomic_add(bin_ptr, tl.sum(hi, axis=0))
    tl.atomic_add(bin_ptr - 1, tl.sum(lo, axis=0))
    tl.atomic_max(top_ptr + row, top)


@kernel("*fp32 *i64 *i32 i64 i64 i64")
def _window_sum_kernel(
    x_ptr, bins_ptr, top_ptr, outer, kept, inner, BLOCK: tl.constexpr = BLOCK, TILES: tl.constexpr = TILES
):
    """x is (outer, kept, inner), summed over outer and inner; one program sums TILES*BLOCK terms of one kept index.

    The grid is one-dimensional: the others end at 65535.
    """
    row = tl.program_id(0).to(tl.int64) % kept
    chunk = tl.program_id(0).to(tl.int64) // kept
    terms = outer * inner
    for tile in range(TILES):
        j = (chunk * TILES + tile) * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + channel_offsets(j, row, kept, inner), mask=j < terms, other=0.0)
        add_to_windows(x, row, bins_ptr, top_ptr)


@kernel("*i64 *i32 *fp32 i64")
def _window_round_kernel(bins_ptr, top_ptr, y_ptr, kept, BLOCK: tl.constexpr = 128):
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = row < kept
    top = tl.load(top_ptr + row, mask=mask, other=0)
    window = window_of_bits(tl.minimum(top, 0x7F7FFFFF))
    bin_ptr = bins_ptr + row * WINDOWS + window + 6
    hi = tl.load(bin_ptr, mask=mask, other=0)
    lo = tl.load(bin_ptr - 1, mask=mask, other=0)
    y = tl.where(top >= 0x7F800000, float("nan"), round_windows(hi, lo, window))
    tl.store(y_ptr + row, y, mask=mask)


@kernel("*fp64 *i64 *i32 i64 i64 i64")
def _window_sum64_kernel(
    x_ptr, bins_ptr, top_ptr, outer, kept, inner, BLOCK: tl.constexpr = BLOCK, TILES: tl.constexpr = TILES
):
    """As ``_window_sum_kernel``, with four windows; ``top`` is the largest biased exponent."""
    row = tl.program_id(0).to(tl.int64) % kept
    chunk = tl.program_id(0).to(tl.int64) // kept
    terms = outer * inner
    for tile in range(TILES):
        j = (chunk * TILES + tile) * BLOCK + tl.arange(0, BLOCK)
        mask = j < terms
        x = tl.load(x_ptr + channel_offsets(j, row, kept, inner), mask=mask, other=0.0)
        field = exponent_field(x)
        top = tl.max(field, axis=0)
        window = window_of_field(top)
        a, b, c, d = window_digits(tl.where(field < NON_FINITE_FIELD, x, 0.0), window)
        bin_ptr = bins_ptr + row * WINDOWS64 + window + FIRST_BIN
        tl.atomic_add(bin_ptr, tl.sum(a, axis=0))
        tl.atomic_add(bin_ptr - 1, tl.sum(b, axis=0))
        tl.atomic_add(bin_ptr - 2, tl.sum(c, axis=0))
        tl.atomic_add(bin_ptr - 3, tl.sum(d, axis=0))
        tl.atomic_max(top_ptr + row, top)


@kernel("*i64 *i32 *fp64 i64")
def _window_round64_kernel(bins_ptr, top_ptr, y_ptr, kept, BLOCK: tl.constexpr = 128):
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = row < kept
    top = tl.load(top_ptr + row, mask=mask, other=0)
    window = window_of_field(top)
    bin_ptr = bins_ptr + row * WINDOWS64 + window + FIRST_BIN
    a = tl.load(bin_ptr, mask=mask, other=0)
    b = tl.load(bin_ptr - 1, mask=mask, other=0)
    c = tl.load(bin_ptr - 2, mask=mask, other=0)
    d = tl.load(bin_ptr - 3, mask=mask, other=0)
    y = tl.where(top == NON_FINITE_FIELD, float("nan"), round_windows64(a, b, c, d, window))
    tl.store(y_ptr + row, y, mask=mask)


def empty_bins(dtype: torch.dtype, kept: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Empty window sums and largest magnitudes of ``kept`` sums of that type."""
    windows = WINDOWS64.value if dtype == torch.float64 else WINDOWS.value
    bins = torch.zeros(kept, windows, dtype=torch.int64, device=device)
    return bins, torch.zeros(kept, dtype=torch.int32, device=device)


def _add_to_bins(x: torch.Tensor, bins: torch.Tensor, top: torch.Tensor, dims: tuple[int, ...]) -> None:
    x, (outer, kept, inner) = outer_kept_inner(x, dims)
    tiles = TILES if outer * inner > BLOCK else 1
    grid = (blocks(outer * inner, BLOCK * tiles) * kept,)
    launched = _window_sum64_kernel if x.dtype == torch.float64 else _window_sum_kernel
    launched(grid, x, bins, top, outer, kept, inner, TILES=tiles)


def rounded_bins(
    bins: torch.Tensor, top: torch.Tensor, dtype: torch.dtype, shape: Sequence[int] | None = None
) -> torch.Tensor:
    """The sums that the kernels added up, rounded once, in a tensor of this shape."""
    y = torch.empty(top.shape if shape is None else shape, dtype=dtype, device=top.device)
    launched = _window_round64_kernel if dtype == torch.float64 else _window_round_kernel
    launched((blocks(y.numel(), 128),), bins, top, y, y.numel())
    return y


def sum_triton(x: torch.Tensor, dims: tuple[int, ...], keepdim: bool) -> torch.Tensor:
    shape = [1 if d in dims else s for d, s in enumerate(x.shape)]
    bins, top = empty_bins(x.dtype, math.prod(shape), x.device)
    _add_to_bins(x, bins, top, dims)
    y = rounded_bins(bins, top, x.dtype, shape)
    return y if keepdim or not dims else y.squeeze(dims)


def sum_torch(x: torch.Tensor, dims: tuple[int, ...], keepdim: bool) -> torch.Tensor:
    return (windowed_sum64 if x.dtype == torch.float64 else windowed_sum)(x, dims, keepdim)


def sum_of_parts_triton(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    bins = top = dtype = None
    for part in parts:
        if bins is None:
            dtype, (bins, top) = part.dtype, empty_bins(part.dtype, 1, part.device)
        _add_to_bins(part, bins, top, tuple(range(part.dim())))
    return rounded_bins(bins, top, dtype).view(())


def sum_of_parts_torch(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    accumulators = ((accumulate64 if p.dtype == torch.float64 else accumulate)(p.reshape(-1)) for p in parts)
    return reduce(lambda a, b: a.merge(b), accumulators).round().view(())


FORWARD = {"torch": sum_torch, "triton": sum_triton}
OF_PARTS = {"torch": sum_of_parts_torch, "triton": sum_of_parts_triton}


def reduced_dims(op: str, x: torch.Tensor, dim: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """The dimensions that ``dim`` names, non-negative; all of them for None or an empty tuple, as in torch.

    Raises:
        InputError: a dimension is out of range or named twice.
    """
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return tuple(range(x.dim()))
    named = tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
    rank = max(x.dim(), 1)
    bad = [d for d in named if not -rank <= d < rank]
    if bad:
        raise InputError(f"{op}: dimension {bad[0]} is out of range for a tensor of {x.dim()} dimensions")
    dims = tuple(d % rank for d in named)
    if len(set(dims)) != len(dims):
        raise InputError(f"{op}: dim {named} names a dimension twice; name each once")
    return tuple(sorted(dims)) if x.dim() else ()


def exact_sum(x: torch.Tensor, dims: tuple[int, ...] | None = None, keepdim: bool = False) -> torch.Tensor:
    """The exact sum over non-negative ``dims`` (all for None) on the tensor's engine, outside autograd.

    Composed ops take every float sum from here. binary32 or binary64.
    """
    dims = tuple(range(x.dim())) if dims is None else dims
    if not dims and x.dim():
        # torch takes no dimensions for all of them; here each sum has its one term.
        x, dims, keepdim = x.unsqueeze(-1), (x.dim(),), False
    return FORWARD[engine_for(x)](x, dims, keepdim)


def exact_sum_of_parts(parts: Iterable[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """The 0-dim exact sum of all elements of all parts (at least one), as if they were one tensor; outside autograd.

    Args:
        parts: binary32 or binary64, all of one type, on the device of ``like``; taken one at a time.
        like: chooses the engine.
    """
    return OF_PARTS[engine_for(like)](parts)


class Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dims: tuple[int, ...], keepdim: bool) -> torch.Tensor:
        ctx.shape, ctx.dims = x.shape, dims
        return exact_sum(x, dims, keepdim)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        kept = [1 if d in ctx.dims else s for d, s in enumerate(ctx.shape)]
        return grad.reshape(kept).expand(ctx.shape), None, None


@contract(
    "Reductions",
    definition="exact windowed sum over dim, rounded once (4 windows for float64); gradient: broadcast",
    error="half an ulp + 2^-32 (float64: 2^-96) of the largest term for each term",
    batch_invariant=True,
    kernels=True,
    mirrors="sum",
)
def sum(
    input: torch.Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False, *, dtype: None = None
) -> torch.Tensor:
    """Sum over dimensions, as :func:`torch.sum`; the result does not depend on the order of the terms.

    Args:
        input: binary32, binary64, binary16 or bfloat16, any shape.
        dim: the dimension or dimensions to sum over; all of them for None.
        keepdim: whether summed dimensions stay with size 1.
        dtype: only None: the result has the input's type.

    Returns:
        The sum of the terms' bits in the two 32-bit windows (four for binary64) at and below the largest magnitude,
        rounded to nearest even once; half precision is summed as binary32 and rounded once more. +0 for no terms, the
        canonical NaN when a term is NaN or infinite, Inf on overflow. Error at most half an ulp plus ``2**-32``
        (binary64: ``2**-96``) of the largest magnitude for each term.

    Raises:
        InputError: ``input`` is not floating-point, or ``dim`` is out of range or repeated.
    """
    require_float("sum", input)
    if dtype is not None:
        raise InputError("sum: dtype is not supported; convert the result with .to(dtype)")
    return narrowed(Sum.apply(widened(input), reduced_dims("sum", input, dim), keepdim), input.dtype)
