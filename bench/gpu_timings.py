"""The GPU check's timings: what ``dettriton bench`` measures, of the ops whose bits were right, within a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gpu_parts import COMPUTED, FAILED, SKIPPED, Part, Side, is_good

from dettriton.benchmarks.registry import chosen, op_names
from dettriton.benchmarks.reporting import BENCHMARK, header
from dettriton.benchmarks.runner import Measured, Procedure, measure
from dettriton.benchmarks.session import DEFAULT_REPEATS, findings
from dettriton.benchmarks.timing import clock_of
from dettriton.benchmarks.variants import allow_deterministic_products

SHARES = {"steps of released networks": 0.25, "large shapes": 0.4, "steps of large networks": 0.2, "zoo's shapes": 0.15}
"""The parts, what matters most first, and their share of the time that is left."""

SIZES = {"steps of released networks": "zoo", "zoo's shapes": "zoo"}
CHECKED_AS = {"adamw": "optim"}
STEP = "step"
RATES = "what the machine can do"
LEFT = "cases that no time was left for"

Outcomes = Mapping[str, Mapping[str, Mapping[str, Any]]]


def plan_timings(outcomes: Outcomes, side: Side, seconds: float) -> list[Part]:
    """The parts that time what was right.

    Args:
        outcomes: of the bit checks, by part.
        side: the GPU.
        seconds: for all of them together.
    """
    passed = passed_ops(outcomes)
    found = []
    for title, share in SHARES.items():
        ops = tuple(op for op in passed if (op == STEP) == title.startswith("steps"))
        if ops:
            found.append(Part("timings", title, side, ops=ops, seconds=share * seconds))
    return found


def passed_ops(outcomes: Outcomes) -> list[str]:
    """The benchmark's ops every one of whose checks was good; whole steps count where all compared trainings did."""
    bad, seen = set(), set()
    for title, checks in outcomes.items():
        kind = title.partition(" ")[0]
        for name, outcome in checks.items():
            op = name.partition("/")[0] if kind == "ops" else STEP
            if kind in ("ops", "steps", "training") and outcome["verdict"] != SKIPPED:
                seen.add(op)
                bad |= set() if is_good([outcome]) else {op}
        if kind == "ops" and title in checks:
            # its process died, so that no op of it is known to be right
            return []
    return [op for op in op_names() if CHECKED_AS.get(op, op) in seen - bad]


def measure_part(part: Part) -> dict[str, dict[str, Any]]:
    """One outcome a case, each with its row, and one with the machine's rates."""
    device = part.side.device
    if device == "cuda":
        allow_deterministic_products()
    cases = chosen((SIZES.get(part.subject, "large"),), part.ops)
    measured = Measured({}, [], [])
    procedure = Procedure(device, clock_of(device), DEFAULT_REPEATS[device], seconds=part.seconds)
    names: list[str] = []
    measure(cases, procedure, measured, lambda case: names.append(case.name))
    timed = {
        name: {"verdict": row["bits"], "row": row} | ({"problem": row["problem"]} if "problem" in row else {})
        for name, row in zip(names, measured.rows, strict=True)
    }
    found = {RATES: {"verdict": COMPUTED, "rates": measured.rates}, **timed}
    if measured.left:
        found[LEFT] = {"verdict": SKIPPED, "problem": f"{len(measured.left)} cases", "left": measured.left}
    return found


def results(outcomes: Outcomes, parts: Iterable[Part], device: str) -> dict[str, Any]:
    """The outcomes of these parts as the content of a results file of the benchmark."""
    measured = Measured({}, [], [])
    died = False
    for part in parts:
        for outcome in outcomes[part.title].values():
            measured.rates |= outcome.get("rates", {})
            measured.left += outcome.get("left", [])
            if "row" in outcome:
                measured.rows.append(outcome["row"])
            died |= outcome["verdict"] == FAILED and "row" not in outcome
    content = header(BENCHMARK, device) | {"sizes": ["zoo", "large"], "restricted to": []}
    content |= {"repeats": DEFAULT_REPEATS[device], "interrupted": died}
    return content | findings(measured)
