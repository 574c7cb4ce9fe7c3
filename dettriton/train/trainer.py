"""Training: from a recipe to a digest."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dettriton import data
from dettriton._warm_up import WarmUp
from dettriton.errors import EngineError, InputError, NonFiniteError
from dettriton.exact.ieee import keeps_subnormals
from dettriton.train._detail import Detail, DetailedTrace
from dettriton.train._directory import open_directory
from dettriton.train._display import Display, make_display
from dettriton.train._finite import require_finite_state
from dettriton.train._fit import MisfitError, require_best_state
from dettriton.train._interrupt import Interrupt
from dettriton.train._result import TrainResult, finish
from dettriton.train._run import Run
from dettriton.train._segment_writer import open_segments
from dettriton.train.checkpoint import (
    Checkpoint,
    EpochScores,
    best_epoch,
    load_newest,
    optimizer_state,
    restore_optimizer,
    save_checkpoint,
)
from dettriton.train.evaluate import score
from dettriton.train.recipe import Recipe
from dettriton.train.trace import FILE_NAME as TRACE
from dettriton.train.trace import STEP, Position, Trace, first_link

_log = logging.getLogger(__name__)


def train(
    recipe: Recipe,
    out_dir: str | Path,
    device: str = "cpu",
    data_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    trace: bool = True,
    *,
    download: bool = False,
    splits: Mapping[str, data.Dataset] | None = None,
    tensor_interval: int | None = None,
    trace_detail: str = STEP,
    trace_interval: int = 1,
    trace_file: str | Path | None = None,
    checkpoint_steps: int | None = None,
    checkpoint_seconds: float | None = None,
    segments: int | None = None,
) -> TrainResult:
    """Train a recipe; the same recipe gives the same bits on every machine and device, stopped and resumed or not.

    Each epoch visits the training set in the recipe's order, in consecutive batches
    (:func:`dettriton.train.batches.batch_bounds`). After each epoch the validation split is scored by MedMNIST's
    protocol; the weights of the epoch with the highest AUC, the earliest among equals, are the result.

    ``out_dir`` then holds ``weights.safetensors``, ``result.json``, ``recipe.json``, ``trace.jsonl`` and the last two
    checkpoints. A run that was killed at any moment goes on from there with ``resume=True``, to the same weights and
    the same trace. Ctrl-C, or SIGTERM, stops after the current step with a checkpoint and raises
    KeyboardInterrupt; a second one stops at once.

    Args:
        recipe: from :func:`dettriton.train.load_recipe`.
        out_dir: a new directory, or with ``resume`` that of a run of the same recipe.
        device: ``"cpu"`` or ``"cuda"``.
        data_dir, download: for :func:`dettriton.data.load`.
        splits: what that function gave for the recipe's data, where the caller has it already.
        resume: go on with the run in ``out_dir`` if there is one.
        progress: show progress on the standard error stream: a bar in a terminal, else one line an epoch.
        trace: write ``trace.jsonl``; a resumed run must say the same.
        tensor_interval: also trace a digest of every tensor after each so many steps (always after each epoch); a
            resumed run must say the same.
        trace_detail, trace_interval: what a detailed trace adds to the lines of ``trace.jsonl``, and after how many
            steps again: see :class:`dettriton.train._detail.Detail`. The chain and the weights are the same at every
            detail; a resumed run must say the same.
        trace_file: where the detailed trace is written; by default ``trace-detail.jsonl`` in ``out_dir``, unless the
            detail is ``"step"``. A new run does not write over a file; a resumed run must say where the file is.
        checkpoint_steps, checkpoint_seconds: also write a checkpoint when so much was done since the last one.
        segments: also keep the whole state after each so many steps and at the end, with an index, in ``segments``
            (:mod:`dettriton.train.segments`), for spot checks; a resumed run must say the same.

    Raises:
        InputError: recipe, data, device and directory do not fit together; the message says which.
        IntegrityError: the data or every checkpoint is damaged.
        NonFiniteError: a NaN or an infinity came up; the message names the step and the tensor.
        EngineError: the device is not here, or the process flushes subnormals to zero.
    """
    started = time.monotonic()
    counts = {"tensor_interval": tensor_interval, "checkpoint_steps": checkpoint_steps, "segments": segments}
    for name, value in counts.items():
        if value is not None and value < 1:
            raise InputError(f"{name} counts steps from 1, got {value}")
    detail = Detail(trace_detail, trace_interval, None if trace_file is None else Path(trace_file))
    if detail.is_written and not trace:
        raise InputError("there is no detailed trace without a trace: leave out trace=False, or detail and file")
    detail.require_place(Path(out_dir), resume=resume)
    require_subnormals()
    with WarmUp(recipe, device, data_dir):
        if splits is None:
            splits = data.load(recipe.data.name, data_dir, download)
        with Interrupt() as interrupt:
            # Its first batch compiles loops: what is raised inside of numba's compiler can be lost there.
            run = Run(recipe, splits, device)
        interrupt.raise_if_requested()
    with open_directory(out_dir, recipe, resume=resume) as directory:
        session = _Session(
            run, directory, resume, trace, tensor_interval, detail, checkpoint_steps, checkpoint_seconds, segments
        )
        session.go(progress)
        seconds = time.monotonic() - started
        return finish(
            run, directory, session.best(), session.best_state, session.recipe_digest, session.trace.link, seconds
        )


def require_subnormals() -> None:
    """Raise unless this process computes with subnormal numbers, as the contract asks.

    Raises:
        EngineError: it flushes them to zero.
    """
    if not keeps_subnormals():
        raise EngineError(
            "this process flushes subnormal numbers to zero, which changes bits: a library built with -ffast-math was "
            "loaded, or torch.set_flush_denormal(True) was called. Train in a process without it"
        )


@dataclass
class _Session:
    """One process's share of a run: from a checkpoint, or the start, to the end."""

    run: Run
    directory: Path
    resume: bool
    traced: bool
    tensor_interval: int | None
    detail: Detail
    checkpoint_steps: int | None
    checkpoint_seconds: float | None
    segment_steps: int | None = None
    step: int = 0
    scores: list[EpochScores] = field(default_factory=list)
    best_state: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        self.recipe_digest = self.run.recipe.digest()
        checkpoint = load_newest(self.directory, _log.warning) if self.resume else None
        position = Position(first_link(self.recipe_digest, self.run.init_digest), 0)
        if checkpoint is not None:
            self._restore(checkpoint)
            position = checkpoint.trace
        self.segments = open_segments(self.directory, self.run, self.segment_steps, self.step)
        self.trace = Trace(position, self.directory / TRACE if self.traced else None)
        reached = None if checkpoint is None else checkpoint.detail
        self.detailed = DetailedTrace(self.detail, self.run, self.directory, position.link, reached)
        self._saved_step, self._saved_time = self.step, time.monotonic()

    def go(self, progress: bool) -> None:
        """Compute the steps that are left."""
        epochs, total = self.run.recipe.train.epochs, self.run.total_steps
        with (
            self.trace,
            self.detailed,
            Interrupt() as interrupt,
            make_display(progress, epochs, total, self.step) as display,
        ):
            losses: list[float] = []
            while self.step < total:
                losses.append(self._advance())
                epoch, left = divmod(self.step, self.run.steps_per_epoch)
                display.step(self.step, epoch if left else epoch - 1, losses[-1])
                if left == 0:
                    self._end_epoch(display, losses)
                    losses = []
                elif interrupt.requested or self._checkpoint_is_due():
                    self._save()
                if interrupt.requested and self.step < total:
                    _log.warning("stopped after step %d, with a checkpoint", self.step - 1)
                    interrupt.raise_if_requested()

    def best(self) -> EpochScores:
        """The epoch whose weights are the result."""
        return best_epoch(self.scores)

    def _advance(self) -> float:
        with self.detailed.watching(self.step):
            loss = self.run.step(self.step)
        ends_epoch = (self.step + 1) % self.run.steps_per_epoch == 0
        traced = ends_epoch or (self.tensor_interval is not None and (self.step + 1) % self.tensor_interval == 0)
        tensors = self.run.tensor_digests() if traced else None
        self.detailed.append(self.trace.append(self.step, loss, tensors, ends_epoch=ends_epoch))
        self.step += 1
        if self.segments is not None:
            self.segments.after_step(self.run, self.step, self.trace.link)
        return loss

    def _end_epoch(self, display: Display, losses: Sequence[float]) -> None:
        epoch = self.step // self.run.steps_per_epoch - 1
        where = f"step {self.step - 1} of epoch {epoch} (both counted from 0)"
        require_finite_state(self.run.model, where)
        try:
            validation = score(self.run.model, self.run.splits["val"])
        except NonFiniteError as error:
            raise NonFiniteError(f"after {where}: {error}") from error
        self.scores.append(EpochScores(epoch, validation.auc, validation.accuracy))
        if self.best().epoch == epoch:
            self.best_state = self.run.state()
        self._save()
        display.epoch(self.step, self.scores[-1], sum(losses) / len(losses), self.best())

    def _checkpoint_is_due(self) -> bool:
        by_steps = self.checkpoint_steps is not None and self.step - self._saved_step >= self.checkpoint_steps
        elapsed = time.monotonic() - self._saved_time
        return by_steps or (self.checkpoint_seconds is not None and elapsed >= self.checkpoint_seconds)

    def _save(self) -> None:
        tensors, scalars = optimizer_state(self.run.optimizer)
        checkpoint = Checkpoint(
            recipe_digest=self.recipe_digest,
            init_digest=self.run.init_digest,
            step=self.step,
            trace=self.trace.position(),
            traced=self.traced,
            tensor_interval=self.tensor_interval,
            scores=tuple(self.scores),
            model=self.run.model.state_dict(),
            optimizer=tensors,
            optimizer_scalars=scalars,
            best=self.best_state,
            detail=self.detailed.position(),
        )
        save_checkpoint(self.directory, checkpoint)
        self._saved_step, self._saved_time = self.step, time.monotonic()

    def _restore(self, checkpoint: Checkpoint) -> None:
        self._require_own(checkpoint)
        try:
            self.run.require_state(
                checkpoint.model, checkpoint.optimizer, checkpoint.optimizer_scalars, checkpoint.step
            )
            require_best_state(self.run.model, checkpoint.best, scored=bool(checkpoint.scores))
        except MisfitError as error:
            raise InputError(
                f"the checkpoint of the run in {self.directory} does not fit its recipe: {error}. Train again from the "
                "start, in another directory (--out)"
            ) from error
        self.run.model.load_state_dict(dict(checkpoint.model))
        restore_optimizer(self.run.optimizer, checkpoint.optimizer, checkpoint.optimizer_scalars)
        self.step, self.scores, self.best_state = checkpoint.step, list(checkpoint.scores), dict(checkpoint.best)

    def _require_own(self, checkpoint: Checkpoint) -> None:
        where = f"the run in {self.directory}"
        if checkpoint.recipe_digest != self.recipe_digest:
            raise InputError(f"{where} is of another recipe; resume with its own, or choose another directory (--out)")
        if checkpoint.init_digest != self.run.init_digest:
            raise InputError(
                f"{where} began from other initial weights ({checkpoint.init_digest}, now {self.run.init_digest}): the "
                "model or its initialisation has changed since. Finish it with the version that began it, or start anew"
            )
        if (
            len(checkpoint.scores) != checkpoint.step // self.run.steps_per_epoch
            or checkpoint.step > self.run.total_steps
        ):
            raise InputError(
                f"{where} has a checkpoint after {checkpoint.step} steps with {len(checkpoint.scores)} validations, which "
                "this recipe does not lead to. Train again from the start, in another directory (--out)"
            )
        kept, asked = (checkpoint.traced, checkpoint.tensor_interval), (self.traced, self.tensor_interval)
        if kept != asked:
            raise InputError(
                f"{where} was begun with trace={kept[0]} and tensor_interval={kept[1]}; resume with the same, so that "
                "its trace is that of an uninterrupted run"
            )
        self.detail.require_same(checkpoint.detail, where)
