"""Calibration error: against the definition in rational numbers, by hand, and whatever the order of the samples."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from dettriton.data.dataset import BINARY_CLASS, MULTI_CLASS, MULTI_LABEL, ORDINAL
from dettriton.errors import InputError, NonFiniteError
from dettriton.metrics import calibration_error

TASKS = (MULTI_CLASS, ORDINAL, BINARY_CLASS, MULTI_LABEL)


def oracle(pairs, bins: int) -> Fraction:
    """The definition, one sample at a time, of (probability, whether it happened)."""
    pairs = [(Fraction(p), happened) for p, happened in pairs]
    total = Fraction(0)
    for k in range(bins):
        low, high = Fraction(k, bins), Fraction(k + 1, bins)
        inside = [(p, h) for p, h in pairs if low < p <= high or p == 0 == k]
        if inside:
            frequency = Fraction(sum(h for _, h in inside), len(inside))
            confidence = sum(p for p, _ in inside) / len(inside)
            total += Fraction(len(inside), len(pairs)) * abs(frequency - confidence)
    return total


def made(task: str, n: int, dtype=np.float32):
    random = np.random.default_rng(n)
    columns = 2 if task == BINARY_CLASS else 4
    scores = (random.random((n, columns)) if task == MULTI_LABEL else random.dirichlet(np.ones(columns), n)).astype(
        dtype
    )
    return scores, random.integers(0, 2, (n, columns)) if task == MULTI_LABEL else random.integers(0, columns, n)


def expected(scores, labels, task: str, bins: int) -> Fraction:
    if task == BINARY_CLASS:
        return oracle(zip(scores[:, -1].tolist(), (labels == 1).tolist(), strict=True), bins)
    if task == MULTI_LABEL:
        columns = [zip(s.tolist(), y.tolist(), strict=True) for s, y in zip(scores.T, labels.T, strict=True)]
        return sum(oracle(column, bins) for column in columns) / len(columns)
    rows = [(max(row), row.index(max(row)) == label) for row, label in zip(scores.tolist(), labels, strict=True)]
    return oracle([(p, bool(right)) for p, right in rows], bins)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bins", [1, 2, 7, 15, 49])
def test_validate_against_the_definition(task, dtype, bins):
    for n in (1, 2, 60):
        scores, labels = made(task, n, dtype)
        found = calibration_error(scores, labels, task, bins)
        assert isinstance(found, Fraction)
        assert found == expected(scores, labels, task, bins)


def test_validate_by_hand():
    # the bins (0, 1/2] and (1/2, 1]: one right of two at 3/8, one right of one at 3/4
    scores = np.array([[0.375, 0.3125, 0.3125], [0.375, 0.3125, 0.3125], [0.125, 0.125, 0.75]], dtype=np.float32)
    labels = np.array([0, 1, 2])
    assert calibration_error(scores, labels, MULTI_CLASS, 2) == Fraction(2, 3) * Fraction(1, 8) + Fraction(1, 3) / 4
    both = np.array([[0.5, 1.0], [0.5, 1.0]])
    assert calibration_error(both, np.array([[1, 1], [0, 1]]), MULTI_LABEL) == 0
    assert calibration_error(both, np.array([[1, 0], [1, 1]]), MULTI_LABEL) == (Fraction(1, 2) + Fraction(1, 2)) / 2
    assert calibration_error(np.array([0.25, 0.75]), np.array([0, 1]), BINARY_CLASS) == Fraction(1, 4)
    assert calibration_error(np.array([0.0, 1.0]), np.array([1, 0]), BINARY_CLASS) == 1
    # the lowest class among equals
    assert calibration_error(np.array([[0.5, 0.5]]), np.array([0]), MULTI_CLASS) == Fraction(1, 2)
    assert calibration_error(np.array([[0.5, 0.5]]), np.array([1]), MULTI_CLASS) == Fraction(1, 2)
    assert calibration_error(np.array([[0.75, 0.75]]), np.array([0]), MULTI_CLASS) == Fraction(1, 4)
    assert calibration_error(np.array([[0.75, 0.75]]), np.array([1]), MULTI_CLASS) == Fraction(3, 4)


@pytest.mark.parametrize("bins", [3, 5, 15, 47, 49, pytest.param(1000, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_validate_probabilities_beside_every_edge(bins, dtype):
    """Each edge's neighbours, with outcomes that a wrong bin would show."""
    edges = [dtype(k / bins) for k in range(1, bins)]
    edges = [dtype(0), np.nextafter(dtype(0), dtype(1)), dtype(1), *edges]
    near = [v for e in edges for v in (np.nextafter(e, dtype(0)), e, np.nextafter(e, dtype(1))) if 0 <= v <= 1]
    probabilities = np.array(near, dtype=dtype)
    labels = np.arange(len(near)) % 2
    found = calibration_error(probabilities, labels, BINARY_CLASS, bins)
    assert found == oracle(zip(probabilities.tolist(), labels.tolist(), strict=True), bins)


