"""Scores and metrics of a model on one split."""

from dataclasses import dataclass
from fractions import Fraction

import torch

from dettriton import metrics, ops
from dettriton.data import Dataset
from dettriton.data.dataset import MULTI_LABEL
from dettriton.errors import NonFiniteError
from dettriton.exact.elementary import sigmoid

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Scores:
    """MedMNIST's two figures of one split, exact."""

    auc: Fraction
    accuracy: Fraction

    def to_dict(self) -> dict[str, float]:
        """Each figure rounded once to binary64, under MedMNIST's names."""
        return {"auc": float(self.auc), "acc": float(self.accuracy)}


def predict(model: torch.nn.Module, dataset: Dataset) -> torch.Tensor:
    """Logits of every sample in evaluation mode: (N, classes) binary32, on the CPU.

    Samples go through in batches of :data:`EVALUATION_BATCH`, which cannot show in the result: a sample's forward bits
    do not depend on its batch. The model's mode is put back afterwards.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            parts = [
                model(dataset.inputs(slice(begin, begin + EVALUATION_BATCH)).to(device)).cpu()
                for begin in range(0, len(dataset), EVALUATION_BATCH)
            ]
    finally:
        model.train(was_training)
    return torch.cat(parts)


def probabilities(model: torch.nn.Module, dataset: Dataset, task: str | None = None) -> torch.Tensor:
    """Scores of every sample: softmax of the logits, or their sigmoid for a multi-label task. (N, classes) binary32.

    Args:
        model: what :func:`predict` takes.
        dataset: what it is asked about.
        task: what the model was trained for, one of :data:`dettriton.data.dataset.TASKS`; the dataset's by default.

    Raises:
        NonFiniteError: a logit is NaN or infinite.
    """
    logits = predict(model, dataset)
    bad = (~torch.isfinite(logits)).flatten(1).any(dim=1).nonzero()
    if len(bad):
        raise NonFiniteError(
            f"the model gives a NaN or an infinity for sample {int(bad[0])} of {dataset.name} {dataset.split}"
        )
    return sigmoid(logits) if (task or dataset.task) == MULTI_LABEL else ops.softmax(logits, dim=1)


def score(model: torch.nn.Module, dataset: Dataset) -> Scores:
    """AUC and accuracy by MedMNIST's protocol, from softmax (multi-label: sigmoid) scores.

    Raises:
        NonFiniteError: a logit is NaN or infinite.
    """
    scores = probabilities(model, dataset)
    return Scores(
        metrics.auc(scores, dataset.labels, dataset.task).value,
        metrics.accuracy(scores, dataset.labels, dataset.task),
    )
