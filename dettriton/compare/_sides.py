"""One side of a comparison: what a run's directory, trace, checkpoint, weights file or released name tells."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dettriton.compare._chain import Record, read_chain
from dettriton.digest import canonical_json, digest
from dettriton.errors import DettritonError, InputError, IntegrityError
from dettriton.files import load_safetensors
from dettriton.train._commitment import Commitment
from dettriton.train._detail import FILE_NAME as DETAILED
from dettriton.train._directory import RECIPE, RESULT, WEIGHTS, read_result, read_run_recipe
from dettriton.train.checkpoint import Checkpoint, best_epoch, checkpoint_paths, load_checkpoint
from dettriton.train.recipe import parse_recipe
from dettriton.train.segments import FOLDER as SEGMENTS
from dettriton.train.segments import INDEX, read_index
from dettriton.train.trace import FILE_NAME as TRACE
from dettriton.train.trace import first_link


@dataclass(frozen=True, eq=False)
class Weights:
    """A trained model's parameters and buffers; ``final`` unless the training may still find a better epoch."""

    tensors: Mapping[str, torch.Tensor]
    epoch: int | None
    final: bool


@dataclass(eq=False)
class Side:
    """What is known of one training; None and empty where it is not.

    Attributes:
        name: as the user wrote it.
        is_run: whether it is a run's directory.
        recipe: the recipe's tables, every default written out.
        recipe_digest, init_digest, dataset_sha256: of the recipe, the model before step 0 and the data.
        trace: records, the chain checked, with the details of the directory's detailed trace if there is one.
        checkpoints: by the number of steps done.
        segments: what the directory's segments commit to.
        weights: the released weights, or the best so far.
        notes: sentences on what could not be used.
    """

    name: str
    is_run: bool = False
    recipe: dict[str, dict[str, Any]] | None = None
    recipe_digest: str | None = None
    init_digest: str | None = None
    dataset_sha256: str | None = None
    trace: list[Record] | None = None
    checkpoints: dict[int, Checkpoint] = field(default_factory=dict)
    segments: Commitment | None = None
    weights: Weights | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def segments_folder(self) -> Path:
        """Where the segments lie."""
        return Path(self.name) / SEGMENTS

    def holds(self) -> str:
        """What there is to compare, in words."""
        parts = ["a trace"] if self.trace is not None else []
        parts += [f"a checkpoint after {step} steps" for step in sorted(self.checkpoints)]
        parts += ["weights"] if self.weights is not None else []
        return ", ".join(parts) or "nothing to compare yet"


def open_side(name: str) -> Side:
    """Read one side of a comparison.

    Args:
        name: a run's ``--out`` directory, finished or not; a trace, checkpoint or weights file; or the name of a
            released model.

    Raises:
        InputError: there is no such thing, or it cannot be read.
        IntegrityError: it does not have the digests, or the chain, that it should have.
    """
    from dettriton import zoo

    path = Path(name)
    if path.is_dir():
        return _read_directory(name, path)
    if path.is_file():
        return _read_file(name, path)
    if name in zoo.names():
        return _read_release(name)
    raise InputError(
        f"there is no {name}: give a run's --out directory, its trace.jsonl, a checkpoint, a weights file, or a name "
        "that `dettriton zoo list` shows"
    )


def _read_directory(name: str, path: Path) -> Side:
    side = Side(name, is_run=True)
    _set_recipe(side, read_run_recipe(path), str(path / RECIPE))
    for file in checkpoint_paths(path):
        try:
            checkpoint = load_checkpoint(file)
        except DettritonError as error:
            side.notes.append(f"{file.name} of {name} is left out: {error}")
            continue
        _require_own(checkpoint, side, file)
        side.checkpoints[checkpoint.step] = checkpoint
    _set_segments(side)
    result = read_result(path) if (path / RESULT).exists() else None
    if result is not None:
        _require_own_result(result, side, path)
        side.init_digest, side.dataset_sha256 = result["init_digest"], result["dataset_sha256"]
        _set_weights(side, path / WEIGHTS)
    elif side.checkpoints:
        newest = side.checkpoints[max(side.checkpoints)]
        side.init_digest, side.weights = newest.init_digest, _best(newest)
    if (path / TRACE).exists():
        origin = None if side.init_digest is None else first_link(side.recipe_digest, side.init_digest)
        _set_trace(side, path / TRACE, origin)
        if result is not None and (not side.trace or side.trace[-1]["chain"] != result["trace"]):
            raise IntegrityError(
                f"the trace {path / TRACE} is damaged: it does not end in the link that {RESULT} beside it names. It was "
                "cut or edited; fetch it again, or train again"
            )
        _add_details(side, path / DETAILED, origin)
    return side


