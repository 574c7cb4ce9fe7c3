"""Figures of a model's scores, counted exactly: MedMNIST's AUC and accuracy (Yang et al. 2023), F1, calibration error."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from dettriton._calibration import calibration_error
from dettriton._score_arrays import (
    Array,
    as_scores,
    decisions,
    is_thresholded,
    positives,
    prepare,
    ranked,
    to_numpy,
)
from dettriton.errors import InputError

__all__ = [
    "Auc",
    "F1",
    "Metrics",
    "accuracy",
    "auc",
    "auc_binary",
    "calibration_error",
    "class_aucs",
    "class_f1s",
    "class_ranges",
    "evaluate",
    "macro_auc",
    "macro_f1",
]


@dataclass(frozen=True)
class _ClassMean:
    value: Fraction
    undefined: tuple[int, ...] = ()

    def __float__(self) -> float:
        return float(self.value)


class Auc(_ClassMean):
    """A mean of areas under ROC curves.

    Attributes:
        value: the exact mean.
        undefined: classes left out of the mean, because they have no positive or no negative sample.
    """


class F1(_ClassMean):
    """A mean of F1 scores.

    Attributes:
        value: the exact mean.
        undefined: classes left out of the mean, because no sample is of them and none was given to them.
    """


@dataclass(frozen=True)
class Metrics:
    """Both figures of MedMNIST's protocol, each a fraction rounded once; and the classes the AUC leaves out."""

    auc: float
    acc: float
    undefined: tuple[int, ...] = ()


def evaluate(scores: Array, labels: Array, task: str) -> Metrics:
    """MedMNIST's AUC and ACC of one split.

    Args:
        scores: probabilities, after softmax or sigmoid, in the form that :func:`auc` describes.
        labels: as for :func:`auc`.
        task: one of :data:`dettriton.data.dataset.TASKS`.

    Raises:
        InputError, NonFiniteError: as for :func:`auc`.
    """
    area = auc(scores, labels, task)
    return Metrics(float(area), float(accuracy(scores, labels, task)), area.undefined)


def auc(scores: Array, labels: Array, task: str) -> Auc:
    """Area under the ROC curve by the task's rule.

    - ``multi-class`` and ``ordinal-regression``: :func:`macro_auc`.
    - ``multi-label, binary-class``: the mean over labels of :func:`auc_binary`.
    - ``binary-class``: :func:`auc_binary` of the last column, as medmnist's evaluator takes it. So the scores must be
      probabilities: a logit alone does not rank samples.

    Where scikit-learn gives NaN (a class with no positive or no negative sample) the class is left out of the mean and
    listed in ``undefined``; everywhere else the value is that of medmnist's evaluator, before its rounding errors.

    Args:
        scores: (N, classes), or (N,) for a binary task; float16, bfloat16, float32 or float64. Infinities are allowed.
        labels: (N,) or (N, 1) class numbers; (N, classes) of 0 and 1 for a multi-label task.
        task: one of :data:`dettriton.data.dataset.TASKS`.

    Raises:
        InputError: shapes or labels do not fit, the task is unknown, or no class has a defined area.
        NonFiniteError: a score is NaN.
    """
    return _mean_auc(class_aucs(scores, labels, task))


def class_aucs(scores: Array, labels: Array, task: str) -> tuple[Fraction | None, ...]:
    """The area under the ROC curve of each class against the rest, the terms of :func:`auc`'s mean.

    A binary task has one element, that of class 1 by the last column: with probabilities, class 0 has the same area.

    Args: as for :func:`auc`.

    Returns:
        An exact area a class, None for a class that has no positive or no negative sample.

    Raises:
        InputError: shapes or labels do not fit, or the task is unknown. No defined class at all is no error here.
        NonFiniteError: a score is NaN.
    """
    scores, labels = prepare(scores, labels, task)
    return _areas(ranked(scores, task), positives(scores, labels, task))


def accuracy(scores: Array, labels: Array, task: str) -> Fraction:
    """Share of correct answers by the task's rule, exact.

    - ``multi-class`` and ``ordinal-regression``: the class of the highest score, the lowest number among equals.
    - ``multi-label, binary-class``: the share over samples and labels of ``(score > 0.5) == label``.
    - ``binary-class``: ``last column > 0.5``.

    Args, Raises: as for :func:`auc`.
    """
    scores, labels = prepare(scores, labels, task)
    if is_thresholded(task):
        correct = decisions(scores, task) == positives(scores, labels, task)
    else:
        correct = scores.argmax(axis=1) == labels
    return Fraction(int(correct.sum()), correct.size)


def macro_f1(scores: Array, labels: Array, task: str) -> F1:
    """Mean over classes of :func:`class_f1s`, each class counting the same.

    Args, Raises: as for :func:`class_f1s`; and InputError where no class has a defined F1.
    """
    values = class_f1s(scores, labels, task)
    return F1(*_defined_mean(values, "no sample is of any class or was given to one, so there is no F1"))


