"""Checkpoints of a training run: whole files, checked by digest, the newest two kept."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import torch

from dettriton import BITSPEC
from dettriton.digest import digest
from dettriton.errors import DettritonError, InputError, IntegrityError
from dettriton.files import load_safetensors, remove_partial, save_safetensors
from dettriton.train.trace import Position

KEPT = 2

Plain = TypeVar("Plain")

_STATE_NAME = re.compile(r"optimizer\.\d{1,9}\..+", re.DOTALL)
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
class DetailPosition:
    """How the detailed trace of a run is written, and the length of its file."""

    level: str
    interval: int
    size: int


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
        detail: how and how far the detailed trace is written; None without one.
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
    detail: DetailPosition | None = None

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
            **({} if self.detail is None else {"detail": asdict(self.detail)}),
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors under one set of names: ``model.``, ``optimizer.`` and ``best.`` prefixes."""
        groups = {"model": self.model, "optimizer": self.optimizer, "best": self.best}
        return {f"{group}.{name}": t for group, named in groups.items() for name, t in named.items()}


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint atomically, then remove all but the newest :data:`KEPT` up to it; returns its path."""
    path = directory / f"checkpoint-{checkpoint.step:010d}.safetensors"
    tensors, metadata = checkpoint.tensors(), checkpoint.metadata()
    save_safetensors(path, tensors, metadata | {"content": digest(tensors, metadata)})
    # a later one was passed over as damaged: it must not count as one of those to go back to
    for old in [p for p in checkpoint_paths(directory) if p.name <= path.name][KEPT:]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and check its digest.

    Raises:
        InputError: the file cannot be read, or is not a checkpoint, or not one of this bitspec.
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
    try:
        return _from_parts(tensors, metadata)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"{path} is not a checkpoint of this version of dettriton ({type(error).__name__}: {error}): finish the run "
            "with the version that began it, or train again from the start"
        ) from error


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


def named_optimizer_state(
    tensors: Mapping[str, torch.Tensor], scalars: Mapping[str, int | float], parameters: Sequence[str]
) -> dict[str, torch.Tensor]:
    """What :func:`optimizer_state` took as tensors called ``<parameter>: <key>``; numbers become binary64.

    Args:
        tensors, scalars: the state.
        parameters: names in the optimizer's order; a parameter beyond them is called ``parameter <index>``.
    """
    named = {}
    for name, value in {**tensors, **scalars}.items():
        index, _, key = name.partition(".")
        owner = parameters[int(index)] if int(index) < len(parameters) else f"parameter {index}"
        named[f"{owner}: {key}"] = torch.as_tensor(value, dtype=None if name in tensors else torch.float64)
    return named


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], scalars: Mapping[str, int | float]
) -> None:
    """Put back what :func:`optimizer_state` took."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **scalars}.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _from_parts(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> Checkpoint:
    interval, scalars = metadata["tensor_interval"], metadata["optimizer"]
    for name in [n for n in tensors if n.startswith("optimizer.")] + [f"optimizer.{n}" for n in scalars]:
        if not _STATE_NAME.fullmatch(name):
            raise ValueError(f"{name!r} does not name a parameter's state")
    if not all(type(value) in (int, float) for value in scalars.values()):
        raise ValueError("the optimizer's state holds something that is no number")
    scores = tuple(EpochScores(_count(s["epoch"]), _read(s["auc"]), _read(s["accuracy"])) for s in metadata["scores"])
    if [s.epoch for s in scores] != [*range(len(scores))]:
        raise ValueError("the epochs of its scores are not in order")
    return Checkpoint(
        recipe_digest=_of_type(str, metadata["recipe"]),
        init_digest=_of_type(str, metadata["init"]),
        step=_count(metadata["step"]),
        trace=Position(_of_type(str, metadata["trace"]["link"]), _count(metadata["trace"]["size"])),
        traced=_of_type(bool, metadata["traced"]),
        tensor_interval=None if interval is None else _count(interval, 1),
        scores=scores,
        model=_group(tensors, "model."),
        optimizer=_group(tensors, "optimizer."),
        optimizer_scalars=scalars,
        best=_group(tensors, "best."),
        detail=_read_detail(**metadata["detail"]) if "detail" in metadata else None,
    )


def _read_detail(level: Any, interval: Any, size: Any) -> DetailPosition:
    return DetailPosition(_of_type(str, level), _count(interval, 1), _count(size))


def _of_type(kind: type[Plain], value: Any) -> Plain:
    if type(value) is not kind:
        raise TypeError(f"{value!r:.80} is not of type {kind.__name__}")
    return value


def _count(value: Any, low: int = 0) -> int:
    if not low <= _of_type(int, value) < 2**63:
        raise ValueError(f"{value!r:.80} counts nothing")
    return value


def _group(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _write(value: Fraction) -> list[str]:
    return [str(value.numerator), str(value.denominator)]


def _read(value: list[str]) -> Fraction:
    numerator, denominator = value
    return Fraction(int(numerator), int(denominator))
