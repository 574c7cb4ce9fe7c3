"""The parts of the GPU check, each run in a process of its own: a kernel that crashes ends one part, not the check."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from op_case import Case
from op_cases import CASES
from tiles import DECLARED, PLANS, Plan, launched_by

from dettriton import data, zoo
from dettriton.digest import digest, first_difference
from dettriton.errors import InputError
from dettriton.train import Recipe, load_recipe
from dettriton.train._run import Run
from dettriton.train.trace import float_bits

SAME, DIFFERENT, COMPUTED, SKIPPED, FAILED = "same", "DIFFERENT", "computed", "skipped", "FAILED"
RECIPES = Path(zoo.__file__).parent / "recipes"


@dataclass(frozen=True)
class Side:
    """Where the other half of a comparison is computed: a GPU, or the interpreted kernels on the CPU."""

    device: str
    engine: str | None = None

    @property
    def interpreted(self) -> bool:
        return self.engine == "triton"


@dataclass(frozen=True)
class Part:
    """A piece of work for one process; ``side`` is None for the CPU half alone.

    Attributes:
        kind: ``"ops"``, ``"steps"``, ``"training"``, ``"controls"`` or ``"timings"``.
        subject: the plan's name, the recipe's name, or nothing.
        side: what the CPU is compared with.
        steps: training steps of a ``"steps"`` part.
        repeats: how often the ops are computed on the other side.
        data_dir: for :func:`dettriton.data.load`.
        ops: of an ``"ops"`` or ``"timings"`` part, the only ops whose cases are computed; none named for all of them.
        seconds: after which a ``"timings"`` part begins no further case.
    """

    kind: str
    subject: str = ""
    side: Side | None = None
    steps: int = 0
    repeats: int = 1
    data_dir: str | None = None
    ops: tuple[str, ...] = ()
    seconds: float = 0

    @property
    def title(self) -> str:
        return f"{self.kind} {self.subject}".strip()

    def to_dict(self) -> dict[str, Any]:
        """As JSON data; :meth:`from_dict` gives it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Part:
        """The part that :meth:`to_dict` described."""
        side = Side(**fields["side"]) if fields["side"] else None
        return cls(**{**fields, "side": side, "ops": tuple(fields["ops"])})


def run_part(part: Part) -> dict[str, dict[str, Any]]:
    """The outcome of every check of a part by name; each has a ``"verdict"``."""
    kinds = {"ops": _ops, "steps": _steps, "training": _training, "controls": _controls, "timings": _timings}
    return kinds[part.kind](part)


def recipe_names() -> list[str]:
    """The recipes whose first steps are compared: the released ones, which are small enough for a CPU."""
    return zoo.names()


def chosen_cases(side: Side | None, plan: Plan, ops: tuple[str, ...] = ()) -> Iterator[Case]:
    """All cases, or those of ``ops``.

    Under the interpreter not the large ones, and one for each op where the plan is not the declared.
    """
    seen: set[str] = set()
    for case in CASES:
        if ops and case.op not in ops:
            continue
        if side is not None and side.interpreted:
            if case.large or (plan is not DECLARED and case.op in seen):
                continue
            seen.add(case.op)
        yield case


def _ops(part: Part) -> dict[str, dict[str, Any]]:
    plan = next(p for p in (DECLARED, *PLANS) if p.name == part.subject)
    with launched_by(plan):
        cases = chosen_cases(part.side, plan, part.ops)
        return {case.name: compare_case(case, part.side, part.repeats) for case in cases}


def compare_case(case: Case, side: Side | None, repeats: int = 1) -> dict[str, Any]:
    """One case on the CPU's torch engine and ``repeats`` times on the other side."""
    expected = case.results("cpu", "torch")
    outcome: dict[str, Any] = {"digest": digest(expected), "verdict": COMPUTED}
    if side is None:
        return outcome
    for _ in range(repeats):
        try:
            got = case.results(side.device, side.engine)
        except Exception as error:  # whatever a GPU stack raises belongs in the report
            return outcome | {"verdict": FAILED, "problem": _one_line(error)}
        difference = first_difference(expected, got)
        if difference is not None:
            return outcome | {"verdict": DIFFERENT, "digest there": digest(got), "difference": str(difference)}
    return outcome | {"verdict": SAME}


