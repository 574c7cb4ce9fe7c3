import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch

from dettriton.data.dataset import BINARY_CLASS, MULTI_CLASS, MULTI_LABEL, ORDINAL
from dettriton.errors import InputError, NonFiniteError
from dettriton.metrics import (
    accuracy,
    auc,
    auc_binary,
    class_aucs,
    class_f1s,
    class_ranges,
    evaluate,
    macro_auc,
    macro_f1,
)


def oracle(scores, positives) -> Fraction:
    pairs = [(p, q) for p, q in itertools.product(range(len(scores)), repeat=2) if positives[p] and not positives[q]]
    wins = sum(Fraction((scores[p] > scores[q]) * 2 + int(scores[p] == scores[q]), 2) for p, q in pairs)
    return wins / len(pairs)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_validate_auc_counts_pairs(levels):
    random = np.random.default_rng(levels)
    for n in (2, 3, 10, 40):
        scores = random.integers(-levels, levels, n).astype(np.float32) / np.float32(levels)
        positives = random.random(n) < 0.4
        positives[0], positives[1] = True, False
        expected = oracle(scores.tolist(), positives.tolist())
        assert auc_binary(scores, positives) == expected
        assert auc_binary(torch.from_numpy(scores), torch.from_numpy(positives)) == expected
        assert auc_binary(-scores, positives) == 1 - expected
        assert auc_binary(scores, ~positives) == 1 - expected


def test_validate_auc_of_hand_made_cases():
    yes = np.array([True, True, False, False])
    assert auc_binary(np.array([4.0, 3.0, 2.0, 1.0]), yes) == 1
    assert auc_binary(np.array([1.0, 1.0, 1.0, 1.0]), yes) == Fraction(1, 2)
    assert auc_binary(np.array([-0.0, 2.0, 0.0, 1.0]), yes) == Fraction(5, 8)
    assert auc_binary(np.array([np.inf, 1.0, -np.inf, 1.0]), yes) == Fraction(7, 8)
    assert auc_binary(torch.tensor([2.0, 1.0, 1.0, 0.0], dtype=torch.bfloat16), yes) == Fraction(7, 8)


def test_validate_order_of_samples_does_not_matter():
    random = np.random.default_rng(0)
    scores, labels = random.random((50, 4)).astype(np.float32).round(1), random.integers(0, 4, 50)
    shuffled = random.permutation(50)
    for task in (MULTI_CLASS, ORDINAL):
        assert evaluate(scores[shuffled], labels[shuffled], task) == evaluate(scores, labels, task)


def test_validate_macro_auc_leaves_out_undefined_classes():
    scores = np.random.default_rng(1).random((30, 5))
    labels = np.random.default_rng(2).integers(0, 3, 30)
    result = macro_auc(scores, labels)
    assert result.undefined == (3, 4)
    assert result.value == sum(oracle(scores[:, k].tolist(), (labels == k).tolist()) for k in range(3)) / 3
    multi = np.random.default_rng(3).integers(0, 2, (30, 5))
    multi[:, 1], multi[:, 4] = 0, 1
    result = auc(scores, multi, MULTI_LABEL)
    assert result.undefined == (1, 4)
    assert result.value == sum(oracle(scores[:, k].tolist(), multi[:, k].tolist()) for k in (0, 2, 3)) / 3
    assert evaluate(scores, multi, MULTI_LABEL).undefined == (1, 4)


def test_validate_accuracy():
    scores = np.array([[0.2, 0.5, 0.5], [0.4, 0.3, 0.3], [0.1, 0.1, 0.1]], dtype=np.float32)
    assert accuracy(scores, np.array([1, 0, 0]), MULTI_CLASS) == 1
    assert accuracy(scores, np.array([2, 0, 1]), ORDINAL) == Fraction(1, 3)
    assert accuracy(scores, np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]]), MULTI_LABEL) == Fraction(7, 9)
    assert accuracy(np.array([0.5, 0.6, 0.1]), np.array([0, 1, 1]), BINARY_CLASS) == Fraction(2, 3)


FORMS = {
    MULTI_CLASS: lambda r, n: (r.dirichlet(np.ones(6), n), r.integers(0, 6, (n, 1))),
    ORDINAL: lambda r, n: (r.dirichlet(np.ones(5), n), r.integers(0, 5, n)),
    BINARY_CLASS: lambda r, n: (r.dirichlet(np.ones(2), n), r.integers(0, 2, (n, 1))),
    MULTI_LABEL: lambda r, n: (r.random((n, 14)), r.integers(0, 2, (n, 14))),
}


