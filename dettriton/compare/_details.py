"""The first phase where two detailed traces differ: what parted, named without running anything again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dettriton.compare._phases import (
    BUFFERS,
    FORWARD,
    GRADIENT,
    INITIAL,
    INPUTS,
    LABELS,
    LOSS,
    ORDER,
    UPDATE,
)
from dettriton.compare._state import OPTIMIZER
from dettriton.train.trace import differing_tensors

Record = Mapping[str, Any]

STATE = "state"

_SAMPLES = {"order": ORDER, "inputs": INPUTS, "labels": LABELS}


@dataclass(frozen=True)
class DetailDifference:
    """The first difference of two detailed traces.

    Attributes:
        step: counted from 0; None for the weights before step 0.
        phase: as in :class:`dettriton.compare.PhaseDifference`. ``forward`` is that of the probe, before the step;
            a ``loss`` alone is the forward of the step's own batch. ``state`` is that of a tensor after the step,
            where it is not known to be that step's update. ``optimizer state`` is that after the step, where nothing
            else differs.
        names: of what differs in this phase: modules in the order of their calls, parameters from the last to the
            first for gradients, as backward goes, else tensors by name.
        since: the first step that may have begun it: ``step`` itself where every tensor was recorded equal before it.
    """

    step: int | None
    phase: str
    names: tuple[str, ...]
    since: int | None

    def __str__(self) -> str:
        where = "before step 0" if self.step is None else f"step {self.step}"
        name = f" of {self.names[0] or 'the model'}" if self.names else ""
        others = len(self.names) - 1
        more = f"; {others} other{'s' if others > 1 else ''} too" if others > 0 else ""
        return f"{where}, {self.phase}{name}{more}"

    @property
    def reason(self) -> str:
        """What the records tell of when it began."""
        if self.step is None:
            return "so the trainings began from other weights"
        if self.since == self.step:
            return "all tensors were equal before this step, so it begins here"
        return f"it begins in steps {self.since} to {self.step}, between which no tensors were recorded"

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self) | {"names": list(self.names), "text": str(self)}


def first_detail(pairs: Iterable[tuple[Record, Record]]) -> DetailDifference | None:
    """The first difference of two traces' records, if it is in what a detailed trace adds, or is placed by it.

    Args:
        pairs: records of the same step of both traces, from step 0.
    """
    since = 0
    for a, b in pairs:
        step = a["step"]
        found = next(_phases(a, b), None)
        if found is not None:
            phase, names = found
            if phase == INITIAL:
                return DetailDifference(None, phase, names, None)
            # other weights before the step are no update of the step
            return DetailDifference(step, STATE if phase == UPDATE and since < step else phase, names, since)
        if a["loss"] != b["loss"] or differing_tensors(a.get("tensors"), b.get("tensors")):
            return None
        names = differing_tensors(a.get("optimizer"), b.get("optimizer"))
        if names:
            return DetailDifference(step, OPTIMIZER, names, since)
        if "tensors" in a and "tensors" in b:
            since = step + 1
    return None


def _phases(a: Record, b: Record) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What differs in one step, in the order in which a step computes it; nothing where either has no details."""
    names = differing_tensors(a.get("initial"), b.get("initial"))
    if names:
        yield INITIAL, names
    if "outputs" in a and "outputs" in b:
        names = _differing_calls(a["outputs"], b["outputs"])
        if names:
            yield FORWARD, names
    if "gradients" not in a or "gradients" not in b:
        return
    for key, phase in _SAMPLES.items():
        if a.get("samples", {}).get(key) != b.get("samples", {}).get(key):
            yield phase, ()
    first, second = dict(a["gradients"]), dict(b["gradients"])
    updated = differing_tensors(a.get("tensors"), b.get("tensors"))
    buffers = tuple(name for name in updated if name not in first and name not in second)
    if buffers:
        yield BUFFERS, buffers
    if a["loss"] != b["loss"]:
        yield LOSS, ()
    names = tuple(
        n for n in reversed([*first, *(n for n in second if n not in first)]) if first.get(n) != second.get(n)
    )
    if names:
        yield GRADIENT, names
    if updated:
        yield UPDATE, updated


def _differing_calls(a: Sequence[Sequence[str]], b: Sequence[Sequence[str]]) -> tuple[str, ...]:
    names = [x[0] for x, y in zip(a, b, strict=False) if x != y]
    longer = a if len(a) > len(b) else b
    return tuple(dict.fromkeys([*names, *(call[0] for call in longer[min(len(a), len(b)) :])]))
