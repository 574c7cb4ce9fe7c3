"""``dettriton export``: a trained model as a file for other runtimes."""

import sys
from contextlib import AbstractContextManager, nullcontext

import click

from dettriton.cli import _options


@click.command(short_help="Write a model as ONNX or for torch.export, checked against its golden vectors.")
@click.argument("model")
@click.option("--onnx", type=click.Path(), help="ONNX file to write (pip install 'dettriton[export]').")
@click.option("--torch-export", type=click.Path(), help="File of torch.export to write, usually .pt2.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@_options.data_dir
@_options.as_json
def command(
    model: str, onnx: str | None, torch_export: str | None, force: bool, data_dir: str | None, as_json: bool
) -> None:
    """Write MODEL for inference elsewhere: its parameters and torch's arithmetic, for any number of samples.

    MODEL is a name that `dettriton zoo list` shows, or the --out directory of a finished training.

    What is written is first run on the golden batch. Its logits depend on the runtime and the machine, and have to be
    those of the released model within a tolerance, which is printed. Classes, preprocessing and digests are in the file.
    """
    from dettriton import zoo

    with _working(f"exporting {model} and checking it"):
        files = zoo.export(model, onnx=onnx, torch_export=torch_export, force=force, data_dir=data_dir)
    if as_json:
        _options.print_json([file.to_dict() for file in files])
        return
    for file in files:
        shape = " x ".join(map(str, file.input_shape))
        click.echo(
            f"{file.format:12} {file.path}, {file.size} bytes: {file.input} (any number x {shape}) to {file.output}"
        )
        click.echo(
            f"{'':12} differs from the golden logits by {file.largest_difference:.1e} of the largest "
            f"({file.tolerance:.0e} is allowed)"
        )


def _working(what: str) -> AbstractContextManager:
    """What a terminal shows for the tens of seconds that the exporters take."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(what)
