"""Exact sums of the terms that share a target: what every scatter, index add and embedding gradient is made of.

``index_sum(terms, index, size)[t, i]`` is the exact windowed sum (R2) of ``terms[n, i]`` over all ``n`` with
``index[n] == t``, bit for bit what :func:`dettriton.ops.sum.exact_sum` gives for those terms: +0 for none, the
canonical NaN where one is NaN or infinite. ``initial[t, i]`` is one more term of the same sum, rounded once with the
others; a target that no term goes to keeps the bits of its initial value.

Two passes, both over integers and so in any order: the largest magnitude of each target, which places its two windows;
then the terms' integers in them.
"""

from typing import NamedTuple

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.exact._jit import compiles
from dettriton.exact.ieee import canonical_nan, power_of_two
from dettriton.exact.window import WINDOW_BITS, round_window_pair, top_exponent, window_of
from dettriton.ops._device import magnitude_bits, round_windows, window_of_bits, window_terms
from dettriton.ops._launch import Variant, blocks, jit, kernel, tl

MAGNITUDE = 0x7FFFFFFF
LARGEST_FINITE = 0x7F7FFFFF
SKIP = -1
"""The target of a row that counts nowhere."""
NO_TERM = -1
"""The magnitude bits of a target that no term goes to."""

BLOCK = 1024
TARGET_BLOCK = 256
COLUMNS = 128
CHUNK = 1 << 18
SLAB = 1 << 20
_TARGETS_OF_A_TERM = 8
"""With more, it pays to number those that have a term."""

_LARGEST_FINITE = tl.constexpr(LARGEST_FINITE)


@jit
def _update_tile(
    terms_ptr, index_ptr, n, columns, size, row_stride, column_stride, ROWS: tl.constexpr, COLS: tl.constexpr
):
    """A tile of terms, (ROWS, COLS): its values, each row's target (ROWS, 1), columns (1, COLS), and what is inside."""
    across = tl.cdiv(columns, COLS)
    row = tl.program_id(0).to(tl.int64) // across * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(0).to(tl.int64) % across * COLS + tl.arange(0, COLS)[None, :]
    target = tl.load(index_ptr + row, mask=row < n, other=-1)
    inside = (target >= 0) & (target < size) & (column < columns)
    x = tl.load(terms_ptr + row * row_stride + column * column_stride, mask=inside, other=0.0)
    return x, target, column, inside


@kernel("*fp32 *i64 *i32 i64 i64 i64 i64 i64", Variant({"ROWS": 1024, "COLS": 1}), Variant({"ROWS": 8, "COLS": 128}))
def _index_top_kernel(
    terms_ptr, index_ptr, top_ptr, n, columns, size, row_stride, column_stride, ROWS: tl.constexpr, COLS: tl.constexpr
):
    """The largest magnitude of each target."""
    x, target, column, inside = _update_tile(
        terms_ptr, index_ptr, n, columns, size, row_stride, column_stride, ROWS, COLS
    )
    bits = magnitude_bits(x)
    first = tl.max(target, axis=0)
    if tl.max(first, axis=0) == tl.min(tl.min(target, axis=0), axis=0):
        top = tl.max(tl.where(inside, bits, -1), axis=0)[None, :]
        tl.atomic_max(top_ptr + first[None, :] * columns + column, top, mask=top >= 0)
    else:
        place_ptr = top_ptr + target * columns + column
        # Tops only grow, so a stale one that is large enough makes the atomic needless.
        known = tl.load(place_ptr, mask=inside, other=0)
        tl.atomic_max(place_ptr, bits, mask=inside & (bits > known))


@jit
def _target_window(top_ptr, initial_ptr, place, mask, HAS_INITIAL: tl.constexpr):
    """The largest magnitude bits of targets, their initial values' included, and the window that they place."""
    top = tl.load(top_ptr + place, mask=mask, other=0)
    if HAS_INITIAL:
        top = tl.maximum(top, magnitude_bits(tl.load(initial_ptr + place, mask=mask, other=0.0)))
    return top, window_of_bits(tl.minimum(tl.maximum(top, 0), _LARGEST_FINITE))


