"""The recipe: everything that a training run's bits depend on, in one TOML file."""

import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from dettriton.errors import InputError
from dettriton.train._fields import (
    arguments,
    choice,
    flag,
    integer,
    number,
    pair,
    read_section,
    require_known,
    require_table,
    setting,
    shown,
    text,
    to_table,
)

INIT_SCHEMES = ("dct", "hadamard", "hartley", "dst", "mixed", "zero", "kaiming", "torch_default")
ORDER_KINDS = ("golden", "rotation", "shuffle", "sequential")
PRECISIONS = ("high", "medium")
LOSSES = ("cross_entropy", "binary_cross_entropy_with_logits")
POS_WEIGHTS = ("none", "sqrt")

_seed = integer(0, 2**32 - 1)
_fraction = number(0.0, 1.0, open_high=True)


@dataclass(frozen=True)
class Model:
    """``[model]``: a name of :func:`dettriton.models.list_models` and its keyword arguments."""

    name: str = setting(text())
    args: Mapping[str, Any] = field(default_factory=dict, metadata={"kind": arguments()})


@dataclass(frozen=True)
class Data:
    """``[data]``: a name that :func:`dettriton.data.load` knows."""

    name: str = setting(text())


@dataclass(frozen=True)
class Init:
    """``[init]``: the scheme and seed of :func:`dettriton.init.initialize`."""

    scheme: str = setting(choice(*INIT_SCHEMES), "dct")
    seed: int = setting(_seed, 0)


@dataclass(frozen=True)
class Order:
    """``[order]``: the kind and seed of :func:`dettriton.data.epoch_order`."""

    kind: str = setting(choice(*ORDER_KINDS), "golden")
    seed: int = setting(_seed, 0)


@dataclass(frozen=True)
class SGD:
    """``[optimizer] name = "sgd"``: see :class:`dettriton.optim.SGD`."""

    name: str = setting(choice("sgd"))
    lr: float = setting(number(0.0, open_low=True))
    momentum: float = setting(number(0.0), 0.0)
    dampening: float = setting(number(0.0), 0.0)
    weight_decay: float = setting(number(0.0), 0.0)
    nesterov: bool = setting(flag(), False)


@dataclass(frozen=True)
class Adam:
    """``[optimizer] name = "adam"``: see :class:`dettriton.optim.Adam`."""

    name: str = setting(choice("adam"))
    lr: float = setting(number(0.0, open_low=True))
    betas: tuple[float, float] = setting(pair(_fraction), (0.9, 0.999))
    eps: float = setting(number(0.0, open_low=True), 1e-8)
    weight_decay: float = setting(number(0.0), 0.0)


@dataclass(frozen=True)
class AdamW(Adam):
    """``[optimizer] name = "adamw"``: see :class:`dettriton.optim.AdamW`."""

    name: str = setting(choice("adamw"))
    weight_decay: float = setting(number(0.0), 1e-2)


@dataclass(frozen=True)
class Constant:
    """``[schedule] name = "constant"``: the optimizer's ``lr``, after an optional linear warm-up."""

    name: str = setting(choice("constant"), "constant")
    warmup_epochs: int = setting(integer(0, 10**6), 0)


@dataclass(frozen=True)
class Cosine:
    """``[schedule] name = "cosine"``: half a cosine from ``lr`` to ``min_lr`` over all steps after the warm-up."""

    name: str = setting(choice("cosine"))
    min_lr: float = setting(number(0.0), 0.0)
    warmup_epochs: int = setting(integer(0, 10**6), 0)


@dataclass(frozen=True)
class Step:
    """``[schedule] name = "step"``: ``lr`` times ``gamma`` once more after every ``every_epochs`` epochs."""

    name: str = setting(choice("step"))
    every_epochs: int = setting(integer(1, 10**6))
    gamma: float = setting(number(0.0, 1.0, open_low=True), 0.1)
    warmup_epochs: int = setting(integer(0, 10**6), 0)


@dataclass(frozen=True)
class Train:
    """``[train]``: how long, in what batches, at what precision and against what loss.

    ``pos_weight`` weighs the positives of each label of a multi-label loss: :func:`dettriton.train.batches.pos_weight`.
    """

    epochs: int = setting(integer(1, 10**6))
    batch_size: int = setting(integer(1, 2**20))
    precision: str = setting(choice(*PRECISIONS), "high")
    loss: str = setting(choice(*LOSSES), "cross_entropy")
    label_smoothing: float = setting(_fraction, 0.0)
    seed: int = setting(_seed, 0)
    pos_weight: str = setting(choice(*POS_WEIGHTS), "none", omitted_at_default=True)


@dataclass(frozen=True)
class Augment:
    """``[augment]``: random horizontal flips, and crops of the image padded by ``crop_padding`` zeros on each side."""

    hflip: bool = setting(flag(), False)
    crop_padding: int = setting(integer(0, 2**15), 0)


