"""cumsum: every prefix's exact windowed sum, rounded once (R2): ``y[i]`` is ``sum(x[: i + 1])``, bit for bit.

The accumulators ``(G, hi, lo)`` of the plain sum form a monoid of integers, so a scan of them is exact in any grouping.
binary64 has four windows instead of two; half precision is computed as binary32 and rounded once more. A prefix with a
NaN or infinite term is the canonical NaN.

Gradient: the same from the other end: ``grad_x[i]`` is the exact sum of ``grad[i:]``. Batch-invariant: a row's result
depends on that row alone.
"""

from collections.abc import Callable
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.exact.window import WINDOW_BITS, round_window_pair, top_exponent, window_of
from dettriton.exact.window64 import exponent_field as exponent_field64
from dettriton.exact.window64 import round_windows64 as round_four
from dettriton.exact.window64 import window_digits as four_digits
from dettriton.exact.window64 import window_of_field as window_of_field64
from dettriton.ops._contract import contract
from dettriton.ops._device import magnitude_bits, round_windows, window_of_bits, window_terms
from dettriton.ops._device64 import exponent_field, round_windows64, window_digits, window_of_field
from dettriton.ops._float_types import with_canonical_nan
from dettriton.ops._function import first_derivative_only
from dettriton.ops._launch import Variant, jit, kernel, tl
from dettriton.ops._order import magnitude_keys
from dettriton.ops.cumprod import along_middle

TILE = 256
LONGEST_BLOCK = 1024

NON_FINITE = tl.constexpr(64)
"""Beyond every window: where a scan that met a NaN or an infinity stays."""

_VARIANTS = tuple(
    Variant({"REVERSE": reverse, "BLOCK_R": block_r, "BLOCK_C": block_c})
    for reverse in (False, True)
    for block_r, block_c in ((16, 16), (1, LONGEST_BLOCK))
)


@jit
def _merge2(window_a, hi_a, lo_a, window_b, hi_b, lo_b):
    window = tl.maximum(window_a, window_b)
    a = window - window_a
    b = window - window_b
    hi = tl.where(a == 0, hi_a, 0) + tl.where(b == 0, hi_b, 0)
    lo = tl.where(a == 0, lo_a, tl.where(a == 1, hi_a, 0)) + tl.where(b == 0, lo_b, tl.where(b == 1, hi_b, 0))
    return window, hi, lo


@jit
def _shifted(behind, a, b, c, d):
    """Four windows as seen from ``behind`` windows higher."""
    return (
        tl.where(behind == 0, a, 0),
        tl.where(behind == 0, b, tl.where(behind == 1, a, 0)),
        tl.where(behind == 0, c, tl.where(behind == 1, b, tl.where(behind == 2, a, 0))),
        tl.where(behind == 0, d, tl.where(behind == 1, c, tl.where(behind == 2, b, tl.where(behind == 3, a, 0)))),
    )


@jit
def _merge4(window_p, a_p, b_p, c_p, d_p, window_q, a_q, b_q, c_q, d_q):
    window = tl.maximum(window_p, window_q)
    a, b, c, d = _shifted(window - window_p, a_p, b_p, c_p, d_p)
    e, f, g, h = _shifted(window - window_q, a_q, b_q, c_q, d_q)
    return window, a + e, b + f, c + g, d + h


