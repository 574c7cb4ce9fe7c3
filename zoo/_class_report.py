"""The report that ``dettriton evaluate NAME --json`` wrote of a released model, checked to be of that model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dettriton._strict_json import no_constants, unique_keys
from dettriton.errors import InputError
from dettriton.zoo._facts import Facts

_SPLIT = "test"


@dataclass(frozen=True)
class ClassFigures:
    """One class of the test split; figures are None where they are undefined."""

    name: str
    positives: int | None
    auc: float | None
    f1: float | None


@dataclass(frozen=True)
class ClassReport:
    """The test split class by class.

    Attributes:
        samples: how many.
        f1: mean over the classes.
        calibration_error: expected calibration error in 15 bins.
        classes: by number; a binary task has one row.
    """

    samples: int
    f1: float
    calibration_error: float
    classes: tuple[ClassFigures, ...]


def read_report(path: str | Path, facts: Facts) -> ClassReport:
    """A report of a released model on the test split of its own data.

    Args:
        path: what ``dettriton evaluate NAME --json`` printed.
        facts: of the model.

    Raises:
        InputError: the file cannot be read, is not such a report, or is of other weights, another dataset or split, or
            has other figures than the manifest.
    """
    remedy = f"Make it with `dettriton evaluate {facts.name} --json`"
    try:
        found = json.loads(Path(path).read_bytes(), object_pairs_hook=unique_keys, parse_constant=no_constants)
        _require_of(found, facts)
        return ClassReport(
            samples=_integer(found["samples"]),
            f1=_number(found["f1"]),
            calibration_error=_number(found["ece"]),
            classes=tuple(_class(row) for row in found["classes"]),
        )
    except OSError as error:
        raise InputError(f"cannot read the report {path}: {error.strerror}. {remedy}") from None
    except KeyError as error:
        raise InputError(f"{path} is not a report of {facts.name}: it has no {error}. {remedy}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not a report of {facts.name}: {error}. {remedy}") from None


def figure(value: float | None) -> str:
    """With four digits, or a dash where undefined."""
    return "–" if value is None else f"{value:.4f}"  # noqa: RUF001 an en dash is what is meant


def _require_of(found: Any, facts: Facts) -> None:
    entry = facts.entry
    expected = {
        "weights_digest": entry.weights_digest,
        "data": facts.info.name,
        "split": _SPLIT,
        "auc": entry.test["auc"],
        "acc": entry.test["acc"],
    }
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    for key, value in expected.items():
        if found[key] != value:
            raise ValueError(f"its {key} is {found[key]!r:.80}, not {value!r}")


def _class(row: Any) -> ClassFigures:
    name = row["name"]
    # a card is written in UTF-8, which has no lone surrogates
    if not isinstance(name, str) or name != name.encode(errors="replace").decode():
        raise ValueError(f"a class has the name {name!r:.80}, which is not a text")
    figures = (row[key] if row[key] is None else _number(row[key]) for key in ("auc", "f1"))
    return ClassFigures(name, row["positives"] if row["positives"] is None else _integer(row["positives"]), *figures)


def _integer(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r:.80} is not a count")
    return value


def _number(value: Any) -> float:
    # true and NaN are not figures
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise ValueError(f"{value!r:.80} is not a figure between 0 and 1")
    return float(value)
