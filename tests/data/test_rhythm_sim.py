import os
import subprocess
import sys

import pytest
import torch

from dettriton.data import rhythm_sim
from dettriton.data._heart_waves import heart_dipole
from dettriton.data._rhythms import Beat, beat_schedule
from dettriton.data.rhythm_sim import (
    CLASSES,
    CONTENT_SHA256,
    LEADS,
    SIZES,
    class_counts,
    content_sha256,
    load_rhythm_sim,
    set_labels,
    simulate,
)
from dettriton.errors import InputError, IntegrityError

GOLDEN = {
    "tiny": "a067e68cd049f32dfc0ba361c43b7ea3aa1467023e59456c7d89a927e31f9b99",
    "default": "37c17f2ca6fb0eec88f13d2a4f7fd622fcbefbcbb94e3c71ab404c8e59a2705f",
}
LIMB = {lead: LEADS.index(lead) for lead in ("I", "II", "III", "aVR", "aVL", "aVF")}


def labels_of(name: str, n: int) -> torch.Tensor:
    return torch.full((n,), CLASSES.index(name))


@pytest.fixture(scope="module")
def splits():
    return load_rhythm_sim("default")


@pytest.fixture(scope="module")
def mixed():
    """Records of all classes alike, 20 of each."""
    labels = torch.arange(12).repeat(20)
    return simulate(labels, 8), labels


def test_verify_golden_bytes(splits):
    assert content_sha256(splits) == GOLDEN["default"]
    assert content_sha256(load_rhythm_sim("tiny")) == GOLDEN["tiny"]
    assert set(CONTENT_SHA256) == set(SIZES)
    assert {name: CONTENT_SHA256[name] for name in GOLDEN} == GOLDEN


@pytest.mark.parametrize(
    ("size", "threads", "capability"),
    [("tiny", 2, "avx2"), pytest.param("default", 1, "default", marks=pytest.mark.heavy)],
)
def test_verify_same_bytes_in_another_process(size, threads, capability):
    code = (
        "import contextlib, torch; from dettriton.data import rhythm_sim as r; "
        f"torch.set_num_threads({threads}); "
        "r._one_thread = contextlib.nullcontext; "
        f"print(r.content_sha256(r.load_rhythm_sim('{size}')))"
    )
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability}
    child = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert child.stdout.strip() == GOLDEN[size]


def test_threads_are_given_back():
    threads = torch.get_num_threads()
    simulate(torch.tensor([0]), 0)
    assert torch.get_num_threads() == threads


def test_verify_a_record_does_not_depend_on_its_neighbours(mixed, monkeypatch):
    signals, labels = mixed
    monkeypatch.setattr(rhythm_sim, "CHUNK", 37)
    assert torch.equal(simulate(labels, 8), signals)
    for first, last in ((0, 1), (100, 113), (239, 240)):
        assert torch.equal(simulate(labels[first:last], 8, first), signals[first:last])
    other = labels.clone()
    other[5:] = (other[5:] + 1) % 12
    changed = simulate(other, 8)
    assert torch.equal(changed[:5], signals[:5])
    assert (changed[5:] != signals[5:]).flatten(1).any(dim=1).all()
    assert not torch.equal(simulate(labels[:2], 9), signals[:2])
    assert not torch.equal(simulate(labels[:1], 8, 2**40), signals[:1])
    assert simulate(labels[:0], 8).shape == (0, 12, 1000)


def test_verify_sizes_and_counts(splits):
    assert {name: len(labels) for name, (_, labels) in splits.items()} == {"train": 1200, "val": 300, "test": 600}
    for name, (signals, labels) in splits.items():
        assert signals.dtype == torch.int16 and tuple(signals.shape) == (len(labels), 12, 1000)
        assert labels.dtype == torch.int64
        assert torch.bincount(labels, minlength=12).tolist() == list(class_counts(SIZES["default"][name]))
    assert class_counts(SIZES["default"]["train"]) == (866, 78, 43, 40, 33, 20, 20, 20, 20, 20, 20, 20)
    assert class_counts(SIZES["default"]["val"]) == (217, 19, 11, 10, 8, 5, 5, 5, 5, 5, 5, 5)
    assert class_counts(SIZES["default"]["test"]) == (433, 39, 21, 20, 17, 10, 10, 10, 10, 10, 10, 10)


