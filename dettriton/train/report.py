"""What a model knows of each class of a dataset: AUC, accuracy, F1 and calibration, every figure exact."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from dettriton import metrics
from dettriton.data import Dataset
from dettriton.data.dataset import BINARY_CLASS, MULTI_LABEL
from dettriton.errors import InputError
from dettriton.train.evaluate import probabilities


@dataclass(frozen=True)
class ClassReport:
    """One class against the rest.

    Attributes:
        name: of the class.
        positives: samples of the class; None if the data cannot tell.
        auc, f1: exact; None where undefined, as :func:`dettriton.metrics.class_aucs` and
            :func:`dettriton.metrics.class_f1s` say.
    """

    name: str
    positives: int | None
    auc: Fraction | None = None
    f1: Fraction | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON data, figures rounded once to binary64."""
        return {"name": self.name, "positives": self.positives, "auc": _rounded(self.auc), "f1": _rounded(self.f1)}


@dataclass(frozen=True)
class Report:
    """A model on a dataset, exact and without regard to the order of the samples.

    Attributes:
        samples: how many.
        auc: :func:`dettriton.metrics.auc`, the mean of the defined areas of ``classes``.
        accuracy: :func:`dettriton.metrics.accuracy`.
        f1: :func:`dettriton.metrics.macro_f1`, the mean of the defined ones of ``classes``.
        calibration_error: :func:`dettriton.metrics.calibration_error` in 15 bins.
        classes: a row a class, by number; a binary task has one row, that of class 1.
    """

    samples: int
    auc: Fraction
    accuracy: Fraction
    f1: Fraction
    calibration_error: Fraction
    classes: tuple[ClassReport, ...]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON data, each figure rounded once to binary64, None where undefined."""
        return {
            "samples": self.samples,
            "auc": float(self.auc),
            "acc": float(self.accuracy),
            "f1": float(self.f1),
            "ece": float(self.calibration_error),
            "classes": [row.to_dict() for row in self.classes],
        }


def make_report(
    model: torch.nn.Module,
    dataset: Dataset,
    classes: Sequence[str],
    *,
    trained_task: str | None = None,
    unknown: Collection[str] = (),
) -> Report:
    """All figures of a model on a dataset, from one pass over it.

    Args:
        model: on any device.
        dataset: one split.
        classes: names of the classes, by number.
        trained_task: the task of the model's training, which makes scores of its logits; the dataset's by default. A
            model of classes that exclude each other can be asked for several labels of a sample: the scores are softmax
            probabilities.
        unknown: labels, by name, that the data says nothing about, so that a 0 means nothing. They have a row without
            figures and are left out of every other figure. For a multi-label dataset only.

    Raises:
        InputError: the names do not fit the dataset, or no class has both a positive and a negative sample.
        NonFiniteError: a logit is NaN or infinite.
    """
    _require_fitting(dataset, classes, unknown)
    scores, labels = probabilities(model, dataset, trained_task), dataset.labels.cpu()
    shown = range(1, 2) if dataset.task == BINARY_CLASS else range(len(classes))
    known = [k for k in shown if classes[k] not in unknown]
    if dataset.task == MULTI_LABEL:
        scores, labels = scores[:, known], labels[:, known]
        positives = labels == 1
    else:
        positives = labels[:, None] == torch.tensor(known)
    arguments = (scores, labels, dataset.task)
    rows = zip(positives.sum(0).tolist(), metrics.class_aucs(*arguments), metrics.class_f1s(*arguments), strict=True)
    figures = dict(zip(known, rows, strict=True))
    return Report(
        samples=len(dataset),
        auc=metrics.auc(*arguments).value,
        accuracy=metrics.accuracy(*arguments),
        f1=metrics.macro_f1(*arguments).value,
        calibration_error=metrics.calibration_error(*arguments),
        classes=tuple(ClassReport(classes[k], *figures.get(k, (None,))) for k in shown),
    )


def _require_fitting(dataset: Dataset, classes: Sequence[str], unknown: Collection[str]) -> None:
    if len(classes) != dataset.num_classes:
        raise InputError(f"{dataset.name} has {dataset.num_classes} classes and {len(classes)} names were given")
    strange = sorted(set(unknown) - set(classes))
    if strange:
        raise InputError(f"{strange[0]!r} is not one of the classes {', '.join(classes)}")
    if unknown and dataset.task != MULTI_LABEL:
        raise InputError(f"{dataset.name} is a {dataset.task} task: each sample has a class, so none can be unknown")
    if set(classes) <= set(unknown):
        raise InputError(f"{dataset.name} says nothing about any of the classes {', '.join(classes)}")


def _rounded(figure: Fraction | None) -> float | None:
    return None if figure is None else float(figure)
