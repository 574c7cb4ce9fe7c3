"""``[train] pos_weight``: the weights are the exact roots, rounded once, and the loss is weighed by them."""

from fractions import Fraction

import numpy as np
import pytest
import tiny_training as tiny
import torch
from bits import same_bits

from dettriton import data
from dettriton.data import ArrayDataset
from dettriton.data.dataset import MULTI_LABEL
from dettriton.errors import InputError
from dettriton.train import parse_recipe, train
from dettriton.train._run import Run
from dettriton.train.batches import pos_weight

LOSS = "binary_cross_entropy_with_logits"
TRAINING_RECORDS = 17418
POSITIVES = {"a rare label": 4, "each second image": 13, "no image": 0}


def labels_with(positives, n):
    """(n, len(positives)) labels, so many of each."""
    return (torch.arange(n)[:, None] < torch.tensor([*positives])).float()


def is_nearest_root(weight: float, x: Fraction) -> bool:
    """Whether no binary32 is nearer to the root of ``x``: the squares of both midpoints enclose it."""
    here = np.float32(weight)
    assert float(here) == weight
    below, above = (Fraction(float(np.nextafter(here, np.float32(to)))) for to in (0, np.inf))
    return ((Fraction(weight) + below) / 2) ** 2 < x < ((Fraction(weight) + above) / 2) ** 2


def test_validate_weights_are_the_nearest_to_the_exact_roots():
    counts = [1, 2, 3, 7, 50, 77, 678, 1018, 2222, 5824, 8707, 13426, TRAINING_RECORDS]
    weights = pos_weight("sqrt", labels_with(counts, TRAINING_RECORDS))
    assert weights.dtype == torch.float32 and weights.shape == (len(counts),)
    for weight, n in zip(weights.tolist(), counts, strict=True):
        assert is_nearest_root(weight, Fraction(TRAINING_RECORDS, n))
    quotients = np.float32(TRAINING_RECORDS) / np.array(counts, dtype=np.float32)
    assert np.sqrt(quotients).tolist() != weights.tolist(), "counts for which a second rounding shows"


@pytest.mark.parametrize(("positives", "weight"), [(4, 2.0), (1, 4.0), (16, 1.0), (0, 1.0)])
def test_validate_weights_that_are_exact(positives, weight):
    assert pos_weight("sqrt", labels_with([positives], 16)).tolist() == [weight]


def test_none_is_no_weight():
    assert pos_weight("none", labels_with([1, 2], 4)) is None


def splits() -> dict[str, ArrayDataset]:
    """The tiny images with labels so rare as :data:`POSITIVES`, and something of everything to score."""
    made = {}
    for split, images in tiny.splits().items():
        counts = POSITIVES.values() if split == "train" else (2, 3, 4)
        labels = labels_with(counts, len(images))
        made[split] = ArrayDataset("made", split, images.images, labels, tiny.CLASSES, MULTI_LABEL, "medmnist")
    return made


@pytest.fixture
def several(monkeypatch):
    tiny.install(monkeypatch.setattr)
    monkeypatch.setattr(data, "load", lambda name, data_dir=None, download=False: splits())


def recipe(kind: str | None, **changes):
    settings = {"loss": LOSS, "label_smoothing": 0} | ({} if kind is None else {"pos_weight": kind})
    return tiny.recipe(train=settings | changes)


def test_corroborate_the_loss_is_torchs_with_these_weights(several):
    run = Run(recipe("sqrt", batch_size=26), splits(), "cpu")
    logits, labels = torch.linspace(-3, 3, 78).view(26, 3), splits()["train"].labels
    weights = torch.tensor([26 / 4, 26 / 13, 1.0], dtype=torch.float64).sqrt()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits.double(), labels.double(), pos_weight=weights
    )
    unweighted = torch.nn.functional.binary_cross_entropy_with_logits(logits.double(), labels.double())
    assert run._loss(logits, labels).item() == pytest.approx(expected.item(), rel=1e-6)
    assert abs(expected - unweighted) > 1e-2


def test_verify_none_is_the_default_and_sqrt_trains_other_weights(several, tmp_path):
    found = {
        kind: train(recipe(kind), tmp_path / str(kind), progress=False).weights_digest
        for kind in (None, "none", "sqrt")
    }
    assert found[None] == found["none"] != found["sqrt"]


def test_verify_a_weighed_training_resumes_to_the_same_files(several, tmp_path, monkeypatch):
    train(recipe("sqrt"), tmp_path / "whole", progress=False)
    restore = tiny.stop_after(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        train(recipe("sqrt"), tmp_path / "parts", progress=False)
    restore()
    train(recipe("sqrt"), tmp_path / "parts", progress=False, resume=True)
    assert tiny.files(tmp_path / "parts") == tiny.files(tmp_path / "whole")


def test_verify_a_label_without_positives_changes_nothing(several):
    """Its weight multiplies no loss: any other would do, an infinite one would not."""
    run = Run(recipe("sqrt"), splits(), "cpu")
    logits, labels = torch.linspace(-3, 3, 78).view(26, 3), splits()["train"].labels
    loss = run._loss(logits, labels)
    run._pos_weight = torch.where(torch.tensor([False, False, True]), 1000.0, run._pos_weight)
    assert same_bits(run._loss(logits, labels), loss)
    run._pos_weight[2] = float("inf")
    assert not run._loss(logits, labels).isfinite()


def test_verify_the_weights_are_refused_with_cross_entropy():
    with pytest.raises(InputError, match=r"\[train\]: 'pos_weight' works with loss = \"binary_cross_entropy"):
        tiny.recipe(train={"pos_weight": "sqrt"})
    assert tiny.recipe(train={"pos_weight": "none"}) == tiny.recipe()


def test_verify_the_digest_sees_the_weights_but_not_their_absence():
    plain, spelled, weighed = recipe(None), recipe("none"), recipe("sqrt")
    assert plain.digest() == spelled.digest() != weighed.digest()
    assert "pos_weight" not in spelled.to_dict()["train"]
    for some in (plain, weighed):
        assert parse_recipe(some.to_dict()) == some
