"""rhythm_sim as a dataset that a recipe can name."""

import pytest
import torch
from bits import same_bits

from dettriton import data
from dettriton.data import rhythm_sim, simulated
from dettriton.errors import IntegrityError


@pytest.fixture(scope="module")
def splits():
    return data.load("rhythm_sim")


def test_verify_the_set_is_the_recorded_one(splits):
    info = data.describe("rhythm_sim")
    assert data.dataset_sha256(splits) == info.content_sha256
    assert {name: len(split) for name, split in splits.items()} == info.samples
    assert splits["train"].signals.shape[1:] == info.signal_shape and info.num_classes == 12
    made = {split: (s.signals, s.labels) for split, s in splits.items()}
    assert rhythm_sim.content_sha256(made) == rhythm_sim.CONTENT_SHA256["default"]


def test_verify_inputs_are_normalised_microvolts(splits):
    train = splits["train"]
    x = train.inputs(slice(0, 3))
    scale = train.normalisation
    written = (train.signals[:3].float() / torch.tensor(1000.0) - scale.mean[0]) / scale.std[0]
    assert same_bits(x, written)
    whole = train.inputs()
    assert abs(float(whole.double().mean())) < 1e-5 and abs(float(whole.double().std()) - 1) < 1e-5


def test_other_bytes_are_refused(splits, monkeypatch):
    made = {split: (s.signals.clone(), s.labels) for split, s in splits.items()}
    made["val"][0][0, 0, 0] += 1
    monkeypatch.setattr(simulated, "load_rhythm_sim", lambda: made)
    with pytest.raises(IntegrityError, match="rhythm_sim is not the recorded one"):
        data.load("rhythm_sim")
