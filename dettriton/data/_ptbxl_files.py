"""Where PTB-XL lies on a disk, what of it is missing, and one record of it as integers."""

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from dettriton.data._download import fetch_all, read_sums, require_sha256
from dettriton.data._ptbxl_metadata import DATABASE, STATEMENTS_FILE, Row, Statements, read_database, read_statements
from dettriton.data._ptbxl_tables import RATE_OF, RECORDS
from dettriton.data._wfdb_record import STANDARD_LEADS, read_record
from dettriton.data.med import DATA_DIR_VARIABLE
from dettriton.data.signals import resample
from dettriton.errors import InputError

BASE_URL = "https://physionet.org/files/ptb-xl/1.0.3/"
SUMS, LICENCE_FILE = "SHA256SUMS.txt", "LICENSE.txt"

GAIN = 1000
SECONDS = 10
SAMPLING_RATE = 100
LENGTH = SECONDS * SAMPLING_RATE

_FOLDERS = (
    "",
    "ptbxl",
    "ptb-xl-1.0.3",
    "ptb-xl-a-large-publicly-available-electrocardiography-dataset-1.0.3",
)
_SUFFIXES = (".hea", ".dat")
_MISSING_SAMPLE = -(1 << 15)


@dataclass(frozen=True)
class Tree:
    """PTB-XL on this machine, whole or in part.

    Attributes:
        root: the folder with the tables.
        source: ``"records100"`` or ``"records500"``.
        sums: file name to SHA-256, as far as ``SHA256SUMS.txt`` lists them.
        statements: of ``scp_statements.csv``.
        rows: of the wanted records, by ascending number.
    """

    root: Path
    source: str
    sums: dict[str, str]
    statements: Statements
    rows: list[Row]

    def checksum(self, row: Row) -> str:
        """A text that stands for the record's content: its listed checksums, or the digest of its header, which holds
        a checksum of every lead.

        Raises:
            InputError: the header cannot be read.
        """
        listed = [self.sums.get(row.files[self.source] + suffix) for suffix in _SUFFIXES]
        if None not in listed:
            return " ".join(listed)
        return "header " + hashlib.sha256(_content(self.root / (row.files[self.source] + ".hea"))).hexdigest()

    def read(self, row: Row) -> np.ndarray:
        """The record at 100 Hz in raw units, thousandths of a millivolt: (12, 1000) int16.

        Leads come in the standard order, whichever order the file has. Records at 500 Hz are resampled by
        :func:`dettriton.data.signals.resample`.

        Raises:
            InputError: a file is missing, malformed or short, or a lead, the rate, the length, the gain, the baseline or
                the format is not PTB-XL's.
            IntegrityError: a file does not have its listed checksum, or a signal not that of its header.
        """
        name, rate = row.files[self.source], RATE_OF[self.source]
        for suffix in _SUFFIXES:
            if name + suffix in self.sums:
                require_sha256(_content(self.root / (name + suffix)), name + suffix, self.sums, f"record {name}")
        record = read_record(self.root / name, name)
        channels = record.select(STANDARD_LEADS)
        expected = {
            "sampling rate": (record.rate, Fraction(rate)),
            "number of samples": (record.samples.shape[1], rate * SECONDS),
            "gains": ({record.gains[c] for c in channels}, {Fraction(GAIN)}),
            "baselines": ({record.baselines[c] for c in channels}, {0}),
            "units": ({record.units[c] for c in channels}, {"mV"}),
            "formats": ({record.formats[c] for c in channels}, {"16"}),
            "checksum for every lead": (record.checksummed, True),
        }
        for what, (found, wanted) in expected.items():
            if found != wanted:
                raise InputError(f"record {name}: {what}: {_text(found)} instead of {_text(wanted)}. Fetch it again.")
        samples = record.samples[channels].astype(np.int16)
        if (samples == _MISSING_SAMPLE).any():
            raise InputError(f"record {name} has missing samples (marked by {_MISSING_SAMPLE})")
        return resample(samples, rate, SAMPLING_RATE)


def open_tree(
    data_dir: str | os.PathLike | None,
    download: bool,
    ids: Collection[int] | None,
    source: str,
    base_url: str,
) -> Tree:
    """Finds PTB-XL, fetches what is missing if allowed, and reads its tables.

    Raises:
        InputError: it or a wanted record is not there, or could not be fetched, or a table is malformed.
        IntegrityError: a file does not have its listed checksum.
    """
    if source not in RATE_OF:
        raise InputError(f"there are no records {source!r} in PTB-XL; choose one of {', '.join(RATE_OF)}")
    folders = _data_folders(data_dir)
    root = next((p for folder in folders for p in _places(folder) if (p / DATABASE).is_file()), None)
    if root is None and not download:
        looked = ", ".join(str(place / DATABASE) for folder in folders for place in _places(folder))
        raise InputError(f"PTB-XL is not on this machine: looked for {looked}. {_how_to_get(folders[0])}")
    root = root or folders[0] / "ptb-xl-1.0.3"
    if download:
        _fetch_missing(root, (SUMS, LICENCE_FILE, DATABASE, STATEMENTS_FILE), base_url)
    sums = read_sums(root / SUMS) if (root / SUMS).is_file() else {}
    statements = read_statements(root / STATEMENTS_FILE)
    rows, total = read_database(root / DATABASE, statements, ids)
    if total == RECORDS:
        # a table cut to some rows has no listed checksum
        require_sha256(_content(root / DATABASE), DATABASE, sums, root)
    files = [row.files[source] + suffix for row in rows for suffix in _SUFFIXES]
    if download:
        _fetch_missing(root, files, base_url)
    absent = [name for name in files if not (root / name).is_file()]
    if absent:
        raise InputError(
            f"{root} lacks {len(absent)} of {len(files)} wanted files of records, the first is {absent[0]}. "
            f"{_how_to_get(root)}"
        )
    return Tree(root, source, sums, statements, rows)


def _fetch_missing(root: Path, names: Collection[str], base_url: str) -> None:
    absent = [name for name in names if not (root / name).is_file()]
    if not absent:
        return
    if SUMS in absent:
        fetch_all(base_url, {SUMS: None}, root, SUMS)
    sums = read_sums(root / SUMS)
    unlisted = [name for name in absent if name not in sums and name != SUMS]
    if unlisted:
        raise InputError(
            f"{root / SUMS} does not list {len(unlisted)} wanted files, the first is {unlisted[0]}; they are not fetched "
            f"without a checksum. Delete it and try again, to fetch that of version 1.0.3."
        )
    fetch_all(base_url, {name: sums[name] for name in absent if name != SUMS}, root, "fetching PTB-XL")


def _data_folders(data_dir: str | os.PathLike | None) -> list[Path]:
    if data_dir is not None:
        return [Path(data_dir).expanduser()]
    named = os.environ.get(DATA_DIR_VARIABLE)
    return [*([Path(named).expanduser()] if named else []), Path.home() / ".dettriton"]


def _places(folder: Path) -> list[Path]:
    return [folder / name for name in _FOLDERS]


def _how_to_get(folder: Path) -> str:
    return (
        f"Download {BASE_URL} to {folder}, name another folder with --data-dir or {DATA_DIR_VARIABLE}, or allow the "
        "download (--download, or download=True)."
    )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}. Check the path and its permissions.") from error


def _text(value: object) -> str:
    values = sorted(value, key=str) if isinstance(value, set) else [value]
    return ", ".join(str(v) for v in values)
