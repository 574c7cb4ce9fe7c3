"""Many tensors in one launch: kernels that update parameters in place through a table of addresses.

The table has a row per parameter, its number of elements and then the addresses of the tensors that its update
reads and writes, all in one memory order; a second table cuts the parameters into chunks, one a program. Both are
built once for a set of tensors and kept while their addresses stay the same. An update is elementwise (R1), so how
it is cut cannot move a bit; the written orders are those of :mod:`dettriton.optim`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from dettriton.exact.compiled_optim import tell_autograd
from dettriton.ops._launch import Variant, jit, kernel, tl

BLOCK = 1024
CHUNK = 8192
"""Elements of one program."""
KEPT_TABLES = 64

_tables: dict[tuple, "Tables"] = {}
_captured: list[tuple[torch.Tensor, ...]] = []
"""What captured CUDA graphs read, kept for as long as the process lives."""


class Tables(NamedTuple):
    """What a launch reads on the device: ``addresses`` (tensors, 1 + columns) and ``chunks`` (programs, 2), int64."""

    addresses: torch.Tensor
    chunks: torch.Tensor


def is_dense(t: torch.Tensor) -> bool:
    """Whether the elements fill one run of memory, in any order of dimensions."""
    order = sorted(range(t.dim()), key=t.stride, reverse=True)
    return t.permute(order).is_contiguous()


def in_order_of(t: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``t`` in the memory order of the dense ``like``: itself where it has it, otherwise a copy."""
    if t.stride() == like.stride() or (t.is_contiguous() and like.is_contiguous()):
        return t
    return torch.empty_strided(like.shape, like.stride(), dtype=t.dtype, device=t.device).copy_(t)


def tables_for(rows: Sequence[Sequence[torch.Tensor]]) -> Tables:
    """The tables of parameters, each with the tensors of its update: one device, one memory order, dense."""
    device = rows[0][0].device
    key = (device, *((row[0].numel(), *(t.data_ptr() for t in row)) for row in rows))
    capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    found = _tables.pop(key, None)
    if found is None:
        on_host = _filled_tables(key[1:], pinned=device.type == "cuda")
        found = Tables(*(table.to(device, non_blocking=True) for table in on_host))
        if capturing:
            # Nothing is copied before a replay, so no other step may read this table.
            _captured.append((*on_host, *found))
            return found
    if capturing:
        _captured.append(found)
    while len(_tables) >= KEPT_TABLES:
        del _tables[next(iter(_tables))]
    _tables[key] = found
    return found


def _filled_tables(rows: Sequence[tuple[int, ...]], pinned: bool) -> Tables:
    addresses = torch.tensor(rows, dtype=torch.int64)
    counts = (addresses[:, 0] + (CHUNK - 1)) // CHUNK
    parameter = torch.repeat_interleave(counts)
    place = torch.arange(len(parameter)) - (counts.cumsum(0) - counts)[parameter]
    chunks = torch.stack((parameter, place * CHUNK), 1)
    return Tables(*(table.pin_memory() if pinned else table for table in (addresses, chunks)))


@jit
def _chunk(addresses_ptr, chunks_ptr, COLUMNS: tl.constexpr, CHUNK: tl.constexpr):
    """This program's row of the table, its first element and where its elements end."""
    program = tl.program_id(0).to(tl.int64)
    row_ptr = addresses_ptr + tl.load(chunks_ptr + program * 2) * (COLUMNS + 1)
    first = tl.load(chunks_ptr + program * 2 + 1)
    return row_ptr, first, tl.minimum(tl.load(row_ptr), first + CHUNK)


@jit
def _tensor(row_ptr, column: tl.constexpr):
    return tl.load(row_ptr + (column + 1)).to(tl.pointer_type(tl.float32))


_SGD_FLAGS = ("DECAY", "MOMENTUM", "STARTED", "NESTEROV")
_SGD = [
    Variant(dict(zip(_SGD_FLAGS, flags, strict=True)))
    for flags in ((False, False, False, False), (True, True, False, True), (True, True, True, False))
]


@kernel("*i64 *i64 fp32 fp32 fp32 fp32", *_SGD)
def _sgd_kernel(
    addresses_ptr, chunks_ptr, lr, decay, momentum, rest,
    DECAY: tl.constexpr, MOMENTUM: tl.constexpr, STARTED: tl.constexpr, NESTEROV: tl.constexpr,
    BLOCK: tl.constexpr = BLOCK, CHUNK: tl.constexpr = CHUNK,
):  # fmt: skip
    row_ptr, first, end = _chunk(addresses_ptr, chunks_ptr, 3 if MOMENTUM else 2, CHUNK)
    p_ptr = _tensor(row_ptr, 0)
    g_ptr = _tensor(row_ptr, 1)
    for start in range(0, CHUNK, BLOCK):
        place = first + start + tl.arange(0, BLOCK)
        mask = place < end
        p = tl.load(p_ptr + place, mask=mask, other=0.0)
        g = tl.load(g_ptr + place, mask=mask, other=0.0)
        if DECAY:
            g = g + p * decay
        if MOMENTUM:
            b_ptr = _tensor(row_ptr, 2)
            b = g
            if STARTED:
                b = tl.load(b_ptr + place, mask=mask, other=0.0) * momentum + g * rest
            tl.store(b_ptr + place, b, mask=mask)
            g = g + b * momentum if NESTEROV else b
        tl.store(p_ptr + place, p - g * lr, mask=mask)


