"""The zoo as one static page: a table of all released models, and a section for each."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from dettriton import BITSPEC, __version__
from dettriton.errors import InputError
from dettriton.files import atomic_write
from dettriton.train.trace import FILE_NAME as TRACE
from dettriton.zoo import _manifest
from dettriton.zoo._class_report import ClassReport, figure, read_report
from dettriton.zoo._curve import Curve, curve_svg, read_curve
from dettriton.zoo._facts import Facts, environment_line, gather, samples_line, shape_line, two_figures
from dettriton.zoo._matrix import SAME, Matrix
from dettriton.zoo._page_parts import copyable, frame

PAGE = "index.html"
_TITLE = "dettriton: models that anyone can retrain to the same bits"
_COLUMNS = (
    "model",
    "data",
    "parameters",
    "epochs",
    "test AUC / ACC",
    "validation AUC / ACC",
    "weights digest",
    "file SHA-256",
)


@dataclass(frozen=True)
class Shown:
    """A model with what was measured of it beyond its row."""

    facts: Facts
    report: ClassReport | None
    curve: Curve | None


def write_site(
    out: str | Path,
    *,
    runs: str | Path | None = None,
    reports: str | Path | None = None,
    environments: str | Path | None = None,
) -> Path:
    """Write ``index.html``, the same bytes for the same inputs; returns its path.

    Args:
        out: the folder; made if it is missing.
        runs: a folder with trainings' directories ``NAME``; a model without one has no curve.
        reports: a folder with ``NAME.json`` of ``dettriton evaluate NAME --json``; a model without one has no table of
            classes.
        environments: the results of ``bench/environments.py``.

    Raises:
        InputError: a folder or file is missing, is of another model, or cannot be written.
        IntegrityError: a recipe or checkpoint is damaged.
    """
    for folder in (runs, reports):
        if folder is not None and not Path(folder).is_dir():
            raise InputError(f"{folder} is not a folder; name one, or leave the option out")
    matrix = None if environments is None else Matrix(environments)
    page = site_html([_show(name, runs, reports) for name in _manifest.names()], matrix)
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot use {out} as the page's folder: {error.strerror}; choose another --out") from None
    atomic_write(out / PAGE, page.encode())
    return out / PAGE


def site_html(models: Sequence[Shown], matrix: Matrix | None = None) -> str:
    """The page."""
    sections = "\n".join(_section(model, matrix) for model in models)
    return frame(_TITLE, f"{_introduction(matrix)}\n{_table(models)}\n{sections}")


def _show(name: str, runs: str | Path | None, reports: str | Path | None) -> Shown:
    facts = gather(name)
    run = None if runs is None else Path(runs) / name
    report = None if reports is None else Path(reports) / f"{name}.json"
    return Shown(
        facts,
        report=read_report(report, facts) if report is not None and report.exists() else None,
        curve=read_curve(run, facts) if run is not None and (run / TRACE).exists() else None,
    )


def _introduction(matrix: Matrix | None) -> str:
    measured = (
        ""
        if matrix is None
        else f'<p class="quiet">The tables of environments start from {escape(matrix.machine)}.</p>'
    )
    return f"""<h1>{escape(_TITLE)}</h1>
<p>Each model below was trained by a recipe whose result is the same bits on every machine. Run its command to train it
from nothing and compare: a match means that you hold these weights, to the last bit.</p>
<p>The weights digest is <code>dettriton.digest</code> of the tensors; the file SHA-256 is what <code>sha256sum</code>
prints. AUC is the mean over classes. Equal bits say that a result can be checked, not that it is right; no model here is
a medical device.</p>
<p class="quiet">dettriton {escape(__version__)}, bitspec {BITSPEC}.</p>{measured}"""


def _table(models: Iterable[Shown]) -> str:
    head = "".join(f'<th scope="col" role="columnheader">{escape(column)}</th>' for column in _COLUMNS)
    rows = "\n".join(_row(model.facts) for model in models)
    # the roles keep it a table for a screen reader where a narrow screen shows its rows as blocks
    return f"""<div class="wide" role="region" aria-label="Released models" tabindex="0">
