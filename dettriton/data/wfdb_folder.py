"""Any folder of WFDB records as a dataset, for evaluation outside PTB-XL: twelve leads, 100 Hz, 10 s.

A record becomes network input in this order, every step in integers:

1. The wanted leads are picked by name, without regard to case, from whatever order they have; others are dropped.
2. A raw value ``r`` becomes ``(r - baseline) * factor / gain`` microvolts, a rational number, rounded to nearest, ties to
   even, and held to ``-32767 .. 32767``. Gains count as the decimal number in the header. A missing sample becomes 0.
3. The signal is resampled to 100 Hz by :func:`dettriton.data.signals.resample`.
4. Its first 1000 samples are kept; a shorter one is followed by zeros.

Labels are the rhythms of PTB-XL that the SNOMED CT codes of the header's line ``# Dx:`` stand for, as in the PhysioNet/CinC
Challenges of 2020 and 2021; or its diagnostic superclasses, with the classes and codes of :data:`SNOMED_SUPERCLASS`.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from dettriton.data._progress import tracked
from dettriton.data._ptbxl_tables import RHYTHM
from dettriton.data._snomed_tables import SNOMED_RHYTHM, SNOMED_SUPERCLASS, snomed_table
from dettriton.data._wfdb_record import STANDARD_LEADS, RawRecord, read_record
from dettriton.data.dataset import MULTI_LABEL
from dettriton.data.signals import Normalisation, SignalDataset, measure, resample
from dettriton.errors import InputError

__all__ = ["SNOMED_RHYTHM", "SNOMED_SUPERCLASS", "FolderRecords", "read_wfdb_folder", "snomed_table"]

SAMPLING_RATE = 100
LENGTH = 1000
MICROVOLTS_IN_MILLIVOLT = 1000.0

_LARGEST = 32767
_MICROVOLTS = {"v": 1_000_000, "mv": 1000, "uv": 1, "\u00b5v": 1, "\u03bcv": 1}
_DIAGNOSES = re.compile(r"dx\s*:(.*)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class FolderRecords:
    """What a folder holds.

    Attributes:
        dataset: the records, split ``test``, in microvolts.
        codes: the codes of each record's ``# Dx:`` line, in its order, those without a label too.
        missing_samples: (N,) int64, how many samples of the wanted leads each record has marked as missing.
    """

    dataset: SignalDataset
    codes: tuple[tuple[str, ...], ...]
    missing_samples: torch.Tensor


def read_wfdb_folder(
    folder: str | os.PathLike,
    *,
    normalisation: Normalisation | None = None,
    names: Sequence[str] | None = None,
    leads: Sequence[str] = STANDARD_LEADS,
    classes: Sequence[str] = RHYTHM,
    class_of_code: Mapping[str, str] = SNOMED_RHYTHM,
    need_diagnoses: bool = True,
    name: str | None = None,
) -> FolderRecords:
    """Reads the records of a folder and its subfolders.

    Args:
        folder: where the ``.hea`` files are.
        normalisation: of the data that the model was trained on, ``splits["train"].normalisation`` of PTB-XL; None for
            the mean and deviation of these records themselves.
        names: the records, as paths below the folder without a suffix; by default all, in the order of their names.
        leads: what the channels are.
        classes: names of the labels, by number.
        class_of_code: code to one of ``classes``; other codes are passed over.
        need_diagnoses: refuse a record without a ``# Dx:`` line, which would count as a record without any label.
        name: of the dataset; the folder's name by default.

    Raises:
        InputError: there are no records, or one is missing, malformed, short or empty, lacks a lead, has a lead in a unit
            that is no voltage, or has no diagnoses.
        IntegrityError: a signal does not have the checksum of its header.
    """
    folder = Path(folder).expanduser()
    unknown = sorted(set(class_of_code.values()) - set(classes))
    if unknown:
        raise InputError(f"class_of_code names {unknown[0]!r}, which is not one of the classes {', '.join(classes)}")
    found = tuple(_record_names(folder) if names is None else names)
    if not found:
        raise InputError(f"there are no WFDB headers (*.hea) in {folder}")
    signals = np.zeros((len(found), len(leads), LENGTH), dtype=np.int16)
    missing = torch.zeros(len(found), dtype=torch.int64)
    codes = []
    for i, record_name in enumerate(tracked(found, "reading records", len(found))):
        record = read_record(folder / record_name, record_name)
        codes.append(_codes(record, need_diagnoses))
        channels = record.select(leads)
        absent = record.invalid(channels)
        missing[i] = int(absent.sum())
        taken = resample(_microvolts(record, channels, absent), record.rate, SAMPLING_RATE, LENGTH)
        signals[i, :, : taken.shape[1]] = taken
    stored = torch.from_numpy(signals)
    labels = [[float(c in {class_of_code.get(code) for code in of_record}) for c in classes] for of_record in codes]
    gains = [MICROVOLTS_IN_MILLIVOLT] * len(leads)
    dataset = SignalDataset(
        name=name or folder.resolve().name,
        split="test",
        signals=stored,
        labels=torch.tensor(labels),
        num_classes=len(classes),
        task=MULTI_LABEL,
        normalisation=measure(stored, gains) if normalisation is None else _in_microvolts(normalisation),
        records=found,
    )
    return FolderRecords(dataset, tuple(codes), missing)


def _record_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.hea"))


def _codes(record: RawRecord, needed: bool) -> tuple[str, ...]:
    lines = [match[1] for match in map(_DIAGNOSES.match, record.comments) if match]
    if needed and not lines:
        raise InputError(
            f'record {record.name} has no line "# Dx:" in its header, so its labels are not known. Take it out of the '
            "folder; from Python, leave it out of names, or set need_diagnoses=False."
        )
    return tuple(code.strip() for line in lines for code in line.split(",") if code.strip())


def _microvolts(record: RawRecord, channels: list[int], absent: np.ndarray) -> np.ndarray:
    """The channels as (C, L) int16, missing samples as 0."""
    if record.samples.shape[1] == 0:
        raise InputError(f"record {record.name} is empty")
    out = np.zeros((len(channels), record.samples.shape[1]), dtype=np.int16)
    for row, channel in enumerate(channels):
        factor = _MICROVOLTS.get(record.units[channel].lower())
        gain = record.gains[channel]
        if factor is None or gain <= 0:
            raise InputError(
                f"record {record.name}: lead {record.leads[channel]} has the gain {float(gain)} and the unit "
                f"{record.units[channel]!r}, which give no voltage"
            )
        offset = record.samples[channel] - record.baselines[channel]
        out[row] = np.where(absent[row], 0, _rational_multiple(offset, factor / gain, record.name))
    return out


def _rational_multiple(x: np.ndarray, ratio: Fraction, name: str) -> np.ndarray:
    """``x * ratio`` of int64, rounded to nearest, ties to even, and held to the range."""
    top, bottom = ratio.numerator, ratio.denominator
    if int(np.abs(x).max()) * top >= 1 << 62 or bottom >= 1 << 61:
        raise InputError(f"record {name} has a gain or samples out of all proportion")
    quotient, rest = np.divmod(x * top, bottom)
    twice = 2 * rest
    quotient += (twice > bottom) | ((twice == bottom) & (quotient & 1 == 1))
    return np.clip(quotient, -_LARGEST, _LARGEST)


def _in_microvolts(normalisation: Normalisation) -> Normalisation:
    """The same mean and deviation, which are in millivolts, for these integers."""
    gain = torch.full_like(normalisation.gain, MICROVOLTS_IN_MILLIVOLT)
    return Normalisation(gain, normalisation.mean, normalisation.std)
