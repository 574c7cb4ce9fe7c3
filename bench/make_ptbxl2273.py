"""The study's two sets from a filtered extract of PTB-XL: 2,273 records at 100 Hz, folds as in PTB-XL.

    python bench/make_ptbxl2273.py EXTRACT_DIR OUT_DIR

EXTRACT_DIR holds ``ptbxl_uniform100_f16.npz`` (X float16 (N, 1000, 12), z-scored leads) and ``labels.csv``. Written are
``ptbxl2273_rhythm.npz`` (the records with any of five rhythms, each of which has at least 20 training records) and
``ptbxl2273_superclass.npz`` (all records), five labels each, for ``npz:ptbxl2273_rhythm`` and ``npz:ptbxl2273_superclass``.
Samples are rounded to 1/1024 of a lead's deviation, ties to even, which is the gain in the files.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

RHYTHMS = ("SR", "AFIB", "STACH", "SBRAD", "SARRH")
SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
SPLITS = ("train", "val", "test")
GAIN = 1024


def read_extract(folder: Path) -> tuple[np.ndarray, list[dict[str, str]]]:
    """Signals as (N, 12, 1000) int16 in 1/1024, and the rows of the labels, in one order."""
    with np.load(folder / "ptbxl_uniform100_f16.npz", allow_pickle=False) as archive:
        waves, ids = archive["X"], archive["ecg_id"]
    with open(folder / "labels.csv", newline="", encoding="utf-8") as file:
        rows = {int(row["ecg_id"]): row for row in csv.DictReader(file)}
    steps = np.rint(waves.astype(np.float32) * np.float32(GAIN)).astype(np.int16)
    return np.ascontiguousarray(steps.transpose(0, 2, 1)), [rows[int(i)] for i in ids]


def write_set(
    path: Path, signals: np.ndarray, labels: np.ndarray, splits: np.ndarray, classes: tuple[str, ...]
) -> None:
    """One file in the layout of :mod:`dettriton.data.own`."""
    arrays = {"classes": np.array(classes), "gain": np.full(signals.shape[1], GAIN, dtype=np.float32)}
    for split in SPLITS:
        chosen = splits == split
        arrays |= {f"{split}_signals": signals[chosen], f"{split}_labels": labels[chosen]}
        print(f"{path.stem} {split}: {chosen.sum()} records, positives {labels[chosen].sum(axis=0).tolist()}")
    np.savez(path, **arrays)


def main() -> int:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extract_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    options = parser.parse_args()
    signals, rows = read_extract(options.extract_dir)
    options.out_dir.mkdir(parents=True, exist_ok=True)
    splits = np.array([row["split"] for row in rows])
    for task, classes, positives in (
        ("rhythm", RHYTHMS, [row["rhythm"].split("|") for row in rows]),
        ("superclass", SUPERCLASSES, [[c for c in SUPERCLASSES if row[c] == "1"] for row in rows]),
    ):
        labels = np.array([[c in of_record for c in classes] for of_record in positives], dtype=np.uint8)
        # a record without any of the rhythms is one whose rhythm is not known; without a superclass, a negative
        kept = labels.any(axis=1) if task == "rhythm" else np.ones(len(rows), dtype=bool)
        write_set(options.out_dir / f"ptbxl2273_{task}.npz", signals[kept], labels[kept], splits[kept], classes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
