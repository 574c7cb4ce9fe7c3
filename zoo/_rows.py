"""The manifest's bytes: what a row is, reading it strictly, and writing it in its one form. Does not import torch."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from dettriton._strict_json import no_constants, unique_keys
from dettriton.errors import InputError, IntegrityError
from dettriton.train._commitment import Commitment, is_digest

SCHEMA = 1
"""Version of the manifest's form."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9][A-Za-z0-9_-]*)+")
_LONGEST_NAME = 128
_RESERVED = (".golden", ".segments")


class DamagedReleaseError(IntegrityError):
    """A released file does not have the digest of its manifest row, or the manifest is not one."""


@dataclass(frozen=True)
class Entry:
    """A row of the manifest.

    Attributes:
        name: ``architecture.dataset``.
        bitspec: version of the numeric contract that the row holds under.
        file_sha256: of ``weights/NAME.safetensors``, as ``sha256sum`` prints it.
        weights_digest: :func:`dettriton.digest.digest` of the trained parameters and buffers.
        init_digest: of the model before the first step.
        trace: last link of the training's chain of losses (:mod:`dettriton.train.trace`).
        golden_digest: of the logits on the golden batch.
        golden_file_sha256: of ``weights/NAME.golden.safetensors``.
        dataset_sha256: :func:`dettriton.data.dataset_sha256` of the training data.
        recipe_digest: :meth:`dettriton.train.recipe.Recipe.digest`.
        best_epoch: epoch of the released weights, counted from 0.
        validation, test: ``{"auc": ..., "acc": ...}`` by MedMNIST's protocol.
        licence: of the weights.
        data_licence: of the data they were trained on.
        environments: where the row was reproduced, as :func:`dettriton.environment.environment` describes it.
        tensors: :func:`dettriton.digest.tensor_digest` of each released tensor by name, so that a wrong one can be
            named; None in a row without them.
        segments: the training's states at regular steps, for spot checks; None in a row without them.
    """

    name: str
    bitspec: int
    file_sha256: str
    weights_digest: str
    init_digest: str
    trace: str
    golden_digest: str
    golden_file_sha256: str
    dataset_sha256: str
    recipe_digest: str
    best_epoch: int
    validation: Mapping[str, float]
    test: Mapping[str, float]
    licence: str
    data_licence: str
    environments: tuple[Mapping[str, Any], ...] = ()
    tensors: Mapping[str, str] | None = None
    segments: Commitment | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON data; an optional field that is None is left out."""
        row = asdict(self) | {"environments": list(self.environments)}
        if self.segments is not None:
            row["segments"] = self.segments.to_dict()
        return {key: value for key, value in row.items() if value is not None}


def is_name(name: object) -> bool:
    """Whether it can name a released model: parts of letters, digits, ``_`` and ``-`` with dots between, no path."""
    if not isinstance(name, str) or len(name) > _LONGEST_NAME or name.endswith(_RESERVED):
        return False
    return _NAME.fullmatch(name) is not None


def parse_manifest(data: bytes, source: str = "the text") -> dict[str, Entry]:
    """All rows of a manifest by name; every field's type and form is checked.

    A manifest is a JSON object with ``schema``, the number :data:`SCHEMA`, and ``entries``, an object of rows by name.

    Args:
        data: the file's bytes.
        source: names it in errors.

    Raises:
        DamagedReleaseError: it is not a manifest, or one of a schema that this dettriton does not know.
    """
    try:
        content = _read(data)
        schema = content.get("schema")
        if type(schema) is not int or schema < 1:
            raise ValueError(f"its schema is a number from 1, not {schema!r:.40}")
        if schema > SCHEMA:
            raise DamagedReleaseError(
                f"{source} has schema {schema} and this dettriton knows schemas up to {SCHEMA}: a newer dettriton wrote "
                "it. Install a newer dettriton"
            )
        if content.keys() != {"schema", "entries"} or not isinstance(content["entries"], dict):
            raise ValueError("it has other parts than schema and entries")
        return {name: _entry(name, row) for name, row in content["entries"].items()}
    except (ValueError, RecursionError) as error:
        raise DamagedReleaseError(f"{source} is not a manifest: {error}. Reinstall dettriton") from None


def require_canonical(data: bytes, source: str = "the text") -> None:
    """Raise unless the bytes are the one canonical form of the JSON that they hold.

    That form is UTF-8 without escapes that JSON does not ask for, keys sorted by code point, two spaces of indentation
    a level, ``": "`` and ``","`` as separators, numbers as Python's ``repr`` writes them (the shortest text that reads
    back as the same binary64), no NaN or infinity, and one line feed at the end.

    Raises:
        DamagedReleaseError: they are not, or not JSON at all.
    """
    try:
        same = canonical(_read(data)) == data
    except (ValueError, RecursionError) as error:
        raise DamagedReleaseError(f"{source} is not a manifest: {error}. Reinstall dettriton") from None
    if not same:
        raise DamagedReleaseError(
            f"{source} is not in canonical form (UTF-8, sorted keys, two spaces of indentation, shortest numbers, one "
            "line feed at the end): it was edited by hand. Reinstall dettriton"
        )


def manifest_bytes(entries: Mapping[str, Entry]) -> bytes:
    """The manifest with these rows, in canonical form."""
    return canonical({"schema": SCHEMA, "entries": {name: row.to_dict() for name, row in entries.items()}})


def canonical(content: Mapping[str, Any]) -> bytes:
    """JSON data in the form of :func:`require_canonical`."""
    text = json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def _read(data: bytes) -> dict[str, Any]:
    content = json.loads(data.decode(), object_pairs_hook=unique_keys, parse_constant=no_constants)
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    canonical(content)  # text without a UTF-8 form and numbers beyond binary64 end here
    return content


def _entry(name: str, row: Any) -> Entry:
    if not is_name(name):
        raise ValueError(f"{name!r:.80} cannot name a model")
    if not isinstance(row, dict) or not _REQUIRED <= row.keys() <= _FORMS.keys() or row["name"] != name:
        raise ValueError(f"the row of {name} does not have the keys {', '.join(sorted(_REQUIRED))}")
    for key, value in row.items():
        fits, form = _FORMS[key]
        if not fits(value):
            raise ValueError(f"{key} of {name} is not {form}: {value!r:.80}")
    segments = row.get("segments")
    try:
        kept = None if segments is None else Commitment.parse(segments)
    except InputError as error:
        raise ValueError(f"the row of {name}: {error}") from None
    return Entry(**{**row, "environments": tuple(row["environments"]), "segments": kept})


def _is_count(value: object, least: int) -> bool:
    return type(value) is int and least <= value < 2**53


def _is_line(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and value.strip() != ""


def _is_scores(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() != {"auc", "acc"}:
        return False
    return all(type(v) is float and math.isfinite(v) and 0 <= v <= 1 for v in value.values())


def _are_tensors(value: object) -> bool:
    return value is None or (isinstance(value, dict) and bool(value) and all(map(is_digest, value.values())))


def _are_environments(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_environment, value))


def _is_environment(value: object) -> bool:
    """Whether the facts that pages and cards print are there; a later version may add more."""
    if not isinstance(value, dict) or not all(_is_line(value.get(key)) for key in _ENVIRONMENT_TEXTS):
        return False
    packages, gpus = value.get("packages"), value.get("gpus")
    versions = isinstance(packages, dict) and _is_line(packages.get("torch"))
    versions = versions and all(v is None or _is_line(v) for v in packages.values())
    named = isinstance(gpus, list) and all(isinstance(g, dict) and _is_line(g.get("name")) for g in gpus)
    return versions and named and _is_count(value.get("threads"), 1)


_ENVIRONMENT_TEXTS = ("dettriton", "python", "platform", "cpu", "cpu_capability")

_Form = tuple[Callable[[object], bool], str]
_DIGEST: _Form = (is_digest, "a digest of 64 lower-case hexadecimal digits")
_SCORES: _Form = (_is_scores, "auc and acc, numbers from 0 to 1")
_LINE: _Form = (_is_line, "a line of text")

_FORMS: dict[str, _Form] = {
    "name": (is_name, "a name"),
    "bitspec": (lambda value: _is_count(value, 1), "a number from 1"),
    "best_epoch": (lambda value: _is_count(value, 0), "a number from 0"),
    "validation": _SCORES,
    "test": _SCORES,
    "licence": _LINE,
    "data_licence": _LINE,
    "environments": (_are_environments, "a list of environments"),
    "tensors": (_are_tensors, "digests of 64 lower-case hexadecimal digits by name"),
    "segments": (lambda value: value is None or isinstance(value, dict), "an object"),
    **dict.fromkeys(
        (
            "file_sha256",
            "weights_digest",
            "init_digest",
            "trace",
            "golden_digest",
            "golden_file_sha256",
            "dataset_sha256",
            "recipe_digest",
        ),
        _DIGEST,
    ),
}
_REQUIRED = {f.name for f in fields(Entry)} - {"tensors", "segments"}
