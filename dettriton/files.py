"""Files that are either whole or absent, and safetensors whose bytes depend on nothing but their content."""

import json
import math
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from dettriton._strict_json import unique_keys
from dettriton.digest import canonical_json, little_endian, named_tensors, payload
from dettriton.errors import InputError

METADATA_KEY = "dettriton"
MAX_HEADER_BYTES = 100_000_000
MAX_DIMENSIONS = 64

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_HEADER_ENTRIES = {"dtype", "shape", "data_offsets"}
_PARTIAL_SUFFIX = ".partial"


def atomic_write(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file so that a reader, or a crash at any moment, sees the old file or the new one, never a part.

    The bytes go to a hidden temporary name in the same directory and are flushed to the disk; the rename follows, and
    the directory is flushed too. A failure removes the temporary; a killed process can leave it behind, and
    :func:`remove_partial` clears it.

    Raises:
        InputError: the directory is missing, or the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_PARTIAL_SUFFIX}")
    try:
        try:
            with open(partial, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _flush_directory(path.parent)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}. Check that the directory exists, is writable and has space."
        ) from error


def remove_partial(path: str | os.PathLike) -> None:
    """Removes what killed processes left of their :func:`atomic_write` to ``path``; call it when nobody is writing."""
    path = Path(path)
    for entry in path.parent.glob("*" + _PARTIAL_SUFFIX):
        name, _, token = entry.name.removesuffix(_PARTIAL_SUFFIX).rpartition(".")
        if name == f".{path.name}" and len(token) == 16:
            entry.unlink(missing_ok=True)


def save_safetensors(path: str | os.PathLike, tensors: Mapping[str, torch.Tensor], metadata: Mapping) -> None:
    """Writes tensors as a safetensors file, atomically and with reproducible bytes.

    The layout is safetensors': 8 little-endian bytes of header length, a JSON header padded with spaces to a multiple
    of 8, the payload. Tensors lie in descending order of element size, then in ascending order of the UTF-8 bytes of
    their names, so that every tensor is aligned; the header lists them in that order. Its ``__metadata__`` has one key,
    ``dettriton``, holding :func:`dettriton.digest.canonical_json` of ``metadata`` (with several keys the safetensors
    library writes them in an order that changes from run to run).

    Args:
        path: the file; replaced if it exists.
        tensors: dense tensors by name, on any device; float64/32/16, bfloat16, int64/32/16/8, uint8 or bool.
        metadata: JSON data with string keys.

    Raises:
        InputError: a name, dtype or metadata value has no place in the format, or the file cannot be written.
    """
    atomic_write(path, safetensors_bytes(tensors, metadata))


def safetensors_bytes(tensors: Mapping[str, torch.Tensor], metadata: Mapping) -> bytes:
    """The bytes that :func:`save_safetensors` writes."""
    ordered = sorted(named_tensors(tensors).items(), key=lambda item: -item[1].dtype.itemsize)
    header: dict[str, object] = {"__metadata__": {METADATA_KEY: canonical_json(dict(metadata)).decode()}}
    begin = 0
    for name, tensor in ordered:
        _check_savable(name, tensor)
        end = begin + tensor.numel() * tensor.dtype.itemsize
        header[name] = {"dtype": _DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(payload(tensor).tobytes() for _, tensor in ordered)])


def load_safetensors(path: str | os.PathLike) -> tuple[dict[str, torch.Tensor], dict]:
    """Reads a file that :func:`save_safetensors` wrote; the header is checked in full before any tensor is made.

    A payload byte that changed is not noticed here: compare :func:`dettriton.digest.digest` for that.

    Returns:
        The tensors by name, in the file's order, on the CPU; and the metadata.

    Raises:
        InputError: the file cannot be read, is truncated, has a header that is not valid or does not describe the
            file's own bytes, or carries no dettriton metadata.
    """
    try:
        with open(path, "rb") as file:
            return _load(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}. Check the path and its permissions.") from error
    except _Malformed as error:
        raise InputError(
            f"{path} is not a dettriton weights file: {error}. It is truncated, damaged or from another program; "
            "fetch it again, or write it anew with dettriton."
        ) from error


class _Malformed(Exception):
    """What is wrong with a file; never leaves this module."""