def _read_file(name: str, path: Path) -> Side:
    side = Side(name)
    with open(path, "rb") as file:
        is_trace = path.suffix == ".jsonl" or file.read(1) == b"{"
    if is_trace:
        _set_trace(side, path, None)
        return side
    _, metadata = load_safetensors(path)
    if "content" not in metadata:
        _set_weights(side, path)
        return side
    checkpoint = load_checkpoint(path)
    side.checkpoints[checkpoint.step], side.weights = checkpoint, _best(checkpoint)
    side.recipe_digest, side.init_digest = checkpoint.recipe_digest, checkpoint.init_digest
    if (path.parent / RECIPE).exists():
        beside = parse_recipe(read_run_recipe(path.parent), str(path.parent / RECIPE))
        if beside.digest() == checkpoint.recipe_digest:
            side.recipe = _tables(beside.to_dict())
    return side


def _read_release(name: str) -> Side:
    from dettriton import zoo
    from dettriton.zoo._weights import read_weights, released

    row = released(name)
    side = Side(name, init_digest=row.init_digest, dataset_sha256=row.dataset_sha256)
    _set_recipe(side, zoo.recipe(name).to_dict(), f"the recipe of {name}")
    side.weights = Weights(read_weights(row), row.best_epoch, final=True)
    return side


def _set_recipe(side: Side, tables: Mapping[str, Any], source: str) -> None:
    recipe = parse_recipe(tables, source)
    side.recipe, side.recipe_digest = _tables(recipe.to_dict()), recipe.digest()


def _set_trace(side: Side, path: Path, origin: str | None) -> None:
    side.trace, note = read_chain(path, origin)
    if note is not None:
        side.notes.append(note)


def _set_segments(side: Side) -> None:
    if not (side.segments_folder / INDEX).exists():
        return
    try:
        index = read_index(side.segments_folder, unfinished=True)
    except DettritonError as error:
        side.notes.append(f"the segments of {side.name} are left out: {error}")
        return
    if index.recipe_digest != side.recipe_digest:
        raise IntegrityError(f"{side.segments_folder} is of another recipe than the {RECIPE} beside it")
    side.segments = index.commitment


def _add_details(side: Side, path: Path, origin: str | None) -> None:
    if not path.exists():
        return
    detailed, note = read_chain(path, origin)
    if note is not None:
        side.notes.append(note)
    length = len(side.trace)
    if any(x["chain"] != y["chain"] for x, y in zip(side.trace, detailed, strict=False)):
        raise IntegrityError(f"{path} is a detailed trace of another run than the {TRACE} beside it; fetch both again")
    side.trace = [*detailed[:length], *side.trace[len(detailed) :]]


def _set_weights(side: Side, path: Path) -> None:
    tensors, metadata = load_safetensors(path)
    expected, found = metadata.get("weights_digest"), digest(tensors)
    if expected is not None and expected != found:
        raise IntegrityError(
            f"the weights {path} are damaged: their digest is {found}, the file says {expected}. Fetch them again, or "
            "train again"
        )
    if side.recipe is None and "recipe" in metadata:
        _set_recipe(side, metadata["recipe"], f"the recipe in {path}")
    side.init_digest = side.init_digest or metadata.get("init_digest")
    side.weights = Weights(tensors, metadata.get("best_epoch"), final=True)


def _best(checkpoint: Checkpoint) -> Weights | None:
    if not checkpoint.scores:
        return None
    return Weights(checkpoint.best, best_epoch(checkpoint.scores).epoch, final=False)


def _require_own(checkpoint: Checkpoint, side: Side, file: Path) -> None:
    if checkpoint.recipe_digest != side.recipe_digest:
        raise IntegrityError(f"{file} is a checkpoint of another recipe than the {RECIPE} beside it; fetch both again")


def _require_own_result(result: Mapping[str, Any], side: Side, path: Path) -> None:
    missing = {"init_digest", "dataset_sha256", "trace"} - result.keys()
    if missing:
        raise InputError(f"{path / RESULT} lacks {', '.join(sorted(missing))}; train again")
    if result["recipe_digest"] != side.recipe_digest:
        raise IntegrityError(f"the {RECIPE} in {path} is not the one of its {RESULT}; fetch both again")


def _tables(tables: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """As JSON gives them back, so that tuples and lists compare equal."""
    return json.loads(canonical_json(tables))
