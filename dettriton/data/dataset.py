"""What a dataset is here: frozen descriptions, arrays in memory, and exact conversion of pixels to numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch

from dettriton.digest import digest
from dettriton.errors import InputError

SPLITS = ("train", "val", "test")

MULTI_CLASS = "multi-class"
BINARY_CLASS = "binary-class"
ORDINAL = "ordinal-regression"
MULTI_LABEL = "multi-label, binary-class"
TASKS = (MULTI_CLASS, BINARY_CLASS, ORDINAL, MULTI_LABEL)
"""Task names of MedMNIST (Yang et al. 2023); they choose the labels' form, the loss and the metrics."""


@dataclass(frozen=True)
class DatasetInfo:
    """A dataset described as data.

    Attributes:
        name: the name that :func:`dettriton.data.load` takes.
        title: what the images show and where they come from.
        task: one of :data:`TASKS`.
        classes: names of the classes (of the labels, for a multi-label task), by number.
        image_shape: (channels, height, width).
        samples: number of samples of each split.
        scale: the kind of :func:`to_float` that makes network input of the pixels.
        licence: the licence of the data.
        url, md5, sha256: of the official file; None where there is no file, or no recorded digest.
        content_sha256: what :func:`dataset_sha256` must give; None if not recorded.
    """

    name: str
    title: str
    task: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    samples: Mapping[str, int]
    scale: str
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
class ArrayDataset:
    """One split of a dataset, in memory.

    Attributes:
        name: the dataset's name.
        split: ``"train"``, ``"val"`` or ``"test"``.
        images: (N, C, H, W) uint8.
        labels: (N,) int64 class numbers; for a multi-label task (N, num_classes) float32 of 0 and 1.
        num_classes: number of classes, or of labels.
        task: one of :data:`TASKS`.
        scale: the kind of :func:`to_float` for these images.

    Raises:
        InputError: the parts do not fit together.
    """

    name: str
    split: str
    images: torch.Tensor
    labels: torch.Tensor
    num_classes: int
    task: str
    scale: str

    def __post_init__(self):
        where = f"{self.name} {self.split}"
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise InputError(f"{where}: images must be (N, C, H, W) uint8, got {_describe(self.images)}")
        check_labels(where, self.labels, len(self.images), self.num_classes, self.task == MULTI_LABEL)
        if self.scale not in SCALES:
            raise InputError(f"{where}: there is no scale {self.scale!r}; choose one of {', '.join(SCALES)}")

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def sha256(self) -> str:
        """:func:`dettriton.digest.digest` of images and labels, with name, split and task as metadata."""
        return digest(self.tensors(), {"name": self.name, "split": self.split, "task": self.task})

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that determines inputs and labels, by name."""
        return {"images": self.images, "labels": self.labels}

    def inputs(self, indices: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        """The chosen images as binary32 network input, (n, C, H, W)."""
        return to_float(self.images[indices], self.scale)

    def to(self, device: torch.device | str) -> "ArrayDataset":
        """The same split with its tensors on another device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def metadata(self) -> dict[str, Any]:
        """What travels with weights trained on it: nothing, for ``scale`` is a part of the dataset's description."""
        return {}


def check_labels(where: str, labels: torch.Tensor, count: int, num_classes: int, multi_label: bool) -> None:
    """Refuses labels that are not (count,) int64 class numbers, or (count, num_classes) float32 of 0 and 1.

    Raises:
        InputError: naming ``where``.
    """
    shape = (count, num_classes) if multi_label else (count,)
    dtype = torch.float32 if multi_label else torch.int64
    if labels.dtype != dtype or tuple(labels.shape) != shape:
        raise InputError(f"{where}: labels must be {shape} {dtype}, got {_describe(labels)}")
    allowed = ((labels == 0) | (labels == 1)) if multi_label else ((labels >= 0) & (labels < num_classes))
    if not bool(allowed.all()):
        raise InputError(f"{where}: a label is not one of the {num_classes} classes")


class Split(Protocol):
    """What the digests need of a split."""

    def tensors(self) -> Mapping[str, torch.Tensor]: ...


def dataset_sha256(splits: Mapping[str, Split]) -> str:
    """Digest of a whole dataset: of all splits' tensors, under ``<split>.<name>`` (``train.images``, ``train.labels``)."""
    return digest({f"{split}.{name}": t for split, dataset in splits.items() for name, t in dataset.tensors().items()})


def to_float(images_uint8: torch.Tensor, kind: str) -> torch.Tensor:
    """Pixels as binary32, by looking each of the 256 values up in a table: exact on any device.

    The tables are made on the host, each operation one binary32 operation in the written order:

    - ``"medmnist"``: ``(v / 255 - 0.5) / 0.5``, MedMNIST's own normalisation; 0 gives -1 and 255 gives 1.
    - ``"digits"``: ``v / 8 - 1``, exact; 0 gives -1 and 16 gives 1.

    Args:
        images_uint8: uint8, any shape, any device.
        kind: ``"medmnist"`` or ``"digits"``.

    Returns:
        binary32 of the same shape on the same device.

    Raises:
        InputError: the images are not uint8, or the kind is unknown.
    """
    if images_uint8.dtype != torch.uint8:
        raise InputError(f"to_float converts uint8 pixels, got {images_uint8.dtype}")
    if kind not in SCALES:
        raise InputError(f"there is no scale {kind!r}; choose one of {', '.join(SCALES)}")
    table = _table(kind).to(images_uint8.device)
    return table[images_uint8.to(torch.int64)]


def _medmnist_table() -> np.ndarray:
    half = np.float32(0.5)
    return (np.arange(256, dtype=np.float32) / np.float32(255) - half) / half


def _digits_table() -> np.ndarray:
    return np.arange(256, dtype=np.float32) / np.float32(8) - np.float32(1)


SCALES = MappingProxyType({"medmnist": _medmnist_table, "digits": _digits_table})


@cache
def _table(kind: str) -> torch.Tensor:
    return torch.from_numpy(SCALES[kind]())


def _describe(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}"
