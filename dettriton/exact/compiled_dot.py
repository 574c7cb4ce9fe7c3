"""Exact dot products of rows on the CPU by compiled loops around binary64 matrix products."""

from __future__ import annotations

import threading

import numpy as np
import torch

from dettriton.exact._grid_loops import quantize_grids, round_matrices
from dettriton.exact._loops import flat, spread
from dettriton.exact.dot import integer_bmm

NO_BIAS = np.empty(0, np.float32)


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


def quantized(
    x: np.ndarray, outer: int, shared: int, grids: int, run: int, bits: int, q: np.ndarray, unit: np.ndarray
) -> None:
    """What ``quantize_grids`` does, shared out among threads by ``outer``, or by the grids of one."""
    by_grid = outer == shared == 1
    parts, each = (grids, 1) if by_grid else (outer, grids)
    size = shared * each * run

    def of_parts(first: int, last: int) -> None:
        sizes = (1, 1, last - first, run) if by_grid else (last - first, shared, grids, run)
        elements, of_grids = slice(first * size, last * size), slice(first * each, last * each)
        quantize_grids(x[elements], *sizes, bits, q[elements], unit[of_grids])

    spread(of_parts, parts, x.size)


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


def _integer_rows(x: torch.Tensor, bits: int) -> tuple[torch.Tensor, np.ndarray]:
    """Grid integers of ``x`` (batch, rows, terms), one grid a row, in the order in memory of ``x``; and the units."""
    batch, rows, terms = x.shape
    unit = np.empty(batch * rows)
    turned = not x.is_contiguous() and x.transpose(1, 2).is_contiguous()
    x = x.transpose(1, 2) if turned else x.contiguous()
    q = torch.empty(x.shape, dtype=torch.float64)
    sizes = (batch, terms, rows, 1) if turned else (1, 1, batch * rows, terms)
    quantized(flat(x), *sizes, bits, flat(q), unit)
    return q.transpose(1, 2) if turned else q, unit


def dot_rows(a: torch.Tensor, b: torch.Tensor, bits: int, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Dot products of all rows of ``a`` (B, M, K) with all rows of ``b`` (B, N, K), one grid a row: (B, M, N).

    Args:
        a, b: binary32.
        bits: of the grids.
        bias: None, or (N,), added to the rounded products.
    """
    (qa, units_a), (qb, units_b) = _integer_rows(a, bits), _integer_rows(b, bits)
    total = integer_bmm(qa, qb.transpose(1, 2), bits)
    if total.dtype == torch.int64:
        total = total.to(torch.float32).to(torch.float64)
    y = torch.empty(total.shape)
    added = NO_BIAS if bias is None else flat(bias.contiguous())
    rounded(flat(total), units_a, units_b, tuple(total.shape), added, flat(y))
    return y
