"""``dettriton verify``: retrain a released model and compare digests."""

from collections.abc import Callable
from typing import Any

import click

from dettriton.cli import _options, fail

MISMATCH = 1


@click.command(short_help="Retrain a released model and compare its hash.")
@click.argument("name", required=False)
@_options.device
@_options.data_dir
@_options.download
@click.option("--spot", type=click.IntRange(min=1), metavar="K", help="Compute only K segments of the training again.")
@click.option("--seed", help="Text that chooses the segments; by default a fresh random one, which is printed.")
@click.option("--segments", type=click.Path(), metavar="DIR", help="Where the segments lie, if not in the release.")
@_options.as_json
@click.pass_context
def command(
    ctx: click.Context,
    name: str | None,
    device: str,
    data_dir: str | None,
    download: bool,
    spot: int | None,
    seed: str | None,
    segments: str | None,
    as_json: bool,
) -> None:
    """Retrain a released model from nothing and compare its hash with the released one.

    Without NAME: the model whose data comes with the installation. Exit code 0 on a match, 1 on a mismatch, 2 when it
    cannot run.

    --spot K computes K segments of the training again, chosen by --seed, and compares the states that they end in. It
    needs a release that carries segments, or the directory of a run that kept them (`dettriton train RECIPE --out DIR
    --segments N`): as NAME, or as --segments for the released model NAME.
    """
    from dettriton import zoo

    if spot is None and (seed is not None or segments is not None):
        raise click.UsageError("--seed and --segments belong to a spot check: add --spot K")
    name = name or zoo.DEFAULT
    if spot is not None:
        from dettriton.cli._spot import print_outcome

        def check() -> Any:
            return zoo.spot_check(name, spot, seed, device, data_dir, segments=segments, download=download)

        _report(ctx, name, as_json, check, lambda result: print_outcome(result, segments))
    else:

        def retrain() -> Any:
            from dettriton.exact._ahead import LoopsAhead

            row = zoo.entry(name)
            with LoopsAhead(device):
                if not as_json:
                    _print_plan(row, device)
                return zoo.verify(name, device, data_dir, download=download)

        _report(ctx, name, as_json, retrain, _print_outcome)


def _report(
    ctx: click.Context, name: str, as_json: bool, compute: Callable[[], Any], show: Callable[[Any], None]
) -> None:
    """Compute an outcome, print it, and exit with its code."""
    from dettriton import zoo

    try:
        result = compute()
    except zoo.DamagedReleaseError as error:
        if as_json:
            _options.print_json({"name": name, "match": False, "problem": str(error)})
        fail(ctx, str(error), MISMATCH)
    if as_json:
        _options.print_json(result.to_dict())
    else:
        show(result)
    ctx.exit(0 if result.matches else MISMATCH)


def _print_plan(row: Any, device: str) -> None:
    from dettriton.environment import environment, one_line

    click.echo(f"Retraining {row.name} from nothing on {device}, to compare its bits with the released ones.")
    click.echo(one_line(environment(), device))
    click.echo(f"released weights {row.weights_digest}")


def _print_outcome(result: Any) -> None:
    for what, (expected, got) in result.digests.items():
        click.echo(f"{what:8} {'same' if expected == got else 'DIFFERENT'}")
        if what == "weights" or expected != got:
            click.echo(f"  expected {expected}\n  got      {got}")
    if result.first_difference is not None:
        click.echo(f"first differing tensor: {result.first_difference}")
    released, got = (_options.metrics_line(m) for m in (result.entry.test, result.result.test.to_dict()))
    click.echo(f"test     {got}  (released: {released})")
    verdict = click.style("MATCH", fg="green") if result.matches else click.style("MISMATCH", fg="red")
    click.echo(f"{verdict} {result.entry.name} in {result.result.seconds:.1f} s")