@pytest.mark.parametrize("task", FORMS)
@pytest.mark.parametrize("digits", [1, 7])
def test_corroborate_medmnist_evaluator(task, digits):
    from medmnist.evaluator import getACC, getAUC

    for n in (60, 500):
        scores, labels = FORMS[task](np.random.default_rng(n), n)
        scores = scores.round(digits).astype(np.float32)
        result = evaluate(torch.from_numpy(scores), torch.from_numpy(labels), task)
        assert result.undefined == ()
        assert abs(result.auc - getAUC(labels, scores, task)) < 1e-12
        assert abs(result.acc - getACC(labels, scores, task)) < 1e-12


def test_corroborate_sklearn_auc():
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(5)
    for _ in range(20):
        scores = random.standard_normal(300).astype(np.float32).round(2)
        positives = random.random(300) < 0.1 + 0.5 * (scores > 0)
        assert abs(float(auc_binary(scores, positives)) - roc_auc_score(positives, scores)) < 1e-12


def one_against_rest(scores, labels, task):
    """Columns of scores and of positives, as plain lists, and what each column's samples are given."""
    labels = np.asarray(labels)
    if task == BINARY_CLASS:
        return [(scores[:, -1].tolist(), labels.reshape(-1).tolist(), (scores[:, -1] > 0.5).tolist())]
    if task == MULTI_LABEL:
        return [(s.tolist(), y.tolist(), (s > 0.5).tolist()) for s, y in zip(scores.T, labels.T, strict=True)]
    winners = [row.index(max(row)) for row in scores.tolist()]
    numbers = labels.reshape(-1).tolist()
    return [(s.tolist(), [y == k for y in numbers], [w == k for w in winners]) for k, s in enumerate(scores.T)]


def f1_oracle(true, given) -> Fraction | None:
    hits = sum(bool(t and g) for t, g in zip(true, given, strict=True))
    if sum(true) + sum(given) == 0:
        return None
    if not hits:
        return Fraction(0)
    precision, recall = Fraction(hits, int(sum(given))), Fraction(hits, int(sum(true)))
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("task", FORMS)
@pytest.mark.parametrize("digits", [1, 7])
def test_validate_figures_of_each_class(task, digits):
    scores, labels = FORMS[task](np.random.default_rng(digits), 40)
    scores = scores.round(digits).astype(np.float32)
    columns = one_against_rest(scores, labels, task)
    areas = class_aucs(torch.from_numpy(scores), torch.from_numpy(labels), task)
    assert areas == tuple(oracle(s, true) for s, true, _ in columns)
    assert auc(scores, labels, task).value == sum(areas) / len(areas)
    values = class_f1s(torch.from_numpy(scores), torch.from_numpy(labels), task)
    assert values == tuple(f1_oracle(true, given) for _, true, given in columns)
    assert all(type(v) is Fraction for v in (*areas, *values))
    assert macro_f1(scores, labels, task).value == sum(values) / len(values)
    shuffled = np.random.default_rng(0).permutation(40)
    assert class_f1s(scores[shuffled], labels[shuffled], task) == values
    assert class_aucs(scores[shuffled], labels[shuffled], task) == areas


