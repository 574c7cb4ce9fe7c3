import functools
import itertools
import math
import random
from fractions import Fraction

import oracle64
import pytest
import torch

from dettriton.exact.window64 import CANONICAL_NAN64_BITS, accumulate64, round_windows64, windowed_sum64

HARD = oracle64.hard_vectors64(97)


def same(a: torch.Tensor, b: float) -> bool:
    return a.item() == b and math.copysign(1, a.item()) == math.copysign(1, b)


@pytest.mark.parametrize("name", HARD)
def test_validate_sums_against_fractions(name):
    assert same(windowed_sum64(HARD[name]), oracle64.windowed_sum64(HARD[name].tolist()))


def test_validate_many_random_sums_against_fractions():
    rng = random.Random(1)
    ranges = [(-1074, -1000), (-50, 50), (900, 1015), (-1022, 1010), (0, 3), (-160, 0)]
    for trial in range(300):
        low, high = ranges[trial % len(ranges)]
        values = [
            rng.choice((-1, 1)) * math.ldexp(rng.random(), rng.randint(low, high)) for _ in range(rng.choice((1, 2, 9)))
        ]
        values += [-v for v in values[1:]] + [math.ldexp(rng.random(), low)]
        assert same(windowed_sum64(torch.tensor(values, dtype=torch.float64)), oracle64.windowed_sum64(values)), values


def test_validate_the_rounding_is_one_rounding():
    rng = random.Random(2)
    shifts = (0, 1, 20, 31, 32, 33, 52, 53, 54, 60, 62)
    for _ in range(500):
        digits = [rng.choice((-1, 1)) * rng.getrandbits(1 + rng.choice(shifts)) for _ in range(4)]
        if rng.random() < 0.5:  # halfway between two binary64 values, give or take the last digit
            digits = [1 << 52, 1 << 31, 0, rng.choice((-1, 0, 1))]
        if rng.random() < 0.3:
            digits[0] = rng.choice((0, -1))
        window = rng.choice((-31, -5, 0, 3, 30))
        exact = sum(d * Fraction(2) ** (32 * (window - k)) for k, d in enumerate(digits))
        if abs(exact) < Fraction(2) ** -1022:
            continue  # a sum of binary64 terms is never rounded there
        found = round_windows64(*(torch.tensor(v) for v in (window,)), [torch.tensor(d) for d in digits])
        assert found.item() == oracle64.to_float64(exact), (window, digits)


@pytest.mark.parametrize("name", HARD)
def test_verify_parts_merge_in_any_order_and_grouping(name):
    parts = [accumulate64(p) for p in HARD[name].split([1, 30, 5, 61])]
    whole = accumulate64(HARD[name]).round()
    for order in itertools.permutations(parts):
        left = functools.reduce(lambda a, b: a.merge(b), order)
        pairs = order[0].merge(order[1]).merge(order[2].merge(order[3]))
        assert torch.equal(left.round(), whole) and torch.equal(pairs.round(), whole)


def test_verify_truncation_is_per_term_at_a_fixed_place():
    small, large = torch.full((4096,), 0.75, dtype=torch.float64), torch.tensor([2.0**96], dtype=torch.float64)
    assert accumulate64(small).round().item() == 3072.0
    merged = accumulate64(small).merge(accumulate64(large))
    # The three quarters are below the windows of 2**96: cut off there, although their sum is not.
    assert [d.item() for d in merged.digits] == [1, 0, 0, 0]
    assert merged.round().item() == accumulate64(torch.cat([small, large])).round().item() == 2.0**96


def test_non_finite_terms_give_the_canonical_nan():
    for x in oracle64.non_finite_vectors64().values():
        assert windowed_sum64(x).view(torch.int64).item() == CANONICAL_NAN64_BITS
