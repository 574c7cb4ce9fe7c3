import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from binary32 import Binary32

from dettriton.data import dataset_sha256
from dettriton.data.dataset import MULTI_CLASS, MULTI_LABEL
from dettriton.data.signals import Normalisation, SignalDataset, measure
from dettriton.digest import digest
from dettriton.errors import InputError


def made_signals(n: int = 5, channels: int = 3, length: int = 40, low: int = -3000) -> torch.Tensor:
    random = np.random.default_rng(n)
    return torch.from_numpy(random.integers(low, 3000, (n, channels, length), dtype=np.int16))


def exact(values: list[Fraction]) -> tuple[Fraction, Fraction]:
    mean = sum(values) / len(values)
    return mean, sum((v - mean) ** 2 for v in values) / len(values)


def nearest_root(variance: Fraction) -> Fraction:
    """The binary32 whose neighbours' midpoints enclose the root."""
    guess = np.float32(math.sqrt(variance))
    candidates = [np.nextafter(guess, np.float32(0)), guess, np.nextafter(guess, np.float32(np.inf))]
    for i, candidate in enumerate(candidates):
        below = (Fraction(float(candidate)) + Fraction(float(np.nextafter(candidate, np.float32(0))))) / 2
        above = (Fraction(float(candidate)) + Fraction(float(np.nextafter(candidate, np.float32(np.inf))))) / 2
        if below**2 < variance < above**2:
            return Fraction(float(candidates[i]))
    raise AssertionError("no candidate")


@pytest.mark.parametrize("gains", [[1000.0, 1000.0, 1000.0], [200.0, 7247.0, 0.1015625]])
@pytest.mark.parametrize("per_lead", [False, True])
def test_validate_measure_rounds_the_exact_values_once(gains, per_lead):
    signals = made_signals(low=-2000)
    found = measure(signals, gains, per_lead)
    leads = [[Fraction(int(v)) / Fraction(g) for v in signals[:, c].flatten()] for c, g in enumerate(gains)]
    groups = leads if per_lead else [[v for lead in leads for v in lead]] * 3
    assert found.gain.tolist() == gains
    for c, group in enumerate(groups):
        mean, variance = exact(group)
        assert Fraction(found.mean[c].item()) == Binary32(mean).value
        assert Fraction(found.std[c].item()) == nearest_root(variance)


def test_verify_measure_ignores_order_and_parts(monkeypatch):
    signals = made_signals(700, 2, 30)
    expected = measure(signals, [1000.0, 1000.0])
    for other in (signals.flip(0), signals.flip(2), signals[torch.randperm(700)]):
        found = measure(other, [1000.0, 1000.0])
        assert torch.equal(found.mean, expected.mean) and torch.equal(found.std, expected.std)
    half = measure(torch.full((1, 1, 2), 3, dtype=torch.int16) * torch.tensor([1, -1], dtype=torch.int16), [2.0])
    assert (half.mean.item(), half.std.item()) == (0.0, 1.5)
    extreme = torch.tensor([-32768, 32767] * 500, dtype=torch.int16).view(10, 1, 100)
    assert measure(extreme, [1.0]).std.item() == 32767.5


@pytest.mark.parametrize(
    ("signals", "gains"),
    [
        (made_signals().float(), [1.0] * 3),
        (made_signals()[0], [1.0] * 3),
        (made_signals(), [1.0] * 2),
        (made_signals()[:0], [1.0] * 3),
        (torch.full((2, 3, 4), 9, dtype=torch.int16), [1.0] * 3),
        (made_signals(), [1.0, 1.0, 0.0]),
        (made_signals(), [1.0, 1.0, -1.0]),
        (made_signals(), [1.0, 1.0, math.inf]),
        (made_signals(), [1.0, 1.0, math.nan]),
        (made_signals(), [1.0, 1.0, 0.1]),
    ],
)
def test_validate_measure_refusals(signals, gains):
    with pytest.raises(InputError):
        measure(signals, gains)


SCALE = Normalisation(*(torch.tensor(v) for v in ([1000.0, 200.0, 3.0], [0.25, -1.5, 1e-3], [0.3, 7.0, 0.7])))


def small(**changes) -> SignalDataset:
    fields = {
        "name": "made",
        "split": "train",
        "signals": made_signals(4),
        "labels": torch.tensor([0, 4, 1, 1]),
        "num_classes": 5,
        "task": MULTI_CLASS,
        "normalisation": SCALE,
        "records": ("a", "b", "c", "d"),
    }
    return SignalDataset(**(fields | changes))


