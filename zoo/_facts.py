"""What a page or a card says of a released model: its row, recipe, data and size, and how to reproduce it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dettriton import data, models
from dettriton.data import DatasetInfo, SignalInfo
from dettriton.data.dataset import MULTI_LABEL, ORDINAL
from dettriton.environment import one_line
from dettriton.train.recipe import Recipe
from dettriton.zoo import _manifest
from dettriton.zoo._manifest import Entry

_KINDS = {MULTI_LABEL: "labels", ORDINAL: "grades"}


@dataclass(frozen=True)
class Facts:
    """A released model.

    Attributes:
        entry: its row of the manifest.
        recipe: checked against the row.
        recipe_text: the recipe's file as it is, comments and all.
        info: of the data that it was trained on.
        parameters: how many numbers are trained.
    """

    entry: Entry
    recipe: Recipe
    recipe_text: str
    info: DatasetInfo | SignalInfo
    parameters: int

    @property
    def name(self) -> str:
        """``architecture.dataset``."""
        return self.entry.name

    @property
    def is_default(self) -> bool:
        """Whether ``dettriton verify`` without a name takes it."""
        return self.name == _manifest.DEFAULT

    @property
    def needs_files(self) -> bool:
        """Whether its data has to be fetched, or is the user's own."""
        return self.info.url is not None or data.own.is_own(self.info.name)

    @property
    def verify_command(self) -> str:
        """The command that retrains it and compares."""
        command = "dettriton verify" if self.is_default else f"dettriton verify {self.name}"
        return f"{command} --data-dir DIR" if self.needs_files else command


def gather(name: str) -> Facts:
    """The facts of a released model.

    Raises:
        InputError: there is no such model, or its data cannot be described here.
        DamagedReleaseError: its recipe is not the released one.
    """
    entry, recipe = _manifest.entry(name), _manifest.recipe(name)
    model = models.create_model(recipe.model.name, **recipe.model.args)
    return Facts(
        entry=entry,
        recipe=recipe,
        recipe_text=_manifest.recipe_path(name).read_text(encoding="utf-8").strip(),
        info=data.describe(recipe.data.name),
        parameters=sum(p.numel() for p in model.parameters()),
    )


def shape_line(info: DatasetInfo | SignalInfo) -> str:
    """A sample and its labels in a few words."""
    labels = f"{info.num_classes} {_KINDS.get(info.task, 'classes')}"
    if isinstance(info, SignalInfo):
        channels, length = info.signal_shape
        return f"{channels} leads, {length / info.sampling_rate:g} s at {info.sampling_rate} Hz, {labels}"
    channels, height, width = info.image_shape
    return f"{height}x{width} {'grey' if channels == 1 else 'RGB'}, {labels}"


def samples_line(info: DatasetInfo | SignalInfo) -> str:
    """How many samples each split has."""
    words = {"train": "training", "val": "validation", "test": "test"}
    return ", ".join(f"{n:,} {words.get(split, split)}" for split, n in info.samples.items())


def two_figures(scores: Mapping[str, float], digits: int = 4) -> str:
    """``AUC / ACC`` as every table here prints them."""
    return f"{scores['auc']:.{digits}f} / {scores['acc']:.{digits}f}"


def environment_line(facts: Mapping[str, Any]) -> str:
    """Where a row was reproduced; the GPUs that were there are named, whatever was computed on them."""
    gpus = ", ".join(gpu["name"] for gpu in facts.get("gpus") or ())
    return one_line(dict(facts)) + (f", beside {gpus}" if gpus else "")
