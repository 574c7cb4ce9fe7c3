"""Spot checks: some segments of a training, chosen by a public text, computed again and compared.

A training that was cut into segments (``dettriton train --segments N``) commits itself, by one Merkle root, to its state
at every cut. A segment that ends in the committed state when it is computed from the committed state before it was
trained as the recipe says. The first segment starts from the recipe's own initialisation, the last ends with the trace,
and the state after the best epoch holds the weights; so where every segment is right, the weights are those of the
recipe. A spot check computes only some of them, and misses what it does not compute: how likely,
:func:`dettriton.zoo._spot_result.miss_probability` says. It does not show that the best epoch was the best one.
"""

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dettriton import data
from dettriton.data import Dataset, dataset_sha256
from dettriton.digest import digest, first_difference
from dettriton.environment import environment
from dettriton.errors import DettritonError, InputError, IntegrityError, NonFiniteError
from dettriton.train._commitment import choose
from dettriton.train._run import Run
from dettriton.train.segments import State, load_state, replay, state_path
from dettriton.train.trainer import require_subnormals
from dettriton.zoo._manifest import DamagedReleaseError
from dettriton.zoo._spot_display import make_display
from dettriton.zoo._spot_result import SegmentCheck, SpotResult
from dettriton.zoo._spot_target import Target, find_target


def spot_check(
    name: str,
    count: int,
    seed: str | None = None,
    device: str = "cpu",
    data_dir: str | Path | None = None,
    progress: bool = True,
    *,
    segments: str | Path | None = None,
    download: bool = False,
) -> SpotResult:
    """Compute some segments of a training again; the cost is that of their steps.

    Args:
        name: one of :func:`dettriton.zoo.names`, or the directory of a finished run.
        count: how many segments.
        seed: chooses them (:func:`dettriton.train._commitment.choose`); by default a fresh random text. Choose it
            yourself, after the training was published: whoever knows it before can tamper where it does not look.
        device: ``"cpu"`` or ``"cuda"``.
        data_dir, download: for :func:`dettriton.data.load`.
        progress: show progress on the standard error stream.
        segments: a folder of segments, or a run's directory, if the release does not carry its own.

    Raises:
        InputError, EngineError: it cannot run; the message says what to do.
        DamagedReleaseError: the commitment contradicts itself or the release.
    """
    started = time.monotonic()
    require_subnormals()
    target = find_target(name, segments)
    seed = secrets.token_hex(8) if seed is None else seed
    chosen = choose(target.commitment.root, seed, target.commitment.count, count)
    target.require_starts(chosen)
    splits = data.load(target.recipe.data.name, data_dir, download)
    run = Run(target.recipe, splits, device)
    if run.total_steps != target.commitment.steps:
        raise DamagedReleaseError(
            f"the segments of {name} are of {target.commitment.steps} steps and its recipe has {run.total_steps}"
        )
    digests = {
        "data": (target.dataset_sha256, dataset_sha256(splits)),
        "init": (target.init_digest, run.init_digest),
    }
    checker = _Checker(target, splits, device, run.steps_per_epoch)
    with make_display(progress, target.commitment, chosen) as display:
        checks = []
        for index in chosen:
            checks.append(checker.check(index, display.step))
            display.segment(index, checks[-1].matches)
    weights, trace = checker.ties()
    return SpotResult(
        name=name,
        root=target.commitment.root,
        count=target.commitment.count,
        seed=seed,
        device=device,
        digests=digests,
        checks=tuple(checks),
        weights_tied=weights,
        trace_tied=trace,
        seconds=time.monotonic() - started,
        environment=environment(),
    )


class _Checker:
    """Computes segments of one training, and keeps what was seen of its weights and its trace."""

    def __init__(self, target: Target, splits: Mapping[str, Dataset], device: str, steps_per_epoch: int):
        self._target, self._splits, self._device = target, splits, device
        self._released = (target.best_epoch + 1) * steps_per_epoch
        self._weights: str | None = None
        self._last_link: str | None = None

    def check(self, index: int, step_done: Any) -> SegmentCheck:
        commitment = self._target.commitment
        begin, end = commitment.bounds(index)
        run = Run(self._target.recipe, self._splits, self._device)

        def after_step(step: int) -> None:
            step_done(step - begin)
            if step == self._released:
                self._weights = digest(run.model)

        expected = commitment.leaves[index]
        try:
            start = None if begin == 0 else load_state(self._target.folder, begin, commitment.leaves[index - 1])
            state = replay(run, start, end, after_step)
        except (IntegrityError, NonFiniteError, InputError) as error:
            return SegmentCheck(index, begin, end, expected, None, str(error))
        if end == commitment.steps:
            self._last_link = state.link
        got = state.digest()
        return SegmentCheck(index, begin, end, expected, got, None if got == expected else self._first(state, expected))

    def ties(self) -> tuple[bool | None, bool | None]:
        """Whether weights and trace are those of the committed states, or of states that were computed here."""
        released, last = (self._committed(step) for step in (self._released, self._target.commitment.steps))
        weights = self._weights if released is None else digest(released.model)
        link = self._last_link if last is None else last.link
        return (
            None if weights is None else weights == self._target.weights_digest,
            None if link is None else link == self._target.trace,
        )

    def _committed(self, step: int) -> State | None:
        """The committed state after ``step`` steps, if it is here and whole."""
        index = self._target.commitment.index_of(step)
        if index is None or not state_path(self._target.folder, step).exists():
            return None
        try:
            return load_state(self._target.folder, step, self._target.commitment.leaves[index])
        except DettritonError:
            return None

    def _first(self, state: State, leaf: str) -> str:
        """What first differs from the committed state."""
        try:
            committed = load_state(self._target.folder, state.step, leaf)
        except DettritonError as error:
            return f"the committed state is not here to compare: {error}"
        difference = first_difference(committed.tensors(), state.tensors())
        return "the trace's link: losses differ" if difference is None else str(difference)
