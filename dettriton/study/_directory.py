"""The directory of a study: one study at a time, its workers included."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dettriton._lock import locked_directory
from dettriton.train._directory import RECIPE, RESULT
from dettriton.train.trace import FILE_NAME as TRACE

RUNS = "runs"
_KEPT = (RECIPE, RESULT, TRACE)


@contextmanager
def open_study(path: str | Path) -> Iterator[tuple[Path, int]]:
    """Create or enter a study's directory and hold its lock.

    Yields:
        The path, and the descriptor that holds the lock: a process that inherits it holds the lock too.

    Raises:
        InputError: the directory cannot be used, or another study uses it.
    """
    path = Path(path)
    busy = (
        f"another study is using {path}, or trainings of an interrupted one are still writing their checkpoints; "
        "wait for them to end, or choose another directory (--out)"
    )
    with locked_directory(path, "a study's directory", busy) as lock:
        yield path, lock


def remove_large_files(folder: Path, keep: Iterable[str] = ()) -> None:
    """Leave of a finished run its recipe, result and trace, and the files named in ``keep``."""
    kept = {*_KEPT, *keep}
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name in kept:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with suppress(OSError):
                entry.unlink()
