"""Exact windowed sums on CPU tensors (rule R2 of the contract, plain sums).

A window is 32 bits wide and sits at an absolute position: window ``w`` holds the bits of weight ``2**(32*w)`` to
``2**(32*w + 31)``. With ``G`` the window of the largest magnitude, every term keeps its bits in windows ``G`` and
``G - 1`` (truncated toward zero), each window is summed in integers, and the total is rounded to binary32 once.
Integer sums have no order, so neither have these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch

from dettriton.exact._jit import compiles
from dettriton.exact._loops import SHARED_ELEMENTS, flat, spread
from dettriton.exact.ieee import canonical_nan, power_of_two, scale_by_power_of_two

WINDOW_BITS = 32
_LOWEST_EXPONENT = -149
_BLOCK_ELEMENTS = 1 << 18


def top_exponent(magnitude: torch.Tensor) -> torch.Tensor:
    """``floor(log2(m))`` of finite non-negative binary32 values as int64; the lowest, -149, for zero."""
    return torch.where(magnitude > 0, torch.frexp(magnitude)[1].to(torch.int64) - 1, _LOWEST_EXPONENT)


def window_of(exponent: torch.Tensor) -> torch.Tensor:
    """The window that holds the bit of weight ``2**exponent``."""
    return torch.div(exponent, WINDOW_BITS, rounding_mode="floor")


def round_window_pair(window: torch.Tensor, hi: torch.Tensor, lo: torch.Tensor) -> torch.Tensor:
    """``(hi * 2**32 + lo) * 2**(32*(window-1))`` rounded to 24 bits once, then scaled into binary32.

    Args:
        window, hi, lo: int64, one shape.
    """
    hi = hi + (lo >> WINDOW_BITS)
    lo = lo & 0xFFFFFFFF
    fits = (hi >= -(1 << 31)) & (hi < (1 << 31))
    # Rounded to odd, 63 bits decide a rounding to 24 exactly as all 96 would.
    value = torch.where(fits, (hi << WINDOW_BITS) | lo, hi | (lo != 0))
    return scale_by_power_of_two(value.to(torch.float32), WINDOW_BITS * torch.where(fits, window - 1, window))


@dataclass(frozen=True)
class Accumulator:
    """A sum in progress: ``hi * 2**(32*window) + lo * 2**(32*(window-1))``, one per element.

    Accumulators form a commutative monoid under :meth:`merge`: parts of a sum may be accumulated anywhere and merged
    in any order with the same result.

    Attributes:
        window: int64, the window of the largest magnitude seen.
        hi, lo: int64, the integer sums of the two windows.
        finite: bool, False once a term was NaN or infinite.
    """

    window: torch.Tensor
    hi: torch.Tensor
    lo: torch.Tensor
    finite: torch.Tensor

    def merge(self, other: Accumulator) -> Accumulator:
        """The accumulator of both sums' terms."""
        window = torch.maximum(self.window, other.window)
        a, b = self._at(window), other._at(window)
        return Accumulator(window, a[0] + b[0], a[1] + b[1], self.finite & other.finite)

    def _at(self, window: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        behind = window - self.window
        zero = torch.zeros_like(self.hi)
        hi = torch.where(behind == 0, self.hi, zero)
        lo = torch.where(behind == 0, self.lo, torch.where(behind == 1, self.hi, zero))
        return hi, lo

    def view(self, shape: Sequence[int]) -> Accumulator:
        """The same accumulators in another shape."""
        return Accumulator(*(field.view(shape) for field in (self.window, self.hi, self.lo, self.finite)))

    def round(self) -> torch.Tensor:
        """The sum as binary32, rounded once; the canonical NaN where a term was not finite."""
        if compiles():
            from dettriton.exact.compiled_window import rounded

            fields = (self.window, self.hi, self.lo, self.finite)
            return rounded(tuple(flat(field) for field in fields), self.window.shape)
        return torch.where(self.finite, round_window_pair(self.window, self.hi, self.lo), canonical_nan(self.hi))


def _canonical_dims(x: torch.Tensor, dims: tuple[int, ...] | None) -> tuple[int, ...]:
    return tuple(range(x.dim())) if dims is None else tuple(d % x.dim() for d in dims)


def _largest(x: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    return x.abs().amax(dims, keepdim=True)


def _block_views(x: torch.Tensor, dims: tuple[int, ...]) -> Iterator[torch.Tensor]:
    """Parts of ``x`` along its reduced dimensions whose temporaries stay in the cache: at most 2**18 terms each."""
    longest = max(dims, key=lambda d: x.shape[d])
    if x.numel() <= _BLOCK_ELEMENTS or x.shape[longest] == 1:
        yield x
        return
    slice_elements = x.numel() // x.shape[longest]
    for part in x.split(max(_BLOCK_ELEMENTS // slice_elements, 1), longest):
        yield from _block_views(part, dims)


def _at_lower_grid(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """``trunc(x * scale)`` as binary64, exact because the scale is a power of two; torch.trunc would be slower."""
    y = x.to(torch.float64).mul_(scale)
    return y.sub_(torch.frac(y))


def accumulate(x: torch.Tensor, dims: tuple[int, ...] | None = None) -> Accumulator:
    """Accumulate a binary32 tensor over ``dims`` (all of them by default); reduced dimensions keep size 1."""
    dims = _canonical_dims(x, dims)
    if x.numel() == 0:
        kept = [1 if d in dims else s for d, s in enumerate(x.shape)]
        zero = torch.zeros(kept, dtype=torch.int64)
        return Accumulator(window_of(zero + _LOWEST_EXPONENT), zero, zero, torch.ones(kept, dtype=torch.bool))
    return _accumulate_compiled(x, dims) if compiles() else _accumulate(x, dims, _largest(x, dims))


def outer_kept_inner(x: torch.Tensor, dims: tuple[int, ...]) -> tuple[torch.Tensor, tuple[int, int, int]]:
    """``x`` as a contiguous (outer, kept, inner) array whose sum over outer and inner is the sum over ``dims``."""
    kept = [d for d in range(x.dim()) if d not in dims]
    contiguous_run = not kept or kept == list(range(kept[0], kept[-1] + 1))
    if not contiguous_run:
        x = x.permute(*kept, *dims)
        kept = list(range(len(kept)))
    x = x.contiguous()
    first, last = (kept[0], kept[-1] + 1) if kept else (0, 0)
    return x, (math.prod(x.shape[:first]), math.prod(x.shape[first:last]), math.prod(x.shape[last:]))


def _accumulate_compiled(x: torch.Tensor, dims: tuple[int, ...]) -> Accumulator:
    shape = [1 if d in dims else s for d, s in enumerate(x.shape)]
    x, sizes = outer_kept_inner(x, dims)
    return _of_terms(x.view(sizes)).view(shape)


def _sum_compiled(x: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    from dettriton.exact.compiled_window import accumulated, rounded

    shape = torch.Size([1 if d in dims else s for d, s in enumerate(x.shape)])
    x, sizes = outer_kept_inner(x, dims)
    terms = x.view(sizes)
    return _of_terms(terms).round().view(shape) if _few_but_long(terms) else rounded(accumulated(terms), shape)


def _few_but_long(terms: torch.Tensor) -> bool:
    return terms.numel() > SHARED_ELEMENTS and terms.shape[1] < torch.get_num_threads()


def _of_terms(terms: torch.Tensor) -> Accumulator:
    """The accumulators of a contiguous (outer, kept, inner) tensor; few but long sums are shared out among threads."""
    from dettriton.exact.compiled_window import accumulated

    if not _few_but_long(terms):
        return Accumulator(*map(torch.from_numpy, accumulated(terms)))
    threads = torch.get_num_threads()
    longest = 0 if terms.shape[0] > 1 else 2
    parts = terms.split(-(-terms.shape[longest] // threads), longest)
    found: list[Any] = [None] * len(parts)

    def of_parts(first: int, last: int) -> None:
        for i in range(first, last):
            found[i] = accumulated(parts[i], threaded=False)

    spread(of_parts, len(parts), terms.numel())
    return reduce(lambda a, b: a.merge(b), (Accumulator(*map(torch.from_numpy, fields)) for fields in found))


def _accumulate(x: torch.Tensor, dims: tuple[int, ...], largest: torch.Tensor) -> Accumulator:
    finite = torch.isfinite(largest)
    if not bool(finite.all()):
        x = torch.where(finite, x, torch.zeros((), dtype=x.dtype))
        largest = torch.where(finite, largest, torch.zeros((), dtype=x.dtype))
    window = window_of(top_exponent(largest))
    scale = power_of_two(-WINDOW_BITS * (window - 1))
    hi, lo = torch.zeros_like(window), torch.zeros_like(window)
    for part in _block_views(x, dims) if dims else (x,):
        low = _at_lower_grid(part, scale)
        high = low * 2.0**-WINDOW_BITS
        high.sub_(torch.frac(high))
        low.sub_(high * 2.0**WINDOW_BITS)
        hi += _integer_sum(high, dims)
        lo += _integer_sum(low, dims)
    return Accumulator(window, hi, lo, finite)


def _integer_sum(values: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    """The sum of at most 2**21 integers below 2**32, held in binary64: exact in any order."""
    return (values.sum(dims, keepdim=True) if dims else values).to(torch.int64)


def windowed_sum(x: torch.Tensor, dims: tuple[int, ...] | None = None, keepdim: bool = False) -> torch.Tensor:
    """The exact windowed sum of a binary32 tensor over ``dims``, rounded to binary32 once.

    Equal to ``accumulate(x, dims).round()``, by a single integer sum where the terms' common grid leaves room for it.
    """
    dims = _canonical_dims(x, dims)
    if compiles() and x.numel():
        total = _sum_compiled(x, dims)
    elif x.numel() and dims:
        largest = _largest(x, dims)
        total = _sum_on_one_grid(x, dims, largest)
        if total is None:
            total = _accumulate(x, dims, largest).round()
    else:
        total = accumulate(x, dims).round()
    return total if keepdim or not dims else total.squeeze(dims)


def _sum_on_one_grid(x: torch.Tensor, dims: tuple[int, ...], largest: torch.Tensor) -> torch.Tensor | None:
    """The sum when every term on the lower window's grid, and every block's sum, fits 53 bits; None when not."""
    if not bool(torch.isfinite(largest).all()):
        return None
    exponent = top_exponent(largest)
    window = window_of(exponent)
    term_bits = int((exponent - WINDOW_BITS * (window - 1)).max()) + 1
    parts = list(_block_views(x, dims))
    terms, block_terms = (t.numel() // largest.numel() for t in (x, parts[0]))
    if term_bits + (block_terms - 1).bit_length() > 53 or term_bits + (terms - 1).bit_length() > 63:
        return None
    scale = power_of_two(-WINDOW_BITS * (window - 1))
    total = torch.zeros_like(window)
    for part in parts:
        total += _integer_sum(_at_lower_grid(part, scale), dims)
    return round_window_pair(window, total >> WINDOW_BITS, total & 0xFFFFFFFF)
