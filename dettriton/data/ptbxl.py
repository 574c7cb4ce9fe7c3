"""PTB-XL 1.0.3 (Wagner et al. 2020): 21,799 twelve-lead electrocardiograms of 10 s, from the official files.

Labels are multi-label, from the SCP statements of a record whatever their likelihood, as in the benchmark of Strodthoff
et al. (2021), which takes a statement's presence and ignores the number beside it (0 stands for "not stated" there):

- ``superclass``: the ``diagnostic_class`` of the diagnostic statements (five classes);
- ``diagnostic`` (44), ``form`` (19), ``rhythm`` (12): the statements of the kind themselves.

Folds 1 to 8 are ``train``, 9 is ``val``, 10 is ``test``. A record without any statement of the kind stays, with labels of
0 only, unless ``labelled_only`` is asked for, which is the benchmark's choice.
"""

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch

from dettriton.data._ptbxl_files import BASE_URL, GAIN, LENGTH, SAMPLING_RATE, Tree, open_tree
from dettriton.data._ptbxl_metadata import Row
from dettriton.data._ptbxl_tables import FIRST_488, RATE_OF, SAMPLES, SPLIT_OF_FOLD, TASK_CLASSES
from dettriton.data._signal_cache import cache_folder, fill
from dettriton.data._wfdb_record import STANDARD_LEADS
from dettriton.data.dataset import MULTI_LABEL, SPLITS, dataset_sha256
from dettriton.data.signals import SignalDataset, SignalInfo, measure
from dettriton.errors import InputError, IntegrityError

SUBSET = "ptbxl488"
TASK_OF = {SUBSET: "superclass"} | {f"ptbxl_{task}": task for task in TASK_CLASSES}
NAMES = tuple(TASK_OF)
"""``ptbxl488`` is the task ``superclass`` on the records 1 to 500, of which 12 are not in this version."""

SUBSET_SAMPLES = {"train": 344, "val": 78, "test": 66}
SUBSET_SHA256 = "7ef683d79ac0e187bb9d096a4136cb8689a528ec47d98eab6bdc007027146990"


def describe_ptbxl(name: str) -> SignalInfo:
    """The description of one of :data:`NAMES`.

    Raises:
        InputError: the name is unknown.
    """
    if name not in TASK_OF:
        raise InputError(f"there is no set {name!r} of PTB-XL; choose one of {', '.join(NAMES)}")
    subset = name == SUBSET
    return SignalInfo(
        name=name,
        title=f"PTB-XL 1.0.3 (Wagner et al. 2020, PhysioNet), {TASK_OF[name]}" + (", 488 records" if subset else ""),
        task=MULTI_LABEL,
        classes=TASK_CLASSES[TASK_OF[name]],
        leads=STANDARD_LEADS,
        signal_shape=(len(STANDARD_LEADS), LENGTH),
        sampling_rate=SAMPLING_RATE,
        samples=SUBSET_SAMPLES if subset else dict(SAMPLES),
        licence="CC BY 4.0",
        url=BASE_URL,
        content_sha256=SUBSET_SHA256 if subset else None,
    )


def load_ptbxl(
    name: str,
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
    *,
    cache_dir: str | os.PathLike | None = None,
    base_url: str = BASE_URL,
) -> dict[str, SignalDataset]:
    """The three splits of one of :data:`NAMES`, whole: the 100 Hz records, one mean and deviation for all leads.

    Args:
        name: one of :data:`NAMES`.
        data_dir, download, cache_dir, base_url: as for :func:`read_ptbxl`.

    Raises:
        InputError: as for :func:`read_ptbxl`; or ``ptbxl_database.csv`` does not have all the records.
        IntegrityError: as for :func:`read_ptbxl`; or ``ptbxl488`` is not what was recorded.
    """
    info = describe_ptbxl(name)
    tree = open_tree(data_dir, download, FIRST_488 if name == SUBSET else None, "records100", base_url)
    counts = {split: sum(SPLIT_OF_FOLD[row.fold] == split for row in tree.rows) for split in SPLITS}
    if counts != info.samples:
        raise InputError(
            f"{tree.root} has {len(tree.rows)} records ({_counts(counts)}) and {name} has {sum(info.samples.values())} "
            f"({_counts(info.samples)}). Fetch version 1.0.3 whole; read_ptbxl takes what is there."
        )
    splits = _splits(name, TASK_OF[name], tree, False, cache_dir)
    if info.content_sha256 is not None:
        found = dataset_sha256(splits)
        if found != info.content_sha256:
            raise IntegrityError(
                f"{name} of {tree.root} is not the recorded data: digest {found}, expected {info.content_sha256}. "
                f"Fetch version 1.0.3 from {BASE_URL}."
            )
    return splits


