"""Signals in memory: integers as recorded, and their exact conversion to network input."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import torch

from dettriton.data._resample import resample
from dettriton.data.dataset import MULTI_LABEL, check_labels
from dettriton.digest import digest
from dettriton.errors import InputError
from dettriton.exact.rational import nearest_binary32, nearest_binary32_root

__all__ = ["Normalisation", "SignalDataset", "SignalInfo", "measure", "resample"]

_RECORDS_AT_ONCE = 256


@dataclass(frozen=True)
class SignalInfo:
    """A dataset of signals described as data.

    Attributes:
        name: the name that :func:`dettriton.data.load` takes.
        title: what the signals show and where they come from.
        task: one of :data:`dettriton.data.dataset.TASKS`.
        classes: names of the classes (of the labels, for a multi-label task), by number.
        leads: names of the channels.
        signal_shape: (channels, samples).
        sampling_rate: in Hz.
        samples: number of records of each split.
        licence: the licence of the data.
        url: of the official files.
        md5, sha256: None, for the official data is many files, each with its own checksum.
        content_sha256: what :func:`dettriton.data.dataset_sha256` must give; None if not recorded.
    """

    name: str
    title: str
    task: str
    classes: tuple[str, ...]
    leads: tuple[str, ...]
    signal_shape: tuple[int, int]
    sampling_rate: int
    samples: Mapping[str, int]
    licence: str
    url: str | None = None
    md5: str | None = None
    sha256: str | None = None
    content_sha256: str | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes, or of labels for a multi-label task."""
        return len(self.classes)


@dataclass(frozen=True, eq=False)
class Normalisation:
    """``((raw / gain) - mean) / std``: integers to binary32, three IEEE operations in this order, for each channel.

    Attributes:
        gain: (C,) binary32 > 0, raw units in a millivolt.
        mean, std: (C,) binary32 in millivolts, ``std > 0``.

    Raises:
        InputError: the parts do not fit together.
    """

    gain: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __post_init__(self):
        for field in fields(self):
            values = getattr(self, field.name)
            if values.dtype != torch.float32 or values.shape != self.gain.shape or values.dim() != 1:
                raise InputError(f"{field.name} must be (C,) float32 like the others, got {_describe(values)}")
            low = -math.inf if field.name == "mean" else 0.0
            if not bool(((values > low) & (values < math.inf)).all()):
                raise InputError(f"{field.name} must be finite{' and positive' if low == 0 else ''}, got {values}")

    def __call__(self, signals: torch.Tensor) -> torch.Tensor:
        """Network input of (..., C, L) int16 on this device: binary32 of the same shape."""
        return (self.millivolts(signals) - self.mean[:, None]) / self.std[:, None]

    def millivolts(self, signals: torch.Tensor) -> torch.Tensor:
        """``raw / gain`` of (..., C, L) int16 on this device, one IEEE division: binary32 of the same shape."""
        # a tensor on the device, not a number: torch divides by a number through its reciprocal on CUDA
        return signals.to(torch.float32) / self.gain[:, None]

    def to(self, device: torch.device | str) -> "Normalisation":
        """The same on another device."""
        return Normalisation(self.gain.to(device), self.mean.to(device), self.std.to(device))