@pytest.mark.parametrize("size", SIZES)
def test_verify_every_class_is_in_every_split_in_its_share(size):
    for name, labels in set_labels(size).items():
        split = SIZES[size][name]
        counts = torch.bincount(labels, minlength=12)
        assert len(labels) == split.records == int(counts.sum())
        assert int(counts.min()) >= split.fewest
        assert (counts[:-1] >= counts[1:]).all()
        assert len(set(labels[: len(labels) // 4].tolist())) > 3


def test_verify_limb_leads_obey_einthoven_and_goldberger(mixed):
    lead = {name: mixed[0][:, i].to(torch.int32) for name, i in LIMB.items()}
    assert torch.equal(lead["I"] + lead["III"], lead["II"])
    assert int((2 * lead["aVR"] + lead["I"] + lead["II"]).abs().max()) <= 1
    assert int((2 * lead["aVL"] - lead["I"] + lead["III"]).abs().max()) <= 1
    assert int((2 * lead["aVF"] - lead["II"] - lead["III"]).abs().max()) <= 1


def test_validate_amplitudes_are_physiological(mixed):
    signals, _ = mixed
    assert int(signals.to(torch.int32).abs().max()) < 5000
    heights = (signals.amax(dim=2).to(torch.int32) - signals.amin(dim=2)).to(torch.float32)
    typical = dict(zip(LEADS, heights.median(dim=0).values.tolist(), strict=True))
    assert 400 < typical["I"] < 1600 and 700 < typical["II"] < 2500 and 1000 < typical["V2"] < 3500
    assert heights.min() > 100
    assert (signals.to(torch.float32).mean(dim=2).abs() < 200).all()


def test_validate_bodies_do_not_tell_the_rhythm():
    """One record in different rhythms has one body: its noise, and up to a beat's own size its QRS complexes."""
    records = torch.arange(40)
    rough = []
    tall = []
    for name in ("SR", "SBRAD", "AFIB", "SVTAC"):
        labels = labels_of(name, 40)
        signals = simulate(labels, 5).to(torch.float32)
        rough.append(signals.diff(n=4, dim=2).abs().median(dim=2).values)
        dipole = heart_dipole(beat_schedule(labels, records, 5), records, 5).to(torch.float32)
        tall.append((dipole**2).sum(dim=1).amax(dim=1).sqrt())
    for other in (1, 2):
        assert float((rough[other] / rough[0]).log().abs().median()) < 0.25
    for other in (1, 2, 3):
        assert float((tall[other] / tall[0]).log().abs().median()) < 0.1


def test_validate_r_peaks_are_where_the_schedule_says():
    labels, records = labels_of("SR", 40), torch.arange(40)
    schedule = beat_schedule(labels, records, 5)
    size = (heart_dipole(schedule, records, 5).to(torch.float32) ** 2).sum(dim=1)
    inside = (schedule.times > 300_000) & (schedule.times < 9_700_000) & (schedule.kinds == int(Beat.SINUS))
    rows, beats = inside.nonzero().unbind(1)
    centre = (schedule.times[rows, beats] + 5_000) // 10_000
    window = size[rows[:, None], centre[:, None] + torch.arange(-15, 16)]
    assert int((window.argmax(dim=1) - 15).abs().max()) <= 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 12]), "not one of the 12 classes"),
        (torch.tensor([-1]), "not one of the 12 classes"),
        (torch.tensor([0], dtype=torch.int32), "int64"),
        (torch.zeros(2, 2, dtype=torch.int64), "int64"),
        ([0, 1], "int64"),
    ],
)
def test_bad_labels_are_refused(labels, message):
    with pytest.raises(InputError, match=message):
        simulate(labels, 0)


def test_bad_numbers_are_refused():
    labels = torch.tensor([0])
    for seed in (-1, 2**32, 1.0, True):
        with pytest.raises(InputError, match="seed"):
            simulate(labels, seed)
    with pytest.raises(InputError, match="first"):
        simulate(labels, 0, -1)
    with pytest.raises(InputError, match="size 'huge'"):
        load_rhythm_sim("huge")


def test_other_bytes_are_refused(monkeypatch):
    monkeypatch.setattr(rhythm_sim, "CONTENT_SHA256", {"tiny": "00" * 32})
    with pytest.raises(IntegrityError, match="not the recorded one"):
        load_rhythm_sim("tiny")