def test_verify_rounded_edges_would_show():
    """0.1 in binary64 lies above 1/10, in the second bin; a comparison with the rounded 1/10 has it in the first."""
    edge = 0.1
    assert Fraction(edge) > Fraction(1, 10) and not edge > 1 / 10
    apart = (1 - Fraction(edge) + Fraction(0.01)) / 2
    together = abs(1 - Fraction(edge) - Fraction(0.01)) / 2
    assert calibration_error(np.array([edge, 0.01]), np.array([1, 0]), BINARY_CLASS, 10) == apart != together


@pytest.mark.parametrize("task", TASKS)
def test_verify_order_of_samples_does_not_matter(task):
    scores, labels = made(task, 500)
    for seed in range(3):
        shuffled = np.random.default_rng(seed).permutation(500)
        assert calibration_error(scores[shuffled], labels[shuffled], task) == calibration_error(scores, labels, task)
    torch_too = calibration_error(torch.from_numpy(scores), torch.from_numpy(labels), task)
    assert torch_too == calibration_error(scores, labels, task)


def test_corroborate_sklearn_calibration_curve():
    from sklearn.calibration import calibration_curve

    random = np.random.default_rng(3)
    probabilities = random.random(2000)
    labels = (random.random(2000) < probabilities**2).astype(int)
    frequency, confidence = calibration_curve(labels, probabilities, n_bins=15)
    counts = np.bincount(np.minimum((probabilities * 15).astype(int), 14), minlength=15)
    error = float((np.abs(frequency - confidence) * counts).sum() / 2000)
    assert abs(float(calibration_error(probabilities, labels, BINARY_CLASS)) - error) < 1e-12


TWO = np.array([[0.5, 0.5], [0.1, 0.9]])


@pytest.mark.parametrize(
    ("scores", "labels", "task", "bins", "told"),
    [
        (TWO * 2, [0, 1], MULTI_CLASS, 15, "probabilities"),
        (-TWO, [0, 1], MULTI_CLASS, 15, "probabilities"),
        (TWO + np.inf, [0, 1], MULTI_CLASS, 15, "probabilities"),
        (TWO, [0, 1], MULTI_CLASS, 0, "at least one bin"),
        (TWO, [0, 1], "regression", 15, "no task"),
        (TWO, [0, 1, 1], MULTI_CLASS, 15, "do not fit"),
        (TWO, [0, 2], MULTI_CLASS, 15, "labels must be"),
    ],
)
def test_refusals(scores, labels, task, bins, told):
    with pytest.raises(InputError, match=told):
        calibration_error(scores, np.array(labels), task, bins)


def test_nan_is_refused():
    with pytest.raises(NonFiniteError):
        calibration_error(TWO * np.nan, np.array([0, 1]), MULTI_CLASS)
