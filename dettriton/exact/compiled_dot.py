"""Exact dot products of rows on the CPU by compiled loops around binary64 matrix products."""

from __future__ import annotations

import threading

import numpy as np
import torch

from dettriton.exact._grid_loops import quantize_grids, round_matrices
from dettriton.exact._loops import flat
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


def _integer_rows(x: torch.Tensor, bits: int) -> tuple[torch.Tensor, np.ndarray]:
    """Grid integers of ``x`` (batch, rows, terms), one grid a row, in the order in memory of ``x``; and the units."""
    batch, rows, terms = x.shape
    unit = np.empty(batch * rows)
    turned = not x.is_contiguous() and x.transpose(1, 2).is_contiguous()
    x = x.transpose(1, 2) if turned else x.contiguous()
    q = torch.empty(x.shape, dtype=torch.float64)
    sizes = (batch, terms, rows, 1) if turned else (1, 1, batch * rows, terms)
    quantize_grids(flat(x), *sizes, bits, flat(q), unit)
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
    round_matrices(flat(total.contiguous()), units_a, units_b, *total.shape, added, flat(y))
    return y
