"""``dettriton study``: one recipe under several initialisations, orders and seeds."""

from typing import Any

import click

from dettriton.cli import _options, fail, stopped
from dettriton.study import make_plan
from dettriton.study._plan import SEEDS
from dettriton.study._results import load_results, require_same_study
from dettriton.train.recipe import INIT_SCHEMES, ORDER_KINDS
from dettriton.zoo import find_recipe

_REPEATABLE = "Repeatable; by default the recipe's."


@click.command(short_help="Compare initialisations and orders over many seeds.")
@click.argument("recipe", type=click.Path(), required=False)
@click.option("--out", required=True, type=click.Path(file_okay=False), help="Directory of the study.")
@click.option("--init", "inits", multiple=True, type=click.Choice(INIT_SCHEMES), help=_REPEATABLE)
@click.option("--order", "orders", multiple=True, type=click.Choice(ORDER_KINDS), help=_REPEATABLE)
@click.option(
    "--seeds", type=click.IntRange(min=1), default=SEEDS, show_default=True, help="Runs of each --init and --order."
)
@click.option("--epochs", type=click.IntRange(min=1), help="Instead of the recipe's.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Trainings at a time.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of each training; by default cores / jobs.")
@click.option("--keep-weights", is_flag=True, help="Leave each run's weights in its directory.")
@click.option(
    "--margin",
    type=click.FloatRange(min=0, min_open=True),
    default=0.01,
    show_default=True,
    help="AUC means closer than this count as equivalent.",
)
@click.option("--plots/--no-plots", default=True, show_default=True, help="Draw class_ranges and runs (PNG and SVG).")
@click.option("--report-only", is_flag=True, help="Train nothing; report what --out holds. Needs no RECIPE.")
@_options.device
@_options.data_dir
@_options.download
@_options.as_json
@click.pass_context
def command(
    ctx: click.Context,
    recipe: str | None,
    out: str,
    inits: tuple[str, ...],
    orders: tuple[str, ...],
    seeds: int,
    epochs: int | None,
    margin: float,
    plots: bool,
    report_only: bool,
    as_json: bool,
    **running: Any,
) -> None:
    """Train RECIPE with every --init, --order and seed, and report what the results say.

    RECIPE is a TOML file, or a name that `dettriton zoo recipes` lists.

    A seed drives the weights, the order, dropout and flips. A study that was stopped, or killed, goes on with the same
    command. The same --out may later be given other initialisations and orders, or more seeds: runs that are there
    already are not repeated, and the report covers all of them.

    --out then holds results.json, report.md, report.json and the pictures.
    """
    if recipe is None and not report_only:
        raise click.UsageError("name the RECIPE to study, or give --report-only")
    plan = None if recipe is None else make_plan(find_recipe(recipe), inits, orders, seeds, epochs)
    try:
        if report_only:
            results = load_results(out)
            if plan is not None:
                require_same_study(out, results.study, {"recipe": plan.shared_recipe()})
        else:
            from dettriton.study import run_study

            results = run_study(plan, out, **running)
        _report(results, out, margin, plots, as_json)
    except KeyboardInterrupt as stop:
        fail(ctx, "interrupted; the same command goes on from here", stopped(stop))


def _report(results: Any, out: str, margin: float, plots: bool, as_json: bool) -> None:
    from dettriton.study import draw, print_tables, summarise, write_report

    summary = summarise(results, margin)
    written = write_report(summary, out)
    if plots and summary.arms:
        written += draw(results, out)
    if as_json:
        _options.print_json(summary.to_dict())
        return
    print_tables(summary)
    for path in written:
        click.echo(path)