def test_validate_inputs_are_three_roundings():
    data = small()
    chosen = torch.tensor([2, 0])
    inputs, millivolts = data.inputs(chosen), data.millivolts(chosen)
    assert inputs.dtype == millivolts.dtype == torch.float32
    assert inputs.shape == millivolts.shape == (2, 3, 40)
    for row, n in enumerate(chosen):
        for c in range(3):
            gain, mean, std = (Binary32(v[c].item()) for v in (SCALE.gain, SCALE.mean, SCALE.std))
            for t in range(0, 40, 7):
                quotient = Binary32(int(data.signals[n, c, t])) / gain
                assert Fraction(millivolts[row, c, t].item()) == quotient.value
                assert Fraction(inputs[row, c, t].item()) == ((quotient - mean) / std).value
    assert torch.equal(data.inputs(), data.inputs(slice(0, 4)))
    assert torch.equal(data.inputs(slice(1, 3)), data.inputs(range(1, 3)))
    assert data.inputs(slice(0, 0)).shape == (0, 3, 40)
    assert len(data) == 4


def test_verify_a_trained_scale_centres_the_data():
    signals = made_signals(50)
    inputs = small(
        signals=signals,
        labels=torch.zeros(50, dtype=torch.int64),
        records=("",) * 50,
        normalisation=measure(signals, [9.0] * 3),
    ).inputs()
    assert abs(inputs.double().mean()) < 1e-6
    assert abs(inputs.double().var(correction=0) - 1) < 1e-6


def test_verify_moving_keeps_everything():
    data = small()
    moved = data.to("cpu")
    assert moved.sha256 == data.sha256 and moved.records == data.records


def test_verify_digests_are_the_content():
    data = small()
    parts = {"signals": data.signals, "labels": data.labels, "gain": SCALE.gain, "mean": SCALE.mean, "std": SCALE.std}
    assert data.sha256 == digest(parts, {"name": "made", "split": "train", "task": MULTI_CLASS})
    assert dataset_sha256({"train": data}) == digest({f"train.{k}": v for k, v in parts.items()})
    changed = data.signals.clone()
    changed[0, 0, 0] += 1
    other_scale = Normalisation(SCALE.gain, SCALE.mean, SCALE.std * 2)
    others = [small(signals=changed), small(labels=torch.tensor([0, 4, 1, 2])), small(split="val"), small(name="other")]
    assert len({data.sha256, small(normalisation=other_scale).sha256, *(o.sha256 for o in others)}) == 6
    assert small(records=("x",) * 4).sha256 == data.sha256


MULTI = {"task": MULTI_LABEL, "num_classes": 2}


@pytest.mark.parametrize(
    "changes",
    [
        {"signals": made_signals(4).int()},
        {"signals": made_signals(4)[0]},
        {"signals": made_signals(3)},
        {"signals": made_signals(4, channels=2)},
        {"labels": torch.tensor([0, 5, 1, 1])},
        {"labels": torch.tensor([0, -1, 1, 1])},
        {"labels": torch.zeros(4)},
        {"records": ("a",)},
        MULTI,
        MULTI | {"labels": torch.full((4, 2), 0.5)},
    ],
)
def test_validate_parts_that_do_not_fit(changes):
    with pytest.raises(InputError, match="made train"):
        small(**changes)


def test_validate_multi_label():
    labels = torch.tensor([[0.0, 1.0], [0.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    assert torch.equal(small(**MULTI, labels=labels).labels, labels)


@pytest.mark.parametrize(
    "parts",
    [
        ([1.0], [0.0], [0.0]),
        ([0.0], [0.0], [1.0]),
        ([1.0], [math.nan], [1.0]),
        ([1.0], [0.0], [math.inf]),
        ([1.0], [math.inf], [1.0]),
        ([1.0, 1.0], [0.0], [1.0]),
        (1.0, 0.0, 1.0),
    ],
)
def test_validate_normalisation_refusals(parts):
    with pytest.raises(InputError):
        Normalisation(*(torch.tensor(p) for p in parts))


def test_validate_normalisation_is_binary32():
    one = torch.ones(1)
    with pytest.raises(InputError, match="mean"):
        Normalisation(one, one.double(), one)
