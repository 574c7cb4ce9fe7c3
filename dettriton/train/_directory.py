"""The directory of a training run: one training at a time, and one recipe for its whole life."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dettriton._lock import locked_directory
from dettriton.digest import canonical_json
from dettriton.errors import InputError
from dettriton.files import atomic_write, remove_partial
from dettriton.train.checkpoint import checkpoint_paths, remove_unfinished
from dettriton.train.recipe import Recipe, differing_settings
from dettriton.train.trace import FILE_NAME as TRACE

RECIPE = "recipe.json"
WEIGHTS = "weights.safetensors"
RESULT = "result.json"

_DIGESTS = ("recipe_digest", "weights_digest", "weights_sha256")


@contextmanager
def open_directory(path: str | Path, recipe: Recipe, *, resume: bool) -> Iterator[Path]:
    """Create or enter a run's directory and hold its lock.

    Raises:
        InputError: it cannot be created; another training holds it; it holds a run and ``resume`` is false; or it
            holds a run of another recipe.
    """
    path = Path(path)
    busy = f"another training is using {path}; wait for it to end, or choose another directory (--out)"
    with locked_directory(path, "a run's directory", busy):
        _require_same_run(path, recipe, resume)
        for name in (RECIPE, WEIGHTS, RESULT):
            remove_partial(path / name)
        remove_unfinished(path)
        if not (path / RECIPE).exists():
            atomic_write(path / RECIPE, canonical_json(recipe.to_dict()) + b"\n")
        yield path


def read_run_recipe(path: Path) -> dict[str, Any]:
    """The tables of the recipe that a run was started with.

    Raises:
        InputError: the directory holds no run, or its recipe cannot be read.
    """
    try:
        tables = _read_object(path / RECIPE)
        if not all(isinstance(table, dict) for table in tables.values()):
            raise ValueError("a section of it is not a table")
        return tables
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} holds no readable {RECIPE}: {error}. Name the --out directory of a training"
        ) from None


def read_result(path: Path) -> dict[str, Any]:
    """What a finished training wrote of itself: :meth:`dettriton.train.trainer.TrainResult.to_dict`.

    Raises:
        InputError: the training is not finished, or the file cannot be read.
    """
    try:
        result = _read_object(path / RESULT)
        if type(result.get("bitspec")) is not int or not all(isinstance(result.get(name), str) for name in _DIGESTS):
            raise ValueError(f"it lacks one of bitspec, {', '.join(_DIGESTS)}")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} holds no finished training ({RESULT}: {error}); train to the end first") from None
    return result


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises OSError or ValueError."""
    try:
        found = json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError(str(error)) from None
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def _require_same_run(path: Path, recipe: Recipe, resume: bool) -> None:
    started = (path / RECIPE).exists() or bool(checkpoint_paths(path)) or (path / TRACE).exists()
    if not started:
        return
    if not resume:
        raise InputError(
            f"{path} already holds a training run; continue it with --resume, or choose another directory (--out)"
        )
    before, now = read_run_recipe(path), json.loads(canonical_json(recipe.to_dict()))
    if before != now:
        changes = "; ".join(f"[{s}] {key} was {x!r} and is {y!r}" for s, key, x, y in differing_settings(before, now))
        raise InputError(
            f"{path} holds a run of another recipe ({changes}). A run keeps its recipe: resume with the one it was "
            "started with, or choose another directory (--out)"
        )
