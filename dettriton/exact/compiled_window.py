"""Exact windowed sums on the CPU by compiled loops; :mod:`dettriton.exact.window` says what they are."""

from __future__ import annotations

import numpy as np
import torch

from dettriton.exact._loops import flat, spread
from dettriton.exact._window_loops import (
    accumulate_columns,
    accumulate_runs,
    gradient_sums,
    index_sums,
    round_all,
    scattered_sums,
    statistics,
)

_SHORT_RUN = 16
"""Of elements: it takes longer to begin such a run than to add it up, and two copies in another order less."""
_PASSES = 4
"""What a windowed sum costs in units of a loop that reads and writes an element: it reads twice and splits."""

Fields = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Of one accumulator for each kept index: window, hi, lo, finite."""


def accumulated(terms: torch.Tensor, threaded: bool = True) -> Fields:
    """The sums of a contiguous binary32 (outer, kept, inner) tensor over outer and inner."""
    outer, kept, inner = terms.shape
    window, hi, lo = np.empty((3, kept), np.int64)
    fields = window, hi, lo, np.empty(kept, np.bool_)
    loop, x = accumulate_columns if inner == 1 else accumulate_runs, flat(terms)

    def of_kept(first: int, last: int) -> None:
        loop(x, outer, kept, inner, first, last, *fields)

    spread(of_kept, kept, _PASSES * terms.numel() if threaded else 0)
    return fields


def rounded(fields: Fields, shape: torch.Size) -> torch.Tensor:
    """Each sum rounded to binary32 once, in a tensor of this shape."""
    total = torch.empty(shape)
    round_all(*fields, flat(total))
    return total


def sums_by_index(terms: torch.Tensor, index: torch.Tensor, size: int, initial: torch.Tensor | None) -> torch.Tensor:
    """The exact sums of rows with the same index in [0, size), and of the initial row, if there is one: (size, columns)."""
    y = torch.zeros(size, terms.shape[1]) if initial is None else initial.clone(memory_format=torch.contiguous_format)
    columns = terms.shape[1]
    x, targets, sums = flat(terms), flat(index), flat(y)
    spread(lambda first, last: index_sums(x, targets, columns, first, last, sums), columns, terms.numel())
    return y


def scatter_sums(terms: torch.Tensor, index: torch.Tensor, y: torch.Tensor) -> None:
    """Make flat ``y`` the exact sums of itself and of the flat terms whose index names it."""
    scattered_sums(flat(terms), flat(index), flat(y))


def mean_and_squares(terms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``m = S(x) / n`` and ``S((x - m) * (x - m))`` of each kept index of ``terms``."""
    terms = by_runs(terms)
    outer, kept, inner = terms.shape
    mean, squares = torch.empty(kept), torch.empty(kept)
    x, into = flat(terms), (flat(mean), flat(squares))

    def of_kept(first: int, last: int) -> None:
        statistics(x, outer, kept, inner, first, last, *into)

    spread(of_kept, kept, _PASSES * terms.numel())
    return mean, squares


def sums_of_gradients(
    grad: torch.Tensor, x: torch.Tensor, gate: torch.Tensor | None, mean: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """``S(g)`` and ``S(g * h)`` of each kept index, ``h = (x - mean) * scale``.

    Args:
        grad, x, gate: (outer, kept, inner); with a gate, ``g`` is the gradient where the gate is above 0, else +0.
        mean, scale: (kept,).
    """
    terms = [by_runs(t) for t in (grad, x, grad if gate is None else gate)]
    outer, kept, inner = terms[0].shape
    totals = torch.empty(kept), torch.empty(kept)
    arrays = *(flat(t) for t in terms), gate is not None
    per_kept = [flat(t) for t in (mean, scale, *totals)]

    def of_kept(first: int, last: int) -> None:
        gradient_sums(*arrays, outer, kept, inner, first, last, *per_kept)

    spread(of_kept, kept, 2 * _PASSES * terms[0].numel())
    return totals


def by_runs(terms: torch.Tensor) -> torch.Tensor:
    """An (outer, kept, inner) tensor with the same sums whose terms lie in long runs."""
    outer, kept, inner = terms.shape
    return terms if inner > _SHORT_RUN else terms.transpose(0, 1).contiguous().view(1, kept, outer * inner)


def from_runs(terms: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """What ``by_runs`` made of a tensor of this shape, in its order again."""
    outer, kept, inner = shape
    return terms if inner > _SHORT_RUN else terms.view(kept, outer, inner).transpose(0, 1).contiguous()