def read_ptbxl(
    task: str,
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
    *,
    ids: Collection[int] | None = None,
    source: str = "records100",
    labelled_only: bool = False,
    per_lead: bool = False,
    name: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    base_url: str = BASE_URL,
) -> dict[str, SignalDataset]:
    """The three splits of whatever records of PTB-XL are wanted.

    PTB-XL is the folder with ``ptbxl_database.csv``; it is looked for in ``data_dir`` and in its subfolders ``ptbxl``,
    ``ptb-xl-1.0.3`` and that of PhysioNet's archive; without ``data_dir``, in the folder that the environment variable
    DETTRITON_DATA names (likewise) and in ``~/.dettriton``. Files that ``SHA256SUMS.txt`` lists must have that checksum
    (of ``ptbxl_database.csv`` only when it has all its rows), and every lead that of its header.

    Args:
        task: ``"superclass"``, ``"diagnostic"``, ``"form"`` or ``"rhythm"``.
        data_dir: where it is, or goes.
        download: fetch missing files, into the folder found or ``ptb-xl-1.0.3`` in the first of those folders.
        ids: numbers of records; None for all rows of ``ptbxl_database.csv``.
        source: ``"records100"``, or ``"records500"`` resampled to 100 Hz by ours, which are other numbers.
        labelled_only: leave out records without a label.
        per_lead: a mean and a deviation for each lead rather than one for all.
        name: of the dataset; ``ptbxl_<task>`` by default, with ``_500`` for resampled records.
        cache_dir: where the integers of all records are kept for the next time, under names that are digests of their
            checksums; records found there are not read again. By default DETTRITON_CACHE, or ``dettriton`` in the user's
            cache folder. May be deleted.
        base_url: where the files are fetched from.

    Returns:
        ``train``, ``val``, ``test``: thousandths of a millivolt, (n, 12, 1000) int16, by ascending number, normalised by
        the training split's mean and deviation. One array of integers holds them all.

    Raises:
        InputError: PTB-XL or a record is missing, malformed or not like PTB-XL's; or could not be fetched.
        IntegrityError: a file or a signal does not have its checksum.
    """
    if task not in TASK_CLASSES:
        raise InputError(f"there is no task {task!r} in PTB-XL; choose one of {', '.join(TASK_CLASSES)}")
    tree = open_tree(data_dir, download, ids, source, base_url)
    default = f"ptbxl_{task}" + ("" if RATE_OF[source] == SAMPLING_RATE else f"_{RATE_OF[source]}")
    return _splits(name or default, task, tree, per_lead, cache_dir, labelled_only)


def _splits(
    name: str,
    task: str,
    tree: Tree,
    per_lead: bool,
    cache_dir: str | os.PathLike | None,
    labelled_only: bool = False,
) -> dict[str, SignalDataset]:
    classes = TASK_CLASSES[task]
    labels_of = {row.ecg_id: tree.statements.labels(task, row.codes) for row in tree.rows}
    rows = [row for row in tree.rows if labels_of[row.ecg_id] or not labelled_only]
    rows.sort(key=lambda row: SPLITS.index(SPLIT_OF_FOLD[row.fold]))
    signals = torch.from_numpy(_signals(tree, rows, cache_dir))
    labels = torch.tensor([[float(c in labels_of[row.ecg_id]) for c in classes] for row in rows]).view(-1, len(classes))
    counts = [sum(SPLIT_OF_FOLD[row.fold] == split for row in rows) for split in SPLITS]
    if counts[0] == 0:
        raise InputError(f"{name}: none of the {len(rows)} records is in folds 1 to 8, so there is nothing to train on")
    parts = zip(signals.split(counts), labels.split(counts), strict=True)
    ends = np.cumsum(counts).tolist()
    normalisation = measure(signals[: counts[0]], [float(GAIN)] * len(STANDARD_LEADS), per_lead)
    return {
        split: SignalDataset(
            name=name,
            split=split,
            signals=part,
            labels=part_labels,
            num_classes=len(classes),
            task=MULTI_LABEL,
            normalisation=normalisation,
            records=tuple(row.files[tree.source] for row in rows[end - count : end]),
        )
        for split, (part, part_labels), count, end in zip(SPLITS, parts, counts, ends, strict=True)
    }


def _signals(tree: Tree, rows: list[Row], cache_dir: str | os.PathLike | None) -> np.ndarray:
    signals = np.zeros((len(rows), len(STANDARD_LEADS), LENGTH), dtype=np.int16)
    checksums = [tree.checksum(row) for row in rows]
    made_of = {"source": tree.source, "sampling_rate": SAMPLING_RATE, "leads": list(STANDARD_LEADS)}
    folder = cache_folder() if cache_dir is None else Path(cache_dir).expanduser()
    fill(signals, checksums, lambda i: tree.read(rows[i]), made_of, folder)
    return signals


def _counts(samples: dict[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in samples.items())
