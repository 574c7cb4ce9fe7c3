"""``dettriton diff``: where two trainings parted."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from dettriton.cli import _options
from dettriton.errors import InputError

DIFFERENT = 1

_SHOWN = 5


@click.command(short_help="Where two trainings parted.")
@click.argument("a")
@click.argument("b")
@click.option("--rerun", "again", is_flag=True, help="Run both recipes again, side by side, to name the cause.")
@_options.device
@_options.data_dir
@_options.download
@_options.as_json
@click.pass_context
def command(
    ctx: click.Context,
    a: str,
    b: str,
    again: bool,
    device: str,
    data_dir: str | None,
    download: bool,
    as_json: bool,
) -> None:
    """Find where the trainings A and B parted: settings, data, initial weights, first step and first tensor.

    A and B are each the --out directory of `dettriton train`, finished or not; its trace.jsonl, a checkpoint or
    weights.safetensors; or a name that `dettriton zoo list` shows. Where both were traced in detail (`dettriton train
    --trace-detail`), it names the phase too: inputs, forward of which layer, gradient or update of which parameter.

    --rerun, for two directories, runs both recipes from the newest checkpoint or segment that both kept and that is the
    same in both, and names what parts first: data order, inputs, forward of which module, loss, gradient or update of
    which parameter. If nothing does, it says which of the two this machine agrees with.

    Steps count from 0. Exit code 0 if nothing differs as far as both go, 1 if something does, 2 when it cannot compare.
    """
    from dettriton.compare import compare, open_side

    sides = [open_side(name) for name in (a, b)]
    if again and not all(side.is_run for side in sides):
        raise InputError("--rerun needs two run directories (--out of `dettriton train`); compare without it")
    comparison = compare(*sides)
    if not as_json:
        _print(comparison)
    found = None
    if again:
        from dettriton.compare import rerun

        tell = lambda sentence: click.echo(sentence, err=True)  # noqa: E731 one call's argument
        found = rerun(comparison, device, data_dir, download=download, report=tell)
    if as_json:
        _options.print_json(comparison.to_dict() | {"rerun": None if found is None else found.to_dict()})
    else:
        if again:
            _print_rerun(found)
        click.echo("SAME" if comparison.same else "DIFFERENT")
    ctx.exit(0 if comparison.same else DIFFERENT)


def _print(comparison: Any) -> None:
    click.echo(f"A {comparison.a.name}\nB {comparison.b.name}")
    for note in [*comparison.a.notes, *comparison.b.notes]:
        click.echo(f"note: {note}")
    click.echo(f"recipe           {_word(comparison.same_recipe)}")
    for s in comparison.settings:
        click.echo(f"  [{s.section}] {s.key}: {s.a!r} in A, {s.b!r} in B")
    if comparison.same_recipe is False:
        click.echo("  so differing bits are expected")
    click.echo(f"data             {_word(comparison.same_data)}")
    click.echo(f"initial weights  {_word(comparison.same_init)}")
    if comparison.trace is not None:
        _print_trace(comparison.trace)
    if comparison.checkpoints is not None:
        _print_checkpoints(comparison.checkpoints)
    if comparison.weights is not None:
        _print_weights(comparison.weights)


def _print_trace(trace: Any) -> None:
    steps = min(trace.steps_a, trace.steps_b)
    click.echo(f"trace            {'same' if trace.first_step is None else 'DIFFERENT'} ({steps} steps compared)")
    if trace.steps_a != trace.steps_b:
        click.echo(f"  A has {trace.steps_a} steps, B {trace.steps_b}")
    if trace.same_origin is False:
        click.echo("  the chains start from different recipes or initial weights")
    if trace.loss is not None:
        click.echo(f"  first differing loss: step {trace.loss.step}")
        for side, loss in trace.loss.to_dict().items():
            if side != "step":
                click.echo(f"    {side.upper()} {loss['value']!r} (0x{loss['bits']})")
    if trace.detail is not None:
        click.echo(f"  first difference in detail: {trace.detail}\n    {trace.detail.reason}")
    elif trace.first_step is not None:
        last = trace.last_equal_tensors
        told = "no equal tensors recorded before" if last is None else f"all recorded tensors equal after step {last}"
        click.echo(f"  {told}")
    if trace.tensors is not None:
        click.echo(f"  first differing tensors: after step {trace.tensors.step}, {_listed(trace.tensors.names)}")


def _print_checkpoints(checkpoints: Any) -> None:
    steps = ", ".join(map(str, checkpoints.compared))
    same = checkpoints.different is None
    click.echo(f"checkpoints      {'same' if same else 'DIFFERENT'} (both after {steps} steps)")
    if not same:
        click.echo(f"  first differing: after {checkpoints.different} steps")
    _print_groups(checkpoints.groups)


def _print_weights(weights: Any) -> None:
    click.echo(f"weights          {'DIFFERENT' if weights.groups else 'same'}")
    if weights.epoch_a != weights.epoch_b:
        click.echo(f"  of epoch {weights.epoch_a} in A, of epoch {weights.epoch_b} in B (from 0)")
    _print_groups(weights.groups)


def _print_groups(groups: Mapping[str, Sequence[Any]]) -> None:
    for group, differences in groups.items():
        click.echo(f"  {group}: {len(differences)} differ")
        for difference in differences[:_SHOWN]:
            click.echo(f"    {difference}")
        if len(differences) > _SHOWN:
            click.echo(f"    and {len(differences) - _SHOWN} more")


def _print_rerun(found: Any) -> None:
    if found is None:
        click.echo("re-run           not needed: nothing recorded differs")
        return
    click.echo(f"re-run           steps {found.begin} to {found.begin + found.computed - 1}")
    for note in found.notes:
        click.echo(f"  note: {note}")
    click.echo(f"  {found.verdict}")


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest


def _word(same: bool | None) -> str:
    return {True: "same", False: "DIFFERENT", None: "unknown"}[same]
