"""One WFDB record as the integers it holds, checked against its header."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np

from dettriton.data._wfdb_header import require_modest
from dettriton.errors import InputError, IntegrityError

STANDARD_LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The order of the channels here. Names are compared without regard to case."""

_CHECKSUM_MODULUS = 1 << 16

_INVALID_BITS = {"80": 8, "508": 8, "310": 10, "311": 10, "212": 12, "16": 16, "61": 16, "160": 16, "516": 16} | {
    "24": 24,
    "524": 24,
    "32": 32,
}
"""Formats whose lowest value, of so many bits, marks a missing sample."""

_NO_MARK_BITS = 63


@dataclass(frozen=True, eq=False)
class RawRecord:
    """A record of one segment.

    Attributes:
        name: for messages.
        samples: (C, L) int64, as recorded.
        leads: C names in upper case.
        formats: C WFDB storage formats.
        gains: C gains, raw units in a physical unit, as written in the header.
        baselines: C raw values of 0.
        units: C physical units.
        rate: samples a second, as written in the header.
        checksummed: whether the header has a checksum for every signal.
        comments: the header's comments without ``#``.
    """

    name: str
    samples: np.ndarray
    leads: tuple[str, ...]
    formats: tuple[str, ...]
    gains: tuple[Fraction, ...]
    baselines: tuple[int, ...]
    units: tuple[str, ...]
    rate: Fraction
    checksummed: bool
    comments: tuple[str, ...]

    def select(self, leads: Sequence[str]) -> list[int]:
        """The channels that hold the leads, in the order of ``leads``.

        Raises:
            InputError: a lead is missing or there twice.
        """
        wanted = [lead.upper() for lead in leads]
        absent = [lead for lead in wanted if lead not in self.leads]
        if absent:
            raise InputError(f"record {self.name} lacks {_leads(absent)}; it has {', '.join(self.leads)}")
        twice = [lead for lead in wanted if self.leads.count(lead) > 1]
        if twice:
            raise InputError(f"record {self.name} has {_leads(twice)} more than once")
        return [self.leads.index(lead) for lead in wanted]

    def invalid(self, channels: Sequence[int]) -> np.ndarray:
        """Where the format's mark for a missing sample stands: (len(channels), L) bool."""
        bits = [_INVALID_BITS.get(self.formats[c], _NO_MARK_BITS) for c in channels]
        marks = np.array([-(1 << (b - 1)) for b in bits], dtype=np.int64)
        return self.samples[list(channels)] == marks[:, None]


def read_record(path: Path, name: str) -> RawRecord:
    """Reads ``path.hea`` and its signal files with wfdb, in raw units.

    Args:
        path: the record without a suffix.
        name: for messages.

    Raises:
        InputError: a file is missing, malformed or too short, or the record has several segments, a skew or several
            samples in a frame.
        IntegrityError: the signals do not have the checksums of the header.
    """
    wfdb = load_wfdb()
    header = path.with_name(path.name + ".hea")
    if not header.is_file():
        raise InputError(f"record {name}: {header} is missing. Fetch it again.")
    require_modest(header, name)
    try:
        record = wfdb.rdrecord(str(path), physical=False)
    except FileNotFoundError as error:
        raise InputError(f"record {name}: {error.filename} is missing. Fetch it again.") from error
    except Exception as error:
        # wfdb meets what a malformed file holds with whichever error Python has for it
        raise InputError(
            f"record {name} cannot be read: {header} or its signal file is malformed or too short "
            f"({type(error).__name__}: {error}). Fetch both again."
        ) from error
    if getattr(record, "d_signal", None) is None or record.fs is None:
        raise InputError(f"record {name} is not one segment of signals")
    if any(frame != 1 for frame in record.samps_per_frame) or any(record.skew):
        raise InputError(f"record {name} has a skew or several samples in a frame, which are not read here")
    _check(record, name)
    return RawRecord(
        name=name,
        samples=np.ascontiguousarray(record.d_signal.T, dtype=np.int64),
        leads=tuple((lead or "").strip().upper() for lead in record.sig_name),
        formats=tuple(record.fmt),
        gains=tuple(_as_written(gain, name) for gain in record.adc_gain),
        baselines=tuple(record.baseline),
        units=tuple(record.units),
        rate=_as_written(record.fs, name),
        checksummed=all(checksum is not None for checksum in record.checksum),
        comments=tuple(record.comments),
    )


def load_wfdb() -> ModuleType:
    """The module wfdb, without the warnings that its import causes in newer pandas."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # imported here because it takes a second
        import wfdb
    return wfdb


def _check(record, name: str) -> None:
    found, length = record.d_signal, record.sig_len
    if len(found) != length:
        raise InputError(f"record {name} is short: {len(found)} of {length} samples. Fetch its signal file again.")
    for lead, total, checksum in zip(record.sig_name, found.sum(axis=0), record.checksum, strict=True):
        if checksum is not None and (int(total) - checksum) % _CHECKSUM_MODULUS:
            raise IntegrityError(
                f"record {name}: lead {lead} has the checksum {int(total) % _CHECKSUM_MODULUS}, its header says "
                f"{checksum % _CHECKSUM_MODULUS}. Fetch the signal file again."
            )


def _as_written(number: float, name: str) -> Fraction:
    """The decimal number of the header: the shortest text that reads back as this binary64."""
    if not math.isfinite(number):
        raise InputError(f"record {name} has a rate or a gain that is out of all proportion")
    return Fraction(repr(number))


def _leads(names: Sequence[str]) -> str:
    return ("lead " if len(names) == 1 else "leads ") + ", ".join(names)
