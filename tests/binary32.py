"""binary32 arithmetic in exact fractions, for oracles that follow a written order. Imported by the tests."""

import math
from fractions import Fraction

import torch
from oracle import to_float32, windowed_sum


class Binary32:
    """A finite binary32 number: every operation rounds once."""

    def __init__(self, value):
        self.value = Fraction(to_float32(Fraction(value)))

    def __add__(self, other):
        return Binary32(self.value + other.value)

    def __sub__(self, other):
        return Binary32(self.value - other.value)

    def __mul__(self, other):
        return Binary32(self.value * other.value)

    def __truediv__(self, other):
        return Binary32(self.value / other.value)

    def sqrt(self):
        scaled = self.value * 4**400
        root = math.isqrt(scaled.numerator // scaled.denominator)
        between = root * root != scaled
        return Binary32(Fraction(2 * root + between, 2 * 2**400))


def exact_sum(values: list[Binary32]) -> Binary32:
    """Rule R2 of the contract."""
    return Binary32(windowed_sum([float(v.value) for v in values]))


def numbers(x: torch.Tensor) -> list[Binary32]:
    return [Binary32(v) for v in x.flatten().tolist()]


def holds(x: torch.Tensor, expected: list[Binary32]) -> bool:
    """Whether the elements of ``x``, in order, are these numbers."""
    return [Fraction(v) for v in x.flatten().tolist()] == [v.value for v in expected]
