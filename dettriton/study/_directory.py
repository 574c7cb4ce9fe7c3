"""The directory of a study: one study at a time, its workers included."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dettriton.errors import InputError

try:
    import fcntl
except ImportError:  # not on this platform: two studies in one directory are then up to the user
    fcntl = None

RUNS = "runs"
LOCK = "lock"
_KEPT = ("recipe.json", "result.json", "trace.jsonl")


@contextmanager
def open_study(path: str | Path) -> Iterator[tuple[Path, int]]:
    """Create or enter a study's directory and hold its lock.

    Yields:
        The path, and the descriptor that holds the lock: a process that inherits it holds the lock too.

    Raises:
        InputError: the directory cannot be used, or another study uses it.
    """
    path = Path(path)
    try:
        (path / RUNS).mkdir(parents=True, exist_ok=True)
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"cannot use {path} as a study's directory: {error.strerror}; choose another --out") from None
    try:
        if fcntl is not None:
            _hold(lock, path)
        yield path, lock
    finally:
        os.close(lock)


def _hold(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"another study is using {path}, or trainings of an interrupted one are still writing their checkpoints; "
            "wait for them to end, or choose another directory (--out)"
        ) from None


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