_ADAM = [Variant({"DECAY": decay, "DECOUPLED": decoupled}) for decay, decoupled in ((0, 0), (1, 0), (1, 1))]


@kernel("*i64 *i64 fp32 fp32 fp32 fp32 fp32 fp32 fp32 fp32 fp32", *_ADAM)
def _adam_kernel(
    addresses_ptr, chunks_ptr, rate, correction, eps, beta1, rest1, beta2, rest2, decay, shrink,
    DECAY: tl.constexpr, DECOUPLED: tl.constexpr, BLOCK: tl.constexpr = BLOCK, CHUNK: tl.constexpr = CHUNK,
):  # fmt: skip
    row_ptr, first, end = _chunk(addresses_ptr, chunks_ptr, 4, CHUNK)
    p_ptr = _tensor(row_ptr, 0)
    g_ptr = _tensor(row_ptr, 1)
    m_ptr = _tensor(row_ptr, 2)
    v_ptr = _tensor(row_ptr, 3)
    for start in range(0, CHUNK, BLOCK):
        place = first + start + tl.arange(0, BLOCK)
        mask = place < end
        p = tl.load(p_ptr + place, mask=mask, other=0.0)
        g = tl.load(g_ptr + place, mask=mask, other=0.0)
        if DECAY:
            if DECOUPLED:
                p = p * shrink
            else:
                g = g + p * decay
        m = tl.load(m_ptr + place, mask=mask, other=0.0) * beta1 + g * rest1
        v = tl.load(v_ptr + place, mask=mask, other=0.0) * beta2 + (g * g) * rest2
        tl.store(m_ptr + place, m, mask=mask)
        tl.store(v_ptr + place, v, mask=mask)
        scale = tl.div_rn(tl.sqrt_rn(v), correction) + eps
        tl.store(p_ptr + place, p - tl.div_rn(m, scale) * rate, mask=mask)


@kernel("*i64 *i64 *fp32")
def _scale_kernel(addresses_ptr, chunks_ptr, factor_ptr, BLOCK: tl.constexpr = BLOCK, CHUNK: tl.constexpr = CHUNK):
    row_ptr, first, end = _chunk(addresses_ptr, chunks_ptr, 1, CHUNK)
    g_ptr = _tensor(row_ptr, 0)
    factor = tl.load(factor_ptr)
    for start in range(0, CHUNK, BLOCK):
        place = first + start + tl.arange(0, BLOCK)
        mask = place < end
        g = tl.load(g_ptr + place, mask=mask, other=0.0)
        tl.store(g_ptr + place, g * factor, mask=mask)


def sgd_triton(
    rows: Sequence[Sequence[torch.Tensor]],
    lr: float,
    decay: float,
    momentum: float,
    rest: float,
    *,
    started: bool,
    nesterov: bool,
) -> None:
    """One step of :class:`dettriton.optim.SGD` for rows (parameter, gradient[, buffer])."""
    tables = tables_for(rows)
    flags = {"DECAY": decay != 0, "MOMENTUM": momentum != 0, "STARTED": started, "NESTEROV": nesterov}
    if momentum == 0:
        flags |= {"STARTED": False, "NESTEROV": False}
    constants = _binary32(lr, decay, momentum, rest)
    _sgd_kernel((len(tables.chunks),), *tables, *constants, **flags, CHUNK=CHUNK)
    tell_autograd(rows, (0, 2) if momentum != 0 else (0,))


def adam_triton(rows: Sequence[Sequence[torch.Tensor]], *constants: float, decay: bool, decoupled: bool) -> None:
    """One step of :class:`dettriton.optim.Adam` for rows (parameter, gradient, first moment, second moment)."""
    tables = tables_for(rows)
    flags = {"DECAY": int(decay), "DECOUPLED": int(decay and decoupled)}
    _adam_kernel((len(tables.chunks),), *tables, *_binary32(*constants), **flags, CHUNK=CHUNK)
    tell_autograd(rows, (0, 2, 3))


def scale_triton(tensors: Sequence[torch.Tensor], factor: torch.Tensor) -> None:
    """Dense tensors multiplied in place by a 0-dim one on their device."""
    rows = [(t,) for t in tensors]
    tables = tables_for(rows)
    _scale_kernel((len(tables.chunks),), *tables, factor, CHUNK=CHUNK)
    tell_autograd(rows, (0,))


def _binary32(*values: float) -> list[float]:
    return torch.tensor(values, dtype=torch.float32).tolist()
