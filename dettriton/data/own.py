"""A user's own data: ``npz:NAME`` is the file ``NAME.npz`` in the data folder, in MedMNIST's layout.

For each split ``train``, ``val`` and ``test`` the archive holds ``<split>_labels`` and one of

- ``<split>_images``: uint8, (N, H, W) or (N, H, W, C), made network input as MedMNIST's are;
- ``<split>_signals``: int16, (N, C, L), with ``gain`` (C,) binary32, raw units in a millivolt (1 if it is left out).
  They are normalised by the training split's mean and deviation, one of each for all channels.

Labels are integers: class numbers, (N,) or (N, 1), or 0 and 1, (N, labels), for a multi-label task. ``classes`` holds the
names by number (numbers themselves if it is left out). All arrays are plain ones, and all members are arrays:
:func:`dettriton.data._npz.read_npz`.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from dettriton.data._npz import UNREADABLE, read_npz
from dettriton.data.dataset import MULTI_CLASS, MULTI_LABEL, SPLITS, ArrayDataset, DatasetInfo
from dettriton.data.med import DATA_DIR_VARIABLE
from dettriton.data.signals import SignalDataset, SignalInfo, measure
from dettriton.errors import InputError

PREFIX = "npz:"
SCALE = "medmnist"
LICENCE = "not stated"
MOST_CLASSES = 1 << 16


def is_own(name: str) -> bool:
    """Whether a name is that of a user's file."""
    return name.startswith(PREFIX)


def load_own(
    name: str, data_dir: str | os.PathLike | None = None
) -> dict[str, ArrayDataset] | dict[str, SignalDataset]:
    """The three splits of a file.

    Args:
        name: ``npz:NAME``.
        data_dir: the folder with ``NAME.npz``; by default the one that DETTRITON_DATA names.

    Raises:
        InputError: there is no such file, or an array is missing or is not what the layout asks for.
    """
    return _splits(name, *_read(name, data_dir))


def describe_own(name: str, data_dir: str | os.PathLike | None = None) -> DatasetInfo | SignalInfo:
    """The description of a file, which is read for it.

    Args, Raises: as for :func:`load_own`.
    """
    arrays, path = _read(name, data_dir)
    classes, task = _classes(arrays, path)
    splits = _splits(name, arrays, path)
    train = splits[SPLITS[0]]
    common = {
        "name": name,
        "title": f"{path.name}, a user's own data",
        "task": task,
        "classes": classes,
        "samples": {split: len(part) for split, part in splits.items()},
        "licence": LICENCE,
    }
    if isinstance(train, ArrayDataset):
        return DatasetInfo(image_shape=tuple(train.images.shape[1:]), scale=SCALE, **common)
    channels, length = train.signals.shape[1:]
    rate = arrays.get("sampling_rate", np.array(0))
    if rate.size != 1 or rate.dtype.kind not in "iu":
        raise InputError(f"{path}: sampling_rate is {rate.shape} {rate.dtype}, expected an integer")
    return SignalInfo(
        leads=_names(arrays, "leads", channels, path),
        signal_shape=(channels, length),
        sampling_rate=int(rate.reshape(())),
        **common,
    )


def _splits(
    name: str, arrays: Mapping[str, np.ndarray], path: Path
) -> dict[str, ArrayDataset] | dict[str, SignalDataset]:
    classes, task = _classes(arrays, path)
    if f"{SPLITS[0]}_images" in arrays:
        return {split: _images(arrays, split, name, classes, task, path) for split in SPLITS}
    signals = {split: _signals(arrays, split, path) for split in SPLITS}
    gain = _gain(arrays, signals[SPLITS[0]].shape[1], path)
    scale = measure(signals[SPLITS[0]], gain)
    return {
        split: SignalDataset(
            name=name,
            split=split,
            signals=signals[split],
            labels=_labels(arrays, split, len(classes), task, path),
            num_classes=len(classes),
            task=task,
            normalisation=scale,
            records=tuple(f"{split}/{i}" for i in range(len(signals[split]))),
        )
        for split in SPLITS
    }


def _read(name: str, data_dir: str | os.PathLike | None) -> tuple[Mapping[str, np.ndarray], Path]:
    folder = data_dir if data_dir is not None else os.environ.get(DATA_DIR_VARIABLE)
    stem = name.removeprefix(PREFIX)
    if not stem or Path(stem).name != stem:
        raise InputError(f"{name!r} does not name a file: write {PREFIX}NAME for the file NAME.npz in --data-dir")
    if folder is None:
        raise InputError(f"{name} is the file {stem}.npz: name its folder with --data-dir or {DATA_DIR_VARIABLE}")
    path = Path(folder).expanduser() / f"{stem}.npz"
    try:
        return read_npz(path.read_bytes()), path
    except FileNotFoundError:
        raise InputError(f"there is no file {path}, which {name} stands for; name its folder with --data-dir") from None
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read as an npz archive of plain arrays: {error}") from error