@kernel(
    "*fp32 *i64 *i32 *fp32 *i64 *i64 i64 i64 i64 i64 i64",
    Variant({"HAS_INITIAL": False, "ROWS": 1024, "COLS": 1}),
    Variant({"HAS_INITIAL": True, "ROWS": 8, "COLS": 128}),
)
def _index_add_kernel(
    terms_ptr, index_ptr, top_ptr, initial_ptr, hi_ptr, lo_ptr, n, columns, size, row_stride, column_stride,
    HAS_INITIAL: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """The terms' integers, added to their targets' windows."""
    x, target, column, inside = _update_tile(
        terms_ptr, index_ptr, n, columns, size, row_stride, column_stride, ROWS, COLS
    )
    place = target * columns + column
    _, window = _target_window(top_ptr, initial_ptr, place, inside, HAS_INITIAL)
    counted = inside & (magnitude_bits(x) <= _LARGEST_FINITE)
    hi, lo = window_terms(tl.where(counted, x, 0.0), window)
    first = tl.max(target, axis=0)
    if tl.max(first, axis=0) == tl.min(tl.min(target, axis=0), axis=0):
        shared = first[None, :] * columns + column
        usable = (first[None, :] >= 0) & (first[None, :] < size) & (column < columns)
        tl.atomic_add(hi_ptr + shared, tl.sum(hi, axis=0)[None, :], mask=usable)
        tl.atomic_add(lo_ptr + shared, tl.sum(lo, axis=0)[None, :], mask=usable)
    else:
        tl.atomic_add(hi_ptr + place, hi, mask=counted & (hi != 0))
        tl.atomic_add(lo_ptr + place, lo, mask=counted & (lo != 0))


@kernel("*i32 *fp32 *i64 *i64 *fp32 i64", Variant({"HAS_INITIAL": False}), Variant({"HAS_INITIAL": True}))
def _index_round_kernel(
    top_ptr, initial_ptr, hi_ptr, lo_ptr, y_ptr, n, HAS_INITIAL: tl.constexpr, TARGET_BLOCK: tl.constexpr = TARGET_BLOCK
):
    place = tl.program_id(0).to(tl.int64) * TARGET_BLOCK + tl.arange(0, TARGET_BLOCK)
    mask = place < n
    top, window = _target_window(top_ptr, initial_ptr, place, mask, HAS_INITIAL)
    hi = tl.load(hi_ptr + place, mask=mask, other=0)
    lo = tl.load(lo_ptr + place, mask=mask, other=0)
    if HAS_INITIAL:
        initial = tl.load(initial_ptr + place, mask=mask, other=0.0)
        finite = magnitude_bits(initial) <= _LARGEST_FINITE
        initial_hi, initial_lo = window_terms(tl.where(finite, initial, 0.0), window)
        hi += initial_hi
        lo += initial_lo
    y = tl.where(top > _LARGEST_FINITE, float("nan"), round_windows(hi, lo, window))
    if HAS_INITIAL:
        y = tl.where(tl.load(top_ptr + place, mask=mask, other=0) < 0, initial, y)
    tl.store(y_ptr + place, y, mask=mask)


class Targets(NamedTuple):
    """Flat targets: the scale to the lower window's grid, and the integer sums of both windows."""

    scale: torch.Tensor
    hi: torch.Tensor
    lo: torch.Tensor

    def integers(self, x: torch.Tensor, place: torch.Tensor | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """The two windows' integers of terms for the targets ``place``; a term that is not finite counts nothing."""
        low = torch.where(torch.isfinite(x), x, torch.zeros(())).to(torch.float64).mul_(self.scale[place])
        low.sub_(torch.frac(low))
        high = low * 2.0**-WINDOW_BITS
        high.sub_(torch.frac(high))
        low.sub_(high * 2.0**WINDOW_BITS)
        return high.to(torch.int64), low.to(torch.int64)


def index_sum_torch(terms: torch.Tensor, index: torch.Tensor, size: int, initial: torch.Tensor | None) -> torch.Tensor:
    kept = _rows_that_count(index, size)
    if kept is not None:
        terms, index = terms.index_select(0, kept), index.index_select(0, kept)
    y = torch.zeros(size, terms.shape[1]) if initial is None else initial.clone(memory_format=torch.contiguous_format)
    if terms.numel() == 0:
        return y
    if terms.shape[1] == 1 and size <= _TARGETS_OF_A_TERM * len(index) and compiles():
        from dettriton.exact.compiled_window import scatter_sums

        scatter_sums(terms, index, y)
        return y
    targets, dense = _targets_with_terms(index, size)
    started = None if initial is None else y.index_select(0, targets)
    width = max(SLAB // len(targets), 1)
    for first in range(0, terms.shape[1], width):
        slab = slice(first, first + width)
        start = None if started is None else started[:, slab].contiguous()
        y[:, slab].index_copy_(0, targets, _sum_dense(terms[:, slab], dense, len(targets), start))
    return y


def _targets_with_terms(index: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The targets that have a term, ascending, and for each row its target's rank among them."""
    has_term = torch.zeros(size, dtype=torch.bool)
    has_term[index] = True
    targets = has_term.nonzero().squeeze(1)
    rank = torch.zeros(size, dtype=torch.int64)
    rank[targets] = torch.arange(len(targets))
    return targets, rank[index]


def _sum_dense(terms: torch.Tensor, index: torch.Tensor, size: int, initial: torch.Tensor | None) -> torch.Tensor:
    if compiles():
        from dettriton.exact.compiled_window import sums_by_index

        return sums_by_index(terms, index, size, initial)
    columns = terms.shape[1]
    rows = max(CHUNK // columns, 1)
    parts = list(zip(terms.split(rows), index.split(rows), strict=True))
    top = torch.zeros(size, columns) if initial is None else initial
    top = top.view(torch.int32).view(-1) & MAGNITUDE
    for x, targets in parts:
        bits = x.reshape(-1).view(torch.int32) & MAGNITUDE
        top.scatter_reduce_(0, _places(targets, columns), bits, "amax")
    finite = top <= LARGEST_FINITE
    top = torch.where(finite, top, 0)
    window = window_of(top_exponent(top.view(torch.float32)))
    total = Targets(power_of_two(-WINDOW_BITS * (window - 1)), torch.zeros_like(window), torch.zeros_like(window))
    for x, targets in parts:
        place = _places(targets, columns)
        for window_sum, integers in zip((total.hi, total.lo), total.integers(x.reshape(-1), place), strict=True):
            window_sum.index_add_(0, place, integers)
    if initial is not None:
        hi, lo = total.integers(initial.view(-1), slice(None))
        total.hi.add_(hi)
        total.lo.add_(lo)
    sums = round_window_pair(window, total.hi, total.lo)
    return torch.where(finite, sums, canonical_nan(sums)).view(size, columns)


def _places(targets: torch.Tensor, columns: int) -> torch.Tensor:
    """Where the elements of rows go in the flat targets."""
    return targets if columns == 1 else (targets[:, None] * columns + torch.arange(columns)).reshape(-1)


def _rows_that_count(index: torch.Tensor, size: int) -> torch.Tensor | None:
    """The rows whose target is not SKIP, or None for all."""
    if index.numel() == 0:
        return None
    low, high = (int(v) for v in torch.aminmax(index))
    if low < SKIP or high >= size:
        position = int(((index < SKIP) | (index >= size)).nonzero()[0])
        raise InputError(
            f"index_sum: target {int(index[position])} of row {position} is out of range; "
            f"it must lie in [0, {size - 1}], or be {SKIP} for a row that counts nowhere"
        )
    return (index >= 0).nonzero().squeeze(1) if low < 0 else None


def index_sum_triton(terms: torch.Tensor, index: torch.Tensor, size: int, initial: torch.Tensor | None) -> torch.Tensor:
    n, columns = terms.shape
    device, targets = terms.device, size * columns
    top = torch.full((targets,), NO_TERM, dtype=torch.int32, device=device)
    hi, lo = torch.zeros(2, targets, dtype=torch.int64, device=device)
    y = torch.empty(size, columns, dtype=torch.float32, device=device)
    constants = {"HAS_INITIAL": initial is not None}
    initial = y if initial is None else initial.contiguous()
    across = min(1 << max(columns - 1, 0).bit_length(), COLUMNS)
    tile = {"ROWS": BLOCK // across, "COLS": across}
    grid = (blocks(n, tile["ROWS"]) * blocks(columns, across),)
    sizes = (n, columns, size, *terms.stride())
    _index_top_kernel(grid, terms, index, top, *sizes, **tile)
    _index_add_kernel(grid, terms, index, top, initial, hi, lo, *sizes, **constants, **tile)
    _index_round_kernel((blocks(targets, TARGET_BLOCK),), top, initial, hi, lo, y, targets, **constants)
    return y


FORWARD = {"torch": index_sum_torch, "triton": index_sum_triton}


def index_sum(terms: torch.Tensor, index: torch.Tensor, size: int, initial: torch.Tensor | None = None) -> torch.Tensor:
    """The exact sums of rows that share a target, on the tensors' engine, outside autograd.

    Args:
        terms: binary32, (N, I), any strides.
        index: int64, (N,): each row's target in [0, size), or SKIP for a row that counts nowhere. Other values are an
            error on the torch engine; the kernels, which cannot look without stalling the device, leave their rows out.
        size: how many targets there are.
        initial: binary32, (size, I): one more term for each target.

    Returns:
        binary32, (size, I).

    Raises:
        InputError: a target is out of range (torch engine).
    """
    given = (terms, index) if initial is None else (terms, index, initial)
    return FORWARD[engine_for(*given)](terms, index.contiguous(), size, initial)
