"""``dettriton evaluate``: every figure of a trained model on a dataset, or on a folder of ECG records."""

from dataclasses import dataclass, replace
from typing import Any

import click

from dettriton.cli import _options
from dettriton.errors import InputError

_SPLITS = ("train", "val", "test")
_DEFAULT_SPLIT = "test"


@click.command(short_help="Figures of a trained model, class by class.")
@click.argument("model")
@click.option("--data", "data_name", help="Dataset to evaluate on; by default the one the model was trained on.")
@click.option("--split", type=click.Choice(_SPLITS), help=f"Which part of it.  [default: {_DEFAULT_SPLIT}]")
@click.option("--wfdb", "folder", type=click.Path(), help="Evaluate on this folder of WFDB records (.hea) instead.")
@_options.data_dir
@_options.download
@_options.device
@_options.as_json
def command(
    model: str,
    data_name: str | None,
    split: str | None,
    folder: str | None,
    data_dir: str | None,
    download: bool,
    device: str,
    as_json: bool,
) -> None:
    """Evaluate MODEL: AUC, F1 and number of samples of each class; their means, accuracy and calibration error.

    MODEL is a name that `dettriton zoo list` shows, or the --out directory of a finished training.

    --wfdb takes a model of twelve-lead ECGs to records it has not seen: signals are normalised as in its training, and
    the SNOMED CT codes of the headers (# Dx:) become its labels, which are the rhythms or superclasses of PTB-XL.

    Every figure is an exact ratio of integers, rounded once for display, and the same on every machine. The last two
    lines are the digests of the weights, and of the samples, labels and normalisation that they were evaluated on.
    """
    if folder is not None and (data_name or split or download):
        raise click.UsageError("--wfdb takes all records of a folder: leave out --data, --split and --download")

    from dettriton.train._run import find_device
    from dettriton.train.report import make_report
    from dettriton.train.trainer import require_subnormals
    from dettriton.zoo._trained import find_trained

    require_subnormals()
    trained = find_trained(model)
    where = find_device(device)
    if folder is not None:
        target = _folder(trained, folder, data_dir)
    else:
        target = _dataset(trained, data_name, split or _DEFAULT_SPLIT, data_dir, download)
    report = make_report(
        trained.model.to(where),
        target.dataset,
        target.classes,
        trained_task=target.trained_task,
        unknown=target.uncoded,
    )
    if as_json:
        _options.print_json(_facts(trained, target) | report.to_dict())
    else:
        _print(trained, target, report)


@dataclass(frozen=True)
class _Target:
    """What is evaluated on; ``uncoded`` are labels that no code of a header stands for."""

    dataset: Any
    kind: str
    classes: tuple[str, ...]
    trained_task: str
    uncoded: tuple[str, ...] = ()
    unlabelled: int | None = None

    @property
    def sha256(self) -> str:
        """Of samples, labels and normalisation, whatever the name of the folder."""
        from dettriton.data import dataset_sha256

        return dataset_sha256({self.dataset.split: self.dataset})


def _dataset(trained: Any, name: str | None, split: str, data_dir: str | None, download: bool) -> _Target:
    from dettriton import data

    own_name = trained.recipe.data.name
    own = data.describe(own_name, data_dir)
    if name not in (None, own_name):
        _require_alike(trained.name, own, data.describe(name, data_dir))
    dataset = data.load(name or own_name, data_dir, download)[split]
    return _Target(_normalised_as_trained(dataset, trained), split, own.classes, own.task)


def _folder(trained: Any, folder: str, data_dir: str | None) -> _Target:
    from dettriton import data
    from dettriton.data.wfdb_folder import LENGTH, SAMPLING_RATE, read_wfdb_folder, snomed_table

    own = data.describe(trained.recipe.data.name, data_dir)
    if not isinstance(own, data.SignalInfo):
        raise InputError(
            f"{trained.name} was trained on the images of {own.name}; --wfdb needs a model of twelve-lead ECGs"
        )
    table = snomed_table(own.classes, f"those of {trained.name}, trained on {own.name},")
    if (own.sampling_rate, own.signal_shape[1]) != (SAMPLING_RATE, LENGTH):
        raise InputError(
            f"{trained.name} takes {own.signal_shape[1]} samples at {own.sampling_rate} Hz, and a folder is read as "
            f"{LENGTH} samples at {SAMPLING_RATE} Hz"
        )
    found = read_wfdb_folder(
        folder, normalisation=trained.normalisation, leads=own.leads, classes=own.classes, class_of_code=table
    )
    coded = set(table.values())
    return _Target(
        found.dataset,
        "WFDB records",
        own.classes,
        own.task,
        uncoded=tuple(c for c in own.classes if c not in coded),
        unlabelled=int((found.dataset.labels.sum(1) == 0).sum()),
    )


