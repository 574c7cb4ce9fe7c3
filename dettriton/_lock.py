"""A directory that one process at a time works in."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dettriton.errors import InputError

try:
    import fcntl
except ImportError:  # not on this platform: two processes in one directory are then up to the user
    fcntl = None

LOCK = "lock"

_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


@contextmanager
def locked_directory(path: Path, what: str, busy: str) -> Iterator[int]:
    """Create or enter a directory and hold its lock.

    Args:
        path: of the directory.
        what: how an error names it, such as "a run's directory".
        busy: what an error says where another process holds the lock.

    Yields:
        The descriptor that holds the lock: a process that inherits it holds the lock too.

    Raises:
        InputError: the directory cannot be used, or another process holds its lock.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | _NO_LINKS, 0o644)
    except OSError as error:
        raise InputError(f"cannot use {path} as {what}: {error.strerror}; choose another --out") from None
    try:
        _hold(lock, path, busy)
        yield lock
    finally:
        os.close(lock)


def _hold(lock: int, path: Path, busy: str) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(busy) from None
    except OSError as error:
        raise InputError(
            f"cannot lock {path}: {error.strerror}; choose a directory (--out) on a file system that has locks"
        ) from None
