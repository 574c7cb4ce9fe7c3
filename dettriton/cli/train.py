"""``dettriton train``: train a recipe."""

import click

from dettriton.cli import _options, fail, stopped
from dettriton.train.trace import DETAILS, STEP


@click.command(short_help="Train a recipe; resume it after any stop.")
@click.argument("recipe", type=click.Path())
@click.option("--out", required=True, type=click.Path(file_okay=False), help="Directory of the run.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out, if there is one.")
@_options.device
@_options.data_dir
@_options.download
@click.option(
    "--tensor-interval", type=click.IntRange(min=1), help="Trace every tensor's digest after each so many steps."
)
@click.option(
    "--trace-detail", type=click.Choice(DETAILS), default=STEP, show_default=True, help="What a detailed trace adds."
)
@click.option(
    "--trace-interval", type=click.IntRange(min=1), default=1, show_default=True, help="Details of one step in so many."
)
@click.option(
    "--trace", "trace_file", type=click.Path(dir_okay=False), help="The detailed trace's file, if not in --out."
)
@click.option("--checkpoint-steps", type=click.IntRange(min=1), help="Write a checkpoint after each so many steps.")
@click.option("--checkpoint-seconds", type=float, help="Write a checkpoint after so many seconds.")
@click.option(
    "--segments", type=click.IntRange(min=1), help="Keep the state after each so many steps, for spot checks."
)
@_options.as_json
@click.pass_context
def command(
    ctx: click.Context,
    recipe: str,
    out: str,
    resume: bool,
    device: str,
    data_dir: str | None,
    download: bool,
    tensor_interval: int | None,
    trace_detail: str,
    trace_interval: int,
    trace_file: str | None,
    checkpoint_steps: int | None,
    checkpoint_seconds: float | None,
    segments: int | None,
    as_json: bool,
) -> None:
    """Train RECIPE into --out and print the digest of its weights.

    RECIPE is a TOML file, or a name that `dettriton zoo recipes` lists; a file wins.

    A checkpoint is written after each epoch. A run that was stopped, or killed, goes on with --resume to the same
    weights and the same trace.

    --out holds trace.jsonl: each step's loss and chain. A detailed trace, trace-detail.jsonl or --trace FILE, adds
    digests of the batch, gradients and updated tensors, and with activations of what each layer gives for a fixed probe
    batch, so that `dettriton diff` names what parted first. The weights and the chain are the same at every detail.
    """
    from dettriton.zoo import find_recipe

    # before torch is imported, so that a mistake in the recipe shows at once
    parsed = find_recipe(recipe)

    from dettriton.exact._ahead import LoopsAhead

    try:
        with LoopsAhead(device):
            # it imports torch, which takes seconds that the second process makes use of
            from dettriton.train.trainer import train

            result = train(
                parsed,
                out,
                device,
                data_dir,
                resume,
                download=download,
                tensor_interval=tensor_interval,
                trace_detail=trace_detail,
                trace_interval=trace_interval,
                trace_file=trace_file,
                checkpoint_steps=checkpoint_steps,
                checkpoint_seconds=checkpoint_seconds,
                segments=segments,
            )
    except KeyboardInterrupt as stop:
        fail(ctx, "interrupted; the same command with --resume goes on from here", stopped(stop))
    if as_json:
        _options.print_json(result.to_dict() | {"seconds": round(result.seconds, 3)})
        return
    click.echo(f"weights {result.weights_digest}  {result.weights_path}")
    click.echo(f"best epoch {result.best_epoch + 1}, {result.steps} steps, {result.seconds:.1f} s")
    click.echo(f"validation {_options.metrics_line(result.validation.to_dict())}")
    click.echo(f"test       {_options.metrics_line(result.test.to_dict())}")
