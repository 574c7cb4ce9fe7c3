"""The manifest, one row a released model, and the recipes, released or not. Reading them does not import torch."""

import difflib
from collections.abc import Mapping
from pathlib import Path

from dettriton.errors import InputError
from dettriton.train.recipe import Recipe, load_recipe
from dettriton.zoo._rows import DamagedReleaseError, Entry, manifest_bytes, parse_manifest

DEFAULT = "ecg_resnet18_tiny.rhythm_sim"
"""The entry that the main command retrains; its data is made on the spot."""

ROOT = Path(__file__).parent


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


def segments_path(name: str) -> Path:
    """Where the states of a released model's training lie, if they are kept."""
    return ROOT / "weights" / f"{name}.segments"


def manifest_path() -> Path:
    """Where the manifest lies."""
    return ROOT / "manifest.json"


def read_manifest() -> dict[str, Entry]:
    """All rows by name.

    Raises:
        DamagedReleaseError: the file cannot be read, is not a manifest, or has a schema that is not known here.
    """
    path = manifest_path()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DamagedReleaseError(f"{path} cannot be read: {error.strerror}. Reinstall dettriton") from None
    return parse_manifest(data, str(path))


def write_manifest(entries: Mapping[str, Entry]) -> None:
    """Write all rows in canonical form, atomically."""
    from dettriton.files import atomic_write

    atomic_write(manifest_path(), manifest_bytes(entries))
