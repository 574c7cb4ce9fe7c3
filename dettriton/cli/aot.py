"""``dettriton aot``: compile the GPU kernels before they are needed, for a GPU that need not be here."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import Any

import click

from dettriton.cli import CANNOT_RUN, _options
from dettriton.errors import InputError

BROKEN = 1

_TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
_SHOWN = 5


@click.command(short_help="Compile the GPU kernels ahead of time.")
@click.option("--target", type=click.Choice(_TARGETS), help="What to compile for; by default the GPU that is here.")
@click.option("--recipe", "recipes", multiple=True, help="What a training of this recipe launches. Repeatable.")
@click.option("--op", "ops", multiple=True, help="Only kernels with this in a name, such as softmax. Repeatable.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes at a time; by default the number of cores.")
@click.option("--report", type=click.Path(dir_okay=False), help="JSON file to write: what each compiled kernel takes.")
@_options.data_dir
@_options.as_json
@click.pass_context
def command(
    ctx: click.Context,
    target: str | None,
    recipes: tuple[str, ...],
    ops: tuple[str, ...],
    jobs: int | None,
    report: str | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Compile kernels into Triton's own cache (TRITON_CACHE_DIR) and check the code against the contract.

    With --recipe: every kernel that a training of that recipe launches on such a GPU, found from its shapes without
    computing anything. The training then compiles nothing, with the same versions of dettriton and Triton.

    Without: all kernels, each in the forms it declares. Many kernels have constants that shapes and layers choose,
    such as block and kernel sizes; a launch with others compiles its own form when it comes.

    Exit code 0 if all code keeps the contract, 1 if some breaks it, 2 when something cannot be compiled.
    """
    from dettriton.ops._precompile import require_compiler, this_target
    from dettriton.ops._precompile_jobs import compiled

    require_compiler()
    target = target or this_target()
    launches = _selected(_launches(recipes, target, data_dir), ops)
    jobs = min(jobs or os.cpu_count() or 1, len(launches))
    with _terminable(), closing(compiled(launches, target, jobs)) as arriving:
        outcomes = list(_shown(arriving, len(launches), target))
    summary = _summary(outcomes, target, recipes)
    if report is not None:
        _write(report, summary)
    if as_json:
        _options.print_json(summary)
    else:
        _print(summary)
    ctx.exit(CANNOT_RUN if summary["failed"] else BROKEN if summary["broken"] else 0)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends what is done within as Ctrl-C does."""
    from dettriton.train._interrupt import Terminated

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _launches(recipes: Iterable[str], target: str, data_dir: str | None) -> list[Any]:
    from dettriton import data
    from dettriton.ops._aot import all_variants
    from dettriton.ops._launch import Launch
    from dettriton.ops._precompile import gpu_of, variant_launch
    from dettriton.zoo import find_recipe

    found = []
    for name in recipes:
        from dettriton.train._rehearse import launches_of

        recipe = find_recipe(name)
        found += launches_of(recipe, data.describe(recipe.data.name, data_dir), gpu_of(target))
    if not recipes:
        found = [variant_launch(kernel, variant) for kernel, variant in all_variants()]
    return Launch.distinct(found)


def _selected(launches: list[Any], ops: tuple[str, ...]) -> list[Any]:
    if not ops:
        return launches
    named = [(launch, (launch.kernel, *(f.name for f in launch.functions()))) for launch in launches]
    for op in ops:
        if not any(op in name for _, names in named for name in names):
            known = ", ".join(sorted({launch.kernel for launch in launches}))
            raise InputError(
                f"no kernel has {op!r} in its name or in that of a function it applies; there are: {known}"
            )
    return [launch for launch, names in named if any(op in name for op in ops for name in names)]


def _shown(outcomes: Iterable[Any], total: int, target: str) -> Iterator[Any]:
    """The outcomes, with a bar on the standard error stream if that is a terminal."""
    if not sys.stderr.isatty():
        yield from outcomes
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(outcomes, total=total, description=f"compiling for {target}")


def _summary(outcomes: list[Any], target: str, recipes: tuple[str, ...]) -> dict[str, Any]:
    import triton

    rows = sorted((outcome.to_dict() for outcome in outcomes), key=lambda row: (row["kernel"], str(row["options"])))
    return {
        "target": target,
        "triton": triton.__version__,
        "cache": triton.knobs.cache.dir,
        "recipes": list(recipes),
        "compiled": sum(not row["cached"] and row["problem"] is None for row in rows),
        "cached": sum(row["cached"] for row in rows),
        "failed": sum(row["problem"] is not None for row in rows),
        "broken": sum(bool(row["violations"]) for row in rows),
        "kernels": rows,
    }


def _write(path: str, summary: dict[str, Any]) -> None:
    import json

    from dettriton.files import atomic_write

    atomic_write(path, json.dumps(summary, indent=1, sort_keys=True).encode() + b"\n")


def _print(summary: dict[str, Any]) -> None:
    rows = summary["kernels"]
    for name, count in sorted(Counter(row["kernel"] for row in rows).items()):
        click.echo(f"{name:32} {count:3} {_taken([row for row in rows if row['kernel'] == name])}")
    for row in [row for row in rows if row["problem"] or row["violations"]][:_SHOWN]:
        what = [f"does not compile: {row['problem']}"] if row["problem"] else row["violations"]
        click.echo(f"{row['kernel']} {row['options']}: {'; '.join(what)}")
    click.echo(
        f"{summary['compiled']} compiled for {summary['target']}, {summary['cached']} were in {summary['cache']}"
    )
    if not summary["recipes"]:
        click.echo(
            "A launch with other constants compiles its own form when it comes; --recipe NAME compiles them all."
        )
    broken = summary["failed"] + summary["broken"]
    click.echo(f"{broken} do not compile or break the contract" if broken else "all of them keep the contract")


def _taken(rows: list[dict[str, Any]]) -> str:
    """What the forms of one kernel take at most."""
    fine = [row for row in rows if row["problem"] is None]
    if not fine:
        return "do not compile"
    most = {key: max(row[key] for row in fine) for key in ("registers", "stack_bytes", "shared_bytes", "num_warps")}
    instructions = sorted({name for row in fine for name in row["instructions"]})
    return (
        f"{most['registers']:3} registers, {most['stack_bytes']} bytes of stack, {most['shared_bytes']} of shared memory, "
        f"{most['num_warps']} warps {' '.join(instructions)}"
    ).rstrip()