def _require_alike(model: str, own: Any, other: Any) -> None:
    if own.classes != other.classes:
        raise InputError(
            f"{model} was trained on {own.name}, whose classes are {', '.join(own.classes)}; {other.name} has others: "
            f"{', '.join(other.classes)}. Choose data with the classes of the model"
        )
    before, now = (_form(info) for info in (own, other))
    if before != now:
        raise InputError(f"{model} takes samples of {own.name}, {before}; those of {other.name} are {now}")


def _form(info: Any) -> str:
    if hasattr(info, "image_shape"):
        return f"{' x '.join(map(str, info.image_shape))} images of scale {info.scale}"
    shape = " x ".join(map(str, info.signal_shape))
    return f"{shape} signals at {info.sampling_rate} Hz of leads {', '.join(info.leads).upper()}"


def _normalised_as_trained(dataset: Any, trained: Any) -> Any:
    """The model's own mean and deviation, in millivolts; the gain stays that of the data."""
    scale = trained.normalisation
    if scale is None:
        return dataset
    return replace(dataset, normalisation=replace(scale, gain=dataset.normalisation.gain))


def _facts(trained: Any, target: _Target) -> dict[str, Any]:
    return {
        "model": trained.name,
        "trained_on": trained.recipe.data.name,
        "weights_digest": trained.weights_digest,
        "data": target.dataset.name,
        "split": target.dataset.split,
        "data_sha256": target.sha256,
        "labels_without_code": list(target.uncoded),
        "records_without_label": target.unlabelled,
    }


def _print(trained: Any, target: _Target, report: Any) -> None:
    click.echo(f"model {trained.name}, trained on {trained.recipe.data.name}")
    click.echo(f"data  {target.dataset.name} ({target.kind}), {report.samples} samples\n")
    width = max(len("class"), *(len(row.name) for row in report.classes))
    click.echo(f"{'class':{width}}  positives        AUC         F1")
    for row in report.classes:
        figures = "".join(f"{_figure(value, row.positives is not None):>11}" for value in (row.auc, row.f1))
        click.echo(f"{row.name:{width}}  {'no code' if row.positives is None else row.positives:>9}{figures}")
    click.echo(f"{'mean':{width}}  {'':>9}{_figure(report.auc):>11}{_figure(report.f1):>11}\n")
    click.echo(
        f"accuracy {float(report.accuracy):.4f}  expected calibration error {float(report.calibration_error):.4f}"
    )
    for note in _notes(target, report):
        click.echo(note)
    click.echo(f"\nweights {trained.weights_digest}\ndata    {target.sha256}")


def _notes(target: _Target, report: Any) -> list[str]:
    notes = []
    known = [row for row in report.classes if row.positives is not None]
    no_auc, no_f1 = ([row.name for row in known if getattr(row, figure) is None] for figure in ("auc", "f1"))
    if no_auc:
        notes.append(f"AUC undefined, and left out of its mean: no positives or no negatives of {', '.join(no_auc)}")
    if no_f1:
        notes.append(f"F1 undefined, and left out of its mean: no positives, and none predicted, of {', '.join(no_f1)}")
    if target.uncoded:
        notes.append(f"no code, and left out of every figure: no SNOMED CT code stands for {', '.join(target.uncoded)}")
    if target.unlabelled is not None:
        notes.append(
            f"{target.unlabelled} of {report.samples} records have no known code for any of these labels; they, and "
            "records without a label's code, count as its negatives"
        )
    return notes


def _figure(value: Any, known: bool = True) -> str:
    if value is None:
        return "undefined" if known else "-"
    return f"{float(value):.4f}"
