"""MedMNIST v2 (Yang et al. 2023): the twelve 2-D datasets at 28x28, from the official files and no others."""

import ast
import hashlib
import importlib.util
import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch

from dettriton.data._npz import UNREADABLE, read_npz
from dettriton.data.dataset import MULTI_LABEL, SPLITS, ArrayDataset, DatasetInfo
from dettriton.errors import InputError, IntegrityError

NAMES = (
    "pathmnist",
    "chestmnist",
    "dermamnist",
    "octmnist",
    "pneumoniamnist",
    "retinamnist",
    "breastmnist",
    "bloodmnist",
    "tissuemnist",
    "organamnist",
    "organcmnist",
    "organsmnist",
)

FILE_SHA256: Mapping[str, str] = {
    "breastmnist": "3a22d2a4625e7dd8903f0f59030e81a3d0c222bece2e5e10927456cb50efdec1",
    "retinamnist": "254915f5f0a2074665c4676356824cf4ef4a3bcab233894b4bafcaf48962bd69",
    "bloodmnist": "062023e186f537e26b3c21ea3b2614ddfc475e8a14825dfd20663bbb7e37bddc",
}
"""Of the official files; the other sets are checked by the MD5 that the medmnist package records."""

DATA_DIR_VARIABLE = "DETTRITON_DATA"
SIDE = 28


def describe_medmnist(name: str) -> DatasetInfo:
    """The description of one MedMNIST set, from the medmnist package's own records.

    Raises:
        InputError: medmnist is not installed or is too old to know the set.
    """
    info = medmnist_records().get(name)
    if info is None:
        raise InputError(f"the installed medmnist package does not know {name}; upgrade it (pip install -U medmnist)")
    return DatasetInfo(
        name=name,
        title=info["description"],
        task=info["task"],
        classes=tuple(info["label"][key] for key in sorted(info["label"], key=int)),
        image_shape=(info["n_channels"], SIDE, SIDE),
        samples=dict(info["n_samples"]),
        scale="medmnist",
        licence=info["license"],
        url=info["url"],
        md5=info["MD5"],
        sha256=FILE_SHA256.get(name),
    )


def load_medmnist(
    name: str, data_dir: str | os.PathLike | None = None, download: bool = False
) -> dict[str, ArrayDataset]:
    """The three splits of one MedMNIST set.

    The official file ``NAME.npz`` is looked for in ``data_dir`` and ``data_dir/medmnist``; without ``data_dir``, in the
    folder that the environment variable DETTRITON_DATA names (likewise) and in medmnist's own ``~/.medmnist``. It is
    checked before it is parsed.

    Args:
        name: one of :data:`NAMES`.
        data_dir: where the file is, or goes.
        download: let the medmnist package fetch a missing file, into the first of those folders.

    Raises:
        InputError: the file is missing, or is not a readable npz archive, or could not be fetched.
        IntegrityError: the file is not the official one.
    """
    info = describe_medmnist(name)
    folders = _folders(data_dir)
    path = next((p for folder in folders for p in _places(folder, name) if p.is_file()), None)
    if path is None:
        if not download:
            raise InputError(_missing(info, folders))
        path = _download(info, folders[0])
    content = _read(path)
    _check_official(content, str(path), info)
    return _parse(content, path, info)


@cache
def medmnist_records() -> dict[str, dict]:
    """``medmnist.INFO``, read from its source file: importing the package loads pandas and scikit-learn, and makes
    a folder in the user's home.

    Raises:
        InputError: medmnist is not installed, or keeps its records elsewhere.
    """
    spec = importlib.util.find_spec("medmnist")
    for folder in spec.submodule_search_locations or () if spec else ():
        source = Path(folder, "info.py")
        for node in ast.parse(source.read_text(encoding="utf-8")).body if source.is_file() else ():
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "INFO":
                return ast.literal_eval(node.value)
    raise InputError("the medmnist package (3.0.2 or newer) is needed for these datasets: pip install medmnist")


def _folders(data_dir: str | os.PathLike | None) -> list[Path]:
    if data_dir is not None:
        return [Path(data_dir).expanduser()]
    named = os.environ.get(DATA_DIR_VARIABLE)
    return [*([Path(named).expanduser()] if named else []), Path.home() / ".medmnist"]


