"""The environments in which a released model was retrained, from the results file of ``bench/environments.py``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dettriton.environment import one_line
from dettriton.errors import InputError
from dettriton.zoo._manifest import Entry

SAME = "same"


class Matrix:
    """What a results file says of each model.

    Args:
        path: written by ``python bench/environments.py``.

    Raises:
        InputError: the file cannot be read, or is not such a file.
    """

    def __init__(self, path: str | Path):
        try:
            content = json.loads(Path(path).read_bytes())
            if content["benchmark"] != "environments":
                raise ValueError(f"its benchmark is {content['benchmark']!r}")
            self._results: Mapping[str, Mapping[str, Mapping[str, Any]]] = content["results"]
            self.machine = one_line(content["environment"], content["device"])
            if not all(isinstance(result, dict) for rows in self._results.values() for result in rows.values()):
                raise TypeError("a result is not a JSON object")
        except OSError as error:
            raise InputError(f"cannot read the results {path}: {error.strerror}. Name an environments-*.json") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{path} does not hold the results of bench/environments.py: {error}. Name an environments-*.json"
            ) from None

    def verdicts(self, entry: Entry) -> list[tuple[str, str]]:
        """Environment and verdict, in the file's order; without the environments that could not run."""
        rows = self._results.get(entry.name, {})
        return [(name, _verdict(entry, result)) for name, result in rows.items() if "weights_digest" in result]


def _verdict(entry: Entry, result: Mapping[str, Any]) -> str:
    if result.get("recipe_digest") != entry.recipe_digest:
        return "trained by another recipe"
    if result["weights_digest"] != entry.weights_digest:
        return f"DIFFERENT: {result['weights_digest']}"
    return SAME if result.get("trace") == entry.trace else "DIFFERENT losses, same weights"
