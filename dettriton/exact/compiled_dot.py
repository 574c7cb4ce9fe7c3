"""Exact dot products of rows on the CPU: by a compiled loop of tiles, or by loops around binary64 matrix products."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from dettriton.exact._grid_loops import grid_scales, quantize_grids
from dettriton.exact._loops import flat, spread
from dettriton.exact._map_loops import ROWS, dots_of_rows, round_matrices
from dettriton.exact.dot import exact_terms, integer_bmm

NO_BIAS = np.empty(0, np.float32)

PRODUCTS_OF_AN_ELEMENT = 8
"""Are added in the time in which other loops read and write an element, where it is asked whether to share work out."""

_MOST_PACKED = 1 << 18
"""Numbers of ``b`` in tiles: more are read again for each four rows from memory too far away."""
_MOST_PACKED_OF_A_ROW = 1 << 12
"""The same for each row of ``a``: for fewer rows, laying the numbers out costs more than it saves."""

_SCRATCH = threading.local()
_KEPT_ELEMENTS = 1 << 21


def scratch(name: str, elements: int) -> torch.Tensor:
    """Uninitialised binary64 room of this thread, kept between calls: fresh pages cost more than what fills them."""
    found = getattr(_SCRATCH, name, None)
    if found is None or found.numel() < elements:
        found = torch.empty(elements, dtype=torch.float64)
        if elements <= _KEPT_ELEMENTS:
            setattr(_SCRATCH, name, found)
    return found[:elements]


def _spread_grids(
    loop: Callable[[tuple[int, int, int, int], slice, slice], None], outer: int, shared: int, grids: int, run: int
) -> None:
    """Call ``loop(sizes, elements, grids)`` for parts of (outer, shared, grids, run): of ``outer``, or of one's grids."""
    by_grid = outer == shared == 1
    parts, each = (grids, 1) if by_grid else (outer, grids)
    size = shared * each * run

    def of_parts(first: int, last: int) -> None:
        sizes = (1, 1, last - first, run) if by_grid else (last - first, shared, grids, run)
        loop(sizes, slice(first * size, last * size), slice(first * each, last * each))

    spread(of_parts, parts, parts * size)


def quantized(
    x: np.ndarray, outer: int, shared: int, grids: int, run: int, bits: int, q: np.ndarray, unit: np.ndarray
) -> None:
    """What ``quantize_grids`` does, shared out among threads."""

    def of_part(sizes: tuple[int, int, int, int], elements: slice, of_grids: slice) -> None:
        quantize_grids(x[elements], *sizes, bits, q[elements], unit[of_grids])

    _spread_grids(of_part, outer, shared, grids, run)


def scales_and_units(
    x: np.ndarray, outer: int, shared: int, grids: int, run: int, bits: int
) -> tuple[np.ndarray, np.ndarray]:
    """What ``grid_scales`` finds, shared out among threads."""
    scale, unit = np.empty(outer * grids), np.empty(outer * grids)

    def of_part(sizes: tuple[int, int, int, int], elements: slice, of_grids: slice) -> None:
        grid_scales(x[elements], *sizes, bits, scale[of_grids], unit[of_grids])

    _spread_grids(of_part, outer, shared, grids, run)
    return scale, unit


def rounded(
    total: np.ndarray,
    units_a: np.ndarray,
    units_b: np.ndarray,
    shape: tuple[int, int, int],
    bias: np.ndarray,
    y: np.ndarray,
) -> None:
    """What ``round_matrices`` does, shared out among threads by matrices, or by the rows of one."""
    batch, rows, cols = shape
    parts, high = (rows, 1) if batch == 1 else (batch, rows)

    def of_parts(first: int, last: int) -> None:
        sizes = (1, last - first, cols) if batch == 1 else (last - first, rows, cols)
        elements, of_rows = slice(first * high * cols, last * high * cols), slice(first * high, last * high)
        of_cols = slice(None) if batch == 1 else slice(first * cols, last * cols)
        round_matrices(total[elements], units_a[of_rows], units_b[of_cols], *sizes, bias, y[elements])

    spread(of_parts, parts, total.size)


class _Rows(NamedTuple):
    """A matrix (batch, rows, terms) in the order in memory that it has, or turned: (batch, terms, rows)."""

    values: torch.Tensor
    turned: bool

    @classmethod
    def of(cls, x: torch.Tensor) -> _Rows:
        turned = not x.is_contiguous() and x.transpose(1, 2).is_contiguous()
        return cls(x.transpose(1, 2) if turned else x.contiguous(), turned)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """As ``grid_scales`` takes them, one grid a row."""
        batch, high, wide = self.values.shape
        return (batch, high, wide, 1) if self.turned else (1, 1, batch * high, wide)

    def integers(self, bits: int) -> tuple[torch.Tensor, np.ndarray]:
        """Grid integers (batch, rows, terms) in the same order in memory, and the units."""
        sizes = self.sizes
        q, unit = torch.empty(self.values.shape, dtype=torch.float64), np.empty(sizes[0] * sizes[2])
        quantized(flat(self.values), *sizes, bits, flat(q), unit)
        return q.transpose(1, 2) if self.turned else q, unit

    def grids(self, bits: int) -> tuple[np.ndarray, np.ndarray]:
        """Scales and units."""
        return scales_and_units(flat(self.values), *self.sizes, bits)

    def steps(self) -> np.ndarray:
        """From a row to the next, and from a term to the next."""
        length = self.values.shape[2]
        return np.array((1, length) if self.turned else (length, 1), np.int64)


def dot_rows(a: torch.Tensor, b: torch.Tensor, bits: int, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Dot products of all rows of ``a`` (B, M, K) with all rows of ``b`` (B, N, K), one grid a row: (B, M, N).

    Args:
        a, b: binary32.
        bits: of the grids.
        bias: None, or (N,), added to the rounded products.
    """
    (batch, rows, terms), cols = a.shape, b.shape[1]
    y = torch.empty(batch, rows, cols)
    added = NO_BIAS if bias is None else flat(bias.contiguous())
    packed = cols * terms
    fits = 0 < terms <= exact_terms(bits) and packed <= min(_MOST_PACKED, _MOST_PACKED_OF_A_ROW * rows)
    (_in_tiles if fits else _by_matrix_products)(_Rows.of(a), _Rows.of(b), bits, added, y)
    return y


def _in_tiles(a: _Rows, b: _Rows, bits: int, bias: np.ndarray, y: torch.Tensor) -> None:
    (scale_a, unit_a), (scale_b, unit_b) = a.grids(bits), b.grids(bits)
    terms = a.values.shape[1 if a.turned else 2]
    operands = flat(a.values), flat(b.values), scale_a, scale_b, unit_a, unit_b, a.steps(), b.steps()
    sizes, result = np.array((*y.shape, terms), np.int64), flat(y)

    def of_fours(first: int, last: int) -> None:
        dots_of_rows(*operands, sizes, bias, first, last, result)

    spread(of_fours, y.shape[0] * -(-y.shape[1] // ROWS), y.numel() * terms // PRODUCTS_OF_AN_ELEMENT)


def _by_matrix_products(a: _Rows, b: _Rows, bits: int, bias: np.ndarray, y: torch.Tensor) -> None:
    (qa, units_a), (qb, units_b) = a.integers(bits), b.integers(bits)
    total = integer_bmm(qa, qb.transpose(1, 2), bits)
    if total.dtype == torch.int64:
        total = total.to(torch.float32).to(torch.float64)
    rounded(flat(total), units_a, units_b, tuple(total.shape), bias, flat(y))
