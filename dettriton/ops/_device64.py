"""Triton device functions for exact binary64 sums: the integers of :mod:`dettriton.exact.window64`."""

from dettriton.ops._launch import jit, tl

WINDOWS64 = tl.constexpr(66)
"""Absolute windows -34 .. 31; window ``w`` is bin ``w + 34``."""

FIRST_BIN = tl.constexpr(34)
NON_FINITE_FIELD = tl.constexpr(2047)
BASE = tl.constexpr(4294967296.0)


@jit
def exponent_field(x):
    """The biased exponent of binary64 values as int32; 2047 for Inf and NaN."""
    return ((x.to(tl.int64, bitcast=True) >> 52) & 2047).to(tl.int32)


@jit
def window_of_field(field):
    """The window of a magnitude with this biased exponent, at least -31; a non-finite one's is the highest."""
    return tl.maximum((tl.minimum(field, 2046) + 1 >> 5) - 32, -31)


@jit
def power_of_two64(exponent):
    """``2**exponent`` in binary64 for integer exponents in [-1022, 1023]."""
    return ((exponent.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)


@jit
def window_digits(x, window):
    """The signed bits of finite ``x`` in ``window`` and the three below, as four int64, highest first."""
    half = power_of_two64(window * -16)
    rest = (x * half) * half
    a = rest.to(tl.int64)
    rest = (rest - a.to(tl.float64)) * BASE
    b = rest.to(tl.int64)
    rest = (rest - b.to(tl.float64)) * BASE
    c = rest.to(tl.int64)
    rest = (rest - c.to(tl.float64)) * BASE
    return a, b, c, rest.to(tl.int64)


@jit
def _append(value, digit, open_):
    room = 1085 - exponent_field(value.to(tl.float64)).to(tl.int64)
    taken = tl.where(open_, tl.minimum(tl.maximum(room, 0), 32), 0)
    left = 32 - taken
    one = tl.full(left.shape, 1, tl.int64)
    return (value << taken) | (digit >> left), taken, digit & ((one << left) - 1)


@jit
def round_windows64(a, b, c, d, window):
    """Four window sums rounded to 53 bits once, then scaled into binary64."""
    c += d >> 32
    b += c >> 32
    a += b >> 32
    a, taken_b, lost_b = _append(a, b & 0xFFFFFFFF, window == window)
    a, taken_c, lost_c = _append(a, c & 0xFFFFFFFF, taken_b == 32)
    a, taken_d, lost_d = _append(a, d & 0xFFFFFFFF, taken_c == 32)
    value = (a | ((lost_b | lost_c | lost_d) != 0).to(tl.int64)).to(tl.float64)
    exponent = window.to(tl.int64) * 32 - (taken_b + taken_c + taken_d)
    first = tl.maximum(exponent, -1000)
    return (value * power_of_two64(first)) * power_of_two64(exponent - first)
