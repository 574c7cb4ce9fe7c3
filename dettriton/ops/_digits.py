"""Digit planes on a GPU: the grids' largest magnitudes and the balanced base-128 digits every integer product reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dettriton.exact.grid import PRECISION_DIGITS, bits_of
from dettriton.ops._device import grid_exponent, grid_integer, magnitude_bits
from dettriton.ops._launch import Variant, blocks, jit, kernel, tl

BLOCK = 1024
TILES = 8


@jit
def store_digits(rest, planes_ptr, plane, at, mask, DIGITS: tl.constexpr):
    """Store grid integers as balanced base-128 digits, lowest first, each in its plane."""
    for digit in tl.static_range(DIGITS - 1):
        low = ((rest + 64) & 127) - 64
        tl.store(planes_ptr + digit * plane + at, low.to(tl.int8), mask=mask)
        rest = (rest - low) >> 7
    tl.store(planes_ptr + (DIGITS - 1) * plane + at, rest.to(tl.int8), mask=mask)


@kernel("*fp32 *i32 i64 i64 i64")
def _grid_top_kernel(x_ptr, top_ptr, outer, kept, inner, BLOCK: tl.constexpr = BLOCK, TILES: tl.constexpr = TILES):
    """The bits of the largest magnitude of each grid of x (outer, kept, inner): an integer maximum, free in order."""
    row = tl.program_id(0).to(tl.int64) % kept
    chunk = tl.program_id(0).to(tl.int64) // kept
    terms = outer * inner
    top = tl.zeros([BLOCK], dtype=tl.int32)
    for tile in range(TILES):
        j = (chunk * TILES + tile) * BLOCK + tl.arange(0, BLOCK)
        mask = j < terms
        x = tl.load(x_ptr + (j // inner) * kept * inner + row * inner + j % inner, mask=mask, other=0.0)
        top = tl.maximum(top, magnitude_bits(x))
    tl.atomic_max(top_ptr + row, tl.max(top, axis=0))


@kernel("*fp32 *i32 *i8 i64 i64 i64", Variant({"DIGITS": 3}), Variant({"DIGITS": 2}))
def _digits_kernel(x_ptr, top_ptr, planes_ptr, n, kept, inner, DIGITS: tl.constexpr, BLOCK: tl.constexpr = BLOCK):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    exponent = grid_exponent(tl.load(top_ptr + (i // inner) % kept, mask=mask, other=0))
    rest = grid_integer(tl.load(x_ptr + i, mask=mask, other=0.0), exponent, 7 * DIGITS - 1)
    store_digits(rest, planes_ptr, n, i, mask, DIGITS)


@dataclass(frozen=True)
class Planes:
    """An operand on its grids: int8 digits ``(DIGITS, *shape)``, lowest first, and each grid's top bits."""

    digits: torch.Tensor
    top: torch.Tensor

    @property
    def count(self) -> int:
        return self.digits.shape[0]

    @property
    def plane_stride(self) -> int:
        return self.digits[0].numel()


def grid_top(x: torch.Tensor, outer: int, kept: int, inner: int) -> torch.Tensor:
    """The bits of the largest magnitude for each index of ``kept`` of a contiguous ``x``, seen as (outer, kept, inner)."""
    top = torch.zeros(kept, dtype=torch.int32, device=x.device)
    tiles = TILES if outer * inner > BLOCK else 1
    grid = (blocks(outer * inner, BLOCK * tiles) * kept,)
    _grid_top_kernel(grid, x, top, outer, kept, inner, TILES=tiles)
    return top


def digit_planes(x: torch.Tensor, kept: int, inner: int, precision: str, top: torch.Tensor | None = None) -> Planes:
    """Quantise ``x``, seen as ``(outer, kept, inner)``, with one grid for each index of ``kept``.

    ``top`` holds the bits of each grid's largest magnitude where another kernel found them.
    """
    bits_of(precision)
    x = x.contiguous()
    n, count = x.numel(), PRECISION_DIGITS[precision]
    outer = n // max(kept * inner, 1)
    planes = torch.empty(count, *x.shape, dtype=torch.int8, device=x.device)
    if top is None:
        top = grid_top(x, outer, kept, inner)
    _digits_kernel((blocks(n, BLOCK),), x, top, planes, n, kept, inner, DIGITS=count)
    return Planes(planes, top)