def _array(arrays: Mapping[str, np.ndarray], key: str, path: Path) -> np.ndarray:
    if key not in arrays:
        raise InputError(f"{path} has no array {key!r}; it has {', '.join(sorted(arrays)) or 'none'}")
    return arrays[key]


def _classes(arrays: Mapping[str, np.ndarray], path: Path) -> tuple[tuple[str, ...], str]:
    """Names of the classes, and the task."""
    labels = [_array(arrays, f"{split}_labels", path) for split in SPLITS]
    for split, of_split in zip(SPLITS, labels, strict=True):
        if of_split.dtype.kind not in "iub" or of_split.ndim not in (1, 2) or not of_split.size:
            raise InputError(
                f"{path}: {split}_labels is {of_split.shape} {of_split.dtype}, expected integers, (N,) class numbers "
                "or (N, labels) of 0 and 1"
            )
    multi_label = labels[0].ndim == 2 and labels[0].shape[1] > 1
    count = labels[0].shape[1] if multi_label else 1 + max(int(of_split.max()) for of_split in labels)
    if count > MOST_CLASSES:
        raise InputError(f"{path}: the labels have {count} classes, and there may be {MOST_CLASSES}")
    classes = _names(arrays, "classes", count, path)
    if len(classes) < max(count, 2) or (multi_label and len(classes) != count):
        raise InputError(f"{path}: there are {len(classes)} names in 'classes' and {count} classes in the labels")
    return classes, MULTI_LABEL if multi_label else MULTI_CLASS


def _names(arrays: Mapping[str, np.ndarray], key: str, count: int, path: Path) -> tuple[str, ...]:
    names = arrays.get(key, np.arange(count))
    if names.ndim != 1 or names.dtype.kind not in "Uiu":
        raise InputError(f"{path}: {key} is {names.shape} {names.dtype}, expected a row of strings")
    return tuple(str(name) for name in names)


def _labels(arrays: Mapping[str, np.ndarray], split: str, classes: int, task: str, path: Path) -> torch.Tensor:
    labels, count = arrays[f"{split}_labels"], len(_samples(arrays, split, path))
    shapes = [(count, classes)] if task == MULTI_LABEL else [(count,), (count, 1)]
    if labels.shape not in shapes:
        raise InputError(f"{path}: {split}_labels is {labels.shape}, expected {' or '.join(map(str, shapes))}")
    if task == MULTI_LABEL:
        return torch.from_numpy(labels.astype(np.float32))
    return torch.from_numpy(labels.astype(np.int64).reshape(count))


def _samples(arrays: Mapping[str, np.ndarray], split: str, path: Path) -> np.ndarray:
    kind = "images" if f"{SPLITS[0]}_images" in arrays else "signals"
    return _array(arrays, f"{split}_{kind}", path)


def _images(
    arrays: Mapping[str, np.ndarray], split: str, name: str, classes: tuple[str, ...], task: str, path: Path
) -> ArrayDataset:
    images = _samples(arrays, split, path)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise InputError(
            f"{path}: {split}_images is {images.shape} {images.dtype}, expected (N, H, W) or (N, H, W, C) uint8"
        )
    planes = images[..., None] if images.ndim == 3 else images
    return ArrayDataset(
        name=name,
        split=split,
        images=torch.from_numpy(np.ascontiguousarray(planes.transpose(0, 3, 1, 2))),
        labels=_labels(arrays, split, len(classes), task, path),
        num_classes=len(classes),
        task=task,
        scale=SCALE,
    )


def _signals(arrays: Mapping[str, np.ndarray], split: str, path: Path) -> torch.Tensor:
    signals = _samples(arrays, split, path)
    train = _samples(arrays, SPLITS[0], path)
    if signals.dtype != np.int16 or signals.ndim != 3 or signals.shape[1:] != train.shape[1:]:
        raise InputError(
            f"{path}: {split}_signals is {signals.shape} {signals.dtype}, expected (N, C, L) int16, C and L as in "
            f"{SPLITS[0]}_signals"
        )
    return torch.from_numpy(np.ascontiguousarray(signals))


def _gain(arrays: Mapping[str, np.ndarray], channels: int, path: Path) -> list[float]:
    gain = arrays.get("gain", np.ones(channels, dtype=np.float32))
    if gain.shape != (channels,) or gain.dtype != np.float32:
        raise InputError(f"{path}: gain is {gain.shape} {gain.dtype}, expected ({channels},) float32")
    return gain.tolist()