def test_validate_f1_by_hand():
    scores = np.array([[0.2, 0.5, 0.5, 0.0], [0.4, 0.3, 0.3, 0.0], [0.1, 0.1, 0.1, 0.0]], dtype=np.float32)
    # given 1, 0, 0 (the lowest number among equals); no sample of class 3, and none given to it
    assert class_f1s(scores, np.array([1, 0, 2]), MULTI_CLASS) == (Fraction(2, 3), 1, 0, None)
    assert macro_f1(scores, np.array([1, 0, 2]), MULTI_CLASS).value == Fraction(5, 9)
    assert macro_f1(scores, np.array([1, 0, 2]), ORDINAL).undefined == (3,)
    # 0.5 is not above the threshold
    assert class_f1s(np.array([0.5, 0.6, 0.7, 0.1]), np.array([1, 1, 0, 0]), BINARY_CLASS) == (Fraction(1, 2),)
    labels = np.array([[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    assert class_f1s(scores, labels, MULTI_LABEL) == (0, None, 0, None)
    assert macro_f1(scores, labels, MULTI_LABEL).undefined == (1, 3)
    with pytest.raises(InputError, match="no F1"):
        macro_f1(scores, np.zeros_like(labels), MULTI_LABEL)


@pytest.mark.parametrize("task", FORMS)
def test_corroborate_sklearn_f1_and_auc_of_each_class(task):
    from sklearn.metrics import f1_score, roc_auc_score

    scores, labels = FORMS[task](np.random.default_rng(9), 300)
    columns = one_against_rest(scores, labels, task)
    for (s, true, given), area, value in zip(
        columns, class_aucs(scores, labels, task), class_f1s(scores, labels, task), strict=True
    ):
        assert abs(float(area) - roc_auc_score(true, s)) < 1e-12
        assert abs(float(value) - f1_score(true, given)) < 1e-12
    if task in (MULTI_CLASS, ORDINAL):
        macro = f1_score(labels.reshape(-1), scores.argmax(axis=1), average="macro")
        assert abs(float(macro_f1(scores, labels, task)) - macro) < 1e-12
    if task == MULTI_LABEL:
        scores[:, 2], labels[:, 2] = 0.25, 0
        result, given = macro_f1(scores, labels, task), scores > 0.5
        assert result.undefined == (2,)
        assert abs(float(result) - f1_score(labels, given, average="macro", zero_division=np.nan)) < 1e-12
        assert abs(float(result) - f1_score(labels, given, average="macro", zero_division=0)) > 1e-3


def test_validate_class_ranges():
    third = Fraction(1, 3)
    assert class_ranges([(third, None, 1), (1, third, third), (Fraction(1, 2), 0, 1)]) == (2 * third, None, 2 * third)
    assert class_ranges([(third, None)]) == (0, None)
    for runs in ([], [(third,), (third, third)]):
        with pytest.raises(InputError, match="same classes"):
            class_ranges(runs)


def test_validate_undefined_areas_are_none():
    labels = np.array([0, 0, 1, 1])
    scores = np.array([[0.6, 0.2, 0.2], [0.4, 0.5, 0.1], [0.3, 0.4, 0.3], [0.7, 0.2, 0.1]])
    assert class_aucs(scores, labels, MULTI_CLASS) == (Fraction(1, 2), Fraction(3, 8), None)
    assert class_aucs(scores, np.zeros(4, dtype=int), MULTI_CLASS) == (None, None, None)
    assert class_aucs(scores[:, :2], np.ones(4, dtype=int), BINARY_CLASS) == (None,)


@pytest.mark.parametrize("task", FORMS)
def test_validate_nan_is_refused(task):
    scores, labels = FORMS[task](np.random.default_rng(0), 20)
    scores[3, 1] = np.nan
    for figure in (evaluate, class_aucs, class_f1s):
        with pytest.raises(NonFiniteError):
            figure(scores, labels, task)


TWO = np.array([[0.5, 0.5], [0.1, 0.9]])


@pytest.mark.parametrize(
    ("scores", "labels", "task"),
    [
        (TWO, np.array([0, 1]), "regression"),
        (TWO, np.array([0, 2]), MULTI_CLASS),
        (TWO, np.array([0, -1]), MULTI_CLASS),
        (TWO, np.array([0.0, 0.5]), MULTI_CLASS),
        (TWO, np.array([0, 2]), BINARY_CLASS),
        (TWO, np.array([0, 1, 1]), MULTI_CLASS),
        (TWO, np.array([0, 1]), MULTI_LABEL),
        (TWO, np.array([[0, 2], [1, 1]]), MULTI_LABEL),
        (TWO[:, 0], np.array([0, 1]), MULTI_CLASS),
        (TWO.astype(int), np.array([0, 1]), MULTI_CLASS),
        (TWO[:0], np.array([], dtype=int), MULTI_CLASS),
        (TWO, np.array([1, 1]), BINARY_CLASS),
        (TWO, np.array([1, 1]), MULTI_CLASS),
    ],
)
def test_validate_refusals(scores, labels, task):
    with pytest.raises(InputError):
        evaluate(scores, labels, task)


def test_validate_refusals_of_the_parts():
    with pytest.raises(InputError):
        auc_binary(np.array([0.5, 0.1]), np.array([True]))
    with pytest.raises(InputError):
        auc_binary(np.array([]), np.array([], dtype=bool))
    with pytest.raises(InputError):
        macro_auc(TWO[0], np.array([0, 1]))
