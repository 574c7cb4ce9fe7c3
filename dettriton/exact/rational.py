"""Rational numbers and their square roots, rounded to binary32 once: integers decide, on the host."""

import math
from fractions import Fraction

import numpy as np

_SCALE_BITS = 256


def nearest_binary32(x: Fraction) -> float:
    """The nearest binary32 to a rational number, ties to even."""
    return math.copysign(_rounded(*divmod(abs(x.numerator) << _SCALE_BITS, x.denominator)), x)


def nearest_binary32_root(x: Fraction) -> float:
    """The nearest binary32 to the square root of a positive rational number."""
    square, rest = divmod(x.numerator << 2 * _SCALE_BITS, x.denominator)
    whole = math.isqrt(square)
    return _rounded(whole, rest + square - whole**2)


def _rounded(whole: int, rest: int) -> float:
    """``whole * 2**-_SCALE_BITS``, and a little more unless ``rest`` is 0, to 24 bits."""
    dropped = max(whole.bit_length() - 50, 0)
    inexact = rest != 0 or whole & ((1 << dropped) - 1) != 0
    # rounded to odd with 50 bits, binary64 decides the rounding to 24 as the exact value would
    return float(np.float32(math.ldexp(whole >> dropped | int(inexact), dropped - _SCALE_BITS)))
