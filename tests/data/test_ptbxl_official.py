"""PTB-XL's own records, where the data folder has them."""

import csv

import made_wfdb
import numpy as np
import pytest
from made_wfdb import LEADS, file_name

from dettriton.data import dataset_sha256, load, ptbxl
from dettriton.data._ptbxl_tables import SUPERCLASS, TASK_CLASSES
from dettriton.data._wfdb_record import load_wfdb
from dettriton.data.ptbxl import load_ptbxl, read_ptbxl
from dettriton.errors import IntegrityError

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def official(data_dir, tmp_path_factory) -> dict:
    """All 500 records of the data folder, by task."""
    cache = tmp_path_factory.mktemp("cache")
    return {task: read_ptbxl(task, data_dir, cache_dir=cache) for task in TASK_CLASSES}


def test_verify_ptbxl488(data_dir, tmp_path, monkeypatch):
    splits = load_ptbxl("ptbxl488", data_dir, cache_dir=tmp_path)
    assert {split: len(data) for split, data in splits.items()} == {"train": 344, "val": 78, "test": 66}
    assert dataset_sha256(splits) == "7ef683d79ac0e187bb9d096a4136cb8689a528ec47d98eab6bdc007027146990"
    assert splits["train"].inputs(slice(0, 2)).shape == (2, 12, 1000)
    monkeypatch.setenv("DETTRITON_CACHE", str(tmp_path))
    assert dataset_sha256(load("ptbxl488", data_dir)) == dataset_sha256(splits)
    monkeypatch.setattr(ptbxl, "SUBSET_SHA256", "0" * 64)
    with pytest.raises(
        IntegrityError, match=r"ptbxl488 of .* is not the recorded data: digest 7ef683d7.* expected 0000"
    ):
        load("ptbxl488", data_dir)


def test_corroborate_counts_of_the_inventory(official):
    counts = {
        task: dict(zip(TASK_CLASSES[task], sum(d.labels.sum(0) for d in splits.values()).int().tolist(), strict=True))
        for task, splits in official.items()
    }
    assert counts["superclass"] == {"NORM": 297, "STTC": 96, "CD": 78, "MI": 73, "HYP": 40}
    rhythms = {"SR": 407, "SARRH": 26, "AFIB": 13, "SBRAD": 9, "AFLT": 8, "PACE": 6, "STACH": 5, "SVTAC": 1}
    assert {c: n for c, n in counts["rhythm"].items() if n} == rhythms
    assert sum(int((d.labels.sum(1) == 0).sum()) for d in official["rhythm"].values()) == 29
    assert {split: len(d) for split, d in official["form"].items()} == {"train": 353, "val": 81, "test": 66}
    assert counts["form"]["NDT"] == counts["diagnostic"]["NDT"] == 38


def test_corroborate_every_record_against_wfdb(data_dir, official):
    wfdb = load_wfdb()
    for data in official["rhythm"].values():
        for record, millivolts in zip(data.records, data.millivolts(), strict=True):
            physical, fields = wfdb.rdsamp(str(data_dir / "ptbxl" / record))
            assert tuple(fields["sig_name"]) == LEADS
            assert np.array_equal(millivolts.numpy(), physical.T.astype(np.float32))


def test_corroborate_labels_against_the_benchmark(data_dir, official):
    """Strodthoff et al. take the class of every diagnostic statement, whatever its likelihood."""
    with open(data_dir / "ptbxl" / "scp_statements.csv", newline="") as file:
        classes = {r[""]: r["diagnostic_class"] for r in csv.DictReader(file) if r["diagnostic"] == "1.0"}
    with open(data_dir / "ptbxl" / "ptbxl_database.csv", newline="") as file:
        rows = {r["filename_lr"]: r for r in csv.DictReader(file)}
    for split, data in official["superclass"].items():
        for record, label in zip(data.records, data.labels, strict=True):
            fold = int(rows[record]["strat_fold"])
            assert split == ("train" if fold <= 8 else "val" if fold == 9 else "test")
            expected = {name for code, name in classes.items() if f"'{code}'" in rows[record]["scp_codes"]}
            assert {c for c, flag in zip(SUPERCLASS, label.tolist(), strict=True) if flag} == expected


def test_validate_one_flipped_bit_of_an_official_record(data_dir, tmp_path):
    made_wfdb.make_tree(tmp_path, {1: (1, {"NORM": 1.0})}, records=())
    official_record = data_dir / "ptbxl" / file_name(1)
    (tmp_path / "records100" / "00000").mkdir(parents=True)
    for suffix in (".hea", ".dat"):
        content = bytearray(official_record.with_name(official_record.name + suffix).read_bytes())
        content[12_345 % len(content)] ^= suffix == ".dat"
        (tmp_path / (file_name(1) + suffix)).write_bytes(content)
    with pytest.raises(IntegrityError, match=f"record {file_name(1)}: lead .* has the checksum"):
        read_ptbxl("form", tmp_path)
