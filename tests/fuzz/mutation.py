"""Inputs for readers: valid files with bytes, or parts of what they say, changed; and noise."""

import json
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

DEEP, LONG = "@deep@", "@long@"
_WRITTEN = {f'"{DEEP}"'.encode(): b"[" * 20_000 + b"]" * 20_000, f'"{LONG}"'.encode(): b"9" * 5000}

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 7, 2**31, 2**63, -(2**63), 2**64, 10**400, 0.5, -0.0, 1e308, 1e-320),
    *(math.inf, -math.inf, math.nan, "", "a", "0", "é", "\ud800", "\0", "..", "/etc/passwd", "x" * 3000, "f" * 64),
    *([], [[]], [0], [0, 0], [1, 0], ["1", "0"], [-1], ["a", "b"], [None], [[1, 2], [3]], {}, {"a": 1}, {"": {}}),
    *([0] * 70, [2**62, 2**62], DEEP, LONG),
)
"""What stands in the place of a part: each type, its borders, and what is too long or too deep."""

PIECES = (
    *(
        b"",
        b"\0",
        b"\xff",
        b"\n",
        b"\r\n",
        b'"',
        b"'",
        b"[",
        b"]",
        b"{",
        b"}",
        b"[[",
        b":",
        b",",
        b"=",
        b"#",
        b" ",
        b"-",
    ),
    *(
        b"null",
        b"true",
        b"1e999",
        b"NaN",
        b"0x" + b"f" * 6000,
        b"9" * 30,
        b"../",
        b"\xed\xa0\x80",
        b"[" * 3000,
        b"\\u0000",
    ),
)


@dataclass(frozen=True)
class Form:
    """How inputs for a reader are made.

    Attributes:
        files: valid ones.
        trees: what valid ones say, as JSON data.
        write: the file of a changed tree, its checksums right.
    """

    files: tuple[bytes, ...]
    trees: tuple[Any, ...] = ()
    write: Callable[[Any], bytes] = field(default=lambda tree: json_bytes(tree))

    def make(self, random: Random) -> bytes:
        """A changed file, a file of a changed tree, or now and then noise."""
        if random.random() < 0.05:
            return random.randbytes(random.randrange(65))
        if self.trees and random.random() < 0.6:
            changes = [_draw(random, CHANGES) for _ in range(random.randint(1, 3))]
            return self.write(change(random.choice(self.trees), changes))
        return damage(random.choice(self.files), [_draw(random, EDITS) for _ in range(random.randint(1, 4))])


def _draw(random: Random, kinds: tuple[str, ...]) -> tuple[str, int, int]:
    return random.choice(kinds), random.getrandbits(32), random.getrandbits(32)


def json_bytes(tree: Any) -> bytes:
    """JSON of data that may hold what JSON has no place for."""
    return written(json.dumps(tree).encode())


def written(text: bytes) -> bytes:
    """The text with what cannot be had from a library put in."""
    for token, content in _WRITTEN.items():
        text = text.replace(token, content)
    return text


def damage(content: bytes, edits: list[tuple[str, int, int]]) -> bytes:
    """The bytes after some of :data:`EDITS`."""
    data = bytearray(content)
    for kind, where, what in edits:
        begin = where % (len(data) + 1)
        end = min(len(data), begin + 1 + what % 40)
        if kind == "flip" and begin < len(data):
            data[begin] ^= 1 << what % 8
        elif kind == "byte" and begin < len(data):
            data[begin] = what % 256
        elif kind == "cut":
            del data[begin:]
        elif kind == "remove":
            del data[begin:end]
        elif kind == "repeat":
            data[begin:begin] = data[begin:end] * (1 + what % 50)
        elif kind == "move":
            piece = data[begin:end]
            del data[begin:end]
            place = what % (len(data) + 1)
            data[place:place] = piece
        elif kind == "insert":
            data[begin:begin] = PIECES[what % len(PIECES)]
        elif kind == "replace":
            data[begin:end] = PIECES[what % len(PIECES)]
        elif kind == "number":
            _other_number(data, begin, what)
    return bytes(data)


EDITS = ("flip", "byte", "cut", "remove", "repeat", "move", "insert", "replace", "number")


def _other_number(data: bytearray, begin: int, what: int) -> None:
    """The next run of digits becomes another number."""
    digits = b"0123456789"
    while begin < len(data) and data[begin] not in digits:
        begin += 1
    end = begin
    while end < len(data) and data[end] in digits:
        end += 1
    numbers = (b"0", b"-1", b"1", b"255", b"65536", b"4294967296", b"9223372036854775808", b"9" * 40, b"1e400", b"0.5")
    if begin < len(data):
        data[begin:end] = numbers[what % len(numbers)]


def change(tree: Any, changes: list[tuple[str, int, int]]) -> Any:
    """The tree after some of :data:`CHANGES`."""
    box = [_copy(tree)]
    for kind, where, what in changes:
        places = list(_places(box))
        holder, key = places[where % len(places)]
        if kind == "value":
            holder[key] = _copy(VALUES[what % len(VALUES)])
        elif kind == "swap":
            other, at = places[what % len(places)]
            holder[key] = _copy(other[at])
        elif kind == "nudge" and type(holder[key]) in (int, float) and abs(holder[key]) < 2**64:
            holder[key] += (1, -1, 0.5, 2**40)[what % 4]
        elif kind == "remove" and holder is not box:
            del holder[key]
        elif kind == "rename" and isinstance(holder, dict):
            holder[("", "name", "\ud800", f"{key} ", "x" * 300)[what % 5]] = holder.pop(key)
        elif kind == "repeat" and isinstance(holder, list) and holder is not box:
            holder[key:key] = [_copy(holder[key])] * (1 + what % 3)
    return box[0]


CHANGES = ("value", "value", "swap", "nudge", "remove", "rename", "repeat")


def _copy(tree: Any) -> Any:
    return pickle.loads(pickle.dumps(tree))


def _places(holder: Any) -> Any:
    for key in [*holder] if isinstance(holder, dict) else range(len(holder)):
        yield holder, key
        if isinstance(holder[key], dict | list):
            yield from _places(holder[key])


def toml_bytes(tree: Any) -> bytes:
    """TOML of data that may hold what TOML has no place for."""
    if not isinstance(tree, dict):
        return _toml_value(tree).encode("utf-8", "surrogatepass")
    loose = [f"{_toml_key(k)} = {_toml_value(v)}\n" for k, v in tree.items() if not isinstance(v, dict)]
    for section, table in tree.items():
        if isinstance(table, dict):
            loose += [f"[{_toml_key(section)}]\n", *(f"{_toml_key(k)} = {_toml_value(v)}\n" for k, v in table.items())]
    return written("".join(loose).encode("utf-8", "surrogatepass"))


def _toml_key(key: str) -> str:
    return key if key.isidentifier() and key.isascii() else json.dumps(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml_key(k)} = {_toml_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, float):
        return repr(value)
    return "1979-05-27T07:32:00Z" if value is None else json.dumps(value)
