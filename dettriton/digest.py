"""The identity of tensors, modules and files: canonical SHA-256 digests, and where two sets of tensors first differ."""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike

import numpy as np
import torch

from dettriton.errors import InputError

DIGEST_TAG = b"dettriton-digest-1"
TENSOR_TAG = b"dettriton-tensor-1"

_CHUNK = 1 << 20


def digest(obj: torch.Tensor | Mapping[str, torch.Tensor] | torch.nn.Module, metadata: Mapping | None = None) -> str:
    """SHA-256 of tensors and metadata, the same on every machine that holds the same bits.

    The hashed byte string is a sequence of fields. ``field(x)`` is the length of ``x`` in bytes as 8 little-endian
    bytes, then ``x``; so no two different inputs give the same string. In this order:

    1. ``field(b"dettriton-digest-1")``, the version of this layout.
    2. ``field(count)``: the number of tensors, 8 little-endian bytes.
    3. For each tensor, in ascending order of the UTF-8 bytes of its name:

       a. ``field(name)``: the name in UTF-8;
       b. ``field(dtype)``: torch's name of the dtype in ASCII, without the prefix ``torch.`` (``float32``);
       c. ``field(shape)``: each dimension as 8 little-endian bytes, outermost first (0 bytes for a scalar);
       d. ``field(payload)``: the elements in row-major order, each in little-endian bytes (bool: one byte, 0 or 1).

    4. ``field(metadata)``: :func:`canonical_json` of the metadata; ``None`` counts as ``{}``.

    Strides, device, ``requires_grad`` and aliasing are not hashed. NaN payloads and the sign of zero are.

    Args:
        obj: a tensor (it counts as a mapping with the empty name), a mapping from names to tensors, or a module
            (its ``state_dict()``: parameters and persistent buffers). Any device; CUDA tensors are copied to the host.
        metadata: JSON data with string keys.

    Returns:
        64 lower-case hexadecimal digits.

    Raises:
        InputError: a value is not a dense tensor, a name is not a string, or the metadata is not JSON.
    """
    tensors = named_tensors(obj)
    hasher = hashlib.sha256()
    _put(hasher, DIGEST_TAG)
    _put(hasher, _uint64(len(tensors)))
    for name, tensor in tensors.items():
        _put_tensor(hasher, name, tensor)
    _put(hasher, canonical_json({} if metadata is None else dict(metadata)))
    return hasher.hexdigest()


def tensor_digest(name: str, tensor: torch.Tensor) -> str:
    """SHA-256 of one named tensor: ``field(b"dettriton-tensor-1")`` and fields 3a to 3d of :func:`digest`.

    Args:
        name: any string, the empty one included.
        tensor: a dense tensor on any device.

    Returns:
        64 lower-case hexadecimal digits.

    Raises:
        InputError: as for :func:`digest`.
    """
    ((name, tensor),) = named_tensors({name: tensor}).items()
    hasher = hashlib.sha256()
    _put(hasher, TENSOR_TAG)
    _put_tensor(hasher, name, tensor)
    return hasher.hexdigest()


def file_sha256(path: str | PathLike) -> str:
    """SHA-256 of a file's bytes, as ``sha256sum`` prints it.

    Raises:
        InputError: the file cannot be read.
    """
    hasher = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}. Check the path and its permissions.") from error
    return hasher.hexdigest()


def canonical_json(obj: object) -> bytes:
    """The one JSON text of ``obj``: keys sorted by code point, no spaces, UTF-8 without ``\\u`` escapes.

    Floats are written by ``repr``, the shortest text that reads back as the same binary64; ``1`` and ``1.0`` differ.

    Args:
        obj: dicts with string keys, lists, tuples (written as lists), strings, integers, finite floats, bools, None.

    Raises:
        InputError: anything else is inside, NaN and infinities included.
    """
    _check_keys(obj)
    try:
        text = json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"metadata has no canonical JSON: {error}. Use dicts with string keys, lists, strings, integers, "
            "finite floats, bools and None."
        ) from error


@dataclass(frozen=True)
class Difference:
    """Where two sets of tensors first differ; ``str()`` of it is a sentence.

    Attributes:
        name: the tensor.
        kind: ``"missing"``, ``"dtype"``, ``"shape"`` or ``"bits"``.
        detail: what each side has.
        differing: the number of elements with different bits (kind ``"bits"``).
        elements: the number of elements.
        max_ulp: for float32, the largest distance in units in the last place over differing elements that are
            not NaN on either side (+0 and -0 are 0 apart); None if there are none.
    """

    name: str
    kind: str
    detail: str
    differing: int = 0
    elements: int = 0
    max_ulp: int | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


