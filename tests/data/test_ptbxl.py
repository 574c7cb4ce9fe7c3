import tracemalloc

import numpy as np
import pytest
import torch
from made_wfdb import LEADS, ROWS, file_name, make_tree, noise, write_record, write_sums

from dettriton.data import _ptbxl_files, _signal_cache, dataset_sha256, describe, ptbxl
from dettriton.data._ptbxl_tables import DIAGNOSTIC, FIRST_488, FORM, RECORDS, RHYTHM, SAMPLES, SUPERCLASS, TASK_CLASSES
from dettriton.data.ptbxl import load_ptbxl, read_ptbxl
from dettriton.data.signals import measure, resample
from dettriton.errors import InputError, IntegrityError

SPLITS = {"train": [1, 2, 7], "val": [3], "test": [4, 1000]}
LABELS = {
    "superclass": {1: "NORM", 2: "MI STTC", 3: "CD HYP", 4: "", 7: "NORM", 1000: "STTC"},
    "diagnostic": {1: "NORM", 2: "IMI NDT", 3: "LVH LAFB", 4: "", 7: "NORM", 1000: "NDT"},
    "form": {1: "LVOLT", 2: "NDT", 3: "", 4: "PVC", 7: "", 1000: "NDT"},
    "rhythm": {1: "SR", 2: "AFIB", 3: "SR TRIGU", 4: "", 7: "SBRAD", 1000: "PACE"},
}


pytestmark = pytest.mark.usefixtures("no_folders_of_this_machine")


@pytest.mark.parametrize("task", LABELS)
def test_verify_records_arrive_as_they_are(root, task):
    splits = read_ptbxl(task, root)
    assert list(splits) == list(SPLITS)
    for split, numbers in SPLITS.items():
        data = splits[split]
        assert np.array_equal(data.signals.numpy(), np.stack([noise(n) for n in numbers]))
        assert data.records == tuple(file_name(n) for n in numbers)
        for number, label in zip(numbers, data.labels, strict=True):
            named = [c for c, flag in zip(TASK_CLASSES[task], label.tolist(), strict=True) if flag]
            assert set(named) == set(LABELS[task][number].split())
        assert (data.name, data.split, data.num_classes) == (f"ptbxl_{task}", split, len(TASK_CLASSES[task]))
    expected = measure(splits["train"].signals, [1000.0] * 12)
    for data in splits.values():
        for name in ("gain", "mean", "std"):
            assert torch.equal(getattr(data.normalisation, name), getattr(expected, name))


def test_validate_classes_are_ptbxls():
    assert " ".join(RHYTHM) == "SR AFIB STACH SARRH SBRAD PACE SVARR BIGU AFLT SVTAC PSVT TRIGU"
    assert SUPERCLASS == ("NORM", "MI", "STTC", "CD", "HYP")
    assert (len(DIAGNOSTIC), len(FORM), len({*DIAGNOSTIC, *FORM, *RHYTHM})) == (44, 19, 71)
    assert sum(SAMPLES.values()) == RECORDS
    assert (len(FIRST_488), FIRST_488[0], FIRST_488[-1]) == (488, 1, 500)
    for name in ptbxl.NAMES:
        assert describe(name).signal_shape == (12, 1000)


def test_verify_choices(root):
    labelled = read_ptbxl("rhythm", root, labelled_only=True)
    assert {split: len(data) for split, data in labelled.items()} == {"train": 3, "val": 1, "test": 1}
    chosen = read_ptbxl("rhythm", root, ids=(1000, 7), name="two")
    assert [chosen[split].records for split in SPLITS] == [(file_name(7),), (), (file_name(1000),)]
    assert chosen["val"].inputs().shape == (0, 12, 1000) and chosen["val"].name == "two"
    per_lead = read_ptbxl("rhythm", root, per_lead=True)["train"].normalisation
    assert len(set(per_lead.std.tolist())) == 12
    assert len(set(labelled["train"].normalisation.std.tolist())) == 1


def test_verify_records500_are_resampled(root):
    for number in ROWS:
        write_record(root / file_name(number, "records500"), noise(number, 5000), rate=500)
    splits = read_ptbxl("form", root, source="records500")
    assert splits["train"].name == "ptbxl_form_500"
    for split, numbers in SPLITS.items():
        expected = np.stack([resample(noise(n, 5000), 500) for n in numbers])
        assert np.array_equal(splits[split].signals.numpy(), expected)


def test_verify_permuted_leads_are_put_in_order(root):
    order = [11, 3, 0, 1, 2, 4, 5, 6, 10, 8, 9, 7]
    write_record(root / file_name(2), noise(2)[order], [LEADS[i].lower() for i in order])
    assert np.array_equal(read_ptbxl("form", root)["train"].signals[1].numpy(), noise(2))


PLACES = ["", "ptbxl", "ptb-xl-1.0.3", "ptb-xl-a-large-publicly-available-electrocardiography-dataset-1.0.3"]


