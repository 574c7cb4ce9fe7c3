"""WFDB records and PTB-XL trees of noise, written by hand. Imported by the tests."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dettriton.data._ptbxl_tables import FORM, RHYTHM, STATEMENTS, SUPERCLASS_OF

LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
COLUMNS = "ecg_id,patient_id,scp_codes,strat_fold,filename_lr,filename_hr"

ROWS = {
    1: (3, {"NORM": 100.0, "LVOLT": 0.0, "SR": 0.0}),
    2: (2, {"IMI": 0.0, "NDT": 80.0, "AFIB": 0.0}),
    3: (9, {"LVH": 50.0, "LAFB": 15.0, "TRIGU": 0.0, "SR": 0.0}),
    4: (10, {"PVC": 100.0}),
    7: (8, {"NORM": 80.0, "SBRAD": 0.0}),
    1000: (10, {"NDT": 100.0, "PACE": 0.0}),
}
"""Number of a record to its fold and codes."""


def noise(number: int, samples: int = 1000, channels: int = 12) -> np.ndarray:
    """(channels, samples) int16 in the range of an electrocardiogram in thousandths of a millivolt."""
    return np.random.default_rng(number).integers(-3000, 3000, (channels, samples), dtype=np.int16)


def write_record(
    path: Path,
    samples: np.ndarray,
    leads: Sequence[str] = LEADS,
    *,
    rate: object = 100,
    gain: str = "1000.0(0)/mV",
    comments: Sequence[str] = (),
    checksums: Sequence[object] | None = None,
    length: int | None = None,
    data: bytes | None = None,
) -> None:
    """A record in format 16; arguments that lie make a record that is wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sums = [int(lead.sum(dtype=np.int64)) % 65536 for lead in samples] if checksums is None else checksums
    lines = [f"{path.name} {len(leads)} {rate} {samples.shape[1] if length is None else length}"]
    for i, lead in enumerate(leads):
        lines.append(f"{path.name}.dat 16 {gain} 16 0 {samples[i, 0]} {sums[i]} 0 {lead}")
    lines += [f"# {comment}" for comment in comments]
    path.with_name(path.name + ".hea").write_text("\n".join(lines) + "\n")
    content = np.ascontiguousarray(samples.T).astype("<i2").tobytes() if data is None else data
    path.with_name(path.name + ".dat").write_bytes(content)


def file_name(number: int, folder: str = "records100") -> str:
    """Where PTB-XL has a record, without a suffix."""
    return f"{folder}/{number // 1000 * 1000:05d}/{number:05d}_{'lr' if folder == 'records100' else 'hr'}"


def database(rows: Mapping[int, tuple[int, object]]) -> str:
    """The text of ``ptbxl_database.csv``."""
    lines = [COLUMNS]
    for number, (fold, codes) in rows.items():
        files = f"{file_name(number)},{file_name(number, 'records500')}"
        lines.append(f'{number},{number}.0,"{codes}",{fold},{files}')
    return "\n".join(lines) + "\n"


def statements() -> str:
    """The text of ``scp_statements.csv``, the columns that count."""
    lines = [",description,diagnostic,form,rhythm,diagnostic_class"]
    for code in dict.fromkeys((*SUPERCLASS_OF, *FORM, *RHYTHM)):
        flags = ",".join("1.0" if code in STATEMENTS[kind] else "" for kind in ("diagnostic", "form", "rhythm"))
        lines.append(f'{code},"a, b",{flags},{SUPERCLASS_OF.get(code, "")}')
    return "\n".join(lines) + "\n"


def make_tree(
    root: Path, rows: Mapping[int, tuple[int, object]] = ROWS, records: Sequence[int] | None = None
) -> dict[int, np.ndarray]:
    """A PTB-XL folder without checksums, with records of noise for the given numbers (all by default)."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "ptbxl_database.csv").write_text(database(rows))
    (root / "scp_statements.csv").write_text(statements())
    (root / "LICENSE.txt").write_text("made\n")
    made = {number: noise(number) for number in (rows if records is None else records)}
    for number, samples in made.items():
        write_record(root / file_name(number), samples)
    return made


def write_sums(root: Path) -> None:
    """``SHA256SUMS.txt`` of all that lies there."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != "SHA256SUMS.txt")
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.relative_to(root).as_posix()}" for path in files]
    (root / "SHA256SUMS.txt").write_text("\n".join(sums) + "\n")
