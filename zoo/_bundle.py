"""A release as a folder that can be published and checked away from the zoo.

``model.safetensors`` and ``golden.safetensors`` are the released files, ``recipe.toml`` the recipe, ``README.md`` the
card, ``manifest.json`` a manifest of this one row; ``model.sig`` beside them is a signature over the others.
"""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dettriton.errors import InputError
from dettriton.zoo import _manifest
from dettriton.zoo._manifest import DamagedReleaseError, Entry

if TYPE_CHECKING:
    import torch

CARD = "README.md"
GOLDEN = "golden.safetensors"
MANIFEST = "manifest.json"
RECIPE = "recipe.toml"
SIGNATURE = "model.sig"
WEIGHTS = "model.safetensors"
FILES = (CARD, GOLDEN, MANIFEST, RECIPE, WEIGHTS)

NEEDS_SHARE = 'this needs the package {}: pip install "dettriton[share]"'


@dataclass(frozen=True)
class FolderRelease:
    """A release in a folder, its digests checked.

    Attributes:
        folder: where it lies.
        entry: its row, as ``manifest.json`` there has it.
        released_here: whether the digests are those of the installed manifest; else only of the folder's own, which
            shows that the files belong together and nothing about who made them.
    """

    folder: Path
    entry: Entry
    released_here: bool


def write_folder(name: str, folder: Path) -> FolderRelease:
    """Copy a release into an empty folder and check the copies.

    Raises:
        InputError: there is no such model, or a file is missing.
        DamagedReleaseError: a file is not the released one.
    """
    entry = _manifest.entry(name)
    sources = {
        WEIGHTS: _manifest.weights_path(name),
        GOLDEN: _manifest.golden_path(name),
        RECIPE: _manifest.recipe_path(name),
    }
    for target, source in sources.items():
        if not source.is_file():
            raise InputError(f"{source} is missing; reinstall dettriton")
        shutil.copyfile(source, folder / target)
    (folder / CARD).write_text(_card(name), encoding="utf-8")
    (folder / MANIFEST).write_bytes(_manifest.manifest_bytes({name: entry}))
    return _checked(folder, f"the installed {name}")[0]


def read_folder(folder: str | Path) -> FolderRelease:
    """Check every file of a release's folder that has a digest; the card has none, a signature covers it.

    If the installed zoo has a model of that name, its row is what counts.

    Raises:
        InputError: the folder or a file cannot be read.
        DamagedReleaseError: a file is missing, is there that does not belong, or does not have its digest.
    """
    return _checked(Path(folder), str(folder))[0]


def load_folder(folder: str | Path, device: str = "cpu") -> "torch.nn.Module":
    """The model of a release's folder with its weights, in evaluation mode; the folder is checked first.

    Args:
        folder: what :func:`dettriton.zoo.pull` or :func:`dettriton.zoo.sign` wrote.
        device: where to put the model.

    Raises:
        InputError: the folder cannot be read, or the release is of another bitspec.
        DamagedReleaseError: as for :func:`read_folder`, or the weights do not fit the recipe's model.
    """
    from dettriton import BITSPEC
    from dettriton.train._run import make_model
    from dettriton.train.recipe import load_recipe

    release, tensors = _checked(Path(folder), str(folder))
    if release.entry.bitspec != BITSPEC:
        raise InputError(
            f"{folder} follows bitspec {release.entry.bitspec} and this dettriton {BITSPEC}: install the version that "
            "released it"
        )
    model = make_model(load_recipe(release.folder / RECIPE))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise DamagedReleaseError(f"the weights in {folder} do not fit the model of its recipe: {error}") from None
    return model.eval().to(device)


def _checked(folder: Path, called: str) -> "tuple[FolderRelease, dict[str, torch.Tensor]]":
    from dettriton.digest import digest, file_sha256
    from dettriton.files import load_safetensors
    from dettriton.train.recipe import load_recipe

    present = set(list_files(folder)) - {SIGNATURE}
    if present != set(FILES):
        wrong = [f"{name} is missing" for name in sorted(set(FILES) - present)]
        wrong += [f"{name} does not belong" for name in sorted(present - set(FILES))]
        raise DamagedReleaseError(f"{called} does not hold one release: {', '.join(wrong)}. Fetch it again")
    entry = _only_row(folder)
    released_here = _require_released_row(folder, entry)
    _require(called, WEIGHTS, file_sha256(folder / WEIGHTS), entry.file_sha256)
    _require(called, GOLDEN, file_sha256(folder / GOLDEN), entry.golden_file_sha256)
    try:
        recipe = load_recipe(folder / RECIPE).digest()
    except InputError as error:
        raise DamagedReleaseError(f"{RECIPE} of {called} is not the released one: {error}") from None
    _require(called, RECIPE, recipe, entry.recipe_digest)
    tensors, _ = load_safetensors(folder / WEIGHTS)
    _require(called, f"weights in {WEIGHTS}", digest(tensors), entry.weights_digest)
    golden, _ = load_safetensors(folder / GOLDEN)
    logits = digest(golden["logits"]) if "logits" in golden else "none"
    _require(called, f"logits in {GOLDEN}", logits, entry.golden_digest)
    return FolderRelease(folder, entry, released_here), tensors


def list_files(folder: Path) -> list[str]:
    """Paths of all files below a folder, relative, with slashes, sorted; hidden ones too.

    Raises:
        InputError: it is no folder, or cannot be read.
        DamagedReleaseError: there is a symbolic link, or what is neither file nor folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; check the path")
    found = []
    for place, folders, files in os.walk(folder, onerror=_cannot_list):
        for path in (Path(place, name) for name in (*folders, *files)):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink():
                raise DamagedReleaseError(f"{name} in {folder} is a symbolic link; a release holds files only")
            if path.is_file():
                found.append(name)
            elif not path.is_dir():
                raise DamagedReleaseError(f"{name} in {folder} is not a file; a release holds files only")
    return sorted(found)


def _card(name: str) -> str:
    from dettriton.zoo._card import card

    # the packaged card may have figures by class, which only a report can give
    packaged = _manifest.ROOT / "cards" / f"{name}.md"
    text = packaged.read_text(encoding="utf-8") if packaged.is_file() else card(name)
    return text.replace(f"](../recipes/{name}.toml)", f"]({RECIPE})")


def _only_row(folder: Path) -> Entry:
    rows = _manifest.parse_manifest((folder / MANIFEST).read_bytes(), str(folder / MANIFEST))
    if len(rows) != 1:
        raise DamagedReleaseError(f"{folder / MANIFEST} has {len(rows)} rows instead of one. Fetch it again")
    (entry,) = rows.values()
    return entry


def _require_released_row(folder: Path, entry: Entry) -> bool:
    installed = _manifest.read_manifest().get(entry.name)
    if installed is None:
        return False
    own, ours = (replace(row, environments=()).to_dict() for row in (entry, installed))
    differing = sorted(key for key in {*own, *ours} if own.get(key) != ours.get(key))
    if differing:
        raise DamagedReleaseError(
            f"{folder} is not the {entry.name} that this dettriton has released: {', '.join(differing)} differ. It was "
            "altered, or is of another version of dettriton"
        )
    return True


def _require(called: str, what: str, found: str, expected: str) -> None:
    if found != expected:
        raise DamagedReleaseError(
            f"{what} of {called} is not the released one: its digest is {found}, the manifest says {expected}. Fetch or "
            "install it again"
        )


def _cannot_list(error: OSError) -> None:
    raise InputError(f"cannot read {error.filename}: {error.strerror}. Check its permissions") from error
