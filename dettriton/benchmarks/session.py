"""One benchmark from the choice of cases to the results file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from dettriton.benchmarks.case import Case
from dettriton.benchmarks.registry import chosen
from dettriton.benchmarks.reporting import BENCHMARK, LOAD, header, result_path, results_folder, write_json
from dettriton.benchmarks.runner import SAME, Measured, Procedure, Row, measure
from dettriton.benchmarks.tables import COLUMNS, case_name, lines
from dettriton.benchmarks.timing import LEAST_REPEATS, clock_of
from dettriton.benchmarks.variants import allow_deterministic_products
from dettriton.errors import EngineError, InputError
from dettriton.train._run import find_device

DEFAULT_SIZES = {"cpu": ("zoo",), "cuda": ("zoo", "large")}
DEFAULT_REPEATS = {"cpu": 5, "cuda": 20}
WAITING = "OMP_WAIT_POLICY"
"""How idle CPU threads wait, stock torch's too; the command line sets it to PASSIVE where nobody set it."""

SAME_BITS, WRONG_BITS = "the same bits in every case", "WRONG BITS OR FAILURES"


@dataclass(frozen=True)
class Choice:
    """What to measure; see :func:`dettriton.benchmarks.registry.chosen`. Empty means the default, or no restriction."""

    sizes: tuple[str, ...] = ()
    ops: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()

    @property
    def restricted(self) -> bool:
        return bool(self.ops or self.only or self.entries)


@dataclass(frozen=True)
class Outcome:
    """A benchmark that is written.

    Attributes:
        path: its file.
        content: what the file holds.
        interrupted: whether a person stopped it.
    """

    path: Path
    content: dict[str, Any]
    interrupted: bool

    @property
    def good(self) -> bool:
        return self.content["verdict"] == SAME_BITS


def run_session(
    choice: Choice,
    device: str = "cpu",
    repeats: int | None = None,
    threads: int | None = None,
    seconds: float | None = None,
    path: Path | None = None,
) -> Outcome:
    """Measure, and write what is done even when a person stops it.

    Args:
        choice: what to measure.
        device: ``"cpu"`` or ``"cuda"``.
        repeats: repetitions of every variant.
        threads: of the CPU; by default torch's.
        seconds: after so many no further case begins.
        path: the JSON file; by default one named after the device, in bench/results of a checkout where everything of
            the zoo's size was measured, else in the current directory.

    Raises:
        InputError: a choice names nothing, fewer than three repetitions are asked for, or the file cannot be written.
        EngineError: the device is not here, or its kernels are interpreted.
    """
    if repeats is not None and repeats < LEAST_REPEATS:
        raise InputError(f"quantiles need at least {LEAST_REPEATS} repetitions, got --repeats {repeats}")
    where = find_device(device).type
    _require_real_kernels(where)
    if where == "cuda":
        allow_deterministic_products()
    _require_writable((path or Path("here")).parent)
    sizes = choice.sizes or DEFAULT_SIZES[where]
    cases = chosen(sizes, choice.ops, choice.only, choice.entries)
    measured = Measured({}, [], [])
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        content = header(BENCHMARK, where) | {LOAD: load_average()}
        procedure = Procedure(where, clock_of(where), repeats or DEFAULT_REPEATS[where], seconds=seconds)
        interrupted = _measure(cases, procedure, measured)
    finally:
        torch.set_num_threads(before)
    whole = not (choice.restricted or interrupted or measured.left) and "zoo" in sizes and measured.good
    content |= {
        "sizes": [*sizes],
        "restricted to": [*choice.ops, *choice.only, *choice.entries],
        "repeats": procedure.repeats,
        WAITING: os.environ.get(WAITING),
        "interrupted": interrupted,
        **findings(measured),
    }
    path = path or result_path("", content["environment"], where, results_folder() if whole else Path())
    write_json(path, content)
    return Outcome(path, content, interrupted)


def load_average() -> float | None:
    """How many processes wanted to run in the last minute, where the system tells."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def findings(measured: Measured) -> dict[str, Any]:
    """What a results file says of the cases that were measured."""
    return {
        "verdict": SAME_BITS if measured.good else WRONG_BITS,
        "rates": measured.rates,
        "left": measured.left,
        "rows": measured.rows,
    }


def print_rows(rows: Sequence[Row], title: str, console: Console | None = None) -> None:
    """Print every case, and in full what is wrong."""
    table = Table(*(Column(name, overflow="fold") for name in COLUMNS), title=title)
    for row in rows:
        for cells in lines(row):
            table.add_row(*cells)
    console = console or Console()
    Console(width=max(150, console.width), file=console.file).print(table)
    for row in rows:
        if row["bits"] != SAME:
            console.print(f"BITS {row['bits']}: {case_name(row)}: {row['problem']}", markup=False, soft_wrap=True)


def _require_real_kernels(device: str) -> None:
    from dettriton.engine import interpreting

    if device == "cuda" and interpreting():
        raise EngineError("TRITON_INTERPRET=1 keeps the kernels off the GPU; unset it, or measure --device cpu")


def _require_writable(folder: Path) -> None:
    """So that no measurement is lost for want of a place."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise InputError(f"results cannot be written to {folder.resolve()}; name a file elsewhere with --json")


def _measure(cases: list[Case], procedure: Procedure, measured: Measured) -> bool:
    """Whether a person stopped it."""
    with _progress(len(cases)) as begun:
        try:
            measure(cases, procedure, measured, begun)
        except KeyboardInterrupt:
            return True
    return False


@contextmanager
def _progress(total: int) -> Iterator[Callable[[Case], None]]:
    """What is told of each case before it."""
    done, name = (BarColumn(), MofNCompleteColumn()), TextColumn("{task.fields[name]}")
    with Progress(*done, TimeElapsedColumn(), name, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total, name="", completed=-1)

        def begun(case: Case) -> None:
            progress.update(task, advance=1, name=case.name)

        yield begun