def _load(file: BinaryIO, size: int) -> tuple[dict[str, torch.Tensor], dict]:
    header, payload_size = _read_header(file, size)
    metadata = _parse_metadata(header.pop("__metadata__", None))
    layout = _parse_layout(header, payload_size)
    data = np.zeros(payload_size, dtype=np.uint8)
    read = file.readinto(data)
    if read != payload_size:
        raise _Malformed(f"its payload ends after {read} of {payload_size} bytes")
    tensors = {}
    for name, dtype, shape, begin, end in layout:
        raw = little_endian(data[begin:end], dtype)
        if dtype == torch.bool and (raw > 1).any():
            raise _Malformed(f"the bool tensor {name!r} holds a byte that is neither 0 nor 1")
        tensors[name] = torch.zeros(shape, dtype=dtype)
        tensors[name].reshape(-1).view(torch.uint8).copy_(torch.from_numpy(raw))
    return tensors, metadata


def _read_header(file: BinaryIO, size: int) -> tuple[dict, int]:
    prefix = file.read(8)
    if len(prefix) < 8:
        raise _Malformed(f"it has {len(prefix)} bytes, fewer than the 8 of the header length")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES or length > size - 8:
        raise _Malformed(f"its header length says {length} bytes in a file of {size} (limit {MAX_HEADER_BYTES})")
    header = _parse_json(file.read(length), "header")
    return header, size - 8 - length


def _parse_json(text: bytes | str, what: str) -> dict:
    try:
        parsed = json.loads(text if isinstance(text, str) else text.decode(), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise _Malformed(f"its {what} is not valid JSON ({error})") from error
    if not isinstance(parsed, dict):
        raise _Malformed(f"its {what} is not a JSON object")
    return parsed


def _parse_metadata(entry: object) -> dict:
    if not isinstance(entry, dict) or set(entry) != {METADATA_KEY} or not isinstance(entry[METADATA_KEY], str):
        raise _Malformed(f"its metadata must be the one key {METADATA_KEY!r} with a JSON text")
    text = entry[METADATA_KEY]
    metadata = _parse_json(text, "metadata")
    with suppress(InputError, UnicodeEncodeError):
        if canonical_json(metadata) == text.encode():
            return metadata
    raise _Malformed("its metadata is not canonical JSON")


def _parse_layout(header: dict, payload_size: int) -> list[tuple[str, torch.dtype, list[int], int, int]]:
    layout = sorted((_parse_entry(name, entry) for name, entry in header.items()), key=lambda entry: entry[3:])
    position = 0
    for name, _, _, begin, end in layout:
        if begin != position:
            raise _Malformed(f"the tensor {name!r} begins at byte {begin} of the payload instead of {position}")
        position = end
    if position != payload_size:
        raise _Malformed(f"its header describes {position} bytes of payload and the file holds {payload_size}")
    return layout


def _parse_entry(name: str, entry: object) -> tuple[str, torch.dtype, list[int], int, int]:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise _Malformed(f"the tensor name {name!r} has no UTF-8 form") from error
    if not isinstance(entry, dict) or set(entry) != _HEADER_ENTRIES:
        raise _Malformed(f"the tensor {name!r} is not described by dtype, shape and data_offsets")
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise _Malformed(f"the tensor {name!r} has the dtype {entry['dtype']!r}, not one of {', '.join(_DTYPES)}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    # the product without zeros bounds the strides torch computes, which overflow before an empty size does
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS or math.prod(d or 1 for d in shape) >= 2**60:
        raise _Malformed(f"the tensor {name!r} has an impossible shape")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise _Malformed(f"the tensor {name!r} has impossible offsets")
    begin, end = offsets
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise _Malformed(f"the tensor {name!r} of shape {shape} does not fill bytes {begin} to {end}")
    return name, dtype, shape, begin, end


def _are_sizes(values: object) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)


def _check_savable(name: str, tensor: torch.Tensor) -> None:
    if name == "__metadata__":
        raise InputError("a safetensors file cannot hold a tensor named '__metadata__'; rename it")
    if tensor.dtype not in _DTYPE_NAMES or tensor.dim() > MAX_DIMENSIONS:
        raise InputError(f"{name!r} ({tensor.dtype}, {tensor.dim()} dimensions) cannot be saved; convert it first")


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
