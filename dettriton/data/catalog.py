"""Datasets by name."""

import os

from dettriton.data import digits, med, own, ptbxl, simulated
from dettriton.data.dataset import ArrayDataset, DatasetInfo
from dettriton.data.signals import SignalDataset, SignalInfo
from dettriton.errors import InputError

_EMBEDDED = {
    digits.INFO.name: (digits.INFO, digits.load_digits),
    simulated.INFO.name: (simulated.INFO, simulated.load_simulated),
}

DATASETS = (*_EMBEDDED, *med.NAMES, *ptbxl.NAMES)
"""Every name that :func:`load` knows, beside ``npz:NAME`` for a user's own file (:mod:`dettriton.data.own`)."""


def describe(name: str, data_dir: str | os.PathLike | None = None) -> DatasetInfo | SignalInfo:
    """A dataset's description; reads no data, except a user's own file.

    Args:
        name: one of :data:`DATASETS`, or ``npz:NAME``.
        data_dir: the folder of a user's own file.

    Raises:
        InputError: the name is unknown, or the package that records it is missing; or as for
            :func:`dettriton.data.own.load_own`.
    """
    if own.is_own(name):
        return own.describe_own(name, data_dir)
    _check(name)
    if name in _EMBEDDED:
        return _EMBEDDED[name][0]
    return ptbxl.describe_ptbxl(name) if name in ptbxl.NAMES else med.describe_medmnist(name)


def load(
    name: str, data_dir: str | os.PathLike | None = None, download: bool = False
) -> dict[str, ArrayDataset] | dict[str, SignalDataset]:
    """A dataset's splits by name: ``train``, ``val``, ``test``.

    Args:
        name: one of :data:`DATASETS`; ``digits`` and ``rhythm_sim`` need no file; or ``npz:NAME``, which is a user's own
            file.
        data_dir: the folder with the official files; see :func:`dettriton.data.med.load_medmnist` and
            :func:`dettriton.data.ptbxl.read_ptbxl` for the default.
        download: fetch a missing official file.

    Raises:
        InputError: the name is unknown, or the data is missing or damaged.
        IntegrityError: the data is not the official data.
    """
    if own.is_own(name):
        return own.load_own(name, data_dir)
    _check(name)
    if name in _EMBEDDED:
        return _EMBEDDED[name][1]()
    load_official = ptbxl.load_ptbxl if name in ptbxl.NAMES else med.load_medmnist
    return load_official(name, data_dir, download)


def _check(name: str) -> None:
    if name not in DATASETS:
        raise InputError(
            f"there is no dataset {name!r}; choose one of {', '.join(DATASETS)}, or npz:NAME for your own NAME.npz"
        )
