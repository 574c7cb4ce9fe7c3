"""The states of a released training that lie beside its weights, for spot checks."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from dettriton import data
from dettriton.digest import digest
from dettriton.errors import InputError
from dettriton.train._commitment import Commitment
from dettriton.train._fit import MisfitError, require_model_state, require_optimizer_state
from dettriton.train._run import make_model, make_optimizer
from dettriton.train.recipe import Recipe
from dettriton.train.segments import FOLDER, INDEX, Index, State, load_state, read_index, state_path
from dettriton.zoo import _manifest
from dettriton.zoo._golden import golden_input
from dettriton.zoo._manifest import DamagedReleaseError, Entry

LARGEST = 4_000_000
"""Bytes of states that a release carries; of larger ones the manifest keeps the digests alone."""


def keep_segments(run_dir: Path, row: Entry, recipe: Recipe, steps_per_epoch: int) -> Commitment | None:
    """Copy a run's segments beside its released weights, if they are small enough.

    Args:
        run_dir: of the finished run.
        row: that it was released as.
        recipe, steps_per_epoch: of its training.

    Returns:
        What the row has to carry; None for a run without segments.

    Raises:
        InputError: the segments are not those of the whole run.
        IntegrityError: a state has not the digest of the index or does not fit the recipe, or they do not lead to the
            released weights.
    """
    folder = run_dir / FOLDER
    if not folder.exists():
        return None
    index = read_index(folder)
    require_states(index, folder, row, recipe, steps_per_epoch)
    kept = _manifest.segments_path(row.name)
    if kept.exists():
        shutil.rmtree(kept)
    files = [folder / INDEX, *(state_path(folder, end) for end in _ends(index.commitment))]
    if sum(path.stat().st_size for path in files) <= LARGEST:
        kept.mkdir(parents=True)
        for path in files:
            shutil.copyfile(path, kept / path.name)
    return index.commitment


def check_segments(row: Entry, recipe: Recipe, steps_per_epoch: int) -> None:
    """Check what a row carries for spot checks, without computing a step.

    Raises:
        InputError, IntegrityError: the message says what is wrong.
    """
    folder = _manifest.segments_path(row.name)
    if row.segments is None:
        return
    row.segments.require_root(f"the segments of {row.name}")
    steps = steps_per_epoch * recipe.train.epochs
    if row.segments.steps != steps:
        raise DamagedReleaseError(
            f"the segments of {row.name} are of {row.segments.steps} steps and its recipe has {steps}"
        )
    if folder.is_dir():
        index = read_index(folder)
        if index.commitment != row.segments:
            raise DamagedReleaseError(
                f"{folder / INDEX} commits to other segments than the manifest. Reinstall dettriton"
            )
        require_states(index, folder, row, recipe, steps_per_epoch)


def require_states(index: Index, folder: Path, row: Entry, recipe: Recipe, steps_per_epoch: int) -> None:
    """Raise unless all states are the committed ones, fit the recipe, and lead to the row's trace and weights.

    Raises:
        InputError, IntegrityError: the message says what is wrong.
    """
    commitment, released = index.commitment, (row.best_epoch + 1) * steps_per_epoch
    if (index.recipe_digest, index.init_digest) != (row.recipe_digest, row.init_digest):
        raise InputError(f"{folder} holds segments of another training than {row.name}")
    require_fitting = _fitting(folder, recipe)
    for end, leaf in zip(_ends(commitment), commitment.leaves, strict=True):
        state = load_state(folder, end, leaf)
        require_fitting(state)
        if end == commitment.steps and state.link != row.trace:
            raise DamagedReleaseError(f"the last state in {folder} does not have the trace of {row.name}")
        if end == released and digest(state.model) != row.weights_digest:
            raise DamagedReleaseError(
                f"the state in {folder} after the best epoch of {row.name} does not hold its weights"
            )


def _fitting(folder: Path, recipe: Recipe) -> Callable[[State], None]:
    """Raises DamagedReleaseError for a state that is not one of the recipe's model and optimizer."""
    model = make_model(recipe)
    optimizer = make_optimizer(recipe, model)

    def sample() -> torch.Tensor:
        return golden_input(data.describe(recipe.data.name))[1]

    def require(state: State) -> None:
        try:
            require_model_state(model, state.model)
            require_optimizer_state(model, optimizer, state.optimizer, state.optimizer_scalars, state.step, sample)
        except MisfitError as error:
            raise DamagedReleaseError(f"the state in {folder} after {state.step} steps: {error}") from None

    return require


def stray_files(row: Entry) -> list[Path]:
    """What lies in a row's folder of segments and is none of them."""
    folder = _manifest.segments_path(row.name)
    if row.segments is None or not folder.is_dir():
        return []
    own = {INDEX, *(state_path(folder, end).name for end in _ends(row.segments))}
    return sorted(path for path in folder.iterdir() if path.name not in own)


def find_folder(path: str | Path) -> Path:
    """The folder of segments that a user means: itself, or the directory of the run that kept them.

    Raises:
        InputError: there are none.
    """
    for folder in (Path(path), Path(path) / FOLDER):
        if (folder / INDEX).is_file():
            return folder
    raise InputError(
        f"{path} holds no segments ({INDEX}); keep them with `dettriton train RECIPE --out DIR --segments N`, then name DIR"
    )


def _ends(commitment: Commitment) -> list[int]:
    return [commitment.bounds(index)[1] for index in range(commitment.count)]
