"""Every op and every small zoo training on the CPU and on the GPU: the same bits, whatever the tiles and warps?

    python bench/gpu_check.py [--out FILE] [--data-dir DIR] [--steps N]

Each op case (op_cases.py) is computed on the CPU, on the GPU several times, and on the GPU by other launch plans
(tiles.py); each recipe of the zoo trains some steps on both, and the smallest releases are retrained in full on the
GPU; the negative controls (negative_controls.py) must be caught. Results are compared tensor by tensor.

Without a CUDA GPU the CPU half runs (every op case and the steps of each recipe), and with TRITON_INTERPRET=1 it
compares the interpreted kernels too. Entries whose data are not here are skipped, and named.
Exit code 0: no difference. 1: a difference, a control that was not caught, or a part that failed. 2: it cannot run.

On a GPU timings follow (gpu_timings.py), of the ops whose bits were right: they begin no case after --budget, ten minutes
with the bit tests. They lie in a results file of their own, that of `dettriton bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dettriton.errors import DettritonError, EngineError, InputError

NO_DIFFERENCE, DIFFERENCES, CANNOT_RUN = 0, 1, 2
NO_GPU = "no CUDA GPU: CPU half only"
REPEATS = 3
STEPS = 20
BUDGET = 600.0
LEAST_SECONDS = 60.0
"""For timings, even where the bit tests took all of the budget."""
RETRAINED = ("med_cnn.digits", "med_cnn.breastmnist")


def plan_parts(
    side: dict[str, Any] | None, data_dir: str | None, steps: int, recipes: list[str], ops: tuple[str, ...] = ()
) -> list[Any]:
    """The parts to run, the longest first.

    Args:
        side: what the CPU is compared with, as the fields of :class:`gpu_parts.Side`; None for nothing.
        data_dir: where the official data files are.
        steps: how many steps of each recipe to compare.
        recipes: the recipes' names.
        ops: the only ops whose cases are computed; none named for all of them.
    """
    from gpu_parts import Part, Side
    from tiles import DECLARED, PLANS

    other = None if side is None else Side(**side)
    gpu = other if other is not None and other.device == "cuda" else None
    plans = [DECLARED] if other is None else [DECLARED, *PLANS]
    compared = [Part("ops", p.name, other, repeats=REPEATS if gpu and p is DECLARED else 1, ops=ops) for p in plans]
    trained = [Part("steps", name, gpu, steps=steps, data_dir=data_dir) for name in recipes]
    if gpu is None:
        return [*compared, *trained]
    retrained = [Part("training", name, gpu, data_dir=data_dir) for name in RETRAINED]
    return [*compared, *retrained, *trained, Part("controls", side=gpu)]


def run_in_process(part: Any, timeout: float, threads: int) -> dict[str, dict[str, Any]]:
    """A part's outcomes from a process of its own; one FAILED outcome if the process dies or takes too long."""
    variables = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "part.json")
        command = [sys.executable, __file__, "--part", json.dumps(part.to_dict()), "--out", str(out)]
        try:
            done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            return {part.title: {"verdict": "FAILED", "problem": f"not done after {timeout:.0f} s"}}
        if done.returncode == 0 and out.exists():
            return json.loads(out.read_text(encoding="utf-8"))
        problem = " ".join(done.stderr.split())[-600:] or f"its process ended with {done.returncode}"
        return {part.title: {"verdict": "FAILED", "problem": problem}}


