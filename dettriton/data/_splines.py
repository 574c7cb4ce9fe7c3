"""Smooth curves in integers."""

from functools import cache

import torch

UNIT_BITS = 10


def spline(knots: torch.Tensor, spacing: int) -> torch.Tensor:
    """The uniform cubic B-spline of integer knots (Schoenberg 1946), sampled at every integer.

    A sample is the sum of four knots times weights in units of 2**-10 that add up to one, shifted down with rounding.

    Args:
        knots: (..., n + 3) int32, magnitudes below 2**20.
        spacing: samples from one knot to the next.

    Returns:
        (..., n * spacing) int32.
    """
    n = knots.shape[-1] - 3
    weights = _weights(spacing)
    pieces = [knots[..., i : i + n, None] * weights[i] for i in range(4)]
    total = ((pieces[0] + pieces[1]) + pieces[2]) + pieces[3]
    return ((total + (1 << (UNIT_BITS - 1))) >> UNIT_BITS).reshape(*knots.shape[:-1], n * spacing)


@cache
def _weights(spacing: int) -> torch.Tensor:
    """(4, spacing) int32: the cubic weights of each place between two knots, rounded down; the second takes the rest."""
    s, unit = spacing, 1 << UNIT_BITS
    rows = []
    for j in range(s):
        left = (s - j) ** 3
        right = -3 * j**3 + 3 * j**2 * s + 3 * j * s**2 + s**3
        first, third, fourth = (part * unit // (6 * s**3) for part in (left, right, j**3))
        rows.append((first, unit - first - third - fourth, third, fourth))
    return torch.tensor(rows, dtype=torch.int32).t().contiguous()
