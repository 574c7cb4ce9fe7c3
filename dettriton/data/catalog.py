"""Datasets by name."""

import os

from dettriton.data import digits, med, ptbxl, simulated
from dettriton.data.dataset import ArrayDataset, DatasetInfo
from dettriton.data.signals import SignalDataset, SignalInfo
from dettriton.errors import InputError

DATASETS = (digits.INFO.name, simulated.INFO.name, *med.NAMES, *ptbxl.NAMES)
"""Every name that :func:`load` knows."""


def describe(name: str) -> DatasetInfo | SignalInfo:
    """A dataset's description; reads no data.

    Raises:
        InputError: the name is unknown, or the package that records it is missing.
    """
    _check(name)
    if name in ptbxl.NAMES:
        return ptbxl.describe_ptbxl(name)
    made_here = {info.name: info for info in (digits.INFO, simulated.INFO)}
    return made_here[name] if name in made_here else med.describe_medmnist(name)


def load(
    name: str, data_dir: str | os.PathLike | None = None, download: bool = False
) -> dict[str, ArrayDataset] | dict[str, SignalDataset]:
    """A dataset's splits by name: ``train``, ``val``, ``test``.

    Args:
        name: one of :data:`DATASETS`; ``digits`` and ``rhythm_sim`` need no file.
        data_dir: the folder with the official files; see :func:`dettriton.data.med.load_medmnist` and
            :func:`dettriton.data.ptbxl.read_ptbxl` for the default.
        download: fetch a missing official file.

    Raises:
        InputError: the name is unknown, or the data is missing or damaged.
        IntegrityError: the data is not the official data.
    """
    _check(name)
    if name in ptbxl.NAMES:
        return ptbxl.load_ptbxl(name, data_dir, download)
    if name == simulated.INFO.name:
        return simulated.load_simulated()
    return digits.load_digits() if name == digits.INFO.name else med.load_medmnist(name, data_dir, download)


def _check(name: str) -> None:
    if name not in DATASETS:
        raise InputError(f"there is no dataset {name!r}; choose one of {', '.join(DATASETS)}")
