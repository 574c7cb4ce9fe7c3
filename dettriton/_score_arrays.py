"""Scores and labels as the metrics take them: checked arrays, and each class against the rest."""

import numpy as np
import torch

from dettriton.data.dataset import BINARY_CLASS, MULTI_LABEL, TASKS
from dettriton.errors import InputError, NonFiniteError

Array = torch.Tensor | np.ndarray

THRESHOLD = 0.5


def prepare(scores: Array, labels: Array, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, columns) and labels as arrays: (N,) class numbers, or (N, columns) for a multi-label task.

    Args, Raises: as for :func:`dettriton.metrics.auc`.
    """
    if task not in TASKS:
        raise InputError(f"there is no task {task!r}; choose one of {'; '.join(TASKS)}")
    scores, labels = as_scores(scores), to_numpy(labels)
    if task == BINARY_CLASS and scores.ndim == 1:
        scores = scores[:, None]
    if task != MULTI_LABEL and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    expected = scores.shape if task == MULTI_LABEL else scores.shape[:1]
    if scores.ndim != 2 or not scores.size or labels.shape != expected:
        raise InputError(f"scores {scores.shape} and labels {labels.shape} do not fit together for {task}")
    classes = 2 if task in (BINARY_CLASS, MULTI_LABEL) else scores.shape[1]
    if not np.isin(labels, np.arange(classes)).all():
        raise InputError(f"labels must be whole numbers from 0 to {classes - 1} for {task}")
    return scores, labels


def is_thresholded(task: str) -> bool:
    """Whether each score is an answer of its own, not one of several classes that exclude each other."""
    return task in (BINARY_CLASS, MULTI_LABEL)


def ranked(scores: np.ndarray, task: str) -> np.ndarray:
    """The scores of the classes that are counted: all columns, and the last one (class 1) of a binary task."""
    return scores[:, -1:] if task == BINARY_CLASS else scores


def positives(scores: np.ndarray, labels: np.ndarray, task: str) -> np.ndarray:
    """Which samples are of each class, bool in the shape of :func:`ranked`."""
    if task == MULTI_LABEL:
        return labels == 1
    return labels[:, None] == (1 if task == BINARY_CLASS else np.arange(scores.shape[1]))


def decisions(scores: np.ndarray, task: str) -> np.ndarray:
    """Which samples the scores give to each class, bool in the shape of :func:`ranked`.

    A score above 0.5 gives its label; of classes that exclude each other the highest score wins, the lowest number
    among equals.
    """
    if is_thresholded(task):
        return ranked(scores, task) > THRESHOLD
    return scores.argmax(axis=1)[:, None] == np.arange(scores.shape[1])


def as_scores(scores: Array) -> np.ndarray:
    """Scores as an array of floating-point numbers.

    Raises:
        InputError: they are other numbers.
        NonFiniteError: one is NaN.
    """
    array = to_numpy(scores)
    if array.dtype.kind != "f":
        raise InputError(f"scores are floating-point numbers, got {array.dtype}")
    if np.isnan(array).any():
        raise NonFiniteError("a score is NaN, so no metric can be counted; look at the model that gave it")
    return array


def to_numpy(array: Array) -> np.ndarray:
    """A tensor on any device, or an array, as an array; bfloat16 becomes binary32."""
    if not isinstance(array, torch.Tensor):
        return np.asarray(array)
    array = array.detach().cpu()
    return (array.float() if array.dtype == torch.bfloat16 else array).numpy()
