"""One line of a trace, checked: whatever bytes it is read from, it is a record or a ValueError."""

import json
import re
from typing import Any

from dettriton._strict_json import no_constants, unique_keys

_LOSS, _CHAIN, _DIGEST = (re.compile(rf"[0-9a-f]{count}") for count in ("{8}", "{64}", "+"))


def parse_record(line: bytes) -> dict[str, Any]:
    """A line of a trace file: its step, loss and chain, and whatever digests it holds, of the right kinds.

    Keys that are not known are kept as they are: a later version may write them.

    Raises:
        ValueError: it is not a trace record.
    """
    try:
        record = json.loads(line.decode(), object_pairs_hook=unique_keys, parse_constant=no_constants)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(record, dict) or not {"step", "loss", "chain"} <= record.keys():
        raise ValueError("it has no step, loss and chain")
    if type(record["step"]) is not int or not 0 <= record["step"] < 2**63:
        raise ValueError("its step is not a count")
    if not _matches(_LOSS, record["loss"]) or not _matches(_CHAIN, record["chain"]):
        raise ValueError("its loss is not 8 hexadecimal digits, or its chain is not 64")
    for key in ("tensors", "initial", "samples", "optimizer"):
        named = record.get(key, {})
        if not isinstance(named, dict) or not all(_is_entry(*item) for item in named.items()):
            raise ValueError(f"its {key} are not names and digests")
    for key in ("outputs", "gradients"):
        entries = record.get(key, [])
        if not isinstance(entries, list) or not all(isinstance(e, list) and _is_entry(*e) for e in entries):
            raise ValueError(f"its {key} are not a list of names and digests")
    return record


def _is_entry(*entry: Any) -> bool:
    if len(entry) != 2 or not isinstance(entry[0], str) or not _matches(_DIGEST, entry[1]):
        return False
    entry[0].encode()  # a ValueError where a lone surrogate makes it a name that cannot be printed
    return True


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
