"""The results file of a study: what was trained, whatever the order, the jobs and the interruptions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dettriton.errors import InputError
from dettriton.study._plan import Arm

FILE_NAME = "results.json"
_SECTIONS = ("study", "runs", "circumstances")


class Results:
    """The content of ``results.json``, kept whole on the disk after each change.

    Attributes:
        study: what all runs share: bitspec, recipe without init, order and seed, data, task, classes.
        runs: run name (``dct/golden/3``) to its digests and figures, or to ``{"problem": ...}`` if it diverged. The
            same on every machine.
        circumstances: run name to seconds and environment.
    """

    def __init__(self, path: Path, content: Mapping[str, Any]):
        self._path = path
        self.study, self.runs, self.circumstances = (dict(content[section]) for section in _SECTIONS)

    def add(self, key: str, run: Mapping[str, Any], circumstances: Mapping[str, Any]) -> None:
        """Keep a finished run and write the file."""
        self.runs[key], self.circumstances[key] = dict(run), dict(circumstances)
        self.write()

    def write(self) -> None:
        """Write the file: keys sorted, so that equal content is equal bytes.

        Raises:
            InputError: it cannot be written.
        """
        from dettriton.files import atomic_write

        content = {section: getattr(self, section) for section in _SECTIONS}
        text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
        atomic_write(self._path, text.encode() + b"\n")

    def finished(self) -> dict[Arm, dict[int, dict[str, Any]]]:
        """The runs with figures: arm to seed to run, both in order."""
        return self._by_arm(problem=False)

    def problems(self) -> dict[Arm, dict[int, str]]:
        """The runs that diverged: arm to seed to message."""
        return {arm: {s: r["problem"] for s, r in runs.items()} for arm, runs in self._by_arm(problem=True).items()}

    def _by_arm(self, problem: bool) -> dict[Arm, dict[int, dict[str, Any]]]:
        found: dict[Arm, dict[int, dict[str, Any]]] = {}
        for key, run in self.runs.items():
            if ("problem" in run) == problem:
                init, order, seed = key.split("/")
                found.setdefault(Arm(init, order), {})[int(seed)] = run
        return {arm: dict(sorted(runs.items())) for arm, runs in sorted(found.items())}


def load_results(folder: str | Path) -> Results:
    """The results of the study in a directory.

    Raises:
        InputError: there are none, or the file is damaged.
    """
    path = Path(folder) / FILE_NAME
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{folder} holds no results of a study ({FILE_NAME}: {error.strerror}); run `dettriton study RECIPE --out "
            f"{folder}` first"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}. {_DAMAGED}") from None
    if not _is_study(content):
        raise InputError(f"{path} is not the results file of a study. {_DAMAGED}")
    return Results(path, content)


def open_results(folder: Path, study: Mapping[str, Any]) -> Results:
    """The results so far, a new file if there are none.

    Args:
        folder: the study's directory.
        study: what all runs share.

    Raises:
        InputError: the directory holds a study of something else; the message says what differs.
    """
    path = folder / FILE_NAME
    if not path.exists():
        results = Results(path, {"study": study, "runs": {}, "circumstances": {}})
        results.write()
        return results
    results = load_results(folder)
    require_same_study(folder, results.study, study)
    return results


def require_same_study(folder: str | Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to put runs of different things into one file.

    Args:
        folder: how the error names the study.
        before: what the file says that its runs share.
        now: what the runs to come share; may be a part of it.

    Raises:
        InputError: they differ.
    """
    changes = "; ".join(_changes(before, json.loads(json.dumps(now))))
    if changes:
        raise InputError(
            f"{folder} holds a study of something else ({changes}). Runs of a study differ in initialisation, order "
            "and seed only: go on with what it was begun with, or choose another directory (--out)"
        )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    found = []
    for key in sorted(now):
        old, new = before.get(key), now[key]
        if isinstance(old, dict) and isinstance(new, dict):
            found += _changes({**dict.fromkeys(new), **old}, {**dict.fromkeys(old), **new}, f"{where}{key} ")
        elif old != new:
            found.append(f"{where}{key} was {old!r} and is {new!r}")
    return found


_DAMAGED = "Move it away to start anew, or choose another directory (--out)"


def _is_study(content: Any) -> bool:
    if not isinstance(content, dict) or set(content) != set(_SECTIONS):
        return False
    if not all(isinstance(content[section], dict) for section in _SECTIONS):
        return False
    classes = content["study"].get("classes")
    return isinstance(classes, list) and all(
        key.count("/") == 2 and key.rpartition("/")[2].isdecimal() and _is_run(run, len(classes))
        for key, run in content["runs"].items()
    )


def _is_run(run: Any, classes: int) -> bool:
    if not isinstance(run, dict):
        return False
    if "problem" in run:
        return isinstance(run["problem"], str)
    test = run.get("test")
    if not isinstance(test, dict) or not test.keys() >= {"auc", "acc", "f1"}:
        return False
    areas = test.get("class_auc", [])
    return isinstance(areas, list) and len(areas) == classes
