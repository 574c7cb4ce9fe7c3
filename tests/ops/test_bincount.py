from fractions import Fraction

import oracle
import pytest
import torch
from bits import INF, NAN, hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.bincount import bincount, histc

HARD = hard_vectors(60)
VECTORS = {**HARD, **non_finite_vectors(60)}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n", [0, 1, 500])
@pytest.mark.parametrize("minlength", [0, 3, 40])
def test_verify_counts(n, minlength):
    x = torch.randint(0, 20, (n,), generator=generator(n))
    for result in on_both_engines(bincount, x, None, minlength):
        assert same_bits(result, torch.bincount(x, minlength=minlength))
    assert same_bits(bincount(x.to(torch.int32)), torch.bincount(x))


@pytest.mark.parametrize("minlength", [0, 9])
def test_corroborate_and_verify_weights(minlength):
    x = torch.randint(0, 6, (50,), generator=generator(1))
    weights = torch.randn(50, generator=generator(2))
    reference, kernels = on_both_engines(values_and_grads, lambda w: bincount(x, w, minlength), weights)
    assert all(map(same_bits, reference, kernels))
    torch.testing.assert_close(reference[0].double(), torch.bincount(x, weights.double(), minlength))
    upstream = torch.randn(reference[0].shape, generator=generator(0))
    assert same_bits(reference[1], upstream[x])


@pytest.mark.parametrize("name", VECTORS)
def test_validate_weights_in_any_order(name):
    weights = VECTORS[name]
    x = torch.randint(0, 3, (60,), generator=generator(3))
    order = torch.randperm(60, generator=generator(4))
    results = [*on_both_engines(bincount, x, weights, 5), bincount(x[order], weights[order], 5)]
    assert all(same_bits(r, results[0]) for r in results)
    if name in HARD:
        expected = [oracle.windowed_sum(weights[x == t].tolist()) for t in range(5)]
        assert [oracle.word(v) for v in results[0].tolist()] == [oracle.word(v) for v in expected]


def bin_of(x: float, bins: int, low: float, high: float) -> int | None:
    """The bin by Python's binary64, which exact arithmetic must confirm but for a rounding at an edge."""
    if not low <= x <= high:
        return None
    place = min(int(((x - low) * bins) / (high - low)), bins - 1)
    exact = (Fraction(x) - Fraction(low)) * bins / (Fraction(high) - Fraction(low))
    assert place - 1e-14 < exact < place + 1 + 1e-14 or x == high
    return place


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize(("bins", "low", "high"), [(7, -1.5, 2.0), (1, -2.0, 0.0), (64, -0.0, 1.0)])
def test_validate_histogram_against_fractions(name, bins, low, high):
    x = VECTORS[name]
    expected = [0.0] * bins
    for value in x.tolist():
        place = bin_of(value, bins, low, high) if value == value else None
        if place is not None:
            expected[place] += 1.0
    for result in on_both_engines(histc, x.view(6, 10).t(), bins, low, high):
        assert result.tolist() == expected


@pytest.mark.parametrize("name", ["normal", "integers", "ones", "zeros", "huge", "tiny"])
def test_corroborate_histogram_with_limits_of_the_data(name):
    x = HARD[name]
    for result in on_both_engines(histc, x, 10):
        assert result.sum() == 60.0
        if name != "huge":
            assert torch.equal(result, torch.histc(x.double(), 10).float())


def test_limits_that_cannot_move_apart_fill_the_first_bin():
    assert histc(torch.full((4,), 1e30), 3).tolist() == [4.0, 0.0, 0.0]


def test_nothing_is_counted_where_the_limits_are_not_finite():
    for value in (NAN, INF, -INF):
        assert histc(torch.tensor([1.0, value, 2.0]), 3).tolist() == [0.0] * 3
        assert histc(torch.tensor([1.0, value, 2.0]), 3, 0, 3).tolist() == [0.0, 1.0, 1.0]
    assert histc(torch.zeros(0), 3).tolist() == [0.0] * 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda i: bincount(i - 1), "input -1 at position 0"),
        (lambda i: bincount(i[None]), r"\(N,\)"),
        (lambda i: bincount(i, torch.zeros(2)), "weights"),
        (lambda i: bincount(i, torch.zeros(1).double()), "float32"),
        (lambda i: bincount(i, minlength=-1), "minlength"),
        (lambda i: bincount(i.float()), "int64"),
        (lambda i: histc(i), "float32"),
        (lambda i: histc(torch.zeros(3), 0), "bins"),
        (lambda i: histc(torch.zeros(3), 2, 1, 0), "ascending"),
        (lambda i: histc(torch.zeros(3), 2, 0, INF), "finite"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(torch.zeros(1, dtype=torch.int64))
