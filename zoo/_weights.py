"""Loading released weights, and checking a release without training."""

from dataclasses import dataclass
from pathlib import Path

import torch

from dettriton import BITSPEC, data
from dettriton.digest import digest, file_sha256, first_difference
from dettriton.errors import DettritonError, InputError
from dettriton.files import load_safetensors
from dettriton.train._run import make_model
from dettriton.zoo import _manifest
from dettriton.zoo._golden import golden_vectors
from dettriton.zoo._manifest import DamagedReleaseError, Entry


@dataclass(frozen=True)
class CheckResult:
    """Whether a release is whole; ``problem`` is None or says what is not."""

    name: str
    problem: str | None

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return self.problem is None


def load(name: str, device: str = "cpu") -> torch.nn.Module:
    """A released model with its weights, in evaluation mode.

    Args:
        name: one of :func:`dettriton.zoo.names`.
        device: where to put it.

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
    return model.eval().to(device)


def check(name: str, device: str = "cpu") -> CheckResult:
    """Check a row of the manifest, its recipe, its files, its digests and its golden vectors, without training."""
    try:
        _check(name, device)
    except DettritonError as error:
        return CheckResult(name, str(error))
    return CheckResult(name, None)


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
    _require_file(path, row.file_sha256)
    tensors, _ = load_safetensors(path)
    _require_digest(f"the weights in {path}", digest(tensors), row.weights_digest)
    return tensors


def _check(name: str, device: str) -> None:
    row = released(name)
    model = load(name, device)
    path = _manifest.golden_path(name)
    _require_file(path, row.golden_file_sha256)
    expected, _ = load_safetensors(path)
    _require_digest(f"the logits in {path}", digest(expected["logits"]), row.golden_digest)
    info = data.describe(_manifest.recipe(name).data.name)
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
