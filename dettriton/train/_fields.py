"""Reading a table of settings into a frozen dataclass: every key known, of its type and in its range."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from math import isfinite
from reprlib import Repr
from typing import Any, TypeVar

from dettriton.errors import InputError

Section = TypeVar("Section")

_DEEPEST_ARRAY = 8
_INTEGERS = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Kind:
    """What a value must be: ``parse`` returns it in its stored type, or raises ValueError."""

    description: str
    parse: Callable[[Any], Any]


def setting(kind: Kind, default: Any = MISSING, *, omitted_at_default: bool = False) -> Any:
    """A dataclass field that holds ``kind``; without a default the key is required.

    Args:
        kind: what the value must be.
        default: the value where the key is not given.
        omitted_at_default: leave the key out of :func:`to_table` at its default. For settings that are younger than a
            release: recipes that do not use them keep their digests.
    """
    metadata = {"kind": kind, "omitted_at_default": omitted_at_default}
    return field(metadata=metadata, **({} if default is MISSING else {"default": default}))


def text() -> Kind:
    """A string with at least one character."""
    return Kind("a non-empty string", lambda v: _require(isinstance(v, str) and v, v))


def choice(*allowed: str) -> Kind:
    """One of the given strings."""
    listed = " or ".join(f'"{a}"' for a in allowed)
    return Kind(listed, lambda v: _require(isinstance(v, str) and v in allowed, v))


def flag() -> Kind:
    """true or false."""
    return Kind("true or false", lambda v: _require(isinstance(v, bool), v))


def integer(low: int, high: int) -> Kind:
    """An integer in [low, high]."""
    accept = lambda v: _is_integer(v) and low <= v <= high  # noqa: E731 reads as a rule
    return Kind(f"an integer from {low} to {high}", lambda v: _require(accept(v), v))


def number(low: float, high: float = float("inf"), *, open_low: bool = False, open_high: bool = False) -> Kind:
    """A finite number between two bounds, stored as a float; ``open_low`` and ``open_high`` exclude the bound."""
    above = f"{'above' if open_low else 'at least'} {low:g}"
    below = f" and {'below' if open_high else 'at most'} {high:g}" if isfinite(high) else ""

    def accept(v: Any) -> bool:
        if isinstance(v, bool) or not (isinstance(v, float) or _is_integer(v)) or not isfinite(v):
            return False
        return (v > low if open_low else v >= low) and (v < high if open_high else v <= high)

    return Kind(f"a finite number {above}{below}", lambda v: float(_require(accept(v), v)))


def pair(each: Kind) -> Kind:
    """Two values of one kind, stored as a tuple."""

    def parse(v: Any) -> tuple[Any, Any]:
        _require(isinstance(v, list | tuple) and len(v) == 2, v)
        return each.parse(v[0]), each.parse(v[1])

    return Kind(f"a pair, each {each.description}", parse)


def arguments() -> Kind:
    """A table of numbers, strings, booleans, and arrays of them, as TOML writes keyword arguments."""

    def plain(v: Any, depth: int = 0) -> bool:
        if isinstance(v, list | tuple):
            return depth < _DEEPEST_ARRAY and all(plain(item, depth + 1) for item in v)
        return isinstance(v, bool | str) or _is_integer(v) or (isinstance(v, float) and isfinite(v))

    def parse(v: Any) -> dict[str, Any]:
        _require(isinstance(v, Mapping) and all(isinstance(k, str) and plain(item) for k, item in v.items()), v)
        return dict(v)

    return Kind("a table of numbers, strings, booleans or arrays of them", parse)


def read_section(cls: type[Section], table: Any, where: str) -> Section:
    """``cls`` filled from ``table``.

    Args:
        cls: a dataclass whose fields are made with :func:`setting`.
        table: a mapping from key to value.
        where: how errors name the table, such as ``"recipe.toml, [optimizer]"``.

    Raises:
        InputError: an unknown key, a missing key, or a value of the wrong type or out of range; the message names
            the key, the section and what is allowed.
    """
    require_table(table, where)
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    require_known(table, known, where)
    values = {}
    for key, f in known.items():
        kind: Kind = f.metadata["kind"]
        if key not in table:
            if f.default is MISSING and f.default_factory is MISSING:
                raise InputError(f"{where}: key '{key}' is missing; it must be {kind.description}")
            continue
        try:
            values[key] = kind.parse(table[key])
        except ValueError:
            raise InputError(f"{where}: '{key}' must be {kind.description}, got {shown(table[key])}") from None
    return cls(**values)


def to_table(section: Any) -> dict[str, Any]:
    """The settings of a section, defaults written out except where :func:`setting` says otherwise."""
    omitted = {f.name for f in fields(section) if f.metadata.get("omitted_at_default") and _is_default(section, f)}
    return {key: value for key, value in asdict(section).items() if key not in omitted}


def require_table(table: Any, where: str) -> None:
    """Raise unless ``table`` is a mapping."""
    if not isinstance(table, Mapping):
        raise InputError(f"{where} must be a table of keys and values, got {shown(table)}")


def require_known(table: Mapping[str, Any], known: Any, where: str, noun: str = "key") -> None:
    """Raise if ``table`` has a key that is not in ``known``; the message lists what is."""
    for key in table:
        if key not in known:
            raise InputError(f"{where}: unknown {noun} '{key}'; allowed {noun}s: {', '.join(known)}")


def shown(value: Any) -> str:
    """A value for a message: of bounded length, and never an error, as ``repr`` of a long integer is one."""
    try:
        return _repr.repr(value)
    except ValueError:
        return f"an integer of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"


_repr = Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 200


def _is_integer(v: Any) -> bool:
    """Whether it is an integer of TOML, which has 64 bits."""
    return isinstance(v, int) and not isinstance(v, bool) and v in _INTEGERS


def _is_default(section: Any, f: Field) -> bool:
    return getattr(section, f.name) == f.default


def _require(condition: Any, value: Any) -> Any:
    if not condition:
        raise ValueError
    return value
