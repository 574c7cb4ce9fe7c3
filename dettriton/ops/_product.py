"""Exact products of tiles of digit planes: the steps every product kernel shares, and the rounding of split sums.

A tile of results is kept as one int32 sum for each digit weight, ``2 * DIGITS - 1`` of them. With two digits the last
two are not used and cost nothing. Carrying each sum's high bits into the next one leaves two integers a result, low
digits and the rest, before anything becomes 64 bits wide: registers are what limits the tiles.
"""

from collections.abc import Mapping
from typing import Any

import torch

from dettriton.ops._device import grid_exponent, round_dot
from dettriton.ops._epilogue import FUSED_CONSTANTS, PLAIN_CONSTANTS
from dettriton.ops._launch import Variant, blocks, jit, kernel, tl

BLOCK = 256


@jit
def add_products(a_at, b_at, plane_a, plane_b, c0, c1, c2, c3, c4, DIGITS: tl.constexpr):
    """Add to the sums by weight the products of all digits at ``a_at`` (rows, terms) and ``b_at`` (terms, columns)."""
    a0 = tl.load(a_at)
    b0 = tl.load(b_at)
    a1 = tl.load(a_at + plane_a)
    b1 = tl.load(b_at + plane_b)
    c0 = tl.dot(a0, b0, c0, out_dtype=tl.int32)
    c1 = tl.dot(a0, b1, c1, out_dtype=tl.int32)
    c2 = tl.dot(a1, b1, c2, out_dtype=tl.int32)
    c1 = tl.dot(a1, b0, c1, out_dtype=tl.int32)
    if DIGITS == 3:
        a2 = tl.load(a_at + 2 * plane_a)
        b2 = tl.load(b_at + 2 * plane_b)
        c3 = tl.dot(a1, b2, c3, out_dtype=tl.int32)
        c2 = tl.dot(a0, b2, c2, out_dtype=tl.int32)
        c4 = tl.dot(a2, b2, c4, out_dtype=tl.int32)
        c2 = tl.dot(a2, b0, c2, out_dtype=tl.int32)
        c3 = tl.dot(a2, b1, c3, out_dtype=tl.int32)
    return c0, c1, c2, c3, c4


@jit
def carried(c0, c1, c2, c3, c4, DIGITS: tl.constexpr):
    """The sum of ``c[weight] * 128**weight`` as low digits, not negative, and the rest: see :func:`exact_total`."""
    c1 += c0 >> 7
    low = (c0 & 127) | ((c1 & 127) << 7)
    c2 += c1 >> 7
    if DIGITS == 3:
        low = low | ((c2 & 127) << 14)
        c3 += c2 >> 7
        low = low | ((c3 & 127) << 21)
        return low, c4 + (c3 >> 7)
    return low, c2


@jit
def exact_total(low, rest, DIGITS: tl.constexpr):
    """The int64 sum that :func:`carried` has split."""
    return (rest.to(tl.int64) << (14 * (DIGITS - 1))) + low


@jit
def _half_of_columns(x, RIGHT: tl.constexpr):
    left, right = tl.split(tl.permute(tl.reshape(x, [x.shape[0], 2, x.shape[1] // 2]), (0, 2, 1)))
    half = left
    if RIGHT:
        half = right
    return half


@jit
def part_of_columns(x, PART: tl.constexpr, PARTS: tl.constexpr):
    """Part number PART of a tile cut into 1, 2, 4 or 8 runs of columns."""
    if PARTS >= 8:
        x = _half_of_columns(x, PART >= 4)
    if PARTS >= 4:
        x = _half_of_columns(x, PART % 4 >= 2)
    if PARTS >= 2:
        x = _half_of_columns(x, PART % 2 == 1)
    return x


@kernel(
    "*i64 *i32 *i32 *fp32 *fp32 *fp32 i64 i64 i64 i64 i64 i64",
    *(Variant({"DIGITS": digits, **PLAIN_CONSTANTS}) for digits in (3, 2)),
    *(Variant({"DIGITS": 3, **fused}) for fused in FUSED_CONSTANTS),
)
def _round_total_kernel(
    total_ptr, a_top_ptr, b_top_ptr, y_ptr, bias_ptr, before_ptr, n, a_each, b_each, b_first, inner, channels,
    DIGITS: tl.constexpr, HAS_BIAS: tl.constexpr, KEEP: tl.constexpr, ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr = BLOCK,
):  # fmt: skip
    """Round the n totals that splits have added up, and finish them.

    Result i is on grid ``i // a_each`` of the first operand, on grid ``i // b_each * b_first + channel`` of the second,
    and of channel ``i // inner % channels``.
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    channel = i // inner % channels
    exponent = grid_exponent(tl.load(a_top_ptr + i // a_each, mask=mask, other=0))
    exponent += grid_exponent(tl.load(b_top_ptr + i // b_each * b_first + channel, mask=mask, other=0))
    y = round_dot(tl.load(total_ptr + i, mask=mask, other=0), exponent - 2 * (7 * DIGITS - 1))
    if HAS_BIAS:
        y = y + tl.load(bias_ptr + channel, mask=mask, other=0.0)
        y = tl.where(y == y, y, float("nan"))
    if KEEP:
        tl.store(before_ptr + i, y, mask=mask)
    tl.store(y_ptr + i, ACTIVATION(y), mask=mask)


def round_totals(
    total: torch.Tensor,
    a_top: torch.Tensor,
    b_top: torch.Tensor,
    y: torch.Tensor,
    pointers: tuple[torch.Tensor, torch.Tensor],
    grids: tuple[int, int, int, int, int],
    digits: int,
    finish: Mapping[str, Any],
) -> None:
    """Round the int64 sums that splits have added up into ``y`` and finish them.

    Args:
        total: int64, of ``y``'s shape.
        a_top, b_top: the top bits of the operands' grids.
        y: binary32, contiguous.
        pointers, finish: what :meth:`Epilogue.launch` gave for ``y``.
        grids: which grids and channel each result is of, see :func:`_round_total_kernel`.
        digits: of the precision.
    """
    n = y.numel()
    _round_total_kernel((blocks(n, BLOCK),), total, a_top, b_top, y, *pointers, n, *grids, DIGITS=digits, **finish)
