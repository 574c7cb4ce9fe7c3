"""The detailed trace: digests of the batch, gradients, the optimizer and a probe's activations, outside the chain.

It is a file of its own, ``trace-detail.jsonl`` in the run's directory or wherever the caller wants it: each line of
``trace.jsonl`` with the details added. So ``trace.jsonl`` has the same bytes whatever the detail, its size in a
checkpoint never depends on where the details go, and the detailed file can be compared without the directory.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from dettriton import nn
from dettriton.digest import digest, tensor_digest
from dettriton.errors import InputError
from dettriton.train._directory import RECIPE, RESULT, WEIGHTS
from dettriton.train._run import Run
from dettriton.train.checkpoint import DetailPosition, named_optimizer_state, optimizer_state
from dettriton.train.trace import ACTIVATIONS, DETAILS, STEP, Position, TraceFile
from dettriton.train.trace import FILE_NAME as TRACE

FILE_NAME = "trace-detail.jsonl"
PROBE_SAMPLES = 8

_BEGINNING = b'{"chain":"'


@dataclass(frozen=True)
class Detail:
    """How closely a run is traced.

    Attributes:
        level: one of :data:`dettriton.train.trace.DETAILS`. ``"step"`` adds nothing to a line. ``"gradients"`` adds
            digests of the batch (``samples``), of every parameter's gradient before the optimizer sees it
            (``gradients``, in the model's order) and of every tensor after the update (``tensors``); the first line
            also has every tensor before step 0 (``initial``), and each line with ``tensors`` has the optimizer's state
            (``optimizer``, as :func:`dettriton.train.checkpoint.named_optimizer_state` names it). ``"activations"``
            adds digests of what every module gives for the probe, before the step (``outputs``, in the order in which
            the calls end): the first :data:`PROBE_SAMPLES` training samples in the data's order, not augmented, in
            evaluation mode.
        interval: details are added at steps 0, ``interval``, ``2 * interval`` and so on.
        elsewhere: the file, where it is not the directory's own.
    """

    level: str = STEP
    interval: int = 1
    elsewhere: Path | None = None

    def __post_init__(self):
        if self.level not in DETAILS:
            raise InputError(f"there is no trace detail {self.level!r}; choose one of {', '.join(DETAILS)}")
        if self.interval < 1:
            raise InputError(f"trace_interval counts steps from 1, got {self.interval}")

    @property
    def is_written(self) -> bool:
        """Whether there is a detailed trace at all."""
        return self.level != STEP or self.elsewhere is not None

    def path(self, directory: Path) -> Path:
        """The detailed trace of the run in ``directory``."""
        return directory / FILE_NAME if self.elsewhere is None else self.elsewhere

    def require_place(self, directory: Path, *, resume: bool) -> None:
        """Raise unless the file can be made, or gone on with, without harm to another one.

        Raises:
            InputError: its directory is missing, it is one of the run's own files, it is there and the run is new, or
                it is there and no trace.
        """
        path = self.elsewhere
        if path is None:
            return
        target = path.resolve()
        inside = target.parent == directory.resolve()
        if inside and target.name in (TRACE, RECIPE, RESULT, WEIGHTS):
            raise InputError(f"{path} is a file of the run itself; choose another one for the detailed trace (--trace)")
        if not inside and not path.parent.is_dir():
            raise InputError(f"there is no directory {path.parent} for the trace {path}; make it, or choose another")
        if path.exists() and not (resume and _is_trace(path)):
            raise InputError(f"{path} exists and is not written over; move it away, or choose another file (--trace)")

    def require_same(self, kept: DetailPosition | None, where: str) -> None:
        """Raise unless a run that was begun with ``kept`` goes on with this detail; ``where`` names the run.

        Raises:
            InputError: the detail is another one.
        """
        begun = "no detailed trace" if kept is None else _described(kept.level, kept.interval)
        asked = _described(self.level, self.interval) if self.is_written else "no detailed trace"
        if begun != asked:
            raise InputError(
                f"{where} was begun with {begun} and is resumed with {asked}; resume with the same, so that its trace "
                "is that of an uninterrupted run"
            )


class DetailedTrace:
    """Writes the detailed trace, and watches the run's steps for it; without one it does nothing.

    Args:
        detail: what is written.
        run: the run, in the state that is reached.
        directory: of the run.
        link: where the chain stands.
        reached: where the file stands, as a checkpoint recorded it; None at the start.

    Raises:
        IntegrityError: the file does not lead to where the chain stands.
        InputError: from the ``with`` block: it cannot be written.
    """

    def __init__(self, detail: Detail, run: Run, directory: Path, link: str, reached: DetailPosition | None):
        self.detail = detail
        self._run = run
        position = Position(link, 0 if reached is None else reached.size)
        self._file = TraceFile(detail.path(directory), position) if detail.is_written else None
        self._probe = run.splits["train"].inputs(slice(0, PROBE_SAMPLES)).to(run.device)
        self._seen: dict[str, Any] = {}

    @contextmanager
    def watching(self, step: int) -> Iterator[None]:
        """Compute step ``step`` inside, so that its details are seen; no bit of the step changes."""
        self._seen = {}
        if self.detail.level == STEP or step % self.detail.interval:
            yield
            return
        if step == 0:
            self._seen["initial"] = self._run.tensor_digests()
        if self.detail.level == ACTIVATIONS:
            self._seen["outputs"] = probe_outputs(self._run.model, self._probe, self._run.recipe.train.seed, step)
        self._run.watcher = self
        try:
            yield
        finally:
            self._run.watcher = None

    def batch(self, order: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        """See the indices, inputs and labels of the step's samples."""
        named = {"order": order, "inputs": inputs, "labels": labels}
        self._seen["samples"] = {name: tensor_digest("", tensor) for name, tensor in named.items()}

    def gradients(self, model: torch.nn.Module) -> None:
        """See the gradients of the step, before the optimizer does."""
        named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
        self._seen["gradients"] = [[name, tensor_digest(name, grad)] for name, grad in named]

    def append(self, record: Mapping[str, Any]) -> None:
        """Write the step's line: the trace's record, with the details."""
        if self._file is None:
            return
        line = {**record, **self._seen}
        if self._seen and "tensors" not in line:
            line["tensors"] = self._run.tensor_digests()
        if self.detail.level != STEP and "tensors" in line:
            line["optimizer"] = optimizer_digests(self._run)
        self._file.write(line)

    def position(self) -> DetailPosition | None:
        """Where the file stands now, for a checkpoint; what is before it is on the disk when this returns."""
        if self._file is None:
            return None
        return DetailPosition(self.detail.level, self.detail.interval, self._file.size())

    def __enter__(self) -> "DetailedTrace":
        if self._file is not None:
            self._file.open()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()


def optimizer_digests(run: Run) -> dict[str, str]:
    """Name to digest of every tensor and number of the optimizer's state."""
    parameters = [name for name, _ in run.model.named_parameters()]
    named = named_optimizer_state(*optimizer_state(run.optimizer), parameters)
    return {name: tensor_digest(name, tensor) for name, tensor in named.items()}


def probe_outputs(model: torch.nn.Module, probe: torch.Tensor, seed: int, step: int) -> list[list[str]]:
    """Names of modules and digests of what they give for ``probe``, in the order in which their calls end.

    The model computes in evaluation mode, so that no running statistics move; modules that draw numbers even then
    draw those of (``seed``, ``step``). The model itself is called ``""``.
    """
    seen: list[list[str]] = []
    last: list[Any] = [None, None, None]

    def watch(name: str) -> Any:
        def after(module: torch.nn.Module, args: Any, output: Any) -> None:
            # a container gives what its last module gave, which need not be hashed again
            if not (isinstance(output, torch.Tensor) and output is last[0] and output._version == last[1]):
                found = digest({str(index): tensor for index, tensor in enumerate(tensors_in(output))})
                last[:] = [output, getattr(output, "_version", None), found]
            seen.append([name, last[2]])

        return after

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    was_training = model.training
    nn.set_random_state(model, seed, step)
    model.eval()
    try:
        with torch.no_grad():
            model(probe)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return seen


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of a module's arguments or output, however nested, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def _described(level: str, interval: int) -> str:
    return f"a detailed trace (trace_detail={level}, trace_interval={interval})"


def _is_trace(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(_BEGINNING)) in (b"", _BEGINNING)
    except OSError as error:
        raise InputError(f"cannot read the trace {path}: {error.strerror}") from None
