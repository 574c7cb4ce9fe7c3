"""Digit planes of rows, which end in zeros so that a product kernel needs no mask along the terms.

Operands are read where they are, whichever of rows and terms is contiguous, and written once: terms contiguous, each
row a whole number of :data:`~dettriton.ops._plans.PADDING` terms.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dettriton.exact.grid import PRECISION_DIGITS, bits_of
from dettriton.ops._device import grid_exponent, grid_integer, magnitude_bits
from dettriton.ops._digits import store_digits
from dettriton.ops._launch import Variant, blocks, jit, kernel, tl
from dettriton.ops._plans import PADDING

BLOCK_R = 32
TILES = 8


@jit
def _element(batch, row, term, batch_stride, stride, TERMS_LAST: tl.constexpr):
    row_stride = stride if TERMS_LAST else 1
    term_stride = 1 if TERMS_LAST else stride
    return batch * batch_stride + row[:, None] * row_stride + term[None, :] * term_stride


@kernel("*fp32 *i32 i64 i64 i64 i64", *(Variant({"TERMS_LAST": last}) for last in (True, False)))
def _row_top_kernel(
    x_ptr, top_ptr, rows, terms, batch_stride, stride, TERMS_LAST: tl.constexpr,
    BLOCK_R: tl.constexpr = BLOCK_R, BLOCK_C: tl.constexpr = PADDING, TILES: tl.constexpr = TILES,
):  # fmt: skip
    """The bits of the largest magnitude of each row of x (batch, rows, terms)."""
    row_blocks = tl.cdiv(rows, BLOCK_R)
    batch = tl.program_id(0).to(tl.int64) // row_blocks
    row = tl.program_id(0).to(tl.int64) % row_blocks * BLOCK_R + tl.arange(0, BLOCK_R)
    top = tl.zeros([BLOCK_R, BLOCK_C], dtype=tl.int32)
    for tile in range(TILES):
        term = (tl.program_id(1).to(tl.int64) * TILES + tile) * BLOCK_C + tl.arange(0, BLOCK_C)
        mask = (row < rows)[:, None] & (term < terms)[None, :]
        x = tl.load(x_ptr + _element(batch, row, term, batch_stride, stride, TERMS_LAST), mask=mask, other=0.0)
        top = tl.maximum(top, magnitude_bits(x))
    tl.atomic_max(top_ptr + batch * rows + row, tl.max(top, axis=1), mask=row < rows)


@kernel(
    "*fp32 *i32 *i8 i64 i64 i64 i64 i64 i64",
    *(Variant({"DIGITS": digits, "TERMS_LAST": last}) for digits in (3, 2) for last in (True, False)),
)
def _row_digits_kernel(
    x_ptr, top_ptr, planes_ptr, rows, terms, batch_stride, stride, sixteenths, plane_sixteenths,
    DIGITS: tl.constexpr, TERMS_LAST: tl.constexpr, BLOCK_R: tl.constexpr = BLOCK_R, BLOCK_C: tl.constexpr = PADDING,
):  # fmt: skip
    """Digit planes (DIGITS, batch, rows, 16 * sixteenths) of x (batch, rows, terms)."""
    row_blocks = tl.cdiv(rows, BLOCK_R)
    batch = tl.program_id(0).to(tl.int64) // row_blocks
    row = tl.program_id(0).to(tl.int64) % row_blocks * BLOCK_R + tl.arange(0, BLOCK_R)
    term = tl.program_id(1).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (row < rows)[:, None]
    x = tl.load(
        x_ptr + _element(batch, row, term, batch_stride, stride, TERMS_LAST),
        mask=inside & (term < terms)[None, :],
        other=0.0,
    )
    exponent = grid_exponent(tl.load(top_ptr + batch * rows + row, mask=row < rows, other=0))
    at = (batch * rows + row)[:, None] * sixteenths * 16 + term[None, :]
    q = grid_integer(x, exponent[:, None], 7 * DIGITS - 1)
    store_digits(q, planes_ptr, plane_sixteenths * 16, at, inside, DIGITS)


@dataclass(frozen=True)
class RowPlanes:
    """Rows on their grids: int8 digits ``(DIGITS, batch, rows, padded terms)``, lowest first, and each row's top bits.

    Lengths of rows and planes are whole sixteenths: tiles are read 16 bytes at a time.
    """

    digits: torch.Tensor
    top: torch.Tensor

    @property
    def count(self) -> int:
        return self.digits.shape[0]

    @property
    def sixteenths(self) -> int:
        return self.digits.shape[3] // 16

    @property
    def plane_sixteenths(self) -> int:
        return self.digits[0].numel() // 16


def row_planes(x: torch.Tensor, precision: str, top: torch.Tensor | None = None) -> RowPlanes:
    """Quantise ``x`` (batch, rows, terms) with one grid for each row.

    ``top`` holds the bits of each row's largest magnitude where another kernel found them.
    """
    bits_of(precision)
    batch, rows, terms = x.shape
    terms_last = terms <= 1 or x.stride(2) == 1
    if not terms_last and rows > 1 and x.stride(1) != 1:
        x, terms_last = x.contiguous(), True
    strides = (x.stride(0), x.stride(1) if terms_last else x.stride(2))
    row_blocks, columns = batch * blocks(rows, BLOCK_R), blocks(terms, PADDING)
    if top is None:
        top = torch.zeros(batch * rows, dtype=torch.int32, device=x.device)
        tiles = min(TILES, max(columns, 1))
        grid = (row_blocks, blocks(columns, tiles))
        _row_top_kernel(grid, x, top, rows, terms, *strides, TERMS_LAST=terms_last, TILES=tiles)
    count = PRECISION_DIGITS[precision]
    planes = RowPlanes(torch.empty(count, batch, rows, columns * PADDING, dtype=torch.int8, device=x.device), top)
    _row_digits_kernel(
        (row_blocks, columns), x, top, planes.digits, rows, terms, *strides, planes.sixteenths, planes.plane_sixteenths,
        DIGITS=count, TERMS_LAST=terms_last,
    )  # fmt: skip
    return planes
