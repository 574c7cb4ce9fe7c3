"""Folders that are either whole or absent, and what killed processes leave of them."""

import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dettriton.errors import InputError

try:
    import fcntl
except ImportError:  # not on this platform: what is left cannot be told from what is being written, and stays
    fcntl = None

_log = logging.getLogger(__name__)

_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = getattr(os, "O_DIRECTORY", 0)
_TOKEN = re.compile("[0-9a-f]{16}")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A hidden folder beside ``out`` that is renamed to it at the end; after an error nothing is left of it.

    A killed process leaves its hidden folder behind. The process holds a lock on it, which ends with the process, so the
    next one that writes to ``out`` removes it, and says so in one line.

    Raises:
        InputError: there is something at ``out`` already, or it cannot be written.
    """
    require_vacant(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_left(out)
        partial, lock = _make_locked(out)
        try:
            yield partial
            os.replace(partial, out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if lock is not None:
                os.close(lock)
    except OSError as error:
        raise InputError(
            f"cannot write {out}: {error.strerror or error}. Choose another folder, or make space"
        ) from error


def require_vacant(out: Path) -> None:
    """Raise InputError if there is anything at ``out`` but an empty folder."""
    if out.is_symlink() or out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{out} is there already; choose another folder, or remove it first")


def _make_locked(out: Path) -> tuple[Path, int | None]:
    """A new hidden folder and the descriptor that locks it, None where folders cannot be locked."""
    while True:
        partial = out.with_name(f".{out.name}.{secrets.token_hex(8)}.partial")
        partial.mkdir()
        # before it was locked, another process may have taken it for one that is left
        with suppress(FileNotFoundError, BlockingIOError):
            lock = _lock(partial)
            if lock is None or _is_at(lock, partial):
                return partial, lock
            os.close(lock)


def _remove_left(out: Path) -> None:
    removed = []
    for entry in sorted(out.parent.iterdir()):
        name, _, token = entry.name.removesuffix(".partial").rpartition(".")
        if not entry.name.endswith(".partial") or name != f".{out.name}" or not _TOKEN.fullmatch(token):
            continue
        with suppress(OSError):  # it is being written, or is none of ours
            lock = _lock(entry)
            if lock is not None:
                try:
                    shutil.rmtree(entry)
                    removed.append(entry.name)
                finally:
                    os.close(lock)
    if removed:
        _log.warning("removed what killed processes had left beside %s: %s", out, ", ".join(removed))


def _lock(folder: Path) -> int | None:
    """The descriptor of a folder, locked; None where that is not possible.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: it is not there, or no folder.
    """
    if fcntl is None:
        return None
    lock = os.open(folder, os.O_RDONLY | _FOLDER | _NO_LINKS)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise
    except OSError:  # a file system without such locks
        os.close(lock)
        return None
    return lock


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