def _steps(part: Part) -> dict[str, dict[str, Any]]:
    recipe = load_recipe(RECIPES / f"{part.subject}.toml")
    name = f"{part.subject}, first {part.steps} steps"
    splits = _splits(recipe, part.data_dir)
    if isinstance(splits, str):
        return {name: {"verdict": SKIPPED, "problem": splits}}
    started = time.monotonic()
    expected = first_steps(Run(recipe, splits, "cpu"), part.steps)
    outcome = {"digest": digest(expected.state), "loss": expected.losses[-1], "verdict": COMPUTED}
    if part.side is not None:
        got = first_steps(Run(recipe, splits, part.side.device), part.steps)
        outcome |= _compare_steps(expected, got)
    return {name: outcome | {"seconds": round(time.monotonic() - started, 1)}}


@dataclass(frozen=True)
class Steps:
    """The first steps of a training: the bits of each loss, every tensor's digest after each step, and the state."""

    losses: list[str]
    tensors: list[dict[str, str]]
    state: dict[str, torch.Tensor]


def first_steps(run: Run, count: int) -> Steps:
    """Compute ``count`` steps, or all there are."""
    losses, tensors = [], []
    for step in range(min(count, run.total_steps)):
        losses.append(float_bits(run.step(step)))
        tensors.append(run.tensor_digests())
    return Steps(losses, tensors, run.state())


def _compare_steps(expected: Steps, got: Steps) -> dict[str, Any]:
    for step, (a, b) in enumerate(zip(expected.tensors, got.tensors, strict=True)):
        name = next((name for name in sorted(a) if a[name] != b.get(name)), None)
        loss = expected.losses[step] != got.losses[step]
        if name is not None or loss:
            where = f"step {step}: " + ("the loss" if loss else f"tensor {name}")
            at_the_end = first_difference(expected.state, got.state)
            return {"verdict": DIFFERENT, "digest there": digest(got.state), "difference": f"{where}; {at_the_end}"}
    return {"verdict": SAME}


def _training(part: Part) -> dict[str, dict[str, Any]]:
    """A whole training on the other side, compared with the release."""
    name = f"{part.subject}, retrained"
    splits = _splits(zoo.recipe(part.subject), part.data_dir)
    if isinstance(splits, str):
        return {name: {"verdict": SKIPPED, "problem": splits}}
    found = zoo.verify(part.subject, part.side.device, part.data_dir, progress=False)
    digests = {what: {"released": expected, "got": got} for what, (expected, got) in found.digests.items()}
    outcome = {"digests": digests, "seconds": round(found.result.seconds, 1)}
    if found.matches:
        return {name: outcome | {"verdict": SAME}}
    first = next(what for what, (expected, got) in found.digests.items() if expected != got)
    difference = f"not the released {first}; {found.first_difference}"
    return {name: outcome | {"verdict": DIFFERENT, "difference": difference}}


def _controls(part: Part) -> dict[str, dict[str, Any]]:
    from negative_controls import CONTROLS, run_control

    return {control.name: _reported(lambda c=control: run_control(c, part.side.device)) for control in CONTROLS}


def _timings(part: Part) -> dict[str, dict[str, Any]]:
    from gpu_timings import measure_part

    return measure_part(part)


def _reported(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return check()
    except Exception as error:  # whatever a GPU stack raises belongs in the report
        return {"verdict": FAILED, "problem": _one_line(error)}


def _splits(recipe: Recipe, data_dir: str | None) -> Any:
    try:
        return data.load(recipe.data.name, data_dir)
    except InputError as error:
        return _one_line(error)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


def is_good(outcomes: Iterable[dict[str, Any]]) -> bool:
    """Whether no check found a difference or failed."""
    return all(outcome["verdict"] in (SAME, COMPUTED, SKIPPED, "caught") for outcome in outcomes)
