"""Signals of many records in one array, kept in files whose names are a digest of what they were made from."""

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from dettriton.data._progress import tracked
from dettriton.digest import canonical_json, digest
from dettriton.errors import InputError
from dettriton.files import load_safetensors, remove_partial, save_safetensors

CACHE_VARIABLE = "DETTRITON_CACHE"

LAYOUT = 1
"""Rises when the same key would stand for other bytes."""

RECORDS_A_FILE = 2048


def cache_folder() -> Path:
    """Where caches go unless told: DETTRITON_CACHE, or ``dettriton`` in XDG_CACHE_HOME or ``~/.cache``."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dettriton"


def fill(
    signals: np.ndarray,
    checksums: Sequence[str],
    read: Callable[[int], np.ndarray],
    made_of: Mapping,
    folder: Path | None,
) -> None:
    """Fills an array with records, from files made before where there are any.

    A file holds up to :data:`RECORDS_A_FILE` records. Its name is the SHA-256 of the canonical JSON of ``made_of``, the
    layout, the shape of a record and the checksums of its records; its metadata has the digest of its content. A file
    that is damaged is made again, with a warning. A folder that cannot be written costs nothing but a warning.

    Args:
        signals: (N, C, L) int16.
        checksums: of the N records.
        read: gives record ``i`` as (C, L) int16.
        made_of: what else decides the content, as JSON data.
        folder: where the files are; None for none.

    Raises:
        whatever ``read`` raises.
    """
    for begin in range(0, len(signals), RECORDS_A_FILE):
        part = signals[begin : begin + RECORDS_A_FILE]
        end = begin + len(part)
        path = None if folder is None else folder / f"{_key(checksums[begin:end], part.shape[1:], made_of)}.safetensors"
        if path is not None and _load(path, part):
            continue
        for i in tracked(range(begin, end), f"reading records, {begin} of {len(signals)} done", len(part)):
            part[i - begin] = read(i)
        if path is not None:
            _save(path, part)


def _key(checksums: Sequence[str], shape: tuple[int, ...], made_of: Mapping) -> str:
    parts = {"layout": LAYOUT, "shape": list(shape), "made_of": dict(made_of), "records": list(checksums)}
    return hashlib.sha256(canonical_json(parts)).hexdigest()


def _load(path: Path, part: np.ndarray) -> bool:
    if not path.is_file():
        return False
    try:
        tensors, metadata = load_safetensors(path)
        if digest(tensors) != metadata.get("digest"):
            raise InputError(f"{path} does not have the digest that it was written with.")
        stored = tensors["signals"]
        if stored.shape != part.shape or stored.dtype != torch.int16:
            raise InputError(f"{path} holds {tuple(stored.shape)} {stored.dtype}, expected {part.shape} torch.int16.")
    except (InputError, KeyError) as error:
        warnings.warn(f"a damaged cache file is made again from the records: {error}", stacklevel=2)
        return False
    part[:] = stored.numpy()
    return True


def _save(path: Path, part: np.ndarray) -> None:
    tensors = {"signals": torch.from_numpy(part)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_partial(path)
        save_safetensors(path, tensors, {"digest": digest(tensors)})
    except (InputError, OSError) as error:
        warnings.warn(f"the records are read but not cached: {error}", stacklevel=2)
