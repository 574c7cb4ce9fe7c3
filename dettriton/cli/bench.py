"""``dettriton bench``: how fast training is here beside stock torch, told only where the bits are right."""

from pathlib import Path

import click

from dettriton.cli import INTERRUPTED, _options, fail

WRONG = 1


@click.command(short_help="Measure speed and memory beside stock torch, where the bits are right.")
@click.option("--op", "ops", multiple=True, metavar="OP", help="Only this op (again for more); step: whole steps.")
@click.option("--only", multiple=True, metavar="TEXT", help="Only cases whose name holds TEXT (again for more).")
@click.option("--entry", "entries", multiple=True, metavar="NAME", help="Only the training step of this zoo entry.")
@click.option(
    "--size",
    "sizes",
    multiple=True,
    type=click.Choice(["small", "zoo", "large"]),
    help="The zoo's shapes at batch 8, at batch 128 with its whole steps (default), or what fills a GPU (its default too).",
)
@_options.device
@click.option("--repeats", type=click.IntRange(min=3), help="Repetitions of every variant.  [default: 5; on a GPU 20]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; by default torch's.")
@click.option("--seconds", type=click.FloatRange(min=0), help="Begin no further case after so many seconds.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="The results' file.")
@click.pass_context
def command(
    ctx: click.Context,
    ops: tuple[str, ...],
    only: tuple[str, ...],
    entries: tuple[str, ...],
    sizes: tuple[str, ...],
    device: str,
    repeats: int | None,
    threads: int | None,
    seconds: float | None,
    path: Path | None,
) -> None:
    """Measure ops and whole training steps of the zoo beside stock torch, as it ships and in its deterministic mode.

    Every case is first computed again, with its batch put together otherwise, with other threads or tiles, and by the
    CPU's reference. Only where all bits agree is it timed: median and p20 to p80 over repetitions in which all variants
    take turns. "x stock" is stock's time divided by ours.

    The results are written as JSON: to bench/results of a checkout when everything was measured, else to the current
    directory. Ctrl-C keeps what is done. Exit code 1 if a case has wrong bits or fails.
    """
    from dettriton.benchmarks.session import Choice, print_rows, run_session
    from dettriton.environment import one_line

    outcome = run_session(Choice(sizes, ops, only, entries), device, repeats, threads, seconds, path)
    content = outcome.content
    print_rows(content["rows"], one_line(content["environment"], device))
    if content["left"]:
        click.echo(f"no time was left for {len(content['left'])} cases")
    click.echo(f"{content['verdict']}; written to {outcome.path}")
    if outcome.interrupted:
        fail(ctx, f"interrupted after {len(content['rows'])} cases, which are written to {outcome.path}", INTERRUPTED)
    ctx.exit(0 if outcome.good else WRONG)