def first_difference(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> Difference | None:
    """The first tensor, in ascending order of UTF-8 names, that differs in presence, dtype, shape or bits.

    Args:
        a, b: mappings from names to tensors, or modules.

    Returns:
        A description of the difference, or None when both hold the same bits.

    Raises:
        InputError: as for :func:`digest`.
    """
    return next(_differences(a, b), None)


def all_differences(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> list[Difference]:
    """Every tensor that :func:`first_difference` could name, in its order; empty when both hold the same bits.

    Raises:
        InputError: as for :func:`digest`.
    """
    return list(_differences(a, b))


def _differences(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> Iterator[Difference]:
    first, second = named_tensors(a), named_tensors(b)
    for name in sorted({*first, *second}, key=str.encode):
        if name not in first or name not in second:
            side = "second" if name in first else "first"
            yield Difference(name, "missing", f"only one side has it, the {side} does not")
            continue
        difference = _compare(name, first[name], second[name])
        if difference is not None:
            yield difference


def named_tensors(obj: torch.Tensor | Mapping[str, torch.Tensor] | torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that :func:`digest` hashes, in its order.

    Raises:
        InputError: as for :func:`digest`.
    """
    if isinstance(obj, torch.Tensor):
        obj = {"": obj}
    elif isinstance(obj, torch.nn.Module):
        obj = obj.state_dict()
    if not isinstance(obj, Mapping):
        raise InputError(
            f"a digest is of a tensor, a mapping from names to tensors or a module, not {type(obj).__name__}"
        )
    for name, tensor in obj.items():
        _check_name(name)
        _check_tensor(name, tensor)
    return {name: obj[name] for name in sorted(obj, key=str.encode)}


def payload(tensor: torch.Tensor) -> np.ndarray:
    """The elements of a dense tensor in row-major order as little-endian bytes: (bytes,) uint8, on the host."""
    host = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return little_endian(host.reshape(-1).view(torch.uint8).numpy(), tensor.dtype)


def little_endian(raw: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """Bytes of elements, (bytes,) uint8, from this machine's order to little-endian or back."""
    width = dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
    if sys.byteorder == "little" or width == 1:
        return raw
    return np.ascontiguousarray(raw.reshape(-1, width)[:, ::-1]).reshape(-1)


def _put(hasher, content: bytes | np.ndarray) -> None:
    hasher.update(_uint64(len(content)))
    hasher.update(content)


def _put_tensor(hasher, name: str, tensor: torch.Tensor) -> None:
    _put(hasher, name.encode())
    _put(hasher, _dtype_name(tensor).encode())
    _put(hasher, b"".join(_uint64(d) for d in tensor.shape))
    _put(hasher, payload(tensor))


def _uint64(value: int) -> bytes:
    return value.to_bytes(8, "little")


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise InputError(f"tensors are named by strings, got {name!r}")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the tensor name {name!r} has no UTF-8 form; rename it") from error


def _check_tensor(name: str, tensor: object) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise InputError(f"{name!r} is {type(tensor).__name__}, not a tensor; only tensors have a digest")
    if isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin):
        raise InputError(f"{name!r} is not initialised yet; run the module once before taking its digest")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise InputError(f"{name!r} is not a dense tensor with data; convert it before taking its digest")


def _check_keys(obj: object) -> None:
    pending, seen = [obj], set()
    while pending:
        item = pending.pop()
        if not isinstance(item, dict | list | tuple) or id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            for key in item:
                if not isinstance(key, str):
                    raise InputError(f"metadata has no canonical JSON: the key {key!r} is not a string")
        pending.extend(item.values() if isinstance(item, dict) else item)


def _compare(name: str, a: torch.Tensor, b: torch.Tensor) -> Difference | None:
    if a.dtype != b.dtype:
        return Difference(name, "dtype", f"dtype {_dtype_name(a)} against {_dtype_name(b)}")
    if a.shape != b.shape:
        return Difference(name, "shape", f"shape {list(a.shape)} against {list(b.shape)}")
    first, second = (payload(x).reshape(-1, x.dtype.itemsize) for x in (a, b))
    unequal = (first != second).any(axis=1)
    differing = int(unequal.sum())
    if not differing:
        return None
    max_ulp = _max_ulp(first[unequal], second[unequal]) if a.dtype == torch.float32 else None
    detail = f"{differing} of {a.numel()} elements differ in their bits"
    if max_ulp is not None:
        detail += f", by at most {max_ulp} ulp"
    return Difference(name, "bits", detail, differing, a.numel(), max_ulp)


def _max_ulp(first: np.ndarray, second: np.ndarray) -> int | None:
    """Largest distance of two (n, 4) uint8 arrays of little-endian binary32, NaNs left out."""
    a, b = (np.ascontiguousarray(x).view("<u4").reshape(-1).astype(np.int64) for x in (first, second))
    numbers = ((a & 0x7FFFFFFF) <= 0x7F800000) & ((b & 0x7FFFFFFF) <= 0x7F800000)
    if not numbers.any():
        return None
    return int(np.abs(_rank(a[numbers]) - _rank(b[numbers])).max())


def _rank(bits: np.ndarray) -> np.ndarray:
    """The position of each binary32 among all of them in ascending order, both zeros at 0."""
    magnitude = bits & 0x7FFFFFFF
    return np.where(bits >> 31, -magnitude, magnitude)
