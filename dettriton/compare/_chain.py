"""Traces: reading one whose chain holds, and the first step where two differ."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dettriton.compare._details import DetailDifference, Record, first_detail
from dettriton.errors import InputError, IntegrityError
from dettriton.train._records import parse_record
from dettriton.train.trace import differing_tensors, float_of_bits, next_link


def read_chain(path: Path, origin: str | None = None) -> tuple[list[Record], str | None]:
    """The whole records of a trace, their chain checked.

    A training that was killed can leave a last line without its end; that line is left out.

    Args:
        path: the file.
        origin: the link that the chain starts from; None where it is not known, so that the first record is taken as
            it is.

    Returns:
        The records, and a note if the last line was left out.

    Raises:
        InputError: the file cannot be read, or a line is not a trace record.
        IntegrityError: a record does not lead to the link beside it.
    """
    try:
        *lines, rest = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"cannot read the trace {path}: {error.strerror}") from None
    records = [_parse(line, path, number) for number, line in enumerate(lines, 1)]
    _require_chain(records, path, origin)
    return records, f"{path} was cut within line {len(lines) + 1}, which is left out" if rest else None


@dataclass(frozen=True)
class LossDifference:
    """The first step whose loss has different bits, eight hexadecimal digits each."""

    step: int
    a: str
    b: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON data, with the losses as numbers too."""
        return {"step": self.step} | {
            k: {"bits": v, "value": float_of_bits(v)} for k, v in (("a", self.a), ("b", self.b))
        }


@dataclass(frozen=True)
class TensorDifference:
    """The first step after which recorded tensor digests differ, and the names of those that do."""

    step: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class TraceComparison:
    """Two traces side by side.

    Attributes:
        steps_a, steps_b: how many steps each holds; the shorter one's are compared.
        loss, tensors: the first differences, or None.
        detail: the first difference that the details of both place in a phase, or None.
        last_equal_tensors: the last step before both of them after which all recorded tensor digests were equal.
        same_origin: whether both chains start from the same recipe and initial weights; None where the first step
            differs already and cannot tell.
    """

    steps_a: int
    steps_b: int
    loss: LossDifference | None
    tensors: TensorDifference | None
    detail: DetailDifference | None
    last_equal_tensors: int | None
    same_origin: bool | None

    @property
    def first_step(self) -> int | None:
        """The first step where something recorded differs."""
        steps = [found.step for found in (self.loss, self.tensors) if found is not None]
        if self.detail is not None:
            steps.append(self.detail.step or 0)
        return min(steps, default=None)

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self) | {
            "loss": None if self.loss is None else self.loss.to_dict(),
            "tensors": None if self.tensors is None else asdict(self.tensors) | {"names": list(self.tensors.names)},
            "detail": None if self.detail is None else self.detail.to_dict(),
            "first_step": self.first_step,
        }


def compare_traces(a: Sequence[Record], b: Sequence[Record]) -> TraceComparison:
    """The first differences of two traces that :func:`read_chain` read."""
    loss = next(
        (LossDifference(x["step"], x["loss"], y["loss"]) for x, y in _pairs(a, b) if x["loss"] != y["loss"]), None
    )
    tensors, last_equal = None, None
    for x, y in _pairs(a, b):
        if "tensors" in x and "tensors" in y:
            names = differing_tensors(x["tensors"], y["tensors"])
            if names:
                tensors = TensorDifference(x["step"], names)
                break
            if loss is None or x["step"] < loss.step:
                last_equal = x["step"]
    detail = first_detail(_pairs(a, b))
    return TraceComparison(len(a), len(b), loss, tensors, detail, last_equal, _same_origin(a, b))


def _pairs(a: Sequence[Record], b: Sequence[Record]) -> Iterator[tuple[Record, Record]]:
    # the shorter trace ends the comparison: a training that is not finished is no difference
    return zip(a, b, strict=False)


def _same_origin(a: Sequence[Record], b: Sequence[Record]) -> bool | None:
    if not a or not b or a[0]["loss"] != b[0]["loss"] or a[0].get("tensors") != b[0].get("tensors"):
        return None
    return a[0]["chain"] == b[0]["chain"]


def _parse(line: bytes, path: Path, line_number: int) -> Record:
    try:
        return parse_record(line)
    except ValueError as error:
        raise InputError(f"{path}: line {line_number} is not a trace record: {error}") from None


def _require_chain(records: Sequence[Record], path: Path, origin: str | None) -> None:
    link = origin
    for index, record in enumerate(records):
        if record["step"] != index or (link is not None and record["chain"] not in _next_links(link, record)):
            raise IntegrityError(
                f"the trace {path} is damaged: its chain breaks at line {index + 1} (step {record['step']}), which does "
                "not follow from what is before it. It was edited, or belongs to another recipe or other initial "
                "weights; fetch it again, or train again"
            )
        link = record["chain"]


def _next_links(link: str, record: Record) -> set[str]:
    """Both links a record may have: the chain covers tensors at the end of an epoch only, and no record says that."""
    bare = {"step": record["step"], "loss": record["loss"]}
    return {next_link(link, bare), next_link(link, bare | {"tensors": record.get("tensors", {})})}
