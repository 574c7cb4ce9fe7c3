"""Two runs side by side: the first step, and in it the first phase, where they compute different bits."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from dettriton.compare._observed import Observation, ObservedRun
from dettriton.compare._state import BUFFERS, OPTIMIZER, PARAMETERS, differing_groups
from dettriton.digest import Difference, all_differences
from dettriton.train.trace import float_bits

INITIAL, ORDER, INPUTS, LABELS, FORWARD = "initial weights", "data order", "inputs", "labels", "forward"
LOSS, GRADIENT, UPDATE, UNREPEATED = "loss", "gradient", "optimizer update", "not repeatable"


@dataclass(frozen=True)
class PhaseDifference:
    """The first difference of two runs.

    Attributes:
        step: counted from 0; None for the initial weights.
        phase: where in the step: ``data order``, ``inputs`` (augmentation included), ``labels``, ``forward`` (of a
            module), ``buffers``, ``loss``, ``gradient`` (of a parameter), ``optimizer update`` (of a parameter) or
            ``optimizer state``. ``initial weights`` come before step 0; ``not repeatable`` is a step whose
            repetition gave other bits.
        name: of the module, parameter, buffer or state.
        detail: a sentence part with what differs.
        differing, elements, max_ulp: see :class:`dettriton.digest.Difference`.
    """

    step: int | None
    phase: str
    name: str
    detail: str
    differing: int = 0
    elements: int = 0
    max_ulp: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    def __str__(self) -> str:
        where = "before step 0" if self.step is None else f"step {self.step}"
        return f"{where}, {self.phase}{f' of {self.name}' if self.name else ''}: {self.detail}"


def first_phase(
    a: ObservedRun,
    b: ObservedRun,
    begin: int,
    end: int,
    after_step: Callable[[int, float, float], None] = lambda step, a, b: None,
) -> PhaseDifference | None:
    """Compute steps ``begin`` to ``end - 1`` of both runs until their states or losses differ.

    The first such step is undone and computed once more under observation, to name the phase.

    Args:
        a, b: both in the state before step ``begin``.
        begin, end: steps, counted from 0.
        after_step: called with each step and its two losses, the runs in the state after it.
    """
    groups = differing_groups(a.groups(), b.groups())
    if groups:
        found = next(iter(groups.values()))
        return _named(None, INITIAL, found[0].name, found)
    for step in range(begin, end):
        before = a.snapshot(), b.snapshot()
        losses = a.step(step), b.step(step)
        after_step(step, *losses)
        # by bits: +0 and -0 are equal numbers
        if float_bits(losses[0]) != float_bits(losses[1]) or differing_groups(a.groups(), b.groups()):
            a.restore(before[0])
            b.restore(before[1])
            return _phase_of(a, b, step)
    return None


def _phase_of(a: ObservedRun, b: ObservedRun, step: int) -> PhaseDifference:
    seen = a.observe(step), b.observe(step)
    groups = differing_groups(a.groups(), b.groups())
    unrepeated = PhaseDifference(step, UNREPEATED, "", "the runs differed, and computed the same bits when repeated")
    return next(_phases(step, *seen, groups, (a.learning_rate(step), b.learning_rate(step))), unrepeated)


def _phases(
    step: int, a: Observation, b: Observation, groups: Mapping[str, list[Difference]], rates: tuple[float, float]
) -> Iterator[PhaseDifference]:
    order = all_differences({"": a.chosen}, {"": b.chosen})
    if order:
        yield PhaseDifference(step, ORDER, "", _other_samples(a.chosen, b.chosen), order[0].differing, len(a.chosen))
    for phase, x, y in ((INPUTS, a.inputs, b.inputs), (LABELS, a.labels, b.labels)):
        yield from _whole(step, phase, x, y)
    yield from _forward(step, a, b)
    if BUFFERS in groups:
        yield _named(step, BUFFERS, groups[BUFFERS][0].name, groups[BUFFERS])
    yield from _whole(step, LOSS, a.loss, b.loss)
    found = all_differences(a.gradients, b.gradients)
    if found:
        by_name = {d.name: d for d in found}
        first = next(name for name in [*a.gradients, *b.gradients] if name in by_name)
        yield _named(step, GRADIENT, first, [by_name.pop(first), *by_name.values()])
    if PARAMETERS in groups:
        rate = "" if rates[0] == rates[1] else f"; the learning rate is {rates[0]!r} in A, {rates[1]!r} in B"
        yield _named(step, UPDATE, groups[PARAMETERS][0].name, groups[PARAMETERS], rate)
    if OPTIMIZER in groups:
        yield _named(step, OPTIMIZER, groups[OPTIMIZER][0].name, groups[OPTIMIZER])


def _forward(step: int, a: Observation, b: Observation) -> Iterator[PhaseDifference]:
    for x, y in zip(a.calls, b.calls, strict=False):
        kind = f" ({x.kind} in A, {y.kind} in B)" if x.kind != y.kind else f" ({x.kind})"
        if x.name != y.name:
            yield PhaseDifference(step, FORWARD, x.name, f"A calls {x.name} where B calls {y.name}")
            return
        found = all_differences(*({str(i): t for i, t in enumerate(call.outputs)} for call in (x, y)))
        if found:
            before = "" if x.inputs == y.inputs else "; its inputs differ already, so what ran before it is the cause"
            first = found[0]
            detail = f"{first.detail}{kind}{before}"
            name = x.name or "the model"
            yield PhaseDifference(step, FORWARD, name, detail, first.differing, first.elements, first.max_ulp)
            return
    if len(a.calls) != len(b.calls):
        detail = f"{len(a.calls)} calls of modules in A, {len(b.calls)} in B"
        yield PhaseDifference(step, FORWARD, "the model", detail)


def _whole(step: int, phase: str, a: torch.Tensor, b: torch.Tensor) -> Iterator[PhaseDifference]:
    found = all_differences({"": a}, {"": b})
    if found:
        yield _named(step, phase, "", found)


def _named(step: int | None, phase: str, name: str, found: list[Difference], remark: str = "") -> PhaseDifference:
    first, others = found[0], len(found) - 1
    more = f"; {others} other tensor{'s' if others > 1 else ''} too" if others else ""
    return PhaseDifference(
        step, phase, name, f"{first.detail}{more}{remark}", first.differing, first.elements, first.max_ulp
    )


def _other_samples(a: torch.Tensor, b: torch.Tensor) -> str:
    first, second = a.tolist(), b.tolist()
    if len(first) != len(second):
        return f"the batch has {len(first)} samples in A, {len(second)} in B"
    places = [i for i, (x, y) in enumerate(zip(first, second, strict=True)) if x != y]
    i = places[0]
    return (
        f"{len(places)} of {len(first)} samples differ; at place {i} of the batch, sample {first[i]} in A, "
        f"{second[i]} in B"
    )
