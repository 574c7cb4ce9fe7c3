"""What a WFDB header asks for, before wfdb reads it: as much memory and such files as the folder can answer for."""

import re
from pathlib import Path

from dettriton.errors import InputError

MOST_BYTES = 1 << 20
"""Of a header; that of twelve leads has about 700."""

_RECORD = re.compile(r"[^\s/]+(?P<segments>/\d*)?\s+(?P<signals>\d{1,9})(?:\s+(?P<rate>\S+)(?:\s+(?P<length>\d*).*)?)?")
_SIGNAL = re.compile(
    r"(?P<file>\S+)\s+(?P<format>\d+)(?:x(?P<frame>\d*))?(?::(?P<skew>\d*))?(?:\+\d*)?(?:\s+(?P<gain>\S+)(?:\s.*)?)?"
)
_RATE = re.compile(r"\d+(?:\.\d*)?(?:/\S*)?")
_GAIN = re.compile(r"-?\d+(?:\.\d*)?(?:e[-+]?\d+)?(?:\(-?\d{1,12}\))?(?:/\S+)?")
_FILE_NAME = re.compile(r"~|~?[-\w]*[-\w.]\w*")
_COMPRESSED = {"508", "516", "524"}
_MOST_EXPANSION = 1 << 12


def require_modest(header: Path, name: str) -> None:
    """Refuses a header whose signals are not in files beside it, or do not fit into them by far.

    A header names the number of its signals and samples, and wfdb makes room for them before it looks into the files.

    Args:
        header: the ``.hea`` file.
        name: of the record, for messages.

    Raises:
        InputError: the header cannot be read or is malformed, a signal file is missing or has a path for a name, the
            record has several segments, a skew or several samples in a frame, or the files are too short.
    """
    try:
        with open(header, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"record {name}: cannot read {header}: {error.strerror}. Fetch it again.") from error
    lines = [line for line in map(str.strip, content.decode("utf-8", "replace").splitlines()) if line[:1] not in "#"]
    record = _RECORD.fullmatch(lines[0]) if lines else None
    if record is None or len(content) > MOST_BYTES:
        raise _malformed(name, header, "it does not begin with a record line, or is too long")
    if record["segments"]:
        raise InputError(f"record {name} is not one segment of signals")
    signals = [_SIGNAL.fullmatch(line) for line in lines[1:]]
    if int(record["signals"]) != len(signals) or None in signals:
        raise _malformed(name, header, f"it says {int(record['signals'])} signals and describes {len(signals)}")
    if not _RATE.fullmatch(record["rate"] or "250") or not all(_GAIN.fullmatch(s["gain"] or "200") for s in signals):
        # wfdb would read the digits that come first, or take a default
        raise _malformed(name, header, "a rate, gain or baseline is not a number")
    if any(s["frame"] not in (None, "", "1") or (s["skew"] or "0").strip("0") for s in signals):
        raise InputError(f"record {name} has a skew or several samples in a frame, which are not read here")
    sizes = {s["file"]: _size(header, s["file"], name) for s in signals}
    samples = int(record["length"] or 0) if len(record["length"] or "") < 20 else 1 << 64
    for file, size in sizes.items():
        formats = [s["format"] for s in signals if s["file"] == file]
        most = size * (_MOST_EXPANSION if _COMPRESSED.issuperset(formats) else 1)
        if samples * len(formats) > most:
            raise InputError(
                f"record {name} is short: {file} has {size} bytes for {samples} samples of {len(formats)} signals. Fetch "
                "its signal file again."
            )


def _size(header: Path, file: str, name: str) -> int:
    if not _FILE_NAME.fullmatch(file):
        raise InputError(f"record {name}: the signal file {file!r} is not a plain name of a file beside {header}")
    try:
        return (header.parent / file).stat().st_size
    except FileNotFoundError:
        raise InputError(f"record {name}: {header.parent / file} is missing. Fetch it again.") from None
    except OSError as error:
        raise InputError(f"record {name}: cannot read {header.parent / file}: {error.strerror}") from None


def _malformed(name: str, header: Path, what: str) -> InputError:
    return InputError(f"record {name} cannot be read: {header} is malformed: {what}. Fetch it again.")
