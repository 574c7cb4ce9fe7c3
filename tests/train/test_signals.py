"""Training on signals: the same loop, the same promises, golden vectors of their own."""

import json

import pytest
import tiny_training as tiny
import torch
from bits import same_bits

from dettriton import data, models, nn, zoo
from dettriton.data.dataset import MULTI_CLASS, MULTI_LABEL
from dettriton.data.signals import SignalDataset, SignalInfo, measure
from dettriton.errors import InputError
from dettriton.exact.philox import Stream, random_bits
from dettriton.files import load_safetensors
from dettriton.train import train
from dettriton.zoo import _golden, _manifest

SHAPE = (2, 16)
LEADS = ("I", "II")


def info(task: str) -> SignalInfo:
    return SignalInfo("strips", "noise", task, tuple("abc"), LEADS, SHAPE, 100, tiny.SIZES, "none needed")


def splits(task: str) -> dict[str, SignalDataset]:
    """Noise on a level that tells the class."""
    made, scale = {}, None
    for stream, (split, n) in enumerate(tiny.SIZES.items()):
        labels = torch.arange(n) % tiny.CLASSES
        noise = random_bits(Stream(2, stream), n * 32).view(n, *SHAPE) % 400
        signals = (noise + 300 * labels.view(n, 1, 1)).to(torch.int16)
        scale = scale or measure(signals, (1000.0, 1000.0))
        if task == MULTI_LABEL:
            labels = (labels[:, None] == torch.arange(tiny.CLASSES)).float()
        names = tuple(map(str, range(n)))
        made[split] = SignalDataset("strips", split, signals, labels, tiny.CLASSES, task, scale, names)
    return made


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 5)
        self.head = nn.Linear(4, tiny.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(nn.AdaptiveAvgPool1d(1)(torch.nn.functional.relu(self.conv(x))).flatten(1))


LOSSES = {MULTI_CLASS: "cross_entropy", MULTI_LABEL: "binary_cross_entropy_with_logits"}


def recipe_of(task: str, **augment):
    how = {"epochs": 15, "loss": LOSSES[task], "label_smoothing": 0.1 if task == MULTI_CLASS else 0.0}
    plain = {"hflip": False, "crop_padding": 0}
    sections = {"model": {"args": {}}, "data": {"name": "strips"}, "optimizer": {"lr": 0.05}}
    return {**sections, "train": how, "augment": plain | augment}


@pytest.fixture(params=[MULTI_CLASS, MULTI_LABEL])
def task(request, monkeypatch):
    monkeypatch.setattr(models, "create_model", lambda name, **kwargs: Network())
    monkeypatch.setattr(data, "load", lambda name, data_dir=None, download=False: splits(request.param))
    monkeypatch.setattr(data, "describe", lambda name: info(request.param))
    return request.param


def test_verify_signals_train_resume_and_learn(task, tmp_path, monkeypatch):
    recipe = tiny.recipe(**recipe_of(task))
    result = train(recipe, tmp_path / "whole", progress=False)
    assert result.test.auc > 0.8
    restore = tiny.stop_after(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "parts", progress=False)
    restore()
    train(recipe, tmp_path / "parts", progress=False, resume=True)
    assert tiny.files(tmp_path / "parts") == tiny.files(tmp_path / "whole")


def test_verify_the_normalisation_travels_with_the_weights(task, tmp_path):
    result = train(tiny.recipe(**recipe_of(task)), tmp_path / "run", progress=False)
    _, metadata = load_safetensors(result.weights_path)
    train_split = splits(task)["train"]
    kept = {name: torch.tensor(v, dtype=torch.float32) for name, v in metadata["normalisation"].items()}
    for name, value in kept.items():
        assert same_bits(value, getattr(train_split.normalisation, name))


def test_verify_release_and_golden_vectors(task, tmp_path, monkeypatch):
    monkeypatch.setattr(_manifest, "ROOT", tmp_path / "zoo")
    (tmp_path / "tiny.strips.toml").write_text(tiny.recipe_text(**recipe_of(task)))
    train(tiny.recipe(**recipe_of(task)), tmp_path / "run", progress=False)
    zoo.release(tmp_path / "tiny.strips.toml", tmp_path / "run")
    assert zoo.check("tiny.strips").ok and zoo.verify("tiny.strips", progress=False).matches
    golden, _ = load_safetensors(tmp_path / "zoo/weights/tiny.strips.golden.safetensors")
    words = random_bits(Stream(0, _golden.GOLDEN_STREAM), 8 * 32)
    assert golden["input"].flatten().tolist() == [w % 4096 - 2048 for w in words.tolist()]
    model = zoo.load("tiny.strips")
    assert same_bits(golden["logits"], model(golden["input"].float() / 512).detach())
    row = json.loads((tmp_path / "zoo/manifest.json").read_text())["entries"]["tiny.strips"]
    assert row["dataset_sha256"] == data.dataset_sha256(splits(task))


def test_moving_the_pixels_of_signals_is_refused(task, tmp_path):
    with pytest.raises(InputError, match=r"\[augment\] moves the pixels of images and strips has none"):
        train(tiny.recipe(**recipe_of(task, hflip=True)), tmp_path / "run", progress=False)