@jit
def _places(rows, start, R, C, inner, REVERSE: tl.constexpr, BLOCK_C: tl.constexpr):
    """Where a tile of an (outer, C, inner) array is, and which of it exists; from the end if REVERSE."""
    column = start + tl.arange(0, BLOCK_C)[None, :]
    inside = (rows[:, None] < R) & (column < C)
    first = ((rows // inner) * C * inner + rows % inner)[:, None]
    if REVERSE:
        column = C - 1 - column
    return first + column * inner, inside


@jit
def _last(values, BLOCK_C: tl.constexpr):
    """The last column of int64 values."""
    return tl.sum(tl.where(tl.arange(0, BLOCK_C)[None, :] == BLOCK_C - 1, values, 0), axis=1)[:, None]


@kernel("*fp32 *fp32 i64 i64 i64", *_VARIANTS)
def _cumsum_kernel(x_ptr, y_ptr, R, C, inner, REVERSE: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """BLOCK_R rows a program, ``R = outer * inner`` of them, block by block with the accumulator carried over."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    carried = tl.full((BLOCK_R, 1), -5, tl.int32)
    carried_hi = tl.zeros((BLOCK_R, 1), tl.int64)
    carried_lo = tl.zeros((BLOCK_R, 1), tl.int64)
    for start in range(0, C, BLOCK_C):
        place, inside = _places(rows, start, R, C, inner, REVERSE, BLOCK_C)
        x = tl.load(x_ptr + place, mask=inside, other=0.0)
        bits = magnitude_bits(x)
        finite = bits < 0x7F800000
        window = window_of_bits(tl.where(finite, bits, 0))
        hi, lo = window_terms(tl.where(finite, x, 0.0), window)
        window = tl.where(finite, window, NON_FINITE)
        window, hi, lo = tl.associative_scan((window, hi, lo), 1, _merge2)
        window, hi, lo = _merge2(carried, carried_hi, carried_lo, window, hi, lo)
        y = round_windows(hi, lo, tl.where(window < NON_FINITE, window, 0))
        tl.store(y_ptr + place, tl.where(window < NON_FINITE, y, float("nan")), mask=inside)
        carried = tl.max(window, axis=1)[:, None]
        carried_hi = _last(hi, BLOCK_C)
        carried_lo = _last(lo, BLOCK_C)


@kernel("*fp64 *fp64 i64 i64 i64", *_VARIANTS)
def _cumsum64_kernel(x_ptr, y_ptr, R, C, inner, REVERSE: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    carried = tl.full((BLOCK_R, 1), -31, tl.int32)
    carried_a = tl.zeros((BLOCK_R, 1), tl.int64)
    carried_b = tl.zeros((BLOCK_R, 1), tl.int64)
    carried_c = tl.zeros((BLOCK_R, 1), tl.int64)
    carried_d = tl.zeros((BLOCK_R, 1), tl.int64)
    for start in range(0, C, BLOCK_C):
        place, inside = _places(rows, start, R, C, inner, REVERSE, BLOCK_C)
        x = tl.load(x_ptr + place, mask=inside, other=0.0)
        field = exponent_field(x)
        finite = field < 2047
        window = window_of_field(field)
        a, b, c, d = window_digits(tl.where(finite, x, 0.0), window)
        window = tl.where(finite, window, NON_FINITE)
        window, a, b, c, d = tl.associative_scan((window, a, b, c, d), 1, _merge4)
        window, a, b, c, d = _merge4(carried, carried_a, carried_b, carried_c, carried_d, window, a, b, c, d)
        y = round_windows64(a, b, c, d, tl.where(window < NON_FINITE, window, 0))
        tl.store(y_ptr + place, tl.where(window < NON_FINITE, y, float("nan")), mask=inside)
        carried = tl.max(window, axis=1)[:, None]
        carried_a = _last(a, BLOCK_C)
        carried_b = _last(b, BLOCK_C)
        carried_c = _last(c, BLOCK_C)
        carried_d = _last(d, BLOCK_C)


def _two_digits(x: torch.Tensor, window: int) -> list[torch.Tensor]:
    low = torch.trunc(x.to(torch.float64) * 2.0 ** (-WINDOW_BITS * (window - 1)))
    high = torch.trunc(low * 2.0**-WINDOW_BITS)
    return [high.to(torch.int64), (low - high * 2.0**WINDOW_BITS).to(torch.int64)]


def _four_digits(x: torch.Tensor, window: int) -> list[torch.Tensor]:
    return four_digits(x, torch.full((), window, dtype=torch.int64))


def _prefix_digits(
    x: torch.Tensor, own: torch.Tensor, running: torch.Tensor, digits_at: Callable[..., list[torch.Tensor]], count: int
) -> list[torch.Tensor]:
    """The window sums of each prefix along dimension 1, highest first, in its own window and those below."""
    found = [torch.zeros_like(running) for _ in range(count)]
    zero = torch.zeros((), dtype=x.dtype)
    for window in running.unique().tolist():
        # Terms above this window belong to later prefixes, whose windows are higher.
        digits = digits_at(torch.where(own <= window, x, zero), window)
        here = running == window
        found = [torch.where(here, d.cumsum(1), f) for d, f in zip(digits, found, strict=True)]
    return found


def cumsum_torch(x: torch.Tensor, reverse: bool) -> torch.Tensor:
    if reverse:
        return cumsum_torch(x.flip(1), False).flip(1)
    largest = magnitude_keys(x).cummax(1).values.view(x.dtype)
    finite = torch.isfinite(largest)
    zero = torch.zeros((), dtype=x.dtype)
    largest, x = torch.where(finite, largest, zero), torch.where(torch.isfinite(x), x, zero)
    if x.dtype == torch.float64:
        own, running = (window_of_field64(exponent_field64(v)) for v in (x, largest))
        y = round_four(running, _prefix_digits(x, own, running, _four_digits, 4))
    else:
        own, running = (window_of(top_exponent(v.abs())) for v in (x, largest))
        y = round_window_pair(running, *_prefix_digits(x, own, running, _two_digits, 2))
    return torch.where(finite, y, with_canonical_nan(torch.full_like(y, float("nan"))))


def cumsum_triton(x: torch.Tensor, reverse: bool) -> torch.Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    outer, length, inner = x.shape
    block_c = min(LONGEST_BLOCK, 1 << (length - 1).bit_length())
    block_r = max(1, min(TILE // block_c, 1 << (outer * inner - 1).bit_length()))
    launched = _cumsum64_kernel if x.dtype == torch.float64 else _cumsum_kernel
    grid = (-(-outer * inner // block_r),)
    launched(grid, x, y, outer * inner, length, inner, REVERSE=reverse, BLOCK_R=block_r, BLOCK_C=block_c)
    return y


FORWARD = {"torch": cumsum_torch, "triton": cumsum_triton}


class CumSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return FORWARD[engine_for(x)](x, False)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return FORWARD[engine_for(grad)](grad, True)


@contract(
    "Reductions",
    definition="y[i] = the exact windowed sum of x[: i + 1]; gradient: the exact sums of grad[i:]",
    error="that of sum, for each prefix",
    batch_invariant=True,
    kernels=True,
    mirrors="cumsum",
)
def cumsum(input: torch.Tensor, dim: int, *, dtype: None = None) -> torch.Tensor:
    """Cumulative sum along a dimension, as :func:`torch.cumsum`: ``y[i]`` equals ``sum(x[: i + 1])`` bit for bit.

    Args:
        input: binary32, binary64, binary16 or bfloat16, any shape.
        dim: the dimension to walk along.
        dtype: only None: the result has the input's type.

    Returns:
        Each prefix's exact sum, rounded once, with the error of :func:`dettriton.ops.sum`; the canonical NaN from the
        first NaN or infinite term on. The gradient of ``x[i]`` is the exact sum of ``grad[i:]``.

    Raises:
        InputError: ``input`` is not floating-point, or ``dim`` is out of range or no integer.
    """
    if dtype is not None:
        raise InputError("cumsum: dtype is not supported; convert the result with .to(dtype)")
    return along_middle("cumsum", CumSum, input, dim)
