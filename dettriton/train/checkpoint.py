"""Checkpoints of a training run: whole files, checked by digest, the newest two kept."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from dettriton import BITSPEC
from dettriton.digest import digest
from dettriton.errors import DettritonError, InputError, IntegrityError
from dettriton.files import load_safetensors, remove_partial, save_safetensors
from dettriton.train.trace import Position

KEPT = 2

_NAME = re.compile(r"checkpoint-(\d{10})\.safetensors")


@dataclass(frozen=True)
class EpochScores:
    """Validation metrics after an epoch, exact."""

    epoch: int
    auc: Fraction
    accuracy: Fraction


def best_epoch(scores: Iterable[EpochScores]) -> EpochScores:
    """The epoch with the highest validation AUC, the earliest among equals."""
    return max(scores, key=lambda s: (s.auc, -s.epoch))


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on from ``step`` as if it had never stopped.

    Attributes:
        recipe_digest: of the recipe that is being trained.
        init_digest: of the model before step 0.
        step: how many steps are done.
        trace: where the trace stands after them.
        traced, tensor_interval: how the trace is written.
        scores: validation metrics of the epochs that are done, in order.
        model: the state of the model by name.
        optimizer: tensors of the optimizer's state, named ``<parameter index>.<key>``.
        optimizer_scalars: the rest of the optimizer's state under such names.
        best: the state of the model after its best epoch so far; empty before the first epoch ends.
    """

    recipe_digest: str
    init_digest: str
    step: int
    trace: Position
    traced: bool
    tensor_interval: int | None
    scores: tuple[EpochScores, ...]
    model: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, torch.Tensor]
    optimizer_scalars: Mapping[str, int | float]
    best: Mapping[str, torch.Tensor]

    def metadata(self) -> dict[str, Any]:
        """What a checkpoint holds besides tensors, as JSON data; fractions as numerator and denominator."""
        return {
            "bitspec": BITSPEC,
            "recipe": self.recipe_digest,
            "init": self.init_digest,
            "step": self.step,
            "trace": {"link": self.trace.link, "size": self.trace.size},
            "traced": self.traced,
            "tensor_interval": self.tensor_interval,
            "scores": [{"epoch": s.epoch, "auc": _write(s.auc), "accuracy": _write(s.accuracy)} for s in self.scores],
            "optimizer": dict(self.optimizer_scalars),
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors under one set of names: ``model.``, ``optimizer.`` and ``best.`` prefixes."""
        groups = {"model": self.model, "optimizer": self.optimizer, "best": self.best}
        return {f"{group}.{name}": t for group, named in groups.items() for name, t in named.items()}


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint atomically, then remove all but the newest :data:`KEPT`; returns its path."""
    path = directory / f"checkpoint-{checkpoint.step:010d}.safetensors"
    tensors, metadata = checkpoint.tensors(), checkpoint.metadata()
    save_safetensors(path, tensors, metadata | {"content": digest(tensors, metadata)})
    for old in checkpoint_paths(directory)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and check its digest.

    Raises:
        InputError: the file cannot be read or is not a checkpoint of this bitspec.
        IntegrityError: its content does not have the digest written in it.
    """
    tensors, metadata = load_safetensors(path)
    expected = metadata.pop("content", None)
    actual = digest(tensors, metadata)
    if actual != expected:
        raise IntegrityError(f"the checkpoint {path} is damaged: its content has digest {actual}, not {expected}")
    if metadata.get("bitspec") != BITSPEC:
        raise InputError(
            f"the checkpoint {path} follows bitspec {metadata.get('bitspec')} and this dettriton is bitspec {BITSPEC}: "
            "finish the run with the version that began it, or train again from the start"
        )
    return Checkpoint(
        recipe_digest=metadata["recipe"],
        init_digest=metadata["init"],
        step=metadata["step"],
        trace=Position(metadata["trace"]["link"], metadata["trace"]["size"]),
        traced=metadata["traced"],
        tensor_interval=metadata["tensor_interval"],
        scores=tuple(EpochScores(s["epoch"], _read(s["auc"]), _read(s["accuracy"])) for s in metadata["scores"]),
        model=_group(tensors, "model."),
        optimizer=_group(tensors, "optimizer."),
        optimizer_scalars=metadata["optimizer"],
        best=_group(tensors, "best."),
    )


def load_newest(directory: Path, report: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None where there is none at all.

    Args:
        directory: of the run.
        report: called with one sentence for each damaged checkpoint that is passed over.

    Raises:
        IntegrityError: there are checkpoints, and all are damaged.
    """
    paths = checkpoint_paths(directory)
    for path in paths:
        try:
            return load_checkpoint(path)
        except DettritonError as error:
            report(f"{path.name} cannot be used, going back to the one before it: {error}")
    if paths:
        raise IntegrityError(
            f"no checkpoint in {directory} can be used: all {len(paths)} are damaged. Move the directory away and "
            "train again from the start"
        )
    return None


def checkpoint_paths(directory: Path) -> list[Path]:
    """The checkpoint files of a run, newest first."""
    return sorted((p for p in directory.iterdir() if _NAME.fullmatch(p.name)), reverse=True)


def remove_unfinished(directory: Path) -> None:
    """Remove what killed processes left of checkpoints they were writing; call it while holding the run's lock."""
    for leftover in directory.glob(".checkpoint-*.safetensors.*"):
        name, _, _ = leftover.name.removeprefix(".").partition(".safetensors")
        remove_partial(directory / f"{name}.safetensors")


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, int | float]]:
    """An optimizer's state as named tensors and named numbers; hyperparameters come from the recipe."""
    tensors, scalars = {}, {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            (tensors if isinstance(value, torch.Tensor) else scalars)[f"{index}.{key}"] = value
    return tensors, scalars


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], scalars: Mapping[str, int | float]
) -> None:
    """Put back what :func:`optimizer_state` took."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **scalars}.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _group(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _write(value: Fraction) -> list[str]:
    return [str(value.numerator), str(value.denominator)]


def _read(value: list[str]) -> Fraction:
    numerator, denominator = value
    return Fraction(int(numerator), int(denominator))
