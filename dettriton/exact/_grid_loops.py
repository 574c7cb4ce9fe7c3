"""The loops of grids: R2 of the contract before binary64 adds up products.

Arrays are flat and contiguous. A grid is known by its *scale* ``2**(p - e)``, which is 0 where an element is NaN or
infinite, and by its *unit* ``2**(e - p)``, which is NaN there; both are exact in binary64 for every binary32 grid, and
so is the product of two units. What the loops give is what :mod:`dettriton.exact.grid` gives.
"""

import numpy as np

from dettriton.exact._jit import jit

_INFINITY_BITS = 0x7F800000
_MAGNITUDE = 0x7FFFFFFF


@jit
def _magnitude(value):
    """The bits of a magnitude, which have its order."""
    return np.int32(np.float32(value).view(np.int32) & _MAGNITUDE)


@jit
def _largest(x):
    largest = np.int32(0)
    for i in range(x.size):
        largest = max(largest, _magnitude(x[i]))
    return largest


@jit
def _raise_each(largest, x):
    for i in range(x.size):
        largest[i] = max(largest[i], _magnitude(x[i]))


@jit
def _quantize(x, scale, q):
    if scale == 0.0:
        q[:] = 0.0
    else:
        for i in range(q.size):
            q[i] = np.rint(x[i] * scale)


@jit
def _quantize_each(x, scale, q):
    for i in range(q.size):
        value = np.rint(x[i] * scale[i])
        q[i] = value if scale[i] != 0.0 else 0.0


@jit
def _exponent(largest):
    """``frexp``'s exponent of the magnitude with these bits."""
    if largest >= 1 << 23:
        return (largest >> 23) - 126
    exponent = 0
    if largest:
        exponent = -149
        while largest:
            largest >>= 1
            exponent += 1
    return exponent


@jit
def grid_scales(x, outer, shared, grids, run, bits, scale, unit):
    """Scales and units of the grids of ``x`` (outer, shared, grids, run), one for each (outer, grids)."""
    top = np.zeros(grids, np.int32)
    for o in range(outer):
        top[:] = 0
        for s in range(shared):
            row = (o * shared + s) * grids * run
            if run == 1:
                _raise_each(top, x[row : row + grids])
            else:
                for g in range(grids):
                    top[g] = max(top[g], _largest(x[row + g * run : row + (g + 1) * run]))
        for g in range(grids):
            at = o * grids + g
            if top[g] >= _INFINITY_BITS:
                scale[at], unit[at] = 0.0, np.nan
            else:
                e = _exponent(np.int64(top[g]))
                scale[at] = np.int64((1023 + bits - e) << 52).view(np.float64)
                unit[at] = np.int64((1023 + e - bits) << 52).view(np.float64)


@jit
def quantize_grids(x, outer, shared, grids, run, bits, q, unit):
    """The grid integers of ``x`` (outer, shared, grids, run) in binary64, and the grids' units."""
    scale = np.empty(outer * grids)
    grid_scales(x, outer, shared, grids, run, bits, scale, unit)
    for o in range(outer):
        for s in range(shared):
            row = (o * shared + s) * grids * run
            if run == 1:
                _quantize_each(x[row : row + grids], scale[o * grids : (o + 1) * grids], q[row : row + grids])
            else:
                for g in range(grids):
                    start, stop = row + g * run, row + (g + 1) * run
                    _quantize(x[start:stop], scale[o * grids + g], q[start:stop])
