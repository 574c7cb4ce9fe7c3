"""Triton device functions shared by the kernels: grids, digits, windows and exact rounding (R1 and R2 on a GPU)."""

from dettriton.ops._launch import jit, tl

NON_FINITE_EXPONENT = tl.constexpr(1 << 12)
WINDOWS = tl.constexpr(10)
"""Absolute windows -6 .. 3, enough for every finite binary32; window ``w`` is bin ``w + 6``."""


@jit
def magnitude_bits(x):
    """The bits of ``|x|``: integers in the order of the magnitudes, at least 0x7f800000 for Inf and NaN."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@jit
def power_of_two(exponent):
    """``2**exponent`` in binary32 for int32 exponents in [-126, 127]."""
    return ((exponent + 127) << 23).to(tl.float32, bitcast=True)


@jit
def scale_round(x, exponent):
    """``x * 2**exponent`` rounded once to binary32, for int32 exponents in [-1022, 1023]."""
    scale = ((exponent.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)
    return (x.to(tl.float64) * scale).to(tl.float32)


@jit
def grid_exponent(bits):
    """``frexp``'s exponent of the binary32 value with these magnitude bits (see exact.grid.grid_exponents)."""
    subnormal = (bits.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 275
    exponent = tl.where(bits >= 0x00800000, (bits >> 23) - 126, subnormal)
    exponent = tl.where(bits == 0, 0, exponent)
    return tl.where(bits >= 0x7F800000, NON_FINITE_EXPONENT, exponent)


@jit
def grid_integer(x, exponent, BITS: tl.constexpr):
    """``rint(x * 2**(BITS - exponent))`` as int32; 0 on a non-finite grid.

    Two half scalings stay in range; where the first one is inexact the integer is 0 either way.
    """
    finite = exponent < NON_FINITE_EXPONENT
    shift = tl.where(finite, BITS - exponent, 0)
    half = shift >> 1
    scaled = x * power_of_two(half) * power_of_two(shift - half)
    # Adding 1.5 * 2**23 rounds to an integer, ties to even, because |scaled| <= 2**20.
    rounded = (scaled + 12582912.0) - 12582912.0
    return tl.where(finite, rounded, 0.0).to(tl.int32)


@jit
def window_of_bits(bits):
    """The window of the largest bit of the binary32 value with these magnitude bits; -5 for zero."""
    normal = ((bits >> 23) - 127 + 160) // 32 - 5
    subnormal = tl.where(bits >= 0x00200000, -4, -5)
    return tl.where(bits >= 0x00800000, normal, subnormal)


@jit
def window_terms(x, window):
    """The integers of ``x`` in ``window`` and the one below, as two int64 (truncated toward zero)."""
    half = power_of_two(-16 * (window - 1))
    scaled = x * half * half
    hi = (scaled * power_of_two(window * 0 - 32)).to(tl.int64)
    lo = (scaled - hi.to(tl.float32) * 4294967296.0).to(tl.int64)
    return hi, lo


@jit
def round_windows(hi, lo, window):
    """``(hi * 2**32 + lo) * 2**(32*(window-1))`` rounded once to 24 bits, then scaled into binary32."""
    hi += lo >> 32
    lo = lo & 0xFFFFFFFF
    fits = (hi >= -2147483648) & (hi < 2147483648)
    value = tl.where(fits, (hi << 32) | lo, hi | (lo != 0).to(tl.int64))
    return scale_round(value.to(tl.float32), 32 * tl.where(fits, window - 1, window))


@jit
def round_dot(total, exponent):
    """An exact int64 dot product as binary32, scaled by ``2**exponent``; NaN where a grid was not finite."""
    non_finite = exponent > NON_FINITE_EXPONENT // 2
    result = scale_round(total.to(tl.float32), tl.where(non_finite, 0, exponent))
    return tl.where(non_finite, float("nan"), result)
