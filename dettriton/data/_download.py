"""Fetching many checksummed files over HTTP: interrupted ones are resumed, and a file is whole and right or absent."""

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from dettriton.data._progress import tracked
from dettriton.errors import InputError, IntegrityError
from dettriton.files import atomic_write

PARTIAL_SUFFIX = ".download"

_WORKERS = 8
_ATTEMPTS = 4
_PAUSE = 1.0
_TIMEOUT = 60
_CHUNK = 1 << 16
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_RANGE_REFUSED = 416


def fetch_all(base_url: str, files: Mapping[str, str | None], folder: Path, what: str) -> None:
    """Fetches files into a folder, several at a time, with a progress bar in a terminal.

    A file arrives under the hidden name ``.NAME.download``, where an interrupted transfer stays and is resumed by the
    next call (HTTP Range). Its SHA-256 is compared, and it is stored by :func:`dettriton.files.atomic_write`. A
    resumed file with another checksum is fetched anew.

    Args:
        base_url: http or https, with or without a last slash.
        files: name below the base address and below the folder, with slashes, to the SHA-256 of the content; None where
            that is not known, and a transfer cannot be resumed. Files that exist are replaced.
        folder: where to; made if absent.
        what: for the progress bar.

    Raises:
        InputError: a file cannot be fetched or stored, or its name leads out of the folder. Those that arrived stay.
        IntegrityError: a file has another checksum than it should.
    """
    if not base_url.startswith(("http://", "https://")):
        raise InputError(f"files are fetched over http or https, not from {base_url!r}")
    for name in files:
        if not is_inside(name):
            raise InputError(f"{name!r} is not the name of a file below {folder}; it is not fetched")
    with ThreadPoolExecutor(_WORKERS) as pool:
        base = base_url.rstrip("/")
        running = [pool.submit(_fetch, f"{base}/{name}", folder / name, sha256) for name, sha256 in files.items()]
        try:
            for done in tracked(as_completed(running), what, len(running)):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def is_inside(name: str) -> bool:
    """Whether a relative path with slashes stays below the folder it is joined to, on every platform."""
    parts = name.split("/")
    return not any(part in ("", "..") or "\\" in part or "\0" in part or ":" in part for part in parts)


def read_sums(path: Path) -> dict[str, str]:
    """A ``SHA256SUMS.txt``: file name to checksum.

    Raises:
        InputError: the file cannot be read, or a line is no checksum and name of a file below the list's folder.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}. Fetch it again.") from error
    sums = {}
    for number, line in enumerate(lines, 1):
        checksum, _, name = line.partition(" ")
        if len(checksum) != 64 or set(checksum.lower()) - set("0123456789abcdef") or not name.strip(" *"):
            raise InputError(f"{path} line {number} is not a SHA-256 and a file name. Fetch the file again.")
        listed = name.strip().removeprefix("*")
        if not is_inside(listed):
            raise InputError(
                f"{path} line {number} names {listed!r}, which is outside its folder. Fetch the file again."
            )
        sums[listed] = checksum.lower()
    return sums


def require_sha256(content: bytes, name: str, sums: Mapping[str, str], source: object) -> None:
    """Compares a file's content with its listed checksum; a name that is not listed is let through.

    Raises:
        IntegrityError: naming ``source`` and both checksums.
    """
    found, expected = hashlib.sha256(content).hexdigest(), sums.get(name)
    if expected not in (None, found):
        raise IntegrityError(f"{source}: {name} has the SHA-256 {found}, expected {expected}. Fetch it again.")


def _fetch(url: str, path: Path, sha256: str | None) -> None:
    partial = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_stored(path, error) from error
    problem: Exception | None = None
    for attempt in range(_ATTEMPTS):
        if problem is not None:
            time.sleep(_PAUSE * 2 ** (attempt - 1))
        try:
            resumed = _receive(url, partial, resume=sha256 is not None)
            content = partial.read_bytes()
        except urllib.error.HTTPError as error:
            problem = error
            error.close()
            if error.code == _RANGE_REFUSED:
                partial.unlink(missing_ok=True)
            elif error.code not in _BUSY:
                break
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            problem = error
        else:
            found = hashlib.sha256(content).hexdigest()
            if sha256 in (None, found):
                atomic_write(path, content)
                partial.unlink()
                return
            partial.unlink()
            if not resumed:
                raise IntegrityError(f"{url} has the SHA-256 {found}, expected {sha256}; it was not kept. Try again.")
    raise InputError(
        f"{url} could not be fetched: {problem}. Check the network and try again: what has arrived is kept. Or fetch "
        f"the files by other means."
    )


def _receive(url: str, partial: Path, resume: bool) -> bool:
    """Appends to what there is, or starts anew where the server does; returns whether it appended."""
    if partial.is_symlink():
        # whoever left it there would have what arrives written to another place
        partial.unlink()
    have = partial.stat().st_size if resume and partial.is_file() else 0
    headers = {"User-Agent": "dettriton", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        appended = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if response.status == 206 and not appended:
            partial.unlink(missing_ok=True)
            raise http.client.HTTPException("the server answered with another range than was asked for")
        received = _store(response, partial, "ab" if appended else "wb")
        expected = response.headers.get("Content-Length", "")
    if expected.isdigit() and received < int(expected):
        raise http.client.IncompleteRead(b"", int(expected) - received)
    return appended


def _store(response: http.client.HTTPResponse, partial: Path, mode: str) -> int:
    received = 0
    try:
        file = open(partial, mode)  # noqa: SIM115
    except OSError as error:
        raise _not_stored(partial, error) from error
    with file:
        while chunk := response.read(_CHUNK):
            received += len(chunk)
            try:
                file.write(chunk)
                file.flush()
            except OSError as error:
                raise _not_stored(partial, error) from error
    return received


def _not_stored(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot store {path}: {error.strerror}. Choose another folder, or make space.")
