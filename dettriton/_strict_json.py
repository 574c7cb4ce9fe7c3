"""What :func:`json.loads` lets pass and a checked file must not hold: a key twice in one object, and NaN or infinity."""

from collections import Counter
from typing import Any


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An ``object_pairs_hook`` that refuses an object with a key twice.

    Raises:
        ValueError: a key occurs twice.
    """
    unique = dict(pairs)
    if len(unique) != len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r:.80} occurs twice in one object")
    return unique


def no_constants(text: str) -> None:
    """A ``parse_constant`` that refuses NaN and infinities.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{text} is not a number of JSON")
