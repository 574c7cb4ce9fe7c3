"""A training of less than a second: a made dataset, a small model with batch norm and dropout, and its recipe."""

import json
from pathlib import Path

import torch

from dettriton import data, models, nn
from dettriton.data import ArrayDataset, DatasetInfo
from dettriton.exact.philox import Stream, random_bits
from dettriton.train import _run
from dettriton.train.recipe import Recipe, parse_recipe

CLASSES = 3
MADE_OF = ("weights.safetensors", "result.json", "trace.jsonl", "recipe.json")
SIZES = {"train": 26, "val": 12, "test": 9}

TABLES = {
    "model": {"name": "tiny", "args": {"hidden": 8}},
    "data": {"name": "made"},
    "init": {"scheme": "kaiming", "seed": 3},
    "optimizer": {"name": "adam", "lr": 0.01},
    "schedule": {"name": "cosine", "warmup_epochs": 1},
    "train": {"epochs": 3, "batch_size": 8, "label_smoothing": 0.1, "seed": 5},
    "augment": {"hflip": True, "crop_padding": 1},
}


def recipe(**changes: dict) -> Recipe:
    """The recipe with some settings changed, by section."""
    return parse_recipe({s: {**TABLES.get(s, {}), **changes.get(s, {})} for s in {*TABLES, *changes}})


def splits() -> dict[str, ArrayDataset]:
    """Noise images whose mean brightness tells the class."""
    made = {}
    for stream, (split, n) in enumerate(SIZES.items()):
        labels = torch.arange(n) % CLASSES
        noise = random_bits(Stream(1, stream), n * 16).view(n, 1, 4, 4) & 127
        images = (noise + 40 * labels.view(n, 1, 1, 1)).to(torch.uint8)
        made[split] = ArrayDataset("made", split, images, labels, CLASSES, "multi-class", "medmnist")
    return made


INFO = DatasetInfo("made", "noise", "multi-class", tuple("abc"), (1, 4, 4), SIZES, "medmnist", "none needed")


class Tiny(torch.nn.Module):
    """Two linear layers with batch norm and dropout between them."""

    def __init__(self, hidden: int, classes: int = CLASSES):
        super().__init__()
        self.flatten = nn.Flatten()
        self.first = nn.Linear(16, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.relu = nn.ReLU()
        self.drop = nn.Dropout(0.25)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.relu(self.norm(self.first(self.flatten(x))))))


def install(patch) -> None:
    """Make the model and the data known; ``patch(owner, name, value)`` is monkeypatch.setattr, or setattr."""
    patch(models, "create_model", lambda name, **kwargs: Tiny(**kwargs))
    patch(data, "load", lambda name, data_dir=None, download=False: splits())
    patch(data, "describe", lambda name, data_dir=None: INFO)


def files(folder: Path) -> dict[str, bytes]:
    """What a finished run leaves, by file name; the same bytes on every machine."""
    return {name: (folder / name).read_bytes() for name in MADE_OF}


def stop_after(monkeypatch, steps, error=KeyboardInterrupt):
    """Make the training fail in the middle of a step, after ``steps`` whole ones."""
    whole, done = _run.Run.step, []

    def step(self, number):
        if len(done) == steps:
            raise error
        done.append(number)
        return whole(self, number)

    monkeypatch.setattr(_run.Run, "step", step)
    return lambda: monkeypatch.setattr(_run.Run, "step", whole)


def recipe_text(**changes: dict) -> str:
    """The recipe as a TOML file."""
    tables = {s: {**TABLES.get(s, {}), **changes.get(s, {})} for s in {*TABLES, *changes}}
    return "".join(
        f"[{section}]\n" + "".join(f"{k} = {_toml(v)}\n" for k, v in t.items()) for section, t in tables.items()
    )


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)


def release(patch, folder: Path) -> Path:
    """Train and release the recipe as ``tiny.made`` in a zoo of its own; returns the zoo's folder."""
    from dettriton.train.trainer import train
    from dettriton.zoo import _manifest
    from dettriton.zoo import release as release_run

    install(patch)
    patch(_manifest, "ROOT", folder / "zoo")
    (folder / "tiny.made.toml").write_text(recipe_text())
    train(recipe(), folder / "run", progress=False)
    release_run(folder / "tiny.made.toml", folder / "run")
    return folder / "zoo"
