"""What whole training steps on a CPU gain from threads, ours beside stock torch's, all taking turns in one loop.

    python bench/thread_scaling.py [--threads N ...] [--entry NAME ...] [--repeats N] [--waiting HOW] [--out FILE]

Our results must be the same bits with every number of threads; else nothing is written and the exit code is 1.
OpenMP's threads, which torch's operations use, wait asleep (``passive``, what the ``dettriton`` command sets) or, by
torch's ``default``, awake for a while: quicker for operations that follow one another, slower for loops beside them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from reporting import header, result_path, write_json

from dettriton.benchmarks.bits import threads
from dettriton.benchmarks.case import WHOLE, Case, Work
from dettriton.benchmarks.registry import chosen
from dettriton.benchmarks.reporting import LOAD
from dettriton.benchmarks.session import DEFAULT_REPEATS, WAITING, load_average
from dettriton.benchmarks.timing import LEAST_REPEATS, Clock, clock_of, interleaved, significant
from dettriton.benchmarks.variants import PRECISIONS, STOCK, Variant
from dettriton.digest import digest
from dettriton.errors import DettritonError, InputError, IntegrityError

BENCHMARK = "threads"
HIGH = PRECISIONS[0]
COLUMNS = ("training step of", "ours, ms", "stock, ms", "ours: x 1 thread", "stock: x 1 thread")


def measured(case: Case, counts: Sequence[int], repeats: int, clock: Clock) -> dict[str, Any]:
    """One entry: for ours and for stock torch the milliseconds by number of threads.

    Raises:
        IntegrityError: our bits depend on the threads.
    """
    bench = case.bench("cpu")
    works = {name: bench.work(Variant(name, ours=name == HIGH)) for name in (HIGH, STOCK)}
    digests = {count: _digest(works[HIGH], count) for count in counts}
    if len(set(digests.values())) != 1:
        raise IntegrityError(f"the bits of {case.name} depend on the number of threads: {digests}")
    runs = {(name, count): _run(work, count) for name, work in works.items() for count in counts}
    times = interleaved({f"{name}, {count}": run for (name, count), run in runs.items()}, clock, repeats, brief=0.0)
    return {"entry": case.shapes, "digest": digests[counts[0]]} | {
        name: {str(count): times[f"{name}, {count}"].to_dict() for count in counts} for name in works
    }


def _run(work: Work, count: int) -> Callable[[], None]:
    def run() -> None:
        with threads(count):
            work()

    return run


def _digest(work: Work, count: int) -> str:
    with threads(count):
        return digest({name: y.detach() for name, y in work.results(WHOLE).items()})


def table(content: dict[str, Any]) -> str:
    """Markdown: a row for each entry; times with 1 and with the most threads, and how many times faster the latter is."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for row in content["rows"]:
        name, _, batch = row["entry"].partition(", ")
        cells, gains = [], []
        for variant in (HIGH, STOCK):
            few, *_, many = row[variant].values()
            cells.append(f"{few['median_ms']:.1f} to {many['median_ms']:.1f}")
            gains.append(f"{significant(few['median_ms'] / many['median_ms']):.2f}")
        lines.append(f"| {' | '.join((f'`{name}`, {batch}', *cells, *gains))} |")
    facts, counts = content["environment"], content["threads"]
    waiting = "asleep" if content[WAITING] == "PASSIVE" else "awake, as torch has them by default"
    title = (
        f"**{facts['cpu']}, {counts[0]} to {counts[-1]} threads**, torch {facts['packages']['torch']}; the same bits. "
        f"OpenMP's threads wait {waiting}."
    )
    return "\n".join([title, "", *lines])


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    most = torch.get_num_threads()
    parser.add_argument("--threads", nargs="+", type=int, default=[1, most], help="numbers of threads, ascending")
    parser.add_argument("--entry", action="append", default=[], metavar="NAME", help="only this zoo entry")
    parser.add_argument("--repeats", type=int, default=DEFAULT_REPEATS["cpu"])
    parser.add_argument("--waiting", choices=("passive", "default"), default="passive", help="of OpenMP's threads")
    parser.add_argument("--out", type=Path, help="JSON file; by default one in bench/results/ named after the CPU")
    return parser.parse_args(arguments)


def _wait_as_asked() -> None:
    """Begin again with the environment asked for, unless it is there: OpenMP reads it when torch is loaded."""
    wanted = {WAITING: "PASSIVE"} if _parsed(None).waiting == "passive" else {}
    if os.environ.get(WAITING) != wanted.get(WAITING):
        others = {name: value for name, value in os.environ.items() if name != WAITING}
        os.execve(sys.executable, [sys.executable, *sys.argv], others | wanted)


def main(arguments: list[str] | None = None, clock: Clock | None = None) -> int:
    """Measure, write and print; returns the exit code: 1 for bits that depend on threads, 2 where it cannot run."""
    parsed = _parsed(arguments)
    try:
        counts = sorted(set(parsed.threads))
        if len(counts) < 2 or counts[0] < 1 or parsed.repeats < LEAST_REPEATS:
            raise InputError(f"name two numbers of threads above 0, and at least {LEAST_REPEATS} --repeats")
        content = header(BENCHMARK) | {LOAD: load_average(), "threads": counts, WAITING: os.environ.get(WAITING)}
        cases = chosen(("zoo",), ("step",), (), parsed.entry)
        content["rows"] = [measured(case, counts, parsed.repeats, clock or clock_of("cpu")) for case in cases]
        path = parsed.out or result_path(f"{BENCHMARK}-{parsed.waiting}", content["environment"])
        write_json(path, content)
    except IntegrityError as error:
        print(f"dettriton: {error}", file=sys.stderr)
        return 1
    except (DettritonError, OSError) as error:
        print(f"dettriton: {error}", file=sys.stderr)
        return 2
    print(f"{table(content)}\n\nwritten to {path}")
    return 0


if __name__ == "__main__":
    _wait_as_asked()
    sys.exit(main())
