"""Where two trainings parted, by what both recorded."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from dettriton.compare._chain import TraceComparison, compare_traces
from dettriton.compare._sides import Side
from dettriton.compare._state import Groups, Names, differing_groups, names_of_recipe, split_weights, state_groups
from dettriton.errors import InputError
from dettriton.train.checkpoint import Checkpoint
from dettriton.train.recipe import differing_settings

NOT_SET = "not set"


@dataclass(frozen=True)
class Setting:
    """A setting of the recipe that the sides do not share."""

    section: str
    key: str
    a: Any
    b: Any


@dataclass(frozen=True)
class CheckpointComparison:
    """Checkpoints after the same number of steps.

    Attributes:
        compared: those numbers, ascending.
        last_equal: the last of them before ``different`` where model and optimizer had the same bits, or None.
        different: the first where they had not, or None; ``groups`` are its differences.
    """

    compared: tuple[int, ...]
    last_equal: int | None
    different: int | None
    groups: Groups


@dataclass(frozen=True)
class WeightsComparison:
    """Released weights, or the best so far; epochs count from 0."""

    epoch_a: int | None
    epoch_b: int | None
    groups: Groups


@dataclass(frozen=True)
class Comparison:
    """All that the records of two trainings tell; None where a side does not record it.

    Attributes:
        a, b: the sides.
        same_recipe, same_data, same_init: by digest.
        settings: those that differ, where both recipes are known.
        trace, checkpoints, weights: see there.
    """

    a: Side
    b: Side
    same_recipe: bool | None
    settings: tuple[Setting, ...]
    same_data: bool | None
    same_init: bool | None
    trace: TraceComparison | None
    checkpoints: CheckpointComparison | None
    weights: WeightsComparison | None

    @property
    def first_step(self) -> int | None:
        """The first step (from 0) at or after which something recorded differs, by traces and checkpoints."""
        by_trace = None if self.trace is None else self.trace.first_step
        by_checkpoint = None if self.checkpoints is None else self.checkpoints.different
        steps = [by_trace] if by_trace is not None else []
        return min([*steps, by_checkpoint - 1] if by_checkpoint else steps, default=None)

    @property
    def same(self) -> bool:
        """Whether nothing that both recorded differs."""
        facts = (self.same_recipe, self.same_data, self.same_init, self.trace and self.trace.same_origin)
        groups = self.weights is not None and self.weights.groups
        return False not in facts and self.first_step is None and not groups

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "same": self.same,
            "a": self.a.name,
            "b": self.b.name,
            "notes": [*self.a.notes, *self.b.notes],
            "recipe": {"same": self.same_recipe, "settings": [asdict(s) for s in self.settings]},
            "data": {"same": self.same_data, "a": self.a.dataset_sha256, "b": self.b.dataset_sha256},
            "initial_weights": {"same": self.same_init, "a": self.a.init_digest, "b": self.b.init_digest},
            "first_step": self.first_step,
            "trace": None if self.trace is None else self.trace.to_dict(),
            "checkpoints": _plain(self.checkpoints),
            "weights": _plain(self.weights),
        }


def compare(a: Side, b: Side) -> Comparison:
    """Compare what two trainings recorded.

    Raises:
        InputError: they recorded nothing of the same kind and step.
    """
    names = names_of_recipe(a.recipe)
    trace = None if a.trace is None or b.trace is None else compare_traces(a.trace, b.trace)
    checkpoints, weights = _compare_checkpoints(a, b, names), _compare_weights(a, b, names)
    known_start = _equal(a.init_digest, b.init_digest)
    if trace is None and checkpoints is None and weights is None:
        raise InputError(
            f"there is nothing to compare: {a.name} holds {a.holds()}; {b.name} holds {b.holds()}. Give two sides that "
            "have a trace, weights, or a checkpoint after the same number of steps"
        )
    return Comparison(
        a,
        b,
        _equal(a.recipe_digest, b.recipe_digest),
        _settings(a.recipe, b.recipe),
        _equal(a.dataset_sha256, b.dataset_sha256),
        known_start,
        trace,
        checkpoints,
        weights,
    )


def _groups_of(checkpoint: Checkpoint, names: Names | None) -> dict[str, dict[str, torch.Tensor]]:
    return state_groups(checkpoint.model, checkpoint.optimizer, checkpoint.optimizer_scalars, names)


def _compare_checkpoints(a: Side, b: Side, names: Names | None) -> CheckpointComparison | None:
    common = sorted(a.checkpoints.keys() & b.checkpoints.keys())
    last_equal = None
    for step in common:
        groups = differing_groups(*(_groups_of(side.checkpoints[step], names) for side in (a, b)))
        if groups:
            return CheckpointComparison(tuple(common), last_equal, step, groups)
        last_equal = step
    return CheckpointComparison(tuple(common), last_equal, None, {}) if common else None


def _compare_weights(a: Side, b: Side, names: Names | None) -> WeightsComparison | None:
    first, second = a.weights, b.weights
    if first is None or second is None:
        return None
    if first.epoch != second.epoch and not (first.final and second.final):
        return None
    groups = differing_groups(*(split_weights(w.tensors, names) for w in (first, second)))
    return WeightsComparison(first.epoch, second.epoch, groups)


def _settings(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> tuple[Setting, ...]:
    if a is None or b is None:
        return ()
    return tuple(Setting(*setting) for setting in differing_settings(a, b, NOT_SET))


def _equal(a: str | None, b: str | None) -> bool | None:
    return None if a is None or b is None else a == b


def _plain(comparison: CheckpointComparison | WeightsComparison | None) -> dict[str, Any] | None:
    return None if comparison is None else asdict(comparison)
