"""The trace of a training run: one JSON line a step, so that two runs can be compared to the first bit that differs."""

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any

from dettriton.errors import InputError, IntegrityError
from dettriton.train._records import parse_record

FILE_NAME = "trace.jsonl"

STEP, ACTIVATIONS = "step", "activations"
DETAILS = (STEP, "gradients", ACTIVATIONS)


def first_link(recipe_digest: str, init_digest: str) -> str:
    """The digest that a run's chain starts from: SHA-256 (hex) over the recipe's and the initial weights' digests."""
    return hashlib.sha256(f"{recipe_digest}\n{init_digest}\n".encode()).hexdigest()


def next_link(link: str, record: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over the previous link, a line feed, and the record's JSON with sorted keys and no spaces."""
    return hashlib.sha256(f"{link}\n{_line(record)}".encode()).hexdigest()


def float_bits(value: float) -> str:
    """The binary32 bits of a number that binary32 holds, as eight hexadecimal digits."""
    return struct.pack(">f", value).hex()


def float_of_bits(bits: str) -> float:
    """The number that :func:`float_bits` wrote."""
    (value,) = struct.unpack(">f", bytes.fromhex(bits))
    return value


@dataclass(frozen=True)
class Position:
    """A place in a trace: the chain's link there and the length of the file up to it."""

    link: str
    size: int


class TraceFile:
    """A trace on the disk that goes on from a position; open it to write, and close it as often as you like.

    Args:
        path: the file, made if need be. Whatever it holds beyond ``position`` is cut off when it is opened.
        position: where to go on.

    Raises:
        IntegrityError: the file is shorter than ``position``, or does not lead to its link.
        InputError: from the methods: it cannot be opened or written.
    """

    def __init__(self, path: Path, position: Position):
        _require_leads_to(path, position)
        self._path, self._begin = path, position.size
        self._file = None

    def open(self) -> None:
        """Open the file, at its position."""
        with self._writable():
            self._file = open(self._path, "ab")  # noqa: SIM115 closed by close()
            self._file.truncate(self._begin)
            self._file.seek(0, os.SEEK_END)

    def write(self, record: Mapping[str, Any]) -> None:
        """Add a line."""
        with self._writable():
            self._file.write(_line(record).encode())

    def size(self) -> int:
        """The length of the file, all of which is on the disk when this returns."""
        with self._writable():
            self._file.flush()
            os.fsync(self._file.fileno())
            return self._file.tell()

    def close(self) -> None:
        """Write what is left and close the file."""
        if self._file is not None:
            with self._writable():
                self._file.close()

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"cannot write the trace {self._path}: {error.strerror}. Check that its directory exists, is writable "
                "and has space; a run that has begun goes on with --resume"
            ) from error


class Trace:
    """Appends steps to a chain, and to a file if there is one, inside a ``with`` block.

    The chain covers the step number and the loss bits of each step and, at the end of an epoch, the digest of every
    tensor. Digests written at other steps (``tensor_interval``) stay outside it, so that a run traced more closely
    still has the same chain.

    Args:
        position: where to start: the first link and 0, or what a checkpoint recorded.
        path: the file; None keeps the chain only. Whatever the file holds beyond ``position`` is cut off.

    Raises:
        IntegrityError: the file is shorter than ``position``, or does not lead to its link.
        InputError: from the ``with`` block: it cannot be written.
    """

    def __init__(self, position: Position, path: Path | None):
        self.link = position.link
        self._file = None if path is None else TraceFile(path, position)

    def append(
        self, step: int, loss: float, tensors: Mapping[str, str] | None = None, *, ends_epoch: bool
    ) -> dict[str, Any]:
        """Add a step.

        Args:
            step: counted from 0.
            loss: a number that binary32 holds.
            tensors: name to digest of every tensor after the step's update; required at the end of an epoch.
            ends_epoch: whether the step is the last of its epoch.

        Returns:
            The record, as a file holds it.
        """
        record: dict[str, Any] = {"step": step, "loss": float_bits(loss)}
        chained = record | {"tensors": dict(tensors)} if ends_epoch and tensors is not None else record
        self.link = next_link(self.link, chained)
        written = record | {"chain": self.link} | ({} if tensors is None else {"tensors": dict(tensors)})
        if self._file is not None:
            self._file.write(written)
        return written

    def position(self) -> Position:
        """Where the trace stands now; what is before it is on the disk when this returns."""
        return Position(self.link, 0 if self._file is None else self._file.size())

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> "Trace":
        if self._file is not None:
            self._file.open()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True)
class Difference:
    """The first place where two traces differ; ``tensor`` is None where only the loss or the length tells."""

    step: int
    tensor: str | None

    def __str__(self) -> str:
        return f"step {self.step}" if self.tensor is None else f"step {self.step}, tensor {self.tensor}"


def read_trace(path: str | Path) -> list[dict[str, Any]]:
    """The records of a trace file.

    Raises:
        InputError: the file cannot be read, or a line is not a trace record.
    """
    records: list[dict[str, Any]] = []
    try:
        for line in Path(path).read_bytes().splitlines():
            records.append(parse_record(line))
    except OSError as error:
        raise InputError(f"cannot read the trace {path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: line {len(records) + 1} is not a trace record: {error}") from None
    return records


def first_difference(a: str | Path, b: str | Path) -> Difference | None:
    """The first step, and where both traces recorded tensors there the first tensor by name, that differ; or None.

    Where only the optimizer's recorded state differs, the tensor is called ``<parameter>: <key>``.
    A differing tensor is recorded after the step that changed it, so it comes before the first loss that differs: to
    narrow it down to its own step, run both trainings again with ``tensor_interval=1``.
    """
    for index, (left, right) in enumerate(zip_longest(read_trace(a), read_trace(b))):
        if left is None or right is None:
            return Difference(index, None)
        if (left["step"], left["loss"]) != (right["step"], right["loss"]):
            return Difference(left["step"], None)
        names = (name for key in ("tensors", "optimizer") for name in differing_tensors(left.get(key), right.get(key)))
        name = next(names, None)
        if name is not None or left["chain"] != right["chain"]:
            return Difference(left["step"], name)
    return None


def differing_tensors(a: Mapping[str, str] | None, b: Mapping[str, str] | None) -> tuple[str, ...]:
    """Names, sorted, of tensors whose recorded digests differ; none where a side recorded no tensors."""
    if a is None or b is None:
        return ()
    return tuple(name for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name))


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, sort_keys=True, separators=(",", ":")) + "\n"


def _require_leads_to(path: Path, position: Position) -> None:
    if position.size == 0:
        return
    try:
        with open(path, "rb") as file:
            head = file.read(position.size)
    except FileNotFoundError:
        head = b""
    last = head[head.rfind(b"\n", 0, -1) + 1 :]
    if len(head) < position.size or f'"chain":"{position.link}"'.encode() not in last:
        raise IntegrityError(
            f"the trace {path} does not lead to the checkpoint of the run: it was cut or edited, or it is not where "
            "the run wrote it (--trace). Put it back, or move the directory away and train again from the start"
        )
