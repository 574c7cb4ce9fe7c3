"""``dettriton zoo site`` and ``dettriton zoo card``: the released models as a page and as model cards."""

import click


@click.command()
@click.option("--out", required=True, type=click.Path(file_okay=False), help="Folder for index.html; made if missing.")
@click.option("--runs", type=click.Path(), help="Folder with trainings' directories NAME, for training curves.")
@click.option("--reports", type=click.Path(), help="Folder with NAME.json of `dettriton evaluate NAME --json`.")
@click.option("--environments", type=click.Path(), help="Results of bench/environments.py (environments-*.json).")
def site(out: str, runs: str | None, reports: str | None, environments: str | None) -> None:
    """Write all released models as one page, OUT/index.html, that loads nothing from elsewhere.

    What --runs, --reports and --environments do not hold for a model is left out of its section. What they hold must be
    of the released weights.
    """
    from dettriton.zoo._site import write_site

    click.echo(f"wrote {write_site(out, runs=runs, reports=reports, environments=environments)}")


@click.command()
@click.argument("name")
@click.option(
    "--report", type=click.Path(), help="What `dettriton evaluate NAME --json` printed, for figures by class."
)
def card(name: str, report: str | None) -> None:
    """Print the model card of NAME: Markdown with Hugging Face's front matter."""
    from dettriton.zoo._card import card as make_card

    click.echo(make_card(name, report), nl=False)
