"""Loading released weights, and checking a release without training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from dettriton import BITSPEC, data
from dettriton.data import DatasetInfo, SignalInfo
from dettriton.digest import digest, file_sha256, first_difference, tensor_digest
from dettriton.errors import DettritonError, InputError
from dettriton.files import load_safetensors
from dettriton.models._plain import as_plain
from dettriton.train._run import make_model
from dettriton.train.batches import batch_bounds
from dettriton.train.recipe import Recipe
from dettriton.zoo import _manifest
from dettriton.zoo._golden import golden_vectors
from dettriton.zoo._manifest import DamagedReleaseError, Entry
from dettriton.zoo._segments import check_segments


@dataclass(frozen=True)
class CheckResult:
    """Whether a release is whole; ``problem`` is None or says what is not."""

    name: str
    problem: str | None

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return self.problem is None


def load(name: str, device: str = "cpu", *, plain: bool = False) -> torch.nn.Module:
    """A released model with its weights, in evaluation mode.

    Args:
        name: one of :func:`dettriton.zoo.names`.
        device: where to put it.
        plain: give an ordinary torch model of the same state dict, whose modules are torch.nn's and timm's. Its logits
            are the released ones up to :data:`dettriton.zoo._plain.TOLERANCE`, not their bits.

    Raises:
        InputError: there is no such model, or it belongs to another bitspec.
        DamagedReleaseError: the weights or the recipe are not the released ones.
    """
    row = released(name)
    model = make_model(_manifest.recipe(name))
    try:
        model.load_state_dict(read_weights(row))
    except RuntimeError as error:
        raise DamagedReleaseError(f"the weights of {name} do not fit its model: {error}") from None
    if plain:
        model = as_plain(model)
    return model.eval().to(device)


def check(name: str, device: str = "cpu") -> CheckResult:
    """Check a row of the manifest, its recipe, its files, its digests and its golden vectors, without training."""
    try:
        _check(name, device)
    except DettritonError as error:
        return CheckResult(name, str(error))
    return CheckResult(name, None)


def steps_per_epoch(recipe: Recipe, info: DatasetInfo | SignalInfo) -> int:
    """How many optimizer steps an epoch of the recipe's training set has."""
    return len(list(batch_bounds(info.samples["train"], recipe.train.batch_size)))


def released(name: str) -> Entry:
    """The manifest row of a model that this version can compute.

    Raises:
        InputError: there is no such model, or it belongs to another bitspec.
    """
    row = _manifest.entry(name)
    if row.bitspec != BITSPEC:
        raise InputError(
            f"{name} was released under bitspec {row.bitspec} and this dettriton follows bitspec {BITSPEC}: its bits "
            "cannot agree. Install the version that released it"
        )
    return row


def read_weights(row: Entry) -> dict[str, torch.Tensor]:
    """The released parameters and buffers, their digests checked.

    Raises:
        InputError: the file is missing.
        DamagedReleaseError: the file is not the released one.
    """
    path = _manifest.weights_path(row.name)
    try:
        _require_file(path, row.file_sha256)
        tensors, _ = load_safetensors(path)
        _require_digest(f"the weights in {path}", digest(tensors), row.weights_digest)
    except DamagedReleaseError as error:
        raise DamagedReleaseError(f"{error}. {_what_is_wrong(path, row)}") from None
    return tensors


def tensor_digests(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """:func:`dettriton.digest.tensor_digest` of each tensor by name."""
    return {name: tensor_digest(name, tensor) for name, tensor in tensors.items()}


def _check(name: str, device: str) -> None:
    row = released(name)
    recipe = _manifest.recipe(name)
    if row.best_epoch >= recipe.train.epochs:
        raise DamagedReleaseError(
            f"the best epoch of {name} is {row.best_epoch}, counted from 0, and its recipe has {recipe.train.epochs}"
        )
    model = load(name, device)
    if row.tensors is not None and tensor_digests(read_weights(row)) != row.tensors:
        raise DamagedReleaseError(
            f"the digests of single tensors of {name} do not fit its weights. Reinstall dettriton"
        )
    path = _manifest.golden_path(name)
    _require_file(path, row.golden_file_sha256)
    expected, _ = load_safetensors(path)
    _require_digest(f"the logits in {path}", digest(expected["logits"]), row.golden_digest)
    info = data.describe(recipe.data.name)
    check_segments(row, recipe, steps_per_epoch(recipe, info))
    computed = golden_vectors(model, info)
    difference = first_difference(expected, computed)
    if difference is not None:
        raise DamagedReleaseError(
            f"{name} does not compute its golden vectors on this machine, though its files are whole; {difference}. "
            "Please report this with the output of `dettriton doctor`"
        )


def _require_file(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise InputError(f"{path} is missing; reinstall dettriton")
    _require_digest(f"the file {path}", file_sha256(path), sha256)


def _require_digest(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise DamagedReleaseError(
            f"{what} is not the released one: its digest is {found}, the manifest says {expected}. Reinstall dettriton"
        )


def _what_is_wrong(path: Path, row: Entry) -> str:
    """A sentence on the first tensor of a damaged file, in the order of :func:`dettriton.digest.digest`."""
    try:
        tensors, _ = load_safetensors(path)
    except InputError:
        return "Its header is damaged"
    if row.tensors is None:
        return "Which tensor is wrong cannot be told: the manifest has no digests of single tensors"
    found = tensor_digests(tensors)
    wrong = [
        name for name in sorted({*found, *row.tensors}, key=str.encode) if found.get(name) != row.tensors.get(name)
    ]
    if not wrong:
        return "All its tensors are the released ones; its header or metadata is not"
    name = wrong[0]
    state = "is missing" if name not in found else "was not released" if name not in row.tensors else "is wrong"
    return f"The tensor {name} {state}" + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else "")