OPTIMIZERS = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
SCHEDULES = {"constant": Constant, "cosine": Cosine, "step": Step}
_PLAIN_SECTIONS = {"model": Model, "data": Data, "init": Init, "order": Order, "train": Train, "augment": Augment}
_SECTIONS = ("model", "data", "init", "order", "optimizer", "schedule", "train", "augment")


@dataclass(frozen=True)
class Recipe:
    """A validated recipe with every default written out. See :func:`load_recipe` and :func:`parse_recipe`."""

    model: Model
    data: Data
    init: Init
    order: Order
    optimizer: SGD | Adam
    schedule: Constant | Cosine | Step
    train: Train
    augment: Augment

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The recipe as plain tables; :func:`parse_recipe` gives the recipe back."""
        return {f.name: to_table(getattr(self, f.name)) for f in fields(self)}

    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of :meth:`to_dict`, blind to comments and written-out defaults."""
        from dettriton.digest import canonical_json

        return hashlib.sha256(canonical_json(self.to_dict())).hexdigest()

    def with_epochs(self, epochs: int) -> "Recipe":
        """The same recipe with another number of epochs."""
        return replace(self, train=replace(self.train, epochs=epochs))


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file.

    Raises:
        InputError: the file cannot be read, is not TOML, or is not a valid recipe.
    """
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"cannot read the recipe {path}: {error.strerror}; give the path of a recipe file (TOML)"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"the recipe {path} is not valid TOML: {error}") from None
    return parse_recipe(tables, str(path))


def parse_recipe(tables: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """A recipe from its tables.

    Args:
        tables: section name to table; ``model``, ``data``, ``optimizer`` and ``train`` are required.
        source: how errors name the recipe.

    Raises:
        InputError: an unknown section or key (the message lists the allowed ones), a missing one, a wrong type, a
            value out of range, or settings that contradict each other.
    """
    require_table(tables, source)
    require_known(tables, _SECTIONS, source, "section")
    sections = {name: _read(name, tables, f"{source}, [{name}]") for name in _SECTIONS}
    recipe = Recipe(**sections)
    _require_consistent(recipe, source)
    return recipe


def differing_settings(
    a: Mapping[str, Mapping[str, Any]], b: Mapping[str, Mapping[str, Any]], missing: Any = None
) -> Iterator[tuple[str, str, Any, Any]]:
    """Section, key and both values of each setting that two recipes' tables do not share, sorted.

    Args:
        a, b: section name to table, in one form: as JSON gives them back, say.
        missing: the value of a setting that a side does not have.
    """
    for section, key in sorted(
        {(section, key) for tables in (a, b) for section, table in tables.items() for key in table}
    ):
        first, second = (tables.get(section, {}).get(key, missing) for tables in (a, b))
        if first != second:
            yield section, key, first, second


def _read(name: str, tables: Mapping[str, Any], where: str) -> Any:
    table = tables.get(name, {})
    if name == "optimizer":
        return _read_variant(OPTIMIZERS, table, where)
    if name == "schedule":
        return _read_variant(SCHEDULES, {"name": "constant"} if name not in tables else table, where)
    return read_section(_PLAIN_SECTIONS[name], table, where)


def _read_variant(variants: Mapping[str, type], table: Any, where: str) -> Any:
    require_table(table, where)
    name = table.get("name")
    if not isinstance(name, str) or name not in variants:
        listed = " or ".join(f'"{v}"' for v in variants)
        got = "it is missing" if name is None else f"got {shown(name)}"
        raise InputError(f"{where}: 'name' must be {listed}; {got}")
    return read_section(variants[name], table, where)


def _require_consistent(recipe: Recipe, source: str) -> None:
    if recipe.train.label_smoothing and recipe.train.loss != "cross_entropy":
        raise InputError(f"{source}, [train]: 'label_smoothing' works with loss = \"cross_entropy\" only; set it to 0")
    if recipe.train.pos_weight != "none" and recipe.train.loss != "binary_cross_entropy_with_logits":
        raise InputError(
            f"{source}, [train]: 'pos_weight' works with loss = \"binary_cross_entropy_with_logits\" only; "
            'leave it out, or set it to "none"'
        )
    if recipe.schedule.warmup_epochs >= recipe.train.epochs:
        raise InputError(
            f"{source}, [schedule]: 'warmup_epochs' ({recipe.schedule.warmup_epochs}) must be less than "
            f"'epochs' in [train] ({recipe.train.epochs})"
        )
    optimizer = recipe.optimizer
    if isinstance(optimizer, SGD) and optimizer.nesterov and (optimizer.momentum == 0 or optimizer.dampening != 0):
        raise InputError(f"{source}, [optimizer]: 'nesterov' needs a 'momentum' above 0 and a 'dampening' of 0")
