"""Reading npz archives of plain arrays in memory: nothing is unpacked to a disk, unpickled, or larger than it says."""

import io
import math
import stat
import struct
import tokenize
import zipfile
import zlib

import numpy as np
from numpy.lib import format as npy

UNREADABLE = (
    ValueError,
    KeyError,
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    OverflowError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What :func:`read_npz` and the libraries under it raise for an archive that is damaged or made to do harm."""

MOST_EXPANSION = 100
SMALL = 1 << 30

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_SUFFIX = ".npy"


def read_npz(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of an npz archive by name.

    An archive that unpacks to more than :data:`SMALL` bytes and more than :data:`MOST_EXPANSION` times its size is
    refused before anything is unpacked, and an array before it is made, if its member does not hold its bytes.

    Args:
        content: of the file.

    Raises:
        one of :data:`UNREADABLE`: it is damaged, or a member is not a plain array, a link, or named as a path.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        unpacked = sum(member.file_size for member in members)
        if unpacked > max(SMALL, MOST_EXPANSION * len(content)):
            raise ValueError(f"its {len(content)} bytes unpack to {unpacked}")
        arrays = {_array_name(member): _read(archive, member) for member in members}
        if len(arrays) != len(members):
            raise ValueError("an array is in it twice")
        return arrays


def _array_name(member: zipfile.ZipInfo) -> str:
    name = member.orig_filename
    if not name.endswith(_SUFFIX) or any(c in name for c in "/\\:\0") or stat.S_ISLNK(member.external_attr >> 16):
        raise ValueError(f"its member {name!r} is not an array")
    return name.removesuffix(_SUFFIX)


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        version = npy.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{member.filename} is of the npy version {version}")
        shape, _, dtype = _HEADERS[version](file)
        if dtype.hasobject:
            raise ValueError(f"{member.filename} holds Python objects")
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or file.tell() + size != member.file_size:
            raise ValueError(f"{member.filename} does not hold the {size} bytes of its shape")
    with archive.open(member) as file:
        return npy.read_array(file, allow_pickle=False)