@pytest.mark.parametrize("place", PLACES)
def test_verify_places(tmp_path, monkeypatch, place):
    make_tree(tmp_path / "data" / place)
    expected = dataset_sha256(read_ptbxl("form", tmp_path / "data"))
    with pytest.raises(InputError, match=r"physionet.org/files/ptb-xl/1.0.3") as caught:
        read_ptbxl("form")
    assert "--download" in str(caught.value) and "\n" not in str(caught.value)
    monkeypatch.setenv("DETTRITON_DATA", str(tmp_path / "data"))
    assert dataset_sha256(read_ptbxl("form")) == expected


def test_verify_cache(root, monkeypatch, tmp_path):
    expected = dataset_sha256(read_ptbxl("rhythm", root))
    (cached,) = (tmp_path / "cache").iterdir()
    monkeypatch.setattr(_ptbxl_files, "read_record", lambda *_: pytest.fail("the cache was not used"))
    assert dataset_sha256(read_ptbxl("rhythm", root)) == expected
    read_ptbxl("form", root)
    monkeypatch.undo()
    monkeypatch.setenv("DETTRITON_CACHE", str(tmp_path / "cache"))
    whole = cached.read_bytes()
    for damaged in (whole[:-7], whole[:-9] + b"\xff" + whole[-8:], b"", whole.replace(b'"signals"', b'"singals"')):
        cached.write_bytes(damaged)
        with pytest.warns(UserWarning, match="damaged cache file is made again"):
            assert dataset_sha256(read_ptbxl("rhythm", root)) == expected
        assert cached.read_bytes() == whole
    write_record(root / file_name(2), noise(99))
    assert dataset_sha256(read_ptbxl("rhythm", root)) != expected
    write_sums(root)
    read_ptbxl("rhythm", root, cache_dir=tmp_path / "other")
    assert len(list((tmp_path / "cache").iterdir())) == 2 and len(list((tmp_path / "other").iterdir())) == 1


def test_validate_a_cache_that_cannot_be_written(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="read but not cached"):
        splits = read_ptbxl("rhythm", root, cache_dir=tmp_path / "file")
    assert dataset_sha256(splits) == dataset_sha256(read_ptbxl("rhythm", root))


def test_verify_several_cache_files(root, monkeypatch, tmp_path):
    expected = dataset_sha256(read_ptbxl("form", root, cache_dir=tmp_path / "one"))
    monkeypatch.setattr(_signal_cache, "RECORDS_A_FILE", 4)
    for _ in range(2):
        assert dataset_sha256(read_ptbxl("form", root)) == expected
    cached = sorted((tmp_path / "cache").iterdir(), key=lambda path: path.stat().st_size)
    assert len(cached) == 2
    cached[0].unlink()
    assert dataset_sha256(read_ptbxl("form", root)) == expected


def full_table() -> dict[int, tuple[int, dict]]:
    """As many rows as PTB-XL has, folds of its sizes."""
    folds = [8] * SAMPLES["train"] + [9] * SAMPLES["val"] + [10] * SAMPLES["test"]
    codes = ({"NORM": 100.0, "SR": 0.0}, {"IMI": 35.0, "ABQRS": 0.0, "SR": 0.0})
    return {i + 1: (fold, codes[i % 2]) for i, fold in enumerate(folds)}


def test_verify_full_size_tables_in_bounded_memory(tmp_path):
    make_tree(tmp_path, full_table(), records=(1, 19_000, 21_799))
    write_sums(tmp_path)
    tracemalloc.start()
    splits = read_ptbxl("superclass", tmp_path, ids=(21_799, 1, 19_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6
    assert [data.records for data in splits.values()] == [(file_name(1),), (file_name(19_000),), (file_name(21_799),)]
    with pytest.raises(InputError, match="lacks 43592 of 43598 wanted files"):
        load_ptbxl("ptbxl_rhythm", tmp_path)
    database = tmp_path / "ptbxl_database.csv"
    database.write_text(database.read_text().replace("\n21799,21799.0", "\n21799,21798.0"))
    with pytest.raises(IntegrityError, match=r"ptbxl_database.csv has the SHA-256"):
        read_ptbxl("superclass", tmp_path, ids=(1,))


def test_verify_a_whole_set_is_one_array_filled_part_by_part(tmp_path, monkeypatch):
    record = noise(5)
    signals = np.zeros((4000, 12, 1000), dtype=np.int16)
    checksums = [str(i) for i in range(len(signals))]
    monkeypatch.setattr(_signal_cache, "RECORDS_A_FILE", 100)
    for _ in range(2):
        tracemalloc.start()
        _signal_cache.fill(signals, checksums, lambda i: np.roll(record, i, axis=1), {}, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 5 * 100 * record.nbytes
        assert np.array_equal(signals[[0, 99, 3999]], [np.roll(record, i, axis=1) for i in (0, 99, 3999)])
        signals[:] = 0