<table class="models" role="table">
<caption class="hidden">Released models</caption>
<thead role="rowgroup"><tr role="row">{head}</tr></thead>
<tbody role="rowgroup">
{rows}
</tbody>
</table>
</div>"""


def _row(facts: Facts) -> str:
    entry = facts.entry
    cells = (
        escape(f"{facts.info.name}: {shape_line(facts.info)}"),
        f"{facts.parameters:,}",
        f"{facts.recipe.train.epochs:,}",
        two_figures(entry.test),
        two_figures(entry.validation),
        copyable(entry.weights_digest, f"weights digest of {facts.name}"),
        copyable(entry.file_sha256, f"file SHA-256 of {facts.name}"),
    )
    shown = "".join(
        f'<td role="cell" data-label="{escape(label)}">{cell}</td>'
        for label, cell in zip(_COLUMNS[1:], cells, strict=True)
    )
    # a narrow column may break a name where its words end
    name = re.sub(r"([_.])", r"\1<wbr>", escape(facts.name))
    link = f'<a href="#{escape(quote(_anchor(facts.name)))}">{name}</a>'
    return f'<tr role="row"><th scope="row" role="rowheader">{link}</th>{shown}</tr>'


def _section(model: Shown, matrix: Matrix | None) -> str:
    facts = model.facts
    entry, anchor = facts.entry, escape(_anchor(facts.name))
    fetch = ' <span class="quiet">(--download fetches the data)</span>' if facts.info.url is not None else ""
    rows = (
        ("reproduce it", copyable(facts.verify_command, f"command for {facts.name}") + fetch),
        ("data", _data(facts)),
        ("best epoch", f"{entry.best_epoch + 1} of {facts.recipe.train.epochs}"),
        ("initial weights", copyable(entry.init_digest, f"initial weights digest of {facts.name}")),
        ("chain of losses", copyable(entry.trace, f"trace digest of {facts.name}")),
        ("data digest", copyable(entry.dataset_sha256, f"data digest of {facts.name}")),
        ("licence", f"{escape(entry.licence)} (weights), {escape(entry.data_licence)} (data)"),
    )
    parts = [
        f'<section id="{anchor}" aria-labelledby="{anchor}-title">',
        f'<h2 id="{anchor}-title">{escape(facts.name)}</h2>',
        f"<dl>{''.join(f'<dt>{name}</dt><dd>{value}</dd>' for name, value in rows)}</dl>",
        f"<details><summary>recipe of {escape(facts.name)} (TOML)</summary>",
        f'<pre tabindex="0"><code>{escape(facts.recipe_text)}</code></pre></details>',
        _reproduced(facts, matrix),
        *([] if model.curve is None else [_training(model.curve, facts.name)]),
        *([] if model.report is None else [_classes(model.report)]),
        "</section>",
    ]
    return "\n".join(parts)


def _data(facts: Facts) -> str:
    info = facts.info
    described = f"{escape(info.title.rstrip('.'))}. {escape(samples_line(info))} samples."
    if info.url is None or not info.url.startswith("https://"):
        return described
    return f'{described} <a rel="noreferrer" href="{escape(info.url)}">Official files</a>'


def _reproduced(facts: Facts, matrix: Matrix | None) -> str:
    lines = [f"<li>{escape(environment_line(where))}</li>" for where in facts.entry.environments]
    parts = ["<h3>Where it was reproduced</h3>", f"<ul>{''.join(lines)}</ul>" if lines else "<p>Nowhere yet.</p>"]
    verdicts = [] if matrix is None else matrix.verdicts(facts.entry)
    if verdicts:
        rows = [
            (escape(name), f'<span class="{"same" if verdict == SAME else "different"}">{escape(verdict)}</span>')
            for name, verdict in verdicts
        ]
        parts.append(_plain_table(("environment", "bits"), rows))
    return "\n".join(parts)


def _training(curve: Curve, name: str) -> str:
    aucs = [None] * len(curve.losses) if curve.aucs is None else curve.aucs
    rows = [
        (str(epoch), f"{loss:.4f}", figure(auc))
        for epoch, (loss, auc) in enumerate(zip(curve.losses, aucs, strict=True), 1)
    ]
    return "\n".join(
        [
            "<h3>Training</h3>",
            curve_svg(curve, f"Training curve of {name}; its numbers are in the table below"),
            "<details><summary>numbers by epoch</summary>",
            _plain_table(("epoch", "training loss", "validation AUC"), rows),
            "</details>",
        ]
    )


def _classes(report: ClassReport) -> str:
    rows = [
        (escape(row.name), figure(row.auc), figure(row.f1), "–" if row.positives is None else f"{row.positives:,}")  # noqa: RUF001 an en dash is what is meant
        for row in report.classes
    ]
    return "\n".join(
        [
            "<h3>Class by class</h3>",
            f"<p>On the {report.samples:,} test samples: mean F1 {report.f1:.4f}, expected calibration error "
            f"{report.calibration_error:.4f} (15 bins).</p>",
            _plain_table(("class", "test AUC", "F1", "positives"), rows),
        ]
    )


def _plain_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A small table; ``rows`` are HTML."""
    heading = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    return f'<table class="plain"><thead><tr>{heading}</tr></thead><tbody>{body}</tbody></table>'


def _anchor(name: str) -> str:
    # white space has no place in an id
    return "model-" + "-".join(name.split())