@dataclass(frozen=True, eq=False)
class SignalDataset:
    """One split of a dataset of signals, in memory; where a trainer needs it, like ``ArrayDataset``.

    Attributes:
        name: the dataset's name.
        split: ``"train"``, ``"val"`` or ``"test"``.
        signals: (N, C, L) int16, raw units.
        labels: (N,) int64 class numbers; for a multi-label task (N, num_classes) float32 of 0 and 1.
        num_classes: number of classes, or of labels.
        task: one of :data:`dettriton.data.dataset.TASKS`.
        normalisation: of the training split, for C channels.
        records: N names, which are not part of the digests.

    Raises:
        InputError: the parts do not fit together.
    """

    name: str
    split: str
    signals: torch.Tensor
    labels: torch.Tensor
    num_classes: int
    task: str
    normalisation: Normalisation
    records: tuple[str, ...]

    def __post_init__(self):
        where = f"{self.name} {self.split}"
        if self.signals.dtype != torch.int16 or self.signals.dim() != 3:
            raise InputError(f"{where}: signals must be (N, C, L) int16, got {_describe(self.signals)}")
        check_labels(where, self.labels, len(self.signals), self.num_classes, self.task == MULTI_LABEL)
        if len(self.normalisation.gain) != self.signals.shape[1]:
            raise InputError(
                f"{where}: the normalisation is of {len(self.normalisation.gain)} channels, "
                f"the signals have {self.signals.shape[1]}"
            )
        if len(self.records) != len(self.signals):
            raise InputError(f"{where}: there are {len(self.records)} names for {len(self.signals)} signals")

    def __len__(self) -> int:
        return len(self.signals)

    @cached_property
    def sha256(self) -> str:
        """:func:`dettriton.digest.digest` of :meth:`tensors`, with name, split and task as metadata."""
        return digest(self.tensors(), {"name": self.name, "split": self.split, "task": self.task})

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that determines inputs and labels, by name."""
        scale = self.normalisation
        parts = {"gain": scale.gain, "mean": scale.mean, "std": scale.std}
        return {"signals": self.signals, "labels": self.labels, **parts}

    def inputs(self, indices: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        """The chosen signals as binary32 network input, (n, C, L): ``((raw / gain) - mean) / std``."""
        return self.normalisation(self.signals[indices])

    def millivolts(self, indices: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        """The chosen signals in millivolts, (n, C, L) binary32: ``raw / gain``."""
        return self.normalisation.millivolts(self.signals[indices])

    def metadata(self) -> dict[str, Any]:
        """What travels with weights trained on it: the numbers that make network input of signals."""
        scale = self.normalisation
        return {"normalisation": {"gain": scale.gain.tolist(), "mean": scale.mean.tolist(), "std": scale.std.tolist()}}

    def to(self, device: torch.device | str) -> "SignalDataset":
        """The same split with its tensors on another device."""
        moved = {"signals": self.signals.to(device), "labels": self.labels.to(device)}
        return replace(self, normalisation=self.normalisation.to(device), **moved)


def measure(signals: torch.Tensor, gains: Sequence[float], per_lead: bool = False) -> Normalisation:
    """The normalisation to mean 0 and variance 1 of signals, usually those of a training split.

    Mean and population variance of the exact quotients ``raw / gain`` are rational numbers, from integer sums; the mean
    and the square root of the variance are rounded to binary32 once.

    Args:
        signals: (N, C, L) int16.
        gains: C numbers that are binary32, raw units in a millivolt.
        per_lead: a mean and a deviation for each channel; by default one for all of them together.

    Raises:
        InputError: there are no signals, they are constant, or a gain is not a positive binary32 number.
    """
    if signals.dtype != torch.int16 or signals.dim() != 3 or len(gains) != signals.shape[1]:
        raise InputError(f"measure takes (N, C, L) int16 and C gains, got {_describe(signals)}, {len(gains)} gains")
    if signals.numel() == 0:
        raise InputError("there are no signals to take a mean and a deviation of")
    gain = torch.tensor(gains, dtype=torch.float32)
    if gain.tolist() != list(gains) or not all(0 < g < math.inf for g in gains):
        raise InputError(f"gains must be positive binary32 numbers, got {list(gains)}")
    count = signals.shape[0] * signals.shape[2]
    exact_gains = [Fraction(g) for g in gains]
    first, second = _integer_sums(signals)
    means = [s / g / count for s, g in zip(first, exact_gains, strict=True)]
    squares = [s / g**2 / count for s, g in zip(second, exact_gains, strict=True)]
    if not per_lead:
        means = [sum(means) / len(means)] * len(means)
        squares = [sum(squares) / len(squares)] * len(squares)
    variances = [s - m**2 for s, m in zip(squares, means, strict=True)]
    if min(variances) == 0:
        raise InputError("the signals are constant: they have no deviation to divide by")
    return Normalisation(
        gain,
        torch.tensor([nearest_binary32(m) for m in means], dtype=torch.float32),
        torch.tensor([nearest_binary32_root(v) for v in variances], dtype=torch.float32),
    )


def _integer_sums(signals: torch.Tensor) -> tuple[list[Fraction], list[Fraction]]:
    """Sum and sum of squares of each channel of (N, C, L) int16."""
    first, second = [Fraction(0)] * signals.shape[1], [Fraction(0)] * signals.shape[1]
    for part in signals.split(_RECORDS_AT_ONCE):
        x = part.cpu().numpy().astype(np.int64)
        for sums, terms in ((first, x), (second, x * x)):
            sums[:] = [a + int(b) for a, b in zip(sums, terms.sum(axis=(0, 2)), strict=True)]
    return first, second


def _describe(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}"