def class_f1s(scores: Array, labels: Array, task: str) -> tuple[Fraction | None, ...]:
    """F1 of each class: ``2 * hits / (samples of the class + samples given to the class)``, exact.

    This is the harmonic mean of precision and recall (van Rijsbergen 1979, chapter 7). A sample is given to the classes
    that :func:`accuracy` takes as the answer: the highest score of classes that exclude each other, the lowest number
    among equals; the scores above 0.5 of labels. A binary task has one element, that of class 1 by the last column.

    Args: as for :func:`auc`.

    Returns:
        An exact F1 a class, None for a class that no sample is of and none was given to.

    Raises:
        InputError: shapes or labels do not fit, or the task is unknown.
        NonFiniteError: a score is NaN.
    """
    scores, labels = prepare(scores, labels, task)
    given, true = decisions(scores, task), positives(scores, labels, task)
    hits, either = (given & true).sum(axis=0), given.sum(axis=0) + true.sum(axis=0)
    return tuple(Fraction(2 * int(h), int(n)) if n else None for h, n in zip(hits, either, strict=True))


def class_ranges(runs: Sequence[Sequence[Fraction | None]]) -> tuple[Fraction | None, ...]:
    """How far apart several runs are in each class: the highest figure minus the lowest, exact.

    Args:
        runs: what :func:`class_aucs` or :func:`class_f1s` gives, once a run.

    Returns:
        A range a class, None where a run has no figure for the class.

    Raises:
        InputError: there are no runs, or they have different numbers of classes.
    """
    if len({len(run) for run in runs}) != 1:
        raise InputError("ranges need at least one run, all with the same classes")
    return tuple(None if None in of_class else max(of_class) - min(of_class) for of_class in zip(*runs, strict=True))


def auc_binary(scores: Array, positives: Array) -> Fraction:
    """The probability that a random positive sample scores above a random negative one, ties counting half.

    This is the area under the ROC curve (Hanley and McNeil 1982), here as a ratio of two integers:
    ``(2 * pairs ordered rightly + pairs tied) / (2 * positives * negatives)``. -0 and +0 are equal.

    Args:
        scores: (N,) floats.
        positives: (N,) bool.

    Raises:
        InputError: shapes do not fit, or there is no positive or no negative sample.
        NonFiniteError: a score is NaN.
    """
    scores, positives = as_scores(scores), to_numpy(positives).astype(bool)
    if scores.ndim != 1 or positives.shape != scores.shape:
        raise InputError(f"an AUC needs two vectors of one length, got {scores.shape} and {positives.shape}")
    _, level = np.unique(scores, return_inverse=True)
    positive = np.bincount(level[positives], minlength=level.max(initial=0) + 1)
    negative = np.bincount(level[~positives], minlength=len(positive))
    pairs = 2 * int(positive.sum()) * int(negative.sum())
    if not pairs:
        raise InputError("an AUC needs at least one positive and one negative sample")
    below = np.cumsum(negative) - negative
    return Fraction(int((positive * (2 * below + negative)).sum()), pairs)


def macro_auc(scores: Array, labels: Array) -> Auc:
    """Mean over classes of the one-against-the-rest :func:`auc_binary`, each class counting the same.

    Args:
        scores: (N, classes).
        labels: (N,) class numbers.

    Raises:
        InputError: shapes do not fit, or no class has both a positive and a negative sample.
        NonFiniteError: a score is NaN.
    """
    scores, labels = as_scores(scores), to_numpy(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise InputError(f"a macro AUC needs (N, classes) scores and N labels, got {scores.shape} and {labels.shape}")
    return _mean_auc(_areas(scores, labels[:, None] == np.arange(scores.shape[1])))


def _areas(scores: np.ndarray, positives: np.ndarray) -> tuple[Fraction | None, ...]:
    """:func:`auc_binary` of each column, None where it is undefined."""
    count = positives.sum(axis=0)
    defined = (count > 0) & (count < len(positives))
    return tuple(auc_binary(scores[:, k], positives[:, k]) if d else None for k, d in enumerate(defined))


def _mean_auc(areas: tuple[Fraction | None, ...]) -> Auc:
    return Auc(*_defined_mean(areas, "no class has both a positive and a negative sample, so there is no AUC"))


def _defined_mean(values: tuple[Fraction | None, ...], if_none: str) -> tuple[Fraction, tuple[int, ...]]:
    """The mean of what is defined, and the numbers of the classes that are not."""
    defined = [value for value in values if value is not None]
    if not defined:
        raise InputError(if_none)
    return sum(defined) / len(defined), tuple(k for k, value in enumerate(values) if value is None)
