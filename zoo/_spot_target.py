"""What a spot check is of: a released model, or a run of one's own."""

from dataclasses import dataclass
from pathlib import Path

from dettriton.errors import InputError, IntegrityError
from dettriton.train._commitment import Commitment
from dettriton.train._directory import RECIPE, read_result
from dettriton.train.recipe import Recipe
from dettriton.train.segments import Index, read_index, state_path
from dettriton.train.trained import load_run
from dettriton.zoo import _manifest
from dettriton.zoo._manifest import DamagedReleaseError
from dettriton.zoo._segments import find_folder
from dettriton.zoo._weights import read_weights, released

HOW = "keep them with `dettriton train {} --out DIR --segments N` (N steps in a segment), then name DIR with --segments"


@dataclass(frozen=True)
class Target:
    """A training with a commitment.

    Attributes:
        name: of the released model, or the run's directory.
        recipe: that it was trained by.
        init_digest, dataset_sha256, trace, weights_digest, best_epoch: as in a row of the manifest.
        commitment: to its states; its root is that of its leaves.
        folder: where the states lie, if they are here.
    """

    name: str
    recipe: Recipe
    init_digest: str
    dataset_sha256: str
    trace: str
    weights_digest: str
    best_epoch: int
    commitment: Commitment
    folder: Path

    def require_starts(self, segments: tuple[int, ...]) -> None:
        """Raise unless the states that these segments start from are here.

        Raises:
            InputError: one is missing.
        """
        for begin in (self.commitment.bounds(index)[0] for index in segments):
            if begin and not state_path(self.folder, begin).is_file():
                raise InputError(
                    f"the state after {begin} steps of {self.name} is not here ({state_path(self.folder, begin)}): "
                    f"{HOW.format(self.name)}"
                )


def find_target(name: str, segments: str | Path | None) -> Target:
    """The training of a name or a directory.

    Args:
        name: of a released model, or the directory of a finished run.
        segments: a folder of its segments, if they do not lie where they were kept.

    Raises:
        InputError: there is no such training, or it has no segments.
        DamagedReleaseError: its files contradict each other.
    """
    try:
        if name not in _manifest.names() and Path(name, RECIPE).is_file():
            return _of_run(Path(name), segments)
        return _of_release(name, segments)
    except IntegrityError as error:
        raise DamagedReleaseError(str(error)) from None


def _of_release(name: str, segments: str | Path | None) -> Target:
    row = released(name)
    recipe = _manifest.recipe(name)
    read_weights(row)
    if segments is not None:
        folder = find_folder(segments)
        index = _own(read_index(folder), folder, row.recipe_digest, row.init_digest)
        if row.segments not in (None, index.commitment):
            raise DamagedReleaseError(
                f"{folder} commits to the root {index.commitment.root}, and {name} was released with segments of "
                f"{row.segments.every} steps and the root {row.segments.root}: these are not the released segments"
            )
        commitment = index.commitment
    elif row.segments is None:
        raise InputError(f"{name} carries no segments to check: {HOW.format(name)}")
    else:
        row.segments.require_root(f"the segments of {name}")
        folder, commitment = _manifest.segments_path(name), row.segments
    return Target(
        name=name,
        recipe=recipe,
        init_digest=row.init_digest,
        dataset_sha256=row.dataset_sha256,
        trace=row.trace,
        weights_digest=row.weights_digest,
        best_epoch=row.best_epoch,
        commitment=commitment,
        folder=folder,
    )


def _of_run(directory: Path, segments: str | Path | None) -> Target:
    run, result = load_run(directory), read_result(directory)
    folder = find_folder(segments or directory)
    index = _own(read_index(folder), folder, run.recipe.digest(), result.get("init_digest"))
    try:
        return Target(
            name=str(directory),
            recipe=run.recipe,
            init_digest=result["init_digest"],
            dataset_sha256=result["dataset_sha256"],
            trace=result["trace"],
            weights_digest=run.weights_digest,
            best_epoch=result["best_epoch"],
            commitment=index.commitment,
            folder=folder,
        )
    except KeyError as error:
        raise InputError(f"the result in {directory} lacks {error}; train it again") from None


def _own(index: Index, folder: Path, recipe_digest: str, init_digest: str | None) -> Index:
    if (index.recipe_digest, index.init_digest) != (recipe_digest, init_digest):
        raise IntegrityError(
            f"the segments in {folder} are of recipe {index.recipe_digest} from initial weights {index.init_digest}, "
            f"not of {recipe_digest} from {init_digest}"
        )
    return index
