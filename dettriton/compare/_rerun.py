"""Where two trainings parted, by running both again side by side in this process."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dettriton import data
from dettriton.compare._observed import ObservedRun
from dettriton.compare._phases import PhaseDifference, first_phase
from dettriton.compare._recorded import Comparison
from dettriton.compare._starts import newest_shared
from dettriton.compare._witness import Disagreement, Witness
from dettriton.data import dataset_sha256
from dettriton.errors import InputError
from dettriton.train.recipe import parse_recipe
from dettriton.train.trainer import require_subnormals


@dataclass(frozen=True)
class Rerun:
    """What running both recipes again gave.

    Attributes:
        begin, end: the steps that were computed, at most; ``end`` is excluded.
        computed: how many were.
        found: the first difference of the two re-runs, or None.
        a, b: where each re-run leaves what its own training recorded, or None.
        checked_a, checked_b: how many recorded losses and sets of digests each re-run was compared with.
        same_recipe: whether both ran the same recipe.
        notes: on the data.
    """

    begin: int
    end: int
    computed: int
    found: PhaseDifference | None
    a: Disagreement | None
    b: Disagreement | None
    checked_a: int
    checked_b: int
    same_recipe: bool
    notes: tuple[str, ...]

    @property
    def wrong(self) -> str | None:
        """The side that this machine contradicts while it confirms the other: ``"a"``, ``"b"`` or None."""
        confirmed = [found is None and checked > 0 for found, checked in self._sides()]
        if self.found is not None or confirmed[0] == confirmed[1] or (self.a is None and self.b is None):
            return None
        return "b" if confirmed[0] else "a"

    @property
    def verdict(self) -> str:
        """One paragraph for the user."""
        told = " and ".join(_testimony(letter, *side) for letter, side in zip("AB", self._sides(), strict=True))
        if self.found is not None:
            cause = "This machine computed one recipe twice and got two results. " if self.same_recipe else ""
            return f"first difference: {self.found}. {cause}This machine {told}"
        same = f"no difference: both recipes give the same bits in all {self.computed} steps computed here"
        if self.a is None and self.b is None:
            return f"{same}. This machine {told}"
        if self.wrong is None:
            return f"{same}. This machine {told}: a machine or a version differs, and another one must decide"
        return (
            f"{same}, so the difference came from a machine or a version, not from a recipe. This machine {told}: "
            f"{self.wrong.upper()} is the run that is wrong"
        )

    def _sides(self) -> tuple[tuple[Disagreement | None, int], tuple[Disagreement | None, int]]:
        return (self.a, self.checked_a), (self.b, self.checked_b)

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self) | {"notes": list(self.notes), "wrong": self.wrong, "verdict": self.verdict}


def rerun(
    comparison: Comparison,
    device: str = "cpu",
    data_dir: str | Path | None = None,
    *,
    download: bool = False,
    report: Callable[[str], None] = lambda sentence: None,
) -> Rerun | None:
    """Run both recipes again from the last state that both trainings share, up to where their records differ.

    Args:
        comparison: of two runs' directories.
        device, data_dir, download: as for :func:`dettriton.train.train`.
        report: called with a sentence on what begins.

    Returns:
        What was found; None where the records do not differ, so that there is nothing to look for.

    Raises:
        InputError: a side is not a run's directory, or recipes, data and device do not fit together.
        NonFiniteError, EngineError: as for training.
    """
    for side in (comparison.a, comparison.b):
        if not side.is_run or side.recipe is None:
            raise InputError(f"a re-run needs the --out directories of both runs, and {side.name} is none")
    if comparison.same:
        return None
    require_subnormals()
    runs, notes = _make_runs(comparison, device, data_dir, download)
    end = _end(comparison, runs)
    begin = _shared_start(comparison, runs, end)
    report(f"running steps {begin} to {end - 1} of both recipes again")
    witnesses = [Witness(side, run) for side, run in zip((comparison.a, comparison.b), runs, strict=True)]
    for witness in witnesses:
        witness.check_start()

    def after_step(step: int, *losses: float) -> None:
        for witness, loss in zip(witnesses, losses, strict=True):
            witness.check(step, loss)

    found = first_phase(*runs, begin, end, after_step)
    a, b = witnesses
    return Rerun(
        begin,
        end,
        a.computed,
        found,
        a.found,
        b.found,
        a.checked,
        b.checked,
        comparison.same_recipe is True,
        tuple(notes),
    )


def _testimony(letter: str, found: Disagreement | None, checked: int) -> str:
    if found is not None:
        return f"contradicts {letter} {found}"
    return f"agrees with {letter}" if checked else f"finds no record of {letter} to compare with"


def _make_runs(
    comparison: Comparison, device: str, data_dir: str | Path | None, download: bool
) -> tuple[tuple[ObservedRun, ObservedRun], list[str]]:
    runs, notes, loaded = [], [], {}
    for letter, side in (("A", comparison.a), ("B", comparison.b)):
        recipe = parse_recipe(side.recipe, side.name)
        name = recipe.data.name
        if name not in loaded:
            splits = data.load(name, data_dir, download)
            loaded[name] = splits, dataset_sha256(splits)
        splits, sha256 = loaded[name]
        if side.dataset_sha256 not in (None, sha256):
            notes.append(f"{letter} was trained on other {name} data (recorded {side.dataset_sha256}, here {sha256})")
        runs.append(ObservedRun(recipe, splits, device))
    return (runs[0], runs[1]), notes


def _end(comparison: Comparison, runs: tuple[ObservedRun, ObservedRun]) -> int:
    """One more than the first step whose record differs; else as far as both trainings went."""
    if comparison.first_step is not None:
        return comparison.first_step + 1
    totals = [run.total_steps for run in runs]
    if comparison.trace is not None:
        totals += [comparison.trace.steps_a, comparison.trace.steps_b]
    return min(totals)


def _shared_start(comparison: Comparison, runs: tuple[ObservedRun, ObservedRun], end: int) -> int:
    """The newest state that both trainings kept before their records differ; the runs are put there."""
    shared = newest_shared(comparison, runs, end - 1)
    if shared is None:
        return 0
    step, state = shared
    for run in runs:
        run.restore(state)
    return step