def _places(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.npz", folder / "medmnist" / f"{name}.npz"


def _missing(info: DatasetInfo, folders: list[Path]) -> str:
    absent = [str(f) for f in folders if not f.is_dir()]
    looked = ", ".join(str(p) for folder in folders for p in _places(folder, info.name))
    note = f" (there is no folder {' or '.join(absent)})" if absent else ""
    return (
        f"{info.name} is not on this machine: looked for {looked}{note}. Download {info.url} (MD5 {info.md5}) to "
        f"{_places(folders[0], info.name)[0]}, name another folder with --data-dir or {DATA_DIR_VARIABLE}, "
        "or allow the download (--download, or download=True)."
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}. Check its permissions.") from error


def _check_official(content: bytes, source: str, info: DatasetInfo) -> None:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    sha256 = hashlib.sha256(content).hexdigest()
    if md5 == info.md5 and info.sha256 in (None, sha256):
        return
    hashes = (
        f"MD5 {md5}, expected {info.md5}; SHA-256 {sha256}, expected "
        f"{info.sha256 or 'one that is not recorded'}. Delete it and fetch {info.url} again."
    )
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise InputError(f"{source} ({len(content)} bytes) is truncated or not an npz archive: {hashes}")
    raise IntegrityError(f"{source} is not the official {info.name} file: {hashes}")


def _parse(content: bytes, path: Path, info: DatasetInfo) -> dict[str, ArrayDataset]:
    try:
        found = read_npz(content)
        arrays = {split: (found[f"{split}_images"], found[f"{split}_labels"]) for split in SPLITS}
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be parsed ({error}). Delete it and fetch {info.url} again.") from error
    return {split: _dataset(*arrays[split], split, path, info) for split in SPLITS}


def _dataset(images: np.ndarray, labels: np.ndarray, split: str, path: Path, info: DatasetInfo) -> ArrayDataset:
    channels, height, width = info.image_shape
    count = info.samples[split]
    multi_label = info.task == MULTI_LABEL
    expected = {
        "images": (images, (count, height, width) if channels == 1 else (count, height, width, channels)),
        "labels": (labels, (count, info.num_classes if multi_label else 1)),
    }
    for what, (array, shape) in expected.items():
        if array.shape != shape or array.dtype != np.uint8:
            raise InputError(
                f"{path}: {split}_{what} is {array.shape} {array.dtype}, expected {shape} uint8. "
                f"Delete it and fetch {info.url} again."
            )
    planes = images.reshape(count, height, width, channels).transpose(0, 3, 1, 2)
    return ArrayDataset(
        name=info.name,
        split=split,
        images=torch.from_numpy(np.ascontiguousarray(planes)),
        labels=torch.from_numpy(labels.astype(np.float32) if multi_label else labels[:, 0].astype(np.int64)),
        num_classes=info.num_classes,
        task=info.task,
        scale=info.scale,
    )


def _download(info: DatasetInfo, folder: Path) -> Path:
    """Fetches into a temporary folder beside the place, so that an interrupted download leaves nothing behind."""
    target = _places(folder, info.name)[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{info.name}-", dir=folder) as scratch:
            os.replace(_fetch(info, Path(scratch)), target)
    except OSError as error:
        raise InputError(f"cannot store {info.name} in {folder}: {error}. Choose another folder.") from error
    return target


def _fetch(info: DatasetInfo, scratch: Path) -> Path:
    fetched = scratch / f"{info.name}.npz"
    try:
        from medmnist.dataset import MedMNIST

        # without its constructor, which would parse the file before we have checked it, and not close it
        fetcher = MedMNIST.__new__(MedMNIST)
        fetcher.flag, fetcher.size_flag = info.name, ""
        fetcher.root, fetcher.info = str(scratch), medmnist_records()[info.name]
        fetcher.download()
    except Exception as error:
        # medmnist turns every interruption into a RuntimeError, Ctrl-C too
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        if fetched.is_file():
            _check_official(_read(fetched), f"the download of {info.name}", info)
        raise InputError(
            f"{info.name} could not be fetched from {info.url}: {error.__context__ or error}. Check the network and "
            f"try again, or download the file (MD5 {info.md5}) by other means and name its folder with --data-dir."
        ) from error
    _check_official(_read(fetched), f"the download of {info.name}", info)
    return fetched
