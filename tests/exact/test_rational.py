"""Rational numbers and their roots, rounded to binary32 once."""

import math
from fractions import Fraction

import pytest
from binary32 import Binary32

from dettriton.exact.rational import nearest_binary32, nearest_binary32_root

HALF_ULP = Fraction(1, 2**24)
SUBNORMAL = Fraction(1, 2**149)


@pytest.mark.parametrize(
    "x",
    [Fraction(1, 3), Fraction(-2, 7), Fraction(10**30, 7), Fraction(1, 3 * 2**140), Fraction(0), 1 - HALF_ULP / 3],
    ids=str,
)
def test_validate_a_rational_is_rounded_to_nearest(x):
    assert Fraction(nearest_binary32(x)) == Binary32(x).value


@pytest.mark.parametrize("sign", [1, -1])
def test_validate_ties_go_to_even_and_nothing_is_rounded_twice(sign):
    hair = Fraction(1, 2**200)
    assert nearest_binary32(sign * (1 + HALF_ULP)) == sign * 1.0
    assert nearest_binary32(sign * (1 + HALF_ULP + hair)) == sign * (1.0 + 2.0**-23)
    assert nearest_binary32(sign * (1 + HALF_ULP * 3)) == sign * (1.0 + 2.0**-22)
    assert nearest_binary32(sign * SUBNORMAL * 3 / 2) == sign * 2.0**-148


@pytest.mark.parametrize("low", [1.0, 1.0 + 2.0**-23, 3.25, 2.0**-40])
def test_validate_a_root_beside_a_midpoint_goes_to_its_own_side(low):
    ulp = 2.0 ** (math.frexp(low)[1] - 24)
    middle, hair = Fraction(low) + Fraction(ulp) / 2, Fraction(1, 2**200)
    assert nearest_binary32_root((middle - hair) ** 2) == low
    assert nearest_binary32_root((middle + hair) ** 2) == low + ulp


@pytest.mark.parametrize("root", [Fraction(3, 8), Fraction(2**20 + 1), Fraction(1, 2**60)], ids=str)
def test_validate_a_root_that_is_binary32_is_itself(root):
    assert nearest_binary32_root(root**2) == root
