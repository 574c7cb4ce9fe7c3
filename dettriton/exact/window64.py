"""Exact windowed sums of binary64 CPU tensors: the same absolute 32-bit windows as :mod:`dettriton.exact.window`.

``G`` is the window of the largest magnitude, but at least -31, where every bit of a subnormal is kept anyway. A term
keeps its bits in the four windows ``G`` .. ``G - 3`` (truncated toward zero below), each window is summed in int64, and
``a * 2**(32G) + b * 2**(32(G-1)) + c * 2**(32(G-2)) + d * 2**(32(G-3))`` is rounded to 53 bits once, then scaled.
Truncation is at most ``2**-96`` of the largest term, for each term; at most ``2**31`` terms.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dettriton.exact.ieee import power_of_two
from dettriton.exact.window import WINDOW_BITS

KEPT_WINDOWS = 4
LOWEST_WINDOW = -31
FRACTION_BITS = 52
EXPONENT_BIAS = 1023
NON_FINITE_FIELD = 2047
SAFE_EXPONENT = -1000
CANONICAL_NAN64_BITS = 0x7FF8000000000000

_BASE = 2.0**WINDOW_BITS
_DIGIT = (1 << WINDOW_BITS) - 1
_FULL = 62 + EXPONENT_BIAS


def canonical_nan64(like: torch.Tensor) -> torch.Tensor:
    """A 0-dim binary64 NaN with the bits 0x7ff8000000000000 on the device of ``like``."""
    return torch.full((), CANONICAL_NAN64_BITS, dtype=torch.int64, device=like.device).view(torch.float64)


def exponent_field(x: torch.Tensor) -> torch.Tensor:
    """The biased exponent of binary64 values as int64; 2047 for Inf and NaN."""
    return (x.view(torch.int64) >> FRACTION_BITS) & NON_FINITE_FIELD


def window_of_field(field: torch.Tensor) -> torch.Tensor:
    """The window of a finite magnitude with this biased exponent, at least the lowest one."""
    return ((field + 1 >> 5) - 32).clamp_min(LOWEST_WINDOW)


def window_digits(x: torch.Tensor, window: torch.Tensor) -> list[torch.Tensor]:
    """The signed bits of ``x`` in ``window`` and the three below as four int64 tensors, highest first.

    Args:
        x: binary64, finite, with no bit above ``window``.
        window: int64, broadcasts with ``x``.
    """
    # Two half scalings stay in range; where the first one is inexact the value is below all four windows.
    half = power_of_two(-(WINDOW_BITS // 2) * window)
    rest = (x * half) * half
    digits = []
    for _ in range(KEPT_WINDOWS):
        whole = torch.trunc(rest)
        digits.append(whole.to(torch.int64))
        rest = (rest - whole) * _BASE
    return digits


def _append(value: torch.Tensor, digit: torch.Tensor, open_: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """As many leading bits of the 32-bit ``digit`` as ``value`` has room for; ``(value, how many, the bits lost)``."""
    room = (_FULL - exponent_field(value.to(torch.float64))).clamp(0, WINDOW_BITS)
    taken = torch.where(open_, room, 0)
    left = WINDOW_BITS - taken
    return (value << taken) | (digit >> left), taken, digit & ((torch.ones_like(left) << left) - 1)


def round_windows64(window: torch.Tensor, digits: list[torch.Tensor]) -> torch.Tensor:
    """Four window sums, highest first, rounded to 53 bits once and scaled into binary64; Inf on overflow."""
    a, b, c, d = digits
    c, d = c + (d >> WINDOW_BITS), d & _DIGIT
    b, c = b + (c >> WINDOW_BITS), c & _DIGIT
    a, b = a + (b >> WINDOW_BITS), b & _DIGIT
    exponent = WINDOW_BITS * window
    lost = torch.zeros_like(a)
    open_ = torch.ones_like(a, dtype=torch.bool)
    for digit in (b, c, d):
        a, taken, rest = _append(a, digit, open_)
        exponent, lost, open_ = exponent - taken, lost | rest, taken == WINDOW_BITS
    # Bits are lost only once 61 are held. Rounded to odd, those decide a rounding to 53 exactly as all would.
    value = (a | (lost != 0)).to(torch.float64)
    first = exponent.clamp_min(SAFE_EXPONENT)
    return (value * power_of_two(first)) * power_of_two(exponent - first)


@dataclass(frozen=True)
class Accumulator64:
    """A binary64 sum in progress; accumulators form a commutative monoid under :meth:`merge`.

    Attributes:
        window: int64, the window of the largest magnitude seen.
        digits: four int64 window sums, highest first.
        finite: bool, False once a term was NaN or infinite.
    """

    window: torch.Tensor
    digits: list[torch.Tensor]
    finite: torch.Tensor

    def merge(self, other: Accumulator64) -> Accumulator64:
        """The accumulator of both sums' terms."""
        window = torch.maximum(self.window, other.window)
        pairs = zip(self._at(window), other._at(window), strict=True)
        return Accumulator64(window, [a + b for a, b in pairs], self.finite & other.finite)

    def _at(self, window: torch.Tensor) -> list[torch.Tensor]:
        behind = window - self.window
        zero = torch.zeros_like(self.digits[0])
        return [
            sum((torch.where(behind == k - j, self.digits[j], zero) for j in range(k + 1)), zero)
            for k in range(KEPT_WINDOWS)
        ]

    def round(self) -> torch.Tensor:
        """The sum as binary64, rounded once; the canonical NaN where a term was not finite."""
        return torch.where(self.finite, round_windows64(self.window, self.digits), canonical_nan64(self.window))


def accumulate64(x: torch.Tensor, dims: tuple[int, ...] | None = None) -> Accumulator64:
    """Accumulate a binary64 tensor over non-negative ``dims`` (all by default); reduced dimensions keep size 1."""
    dims = tuple(range(x.dim())) if dims is None else dims
    if x.numel() == 0:
        kept = [1 if d in dims else s for d, s in enumerate(x.shape)]
        zero = torch.zeros(kept, dtype=torch.int64)
        return Accumulator64(zero + LOWEST_WINDOW, [zero] * KEPT_WINDOWS, torch.ones(kept, dtype=torch.bool))
    top = exponent_field(x).amax(dims, keepdim=True) if dims else exponent_field(x)
    finite = top < NON_FINITE_FIELD
    window = window_of_field(torch.where(finite, top, 0))
    digits = window_digits(torch.where(finite, x, torch.zeros((), dtype=x.dtype)), window)
    return Accumulator64(window, [d.sum(dims, keepdim=True) if dims else d for d in digits], finite)


def windowed_sum64(x: torch.Tensor, dims: tuple[int, ...] | None = None, keepdim: bool = False) -> torch.Tensor:
    """The exact windowed sum of a binary64 tensor over ``dims`` (all by default), rounded to binary64 once."""
    dims = tuple(range(x.dim())) if dims is None else tuple(d % x.dim() for d in dims)
    total = accumulate64(x, dims).round()
    return total if keepdim or not dims else total.squeeze(dims)
