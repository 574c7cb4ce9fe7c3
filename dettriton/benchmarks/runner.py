"""Measuring cases: first the bits, and only where they are right the times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from dettriton.benchmarks.bits import difference, look
from dettriton.benchmarks.case import Bench, Case, Tensors, Work
from dettriton.benchmarks.memory import peak_bytes
from dettriton.benchmarks.rates import int8_products, measure_rates
from dettriton.benchmarks.timing import Clock, Times, interleaved, significant
from dettriton.benchmarks.variants import Variant

SAME, DIFFERENT, FAILED = "same", "DIFFERENT", "FAILED"

Row = dict[str, Any]


@dataclass(frozen=True)
class Procedure:
    """How to measure.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``.
        clock: measures a call.
        repeats: repetitions of every variant.
        brief: seconds up to which short work is repeated more often.
        seconds: after so many no further case begins; None for no limit.
    """

    device: str
    clock: Clock
    repeats: int
    brief: float = 0.3
    seconds: float | None = None


@dataclass
class Measured:
    """What is done so far; an interrupted run leaves it as it is.

    Attributes:
        rates: of :func:`dettriton.benchmarks.rates.measure_rates`.
        rows: one a case.
        left: names of the cases that no time was left for.
    """

    rates: dict[str, float]
    rows: list[Row]
    left: list[str]

    @property
    def good(self) -> bool:
        """Whether all bits are right."""
        return all(row["bits"] == SAME for row in self.rows)


def measure(cases: Iterable[Case], procedure: Procedure, measured: Measured, begun: Callable[[Case], None]) -> None:
    """Measure cases into ``measured``; ``begun`` is told of each case before it.

    A KeyboardInterrupt is let through; every row is then whole.
    """
    end = None if procedure.seconds is None else time.monotonic() + procedure.seconds
    measured.rates |= measure_rates(procedure.device, procedure.clock)
    for case in cases:
        if end is not None and time.monotonic() > end:
            measured.left.append(case.name)
            continue
        begun(case)
        measured.rows.append(measure_case(case, procedure, measured.rates))


def measure_case(case: Case, procedure: Procedure, rates: dict[str, float]) -> Row:
    """One row: the case, the verdict on its bits, and each variant's figures, without times where bits are wrong."""
    row: Row = {"op": case.op, "shapes": case.shapes, "what": case.what, "size": case.size, "dtype": "float32"}
    row |= {"entry": case.entry} if hasattr(case, "entry") else {}
    try:
        return row | _figures(case, procedure, rates)
    except Exception as error:  # whatever a GPU stack raises belongs in the report
        return row | {"bits": FAILED, "problem": _one_line(error), "variants": {}, "ratios": {}}
    finally:
        if procedure.device == "cuda":
            torch.cuda.empty_cache()


def _figures(case: Case, procedure: Procedure, rates: dict[str, float]) -> Row:
    bench = case.bench(procedure.device)
    found: dict[str, dict[str, Any]] = {}
    works: dict[str, tuple[Variant, Work]] = {}
    digests: dict[str, str] = {}
    traffic = None
    for variant in case.variants(procedure.device):
        try:
            work = bench.work(variant)
            results, found[variant.name], wrong = _bits(bench, work, variant, procedure.device, digests)
        except RuntimeError as error:
            if variant.ours:
                raise
            found[variant.name] = {"refused": _one_line(error)}
            continue
        if wrong is not None:
            return {"bits": DIFFERENT, "problem": f"{variant.name}: {wrong}", "variants": found, "ratios": {}}
        works[variant.name] = (variant, work)
        traffic = work.traffic(results)
    times = _times(works, procedure)
    for name, (variant, work) in works.items():
        figures = found[name]
        figures |= times[name].to_dict() | _memory(variant, work, procedure.device)
        figures |= _speed(case, variant, times[name].median, traffic, rates)
    return {"bits": SAME, "digests": digests, "variants": found, "ratios": _ratios(works, times)}


def _bits(
    bench: Bench, work: Work, variant: Variant, device: str, digests: dict[str, str]
) -> tuple[Tensors, dict[str, Any], str | None]:
    looks = look(work, variant, device)
    wrong = None
    if variant.ours:
        wrong, digests[variant.name] = difference(looks, bench, variant, device)
    return looks.distinct[0], {"distinct": len(looks.distinct)}, wrong


def _times(works: dict[str, tuple[Variant, Work]], procedure: Procedure) -> dict[str, Times]:
    def run(variant: Variant, work: Work) -> Callable[[], None]:
        def timed() -> None:
            with variant.settings():
                work()

        return timed

    runs = {name: run(variant, work) for name, (variant, work) in works.items()}
    return interleaved(runs, procedure.clock, procedure.repeats, procedure.brief)


def _memory(variant: Variant, work: Work, device: str) -> dict[str, int]:
    found = {}
    with variant.settings():
        kept = work.kept()
        if kept is not None:
            found["kept_bytes"] = kept
        if device == "cuda":
            found["peak_bytes"] = peak_bytes(work)
    return found


def _speed(
    case: Case, variant: Variant, seconds: float, traffic: int | None, rates: dict[str, float]
) -> dict[str, float]:
    """Rates, and the share of what the machine can do: of its int8 products where that is known, else of copying."""
    found = {}
    if traffic:
        found["gb_per_s"] = significant(traffic / seconds / 1e9)
    if case.flops:
        found["tflop_per_s"] = significant(case.flops / seconds / 1e12)
    if case.flops and variant.ours and "int8_top_per_s" in rates:
        peak = rates["int8_top_per_s"] / int8_products(variant.precision)
        found["share_of_int8"] = significant(found["tflop_per_s"] / peak)
    elif traffic and not case.products:
        found["share_of_copy"] = significant(found["gb_per_s"] / rates["copy_gb_per_s"])
    return found


def _ratios(works: dict[str, tuple[Variant, Work]], times: dict[str, Times]) -> dict[str, dict[str, float]]:
    """For each of our variants and each baseline: its median time divided by ours, so that more than 1 is faster."""
    ours, baselines = ([n for n, (v, _) in works.items() if v.ours is kind] for kind in (True, False))
    return {o: {b: significant(times[b].median / times[o].median) for b in baselines} for o in ours}


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
