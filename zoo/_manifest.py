"""The manifest, one row a released model, and the recipes, released or not. Reading them does not import torch."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dettriton.errors import InputError, IntegrityError
from dettriton.train.recipe import Recipe, load_recipe

DEFAULT = "ecg_resnet18_tiny.rhythm_sim"
"""The entry that the main command retrains; its data is made on the spot."""

ROOT = Path(__file__).parent


class DamagedReleaseError(IntegrityError):
    """A released file does not have the digest of its manifest row."""


@dataclass(frozen=True)
class Entry:
    """A row of the manifest.

    Attributes:
        name: ``architecture.dataset``.
        bitspec: version of the numeric contract that the row holds under.
        file_sha256: of ``weights/NAME.safetensors``, as ``sha256sum`` prints it.
        weights_digest: :func:`dettriton.digest.digest` of the trained parameters and buffers.
        init_digest: of the model before the first step.
        trace: last link of the training's chain of losses (:mod:`dettriton.train.trace`).
        golden_digest: of the logits on the golden batch.
        golden_file_sha256: of ``weights/NAME.golden.safetensors``.
        dataset_sha256: :func:`dettriton.data.dataset_sha256` of the training data.
        recipe_digest: :meth:`dettriton.train.recipe.Recipe.digest`.
        best_epoch: epoch of the released weights, counted from 0.
        validation, test: ``{"auc": ..., "acc": ...}`` by MedMNIST's protocol.
        licence: of the weights.
        data_licence: of the data they were trained on.
        environments: where the row was reproduced, as :func:`dettriton.environment.environment` describes it.
    """

    name: str
    bitspec: int
    file_sha256: str
    weights_digest: str
    init_digest: str
    trace: str
    golden_digest: str
    golden_file_sha256: str
    dataset_sha256: str
    recipe_digest: str
    best_epoch: int
    validation: Mapping[str, float]
    test: Mapping[str, float]
    licence: str
    data_licence: str
    environments: tuple[Mapping[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON data."""
        return asdict(self) | {"environments": list(self.environments)}


def names() -> list[str]:
    """Names of all released models, sorted."""
    return sorted(read_manifest())


def list_recipes() -> list[str]:
    """Names of all recipes that come with dettriton, sorted: the released models' and those without a hash yet."""
    return sorted(path.name.removesuffix(".toml") for path in (ROOT / "recipes").glob("*.toml"))


def entry(name: str) -> Entry:
    """The manifest row of a released model.

    Raises:
        InputError: there is no such model.
    """
    manifest = read_manifest()
    if name not in manifest:
        listed = ", ".join(sorted(manifest)) or "none is released yet"
        unhashed = "; its recipe is here without a released hash yet" if name in list_recipes() else ""
        raise InputError(f"there is no released model {name!r}{unhashed}; the names are: {listed}")
    return manifest[name]


def recipe(name: str) -> Recipe:
    """The recipe of one of :func:`list_recipes`, or of a released model.

    Raises:
        InputError: there is no such recipe.
        DamagedReleaseError: the recipe of a released model is not the one that was released.
    """
    row = read_manifest().get(name)
    if row is None and name not in list_recipes():
        raise InputError(f"there is no recipe {name!r}; the names are: {', '.join(list_recipes()) or 'none is here'}")
    found = load_recipe(recipe_path(name))
    if row is not None and found.digest() != row.recipe_digest:
        raise DamagedReleaseError(
            f"the recipe of {name} was changed since its release: its digest is {found.digest()}, the manifest says "
            f"{row.recipe_digest}. Reinstall dettriton, or train the changed recipe under another name"
        )
    return found


def find_recipe(path_or_name: str | Path) -> Recipe:
    """The recipe in a file, or :func:`recipe` of a name; the file wins.

    Raises:
        InputError: there is neither, or the file is not a recipe.
        DamagedReleaseError: as for :func:`recipe`.
    """
    path, name = Path(path_or_name), str(path_or_name)
    packaged = name in list_recipes()
    # a folder of that name is the training of that recipe more often than a slip
    if path.exists() and not (path.is_dir() and packaged):
        return load_recipe(path)
    if not packaged:
        near = difflib.get_close_matches(name.removesuffix(".toml"), list_recipes(), n=3)
        meant = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise InputError(
            f"cannot read the recipe {name}: there is no such file, and no recipe of that name comes with "
            f"dettriton{meant}; `dettriton zoo recipes` lists the names"
        )
    return recipe(name)


def recipe_path(name: str) -> Path:
    """Where a recipe lies."""
    return ROOT / "recipes" / f"{name}.toml"


def weights_path(name: str) -> Path:
    """Where a released model's weights lie."""
    return ROOT / "weights" / f"{name}.safetensors"


def golden_path(name: str) -> Path:
    """Where a released model's golden vectors lie."""
    return ROOT / "weights" / f"{name}.golden.safetensors"


def manifest_path() -> Path:
    """Where the manifest lies."""
    return ROOT / "manifest.json"


def read_manifest() -> dict[str, Entry]:
    """All rows by name.

    Raises:
        DamagedReleaseError: the file cannot be read, or is not a manifest.
    """
    path = manifest_path()
    try:
        rows = json.loads(path.read_bytes())["entries"]
        return {name: _entry(name, row) for name, row in rows.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedReleaseError(f"{path} is not a manifest: {error}. Reinstall dettriton") from None


def write_manifest(entries: Mapping[str, Entry]) -> None:
    """Write all rows, keys sorted, atomically."""
    from dettriton.files import atomic_write

    content = {"entries": {name: row.to_dict() for name, row in entries.items()}}
    text = json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write(manifest_path(), f"{text}\n".encode())


def _entry(name: str, row: Mapping[str, Any]) -> Entry:
    expected = {f.name for f in fields(Entry)}
    if row.keys() != expected or row["name"] != name:
        raise ValueError(f"the row of {name} does not have the keys {', '.join(sorted(expected))}")
    return Entry(**{**row, "environments": tuple(row["environments"])})
