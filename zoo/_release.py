"""Releasing a finished run: its weights, golden vectors and manifest row."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from dettriton import BITSPEC, data
from dettriton.digest import digest, file_sha256
from dettriton.environment import environment
from dettriton.errors import InputError, IntegrityError
from dettriton.files import load_safetensors, save_safetensors
from dettriton.train._commitment import Commitment
from dettriton.train._directory import RESULT, WEIGHTS, read_result
from dettriton.train._run import make_model
from dettriton.train.recipe import Recipe, load_recipe
from dettriton.zoo import _manifest
from dettriton.zoo._golden import golden_vectors
from dettriton.zoo._manifest import Entry
from dettriton.zoo._rows import is_name
from dettriton.zoo._segments import keep_segments
from dettriton.zoo._weights import steps_per_epoch, tensor_digests

LICENCE = "Apache-2.0"


def release(recipe_path: str | Path, run_dir: str | Path, name: str | None = None, replace_row: bool = False) -> Entry:
    """Make a finished run a released model; for maintainers, in a source checkout.

    A run that gives the digests of the row that is there already only adds this machine to its environments.

    Args:
        recipe_path: the recipe file; a copy is kept in ``zoo/recipes`` under the model's name.
        run_dir: the ``--out`` directory of its finished training; its segments, if it kept some, are released too.
        name: ``architecture.dataset``; by default the recipe file's name without ``.toml``.
        replace_row: replace a row that has other digests.

    Raises:
        InputError: the run is not finished, is of another recipe, or has other digests than the row; or it cannot be
            released under this name.
        IntegrityError: the run's weights do not have the digest of its result.
    """
    recipe_path, run_dir = Path(recipe_path), Path(run_dir)
    name = name or recipe_path.name.removesuffix(".toml")
    recipe, result = load_recipe(recipe_path), read_result(run_dir)
    _require_own(recipe, result, run_dir)
    if not is_name(name):
        raise InputError(f"{name!r} cannot name a model: give architecture.dataset in letters, digits, _ and -")
    manifest = _manifest.read_manifest()
    before = manifest.get(name)
    if before is not None and before.weights_digest != result["weights_digest"] and not replace_row:
        raise InputError(
            f"{name} is released with weights {before.weights_digest} and this run has {result['weights_digest']}; "
            "find out why, or replace the row (--replace) if bits were changed on purpose"
        )
    row = _write_files(name, recipe, recipe_path, run_dir, result)
    row = replace(row, segments=_segments(row, run_dir, recipe, before))
    known = before.environments if before is not None and before.weights_digest == row.weights_digest else ()
    here = environment()
    row = replace(row, environments=(*known, *([] if here in known else [here])))
    _manifest.write_manifest(manifest | {name: row})
    return row


def _require_own(recipe: Recipe, result: dict[str, Any], run_dir: Path) -> None:
    if result["recipe_digest"] != recipe.digest():
        raise InputError(f"the run in {run_dir} is of another recipe: {result['recipe_digest']}, not {recipe.digest()}")
    if result["bitspec"] != BITSPEC:
        raise InputError(f"the run in {run_dir} follows bitspec {result['bitspec']}, not {BITSPEC}; train it again")


def _segments(row: Entry, run_dir: Path, recipe: Recipe, before: Entry | None) -> Commitment | None:
    """The run's segments, or those of the same weights that were released before."""
    found = keep_segments(run_dir, row, recipe, steps_per_epoch(recipe, data.describe(recipe.data.name)))
    if found is not None:
        return found
    if before is not None and before.trace == row.trace and before.weights_digest == row.weights_digest:
        return before.segments
    shutil.rmtree(_manifest.segments_path(row.name), ignore_errors=True)
    return None


def _write_files(name: str, recipe: Recipe, recipe_path: Path, run_dir: Path, result: dict[str, Any]) -> Entry:
    tensors, _ = load_safetensors(run_dir / WEIGHTS)
    if digest(tensors) != result["weights_digest"]:
        raise IntegrityError(f"{run_dir / WEIGHTS} does not hold the weights of {RESULT}; train it again")
    model = make_model(recipe)
    model.load_state_dict(tensors)
    info = data.describe(recipe.data.name)
    golden = golden_vectors(model, info)
    weights, vectors, kept_recipe = (
        path(name) for path in (_manifest.weights_path, _manifest.golden_path, _manifest.recipe_path)
    )
    for path in (weights, vectors, kept_recipe):
        path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run_dir / WEIGHTS, weights)
    save_safetensors(vectors, golden, {"bitspec": BITSPEC, "name": name, "weights_digest": result["weights_digest"]})
    if not (kept_recipe.exists() and kept_recipe.samefile(recipe_path)):
        shutil.copyfile(recipe_path, kept_recipe)
    return Entry(
        name=name,
        bitspec=BITSPEC,
        file_sha256=file_sha256(weights),
        weights_digest=result["weights_digest"],
        init_digest=result["init_digest"],
        trace=result["trace"],
        golden_digest=digest(golden["logits"]),
        golden_file_sha256=file_sha256(vectors),
        dataset_sha256=result["dataset_sha256"],
        recipe_digest=result["recipe_digest"],
        best_epoch=result["best_epoch"],
        validation=result["validation"],
        test=result["test"],
        licence=LICENCE,
        data_licence=info.licence,
        tensors=tensor_digests(tensors),
    )
