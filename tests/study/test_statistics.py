"""Statistics against numbers worked out by hand, and against scipy called directly."""

import math
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dettriton.study._statistics import differences, equal_variance, equivalence, friedman, holm, spread, wilcoxon

SOME = [0.951, 0.962, 0.948, 0.970, 0.955, 0.959, 0.966, 0.941]
OTHERS = [0.949, 0.950, 0.950, 0.944, 0.951, 0.956, 0.938, 0.947]


def test_spread_by_hand():
    found = spread([0.5, 0.25, 1.0])
    assert (found.n, found.minimum, found.maximum, found.range) == (3, 0.25, 1.0, 0.75)
    assert found.mean == float(Fraction(7, 12))
    # squared deviations from 7/12 are 1/144, 16/144 and 25/144; their sum by 2 is 7/48
    assert found.sd == math.sqrt(Fraction(7, 48))
    assert found.to_dict()["range"] == 0.75


def test_spread_of_one_run_has_no_deviation():
    assert spread([0.7]).sd is None
    assert spread([0.7, 0.7]).sd == 0.0


def test_differences_of_equal_steps_are_ties():
    assert 0.3 - 0.2 != 0.2 - 0.1
    assert differences([0.3, 0.2], [0.2, 0.1]) == [0.1, 0.1]


def every_sign(ranks):
    """The exact two-sided p of each sum of positive ranks."""
    sums = [sum(r for r, positive in zip(ranks, signs, strict=True) if positive) for signs in _signs(len(ranks))]
    total = sum(ranks)
    return {s: sum(min(t, total - t) <= min(s, total - s) for t in sums) / len(sums) for s in sums}


def _signs(n):
    return product((False, True), repeat=n)


def test_wilcoxon_is_the_share_of_signs_that_are_as_extreme():
    first = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    steps = [0.01, 0.02, 0.03, -0.04, 0.05, 0.06, 0.07]
    found = wilcoxon(first, [a - d for a, d in zip(first, steps, strict=True)])
    assert found.p == pytest.approx(every_sign(range(1, 8))[28 - 4], rel=1e-12)
    assert found.p == pytest.approx(2 * 7 / 128, rel=1e-12)  # sums 0 to 4: 1 + 1 + 1 + 2 + 2 of 128
    assert wilcoxon([1.0] * 6, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]).p == 2 / 64


def test_wilcoxon_is_scipys():
    assert (
        wilcoxon(SOME, OTHERS).p == stats.wilcoxon([round(a - b, 12) for a, b in zip(SOME, OTHERS, strict=True)]).pvalue
    )
    assert wilcoxon(SOME, OTHERS).p == wilcoxon(OTHERS, SOME).p


@pytest.mark.parametrize(
    ("first", "second", "note"),
    [
        (SOME[:5], OTHERS[:5], "not defined for fewer than 6 pairs"),
        (SOME, SOME, "not defined: no pair differs"),
    ],
)
def test_wilcoxon_is_not_defined(first, second, note):
    found = wilcoxon(first, second)
    assert found.p is None and found.note == note


def test_equivalence_of_two_pairs_by_the_cauchy_distribution():
    # differences 0.001 and 0.003: mean 0.002, standard error 0.001, so the nearer bound is 8 errors off; one degree of
    # freedom is Cauchy's distribution, whose upper tail is 1/2 - atan(t)/pi
    found = equivalence([0.501, 0.603], [0.5, 0.6], margin=0.01)
    assert found.statistic == pytest.approx(8.0)
    assert found.p == pytest.approx(0.5 - math.atan(8.0) / math.pi)
    outside = equivalence([0.501, 0.603], [0.5, 0.6], margin=0.001)
    assert outside.p == pytest.approx(0.5 + math.atan(1.0) / math.pi)


@pytest.mark.parametrize("margin", [0.001, 0.01, 0.05])
def test_equivalence_is_the_larger_of_two_one_sided_tests(margin):
    above = stats.ttest_rel([a + margin for a in SOME], OTHERS, alternative="greater").pvalue
    below = stats.ttest_rel([a - margin for a in SOME], OTHERS, alternative="less").pvalue
    assert equivalence(SOME, OTHERS, margin).p == pytest.approx(max(above, below), rel=1e-9)
    assert equivalence(OTHERS, SOME, margin).p == equivalence(SOME, OTHERS, margin).p


def test_equivalence_is_not_defined():
    assert equivalence([0.5], [0.4], 0.01).note == "not defined for fewer than 2 pairs"
    assert "the same in all pairs" in equivalence([0.5, 0.6], [0.4, 0.5], 0.01).note


def test_equal_variance_by_hand():
    # distances from the medians: 1, 0, 1 and 3, 0, 3 with means 2/3 and 2; between 8/3 on 1, within 2/3 + 6 on 4
    found = equal_variance([1.0, 2.0, 3.0], [2.0, 5.0, 8.0])
    assert found.statistic == pytest.approx(float(Fraction(8, 3) / (Fraction(20, 3) / 4)))
    assert found.p == pytest.approx(stats.f.sf(1.6, 1, 4))
    assert equal_variance(SOME, OTHERS).p == stats.levene(SOME, OTHERS, center="median").pvalue


def test_equal_variance_is_not_defined():
    assert "fewer than 3 runs" in equal_variance([0.1, 0.2], [0.1, 0.2]).note
    assert "neither arm varies" in equal_variance([0.1] * 4, [0.2] * 4).note
    assert equal_variance([0.1] * 4, SOME).p is not None


def test_friedman_by_hand():
    # every seed ranks the arms the same: rank sums 4, 8, 12 give 12/(4*3*4) * (16 + 64 + 144) - 3*4*4 = 8, and
    # chi-squared with two degrees of freedom has the tail exp(-x/2)
    found = friedman([[0.1, 0.2, 0.3, 0.4], [0.2, 0.3, 0.4, 0.5], [0.3, 0.4, 0.5, 0.6]])
    assert found.statistic == pytest.approx(8.0)
    assert found.p == pytest.approx(math.exp(-4.0))


def test_friedman_is_not_defined():
    assert "fewer than 2 common seeds" in friedman([[0.1], [0.2], [0.3]]).note
    assert "equal for every seed" in friedman([SOME, SOME, SOME]).note


def test_holm_by_hand():
    # in rising order 0.01 * 4, 0.02 * 3, 0.03 * 2 (not below the one before), 0.6 * 1
    assert holm([0.03, None, 0.01, 0.6, 0.02]) == pytest.approx([0.06, None, 0.04, 0.6, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([None]) == [None]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_falls_and_keeps_the_order(ps):
    adjusted = holm(ps)
    assert all(p <= a <= 1 for p, a in zip(ps, adjusted, strict=True))
    assert [a for _, a in sorted(zip(ps, adjusted, strict=True))] == sorted(adjusted)
    if ps:
        assert min(adjusted) == min(1.0, len(ps) * min(ps))
