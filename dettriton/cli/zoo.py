"""``dettriton zoo``: the released models, and the recipes."""

import click

from dettriton.cli import _options, _zoo_pages, _zoo_share

DAMAGED = 1
UNRELEASED = "no released hash yet"


@click.group()
def command() -> None:
    """List, show, check and release models."""


command.add_command(_zoo_pages.site)
command.add_command(_zoo_pages.card)
command.add_command(_zoo_share.sign)
command.add_command(_zoo_share.verify_signature)
command.add_command(_zoo_share.push)
command.add_command(_zoo_share.pull)


@command.command("list")
@_options.as_json
def list_(as_json: bool) -> None:
    """All released models."""
    from dettriton import zoo

    rows = [zoo.entry(name) for name in zoo.names()]
    if as_json:
        _options.print_json([row.to_dict() for row in rows])
        return
    for row in rows:
        click.echo(f"{row.name:24} {row.weights_digest[:16]}  test {_options.metrics_line(row.test)}")
    if not rows:
        click.echo("no model is released in this installation")


@command.command()
@_options.as_json
def recipes(as_json: bool) -> None:
    """All recipes that `dettriton train` takes by name, released or not."""
    from dettriton import zoo

    released = zoo.names()
    rows = {name: name in released for name in zoo.list_recipes()}
    if as_json:
        _options.print_json([{"name": name, "released": value} for name, value in rows.items()])
        return
    for name, value in rows.items():
        click.echo(f"{name:36} {'released' if value else UNRELEASED}")


@command.command()
@click.argument("name")
@_options.as_json
def show(name: str, as_json: bool) -> None:
    """The manifest row, if there is one, and the recipe of NAME."""
    from dettriton import zoo

    row = zoo.entry(name).to_dict() if name in zoo.names() else None
    recipe = zoo.recipe(name).to_dict()
    if as_json:
        _options.print_json({"entry": row, "recipe": recipe})
        return
    for key, value in (row or {"name": name, "weights_digest": UNRELEASED}).items():
        if key in ("environments", "tensors"):
            click.echo(f"{key:20} {len(value)}")
        elif key == "segments":
            click.echo(f"{key:20} {len(value['leaves'])} of {value['every']} steps, root {value['root']}")
        else:
            click.echo(f"{key:20} {_options.metrics_line(value) if isinstance(value, dict) else value}")
    for section, table in recipe.items():
        settings = ", ".join(f"{key} = {value!r}" for key, value in table.items())
        click.echo(f"{f'[{section}]':20} {settings}")


@command.command("hash")
@click.argument("file", type=click.Path())
@_options.as_json
def hash_(file: str, as_json: bool) -> None:
    """The digests of a weights file: of its tensors, and of its bytes (as sha256sum prints it)."""
    from dettriton.digest import digest, file_sha256
    from dettriton.files import load_safetensors

    tensors, metadata = load_safetensors(file)
    found = {"weights_digest": digest(tensors), "file_sha256": file_sha256(file), "metadata": metadata}
    if as_json:
        _options.print_json(found)
        return
    click.echo(f"weights {found['weights_digest']}\nfile    {found['file_sha256']}")


@command.command()
@click.argument("names", nargs=-1)
@_options.device
@_options.as_json
@click.pass_context
def check(ctx: click.Context, names: tuple[str, ...], device: str, as_json: bool) -> None:
    """Check the manifest, and rows, files, digests and golden vectors of NAMES (or all), without training.

    Exit code 1 if one fails.
    """
    from dettriton import zoo

    results = [zoo.check_folder()]
    try:
        for name in names:
            zoo.entry(name)
        results += [zoo.check(name, device) for name in names or zoo.names()]
    except zoo.DamagedReleaseError:
        pass  # the manifest cannot be read, as its own result says
    if as_json:
        _options.print_json({result.name: {"ok": result.ok, "problem": result.problem} for result in results})
    else:
        for result in results:
            click.echo(f"{result.name:24} {'ok' if result.ok else result.problem}")
    ctx.exit(0 if all(result.ok for result in results) else DAMAGED)


@command.command()
@click.argument("recipe", type=click.Path())
@click.argument("run_dir", type=click.Path(file_okay=False))
@click.option("--name", help="architecture.dataset; by default the recipe file's name.")
@click.option("--replace", is_flag=True, help="Replace a row that has other digests.")
def release(recipe: str, run_dir: str, name: str | None, replace: bool) -> None:
    """Release the finished run in RUN_DIR of RECIPE (for maintainers, in a source checkout)."""
    from dettriton import zoo

    row = zoo.release(recipe, run_dir, name, replace)
    click.echo(f"{row.name} weights {row.weights_digest}, reproduced in {len(row.environments)} environments")