def run_all(parts: list[Any], jobs: int, timeout: float) -> dict[str, dict[str, dict[str, Any]]]:
    """All parts' outcomes by title; progress goes to the standard error stream."""
    from gpu_parts import is_good
    from rich.console import Console
    from rich.progress import Progress

    threads = max(1, (os.cpu_count() or 1) // jobs)
    with Progress(console=Console(stderr=True)) as progress, ThreadPoolExecutor(jobs) as pool:
        task = progress.add_task("parts", total=len(parts))

        def run(part: Any) -> tuple[str, dict[str, dict[str, Any]]]:
            outcomes = run_in_process(part, timeout, threads)
            bad = sum(not is_good([outcome]) for outcome in outcomes.values())
            progress.console.print(f"{part.title}: {len(outcomes)} checks, {bad} bad", highlight=False)
            progress.advance(task)
            return part.title, outcomes

        return dict(pool.map(run, parts))


def run_timings(
    outcomes: dict[str, dict[str, dict[str, Any]]], side: dict[str, Any], seconds: float, arguments: argparse.Namespace
) -> dict[str, dict[str, dict[str, Any]]]:
    """Time, one part after another, what passed; write the benchmark's results and return the parts' outcomes."""
    from gpu_parts import Side
    from gpu_timings import plan_timings, results
    from reporting import result_path, write_json

    parts = plan_timings(outcomes, Side(**side), seconds)
    parts = [part for part in parts if any(word in part.title for word in arguments.only or [""])]
    timed = run_all(parts, 1, arguments.timeout) if parts else {}
    if timed:
        content = results(timed, parts, "cuda")
        path = result_path("", content["environment"], "cuda")
        write_json(path if arguments.out is None else arguments.out.with_stem(f"{arguments.out.stem}-timings"), content)
    return timed


def report(title: str, parts: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Print how many checks of each part ended how, and everything that is not as it should be."""
    from gpu_parts import SKIPPED, is_good
    from reporting import print_table

    rows = []
    for part, outcomes in parts.items():
        verdicts = [outcome["verdict"] for outcome in outcomes.values()]
        rows.append((part, ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))))
    print_table(title, ("part", "checks"), rows)
    for part, outcomes in parts.items():
        for name, outcome in outcomes.items():
            if not is_good([outcome]) or outcome["verdict"] == SKIPPED:
                why = outcome.get("difference") or outcome.get("problem") or str(outcome)
                print(f"{outcome['verdict']}: {part}: {name}: {why}")


def check(arguments: argparse.Namespace) -> int:
    """Plan, run, write and report; returns the exit code.

    Raises:
        InputError: nothing is chosen.
        EngineError: the kernels are interpreted on a machine with a GPU.
    """
    import torch
    from gpu_parts import is_good, recipe_names
    from op_cases import CASES
    from reporting import header, result_path, write_json

    from dettriton.engine import interpreting

    unknown = {*arguments.ops} - {case.op for case in CASES}
    if unknown:
        raise InputError(f"there is no case of {', '.join(sorted(unknown))}; leave --ops out for all cases")
    if arguments.device == "cpu" or not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        side, device = ({"device": "cpu", "engine": "triton"} if interpreting() else None), "cpu"
    elif interpreting():
        raise EngineError("TRITON_INTERPRET=1 keeps the kernels off the GPU; unset it, or add --device cpu")
    else:
        side, device = {"device": "cuda"}, "cuda"
    content = header("gpu_check", device)
    parts = plan_parts(side, arguments.data_dir, arguments.steps, recipe_names(), tuple(arguments.ops))
    chosen = [part for part in parts if any(word in part.title for word in arguments.only or [""])]
    if not chosen:
        raise InputError(f"--only chooses no part; the parts are: {', '.join(part.title for part in parts)}")
    end = time.monotonic() + arguments.budget
    outcomes = run_all(chosen, arguments.jobs, arguments.timeout)
    if device == "cuda" and arguments.budget > 0:
        outcomes |= run_timings(outcomes, side, max(LEAST_SECONDS, end - time.monotonic()), arguments)
    good = all(is_good(found.values()) for found in outcomes.values())
    verdict = _verdict(good, device, side)
    path = arguments.out or result_path("gpu_check", content["environment"], device)
    restricted = [*arguments.ops, *(arguments.only or [])]
    write_json(path, content | {"verdict": verdict, "restricted to": restricted, "parts": outcomes})
    report("CPU against GPU" if device == "cuda" else NO_GPU, outcomes)
    print(f"{verdict}; written to {path}")
    return NO_DIFFERENCE if good else DIFFERENCES


def _verdict(good: bool, device: str, side: dict[str, Any] | None) -> str:
    if not good:
        return "differences or failures"
    if device == "cuda":
        return "no difference"
    return NO_GPU if side is None else f"{NO_GPU}; the interpreted kernels give the same bits"


def main(arguments: list[str] | None = None) -> int:
    """Run the check, or with ``--part`` one of its parts; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file; by default one in bench/results/ named after the device")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: the CPU half only")
    parser.add_argument("--data-dir", help="folder with the official data files; entries without data are skipped")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of each recipe to compare")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) // 2), help="parts at a time")
    parser.add_argument("--timeout", type=float, default=1200, help="seconds for one part")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds in all; timings take the rest, 0: none")
    parser.add_argument("--only", action="append", metavar="TEXT", help="only parts whose title holds TEXT")
    parser.add_argument("--ops", nargs="+", default=[], metavar="OP", help="only the cases of these ops")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    try:
        if parsed.part is None:
            return check(parsed)
        from gpu_parts import Part, run_part
        from reporting import write_json

        write_json(parsed.out, run_part(Part.from_dict(json.loads(parsed.part))))
        return NO_DIFFERENCE
    except (DettritonError, OSError) as error:
        print(f"dettriton: {error}", file=sys.stderr)
        return CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main())
