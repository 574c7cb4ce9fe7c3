"""PTB-XL's two tables, ``ptbxl_database.csv`` and ``scp_statements.csv``, read with care."""

import ast
import csv
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dettriton.data._ptbxl_tables import RATE_OF, SPLIT_OF_FOLD, STATEMENTS, SUPERCLASS, SUPERCLASS_OF
from dettriton.errors import InputError

DATABASE, STATEMENTS_FILE = "ptbxl_database.csv", "scp_statements.csv"

_FILE_COLUMN = {"records100": "filename_lr", "records500": "filename_hr"}
_FILE_NAME = {folder: re.compile(rf"{folder}/\d{{5}}/\d{{5}}_[lh]r", re.ASCII) for folder in RATE_OF}
_WHOLE_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_FLAGS = {"": False, "1.0": True}


@dataclass(frozen=True)
class Row:
    """A record's line of ``ptbxl_database.csv``.

    Attributes:
        ecg_id: its number.
        fold: ``strat_fold``, 1 to 10.
        codes: its SCP statements, in the file's order; their likelihoods are left out.
        files: folder of records to the record's path in the dataset, without a suffix.
    """

    ecg_id: int
    fold: int
    codes: tuple[str, ...]
    files: Mapping[str, str]


@dataclass(frozen=True)
class Statements:
    """``scp_statements.csv``: codes by kind, and the superclass of each diagnostic code."""

    kinds: Mapping[str, frozenset[str]]
    superclass_of: Mapping[str, str]

    def labels(self, task: str, codes: Collection[str]) -> set[str]:
        """The classes of a record with these codes."""
        if task == "superclass":
            return {self.superclass_of[code] for code in codes if code in self.superclass_of}
        return self.kinds[task] & set(codes)


def read_statements(path: Path) -> Statements:
    """The statements that PTB-XL uses.

    Raises:
        InputError: the file is missing, malformed, or not that of PTB-XL 1.0.3.
    """
    kinds = {kind: set() for kind in STATEMENTS}
    superclass_of = {}
    for where, row in _rows(path, ("", *STATEMENTS, "diagnostic_class")):
        code = row[""]
        for kind, codes in kinds.items():
            if row[kind] not in _FLAGS:
                raise InputError(f"{where}: {kind} of {code} is {row[kind]!r}, neither 1.0 nor empty")
            if _FLAGS[row[kind]]:
                codes.add(code)
        if code in kinds["diagnostic"]:
            superclass_of[code] = row["diagnostic_class"]
    found = Statements({kind: frozenset(codes) for kind, codes in kinds.items()}, superclass_of)
    if superclass_of != SUPERCLASS_OF or any(found.kinds[kind] != set(codes) for kind, codes in STATEMENTS.items()):
        raise InputError(
            f"{path} does not have the {len(set().union(*STATEMENTS.values()))} statements and {len(SUPERCLASS)} "
            "superclasses of PTB-XL 1.0.3. Fetch it again."
        )
    return found


def read_database(path: Path, statements: Statements, ids: Collection[int] | None = None) -> tuple[list[Row], int]:
    """The rows of the wanted records in ascending order of their numbers, and how many rows the file has.

    Args:
        path: ``ptbxl_database.csv``, whole or cut to some rows.
        statements: what codes there are.
        ids: the numbers wanted; all for None.

    Raises:
        InputError: the file is missing or malformed, a number is there twice or not at all, or a code is unknown.
    """
    known = frozenset().union(*statements.kinds.values())
    wanted = None if ids is None else set(ids)
    seen, rows = set(), []
    for where, row in _rows(path, ("ecg_id", "scp_codes", "strat_fold", *_FILE_COLUMN.values())):
        ecg_id = _number(row["ecg_id"], "ecg_id", where)
        if ecg_id in seen:
            raise InputError(f"{where}: the record {ecg_id} is there a second time")
        seen.add(ecg_id)
        if wanted is None or ecg_id in wanted:
            rows.append(_row(ecg_id, row, f"{where}, record {ecg_id}", known))
    absent = sorted((wanted or set()) - seen)
    if absent:
        raise InputError(f"{path} lacks {len(absent)} wanted records: {_some(absent)}. Is it version 1.0.3?")
    return sorted(rows, key=lambda row: row.ecg_id), len(seen)


def _row(ecg_id: int, row: Mapping[str, str], where: str, known: frozenset[str]) -> Row:
    fold = _number(row["strat_fold"], "strat_fold", where)
    if fold not in SPLIT_OF_FOLD:
        raise InputError(f"{where}: strat_fold is {fold}, not one of 1 to {max(SPLIT_OF_FOLD)}")
    codes = _codes(row["scp_codes"], where)
    unknown = [code for code in codes if code not in known]
    if unknown:
        raise InputError(f"{where}: unknown SCP code {unknown[0]!r}; {STATEMENTS_FILE} does not list it")
    files = {folder: row[column] for folder, column in _FILE_COLUMN.items()}
    for folder, name in files.items():
        if not _FILE_NAME[folder].fullmatch(name):
            raise InputError(f"{where}: {_FILE_COLUMN[folder]} is {name!r}, not like {folder}/00000/00001_lr")
    return Row(ecg_id, fold, codes, files)


def _codes(text: str, where: str) -> tuple[str, ...]:
    try:
        codes = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise InputError(f"{where}: scp_codes {text[:80]!r} is not a dictionary of codes") from error
    if not isinstance(codes, dict) or not all(isinstance(code, str) for code in codes):
        raise InputError(f"{where}: scp_codes {text[:80]!r} is not a dictionary of codes")
    return tuple(codes)


def _number(text: str, column: str, where: str) -> int:
    if not _WHOLE_NUMBER.fullmatch(text):
        raise InputError(f"{where}: {column} is {text!r}, not a whole number")
    return int(text)


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row with the place to name in a message."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            absent = [column for column in columns if column not in (reader.fieldnames or ())]
            if absent:
                raise InputError(f"{path} has no column {absent[0]!r}. It is not PTB-XL's; fetch it again.")
            for row in reader:
                where = f"{path} line {reader.line_num}"
                if None in row or None in row.values():
                    raise InputError(f"{where}: the row does not have {len(reader.fieldnames)} fields. Fetch it again.")
                yield where, row
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}. Check the path and its permissions.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a table of comma-separated values: {error}. Fetch it again.") from error


def _some(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:12]))
    return shown + (", ..." if len(numbers) > 12 else "")
