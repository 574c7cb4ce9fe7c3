"""The elementary functions of :mod:`elementary` and :mod:`elementary_more` for one number, and loops made of them.

Each scalar function is the same sequence of R1 operations, written for a compiler that makes vectors of it: every
selection has both its sides computed. Loops that call them are in this file, for numba's cache looks at no other.
"""

import numpy as np

from dettriton.exact import elementary_constants as constants
from dettriton.exact._jit import jit

_f32 = np.float32
_NAN, _INF = _f32(np.nan), _f32(np.inf)
_ZERO, _HALF, _ONE, _TWO = _f32(0), _f32(0.5), _f32(1), _f32(2)
_SIGN, _MAGNITUDE = np.int32(-0x80000000), np.int32(0x7FFFFFFF)
_E0, _E1, _E2, _E3, _E4 = map(_f32, constants.EXP_POLYNOMIAL)
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7 = map(_f32, constants.LOG_POLYNOMIAL)
_T0, _T1, _T2, _T3, _T4, _T5 = map(_f32, constants.TANH_POLYNOMIAL)
_F0, _F1, _F2, _F3, _F4, _F5, _F6 = map(_f32, constants.ERF_POLYNOMIAL)
_G0, _G1, _G2, _G3, _G4, _G5, _G6 = map(_f32, constants.ERF_LOG_POLYNOMIAL)
_INVERSE_LN2, _LN2_HIGH, _LN2_LOW = _f32(constants.INVERSE_LN2), _f32(constants.LN2_HIGH), _f32(constants.LN2_LOW)
_ROUNDER, _ROUNDER_BITS = _f32(constants.ROUNDER), constants.ROUNDER_BITS
_SMALLEST_NORMAL, _UP_SUBNORMAL = _f32(constants.SMALLEST_NORMAL), _f32(2.0**constants.SUBNORMAL_SHIFT)
_SUBNORMAL_SHIFT, _SQRT_HALF_BITS = constants.SUBNORMAL_SHIFT, constants.SQRT_HALF_BITS
_EXP_LOWEST, _EXP_HIGHEST = _f32(constants.EXP_LOWEST), _f32(constants.EXP_HIGHEST)
_TANH_END, _TANH_SATURATION = _f32(constants.TANH_POLYNOMIAL_END), _f32(constants.TANH_SATURATION)
_ERF_END, _ERF_SATURATION = _f32(constants.ERF_POLYNOMIAL_END), _f32(constants.ERF_SATURATION)
_SQRT_HALF, _INVERSE_SQRT_2PI = _f32(0.7071067690849304), _f32(0.3989422917366028)
_UP, _DOWN = 2.0**32, _f32(2.0**-32)
# Added to an integer below 2**51 it leaves that integer in the low bits of a binary64: a conversion that vectorises.
_INTEGER = 1.5 * 2.0**52
_INTEGER_BITS = np.int64(np.float64(_INTEGER).view(np.int64))


@jit
def _power_of_two(exponent):
    return np.int32((exponent + 127) << 23).view(np.float32)


@jit
def _with_sign_of(x, magnitude):
    return np.int32((np.float32(magnitude).view(np.int32) & _MAGNITUDE) | (np.float32(x).view(np.int32) & _SIGN)).view(
        np.float32
    )


@jit
def _exp_reduced(x):
    """``k, h, w`` with ``exp(x) = 2**k * (1 + (h + w))``."""
    t = x * _INVERSE_LN2 + _ROUNDER
    power = np.float32(t).view(np.int32) - _ROUNDER_BITS
    t = t - _ROUNDER
    high = x - t * _LN2_HIGH
    l = t * _LN2_LOW
    r = high - l
    p = (((r * _E4 + _E3) * r + _E2) * r + _E1) * r + _E0
    return power, high, p * (r * r) - l


@jit
def _exp(x):
    power, high, low = _exp_reduced(min(max(x, _EXP_LOWEST), _EXP_HIGHEST))
    y = (low + high) + _ONE
    half = power >> 1
    y = (y * _power_of_two(half)) * _power_of_two(power - half)
    y = _INF if x > _EXP_HIGHEST else y
    return y if x == x else _NAN


@jit
def _log_reduced(x):
    """``k, f`` with ``x = 2**k * (1 + f)``."""
    bits = np.float32(x).view(np.int32)
    power = (bits - _SQRT_HALF_BITS) >> 23
    return power, np.int32(bits - (power << 23)).view(np.float32) - _ONE


@jit
def _log_sum(k, f, low):
    square = f * f
    p = ((((((f * _L7 + _L6) * f + _L5) * f + _L4) * f + _L3) * f + _L2) * f + _L1) * f + _L0
    return ((((p * f) * square) - square * _HALF) + low) + f + k * _LN2_HIGH


@jit
def _log(x):
    small = x < _SMALLEST_NORMAL
    power, f = _log_reduced(x * _UP_SUBNORMAL if small else x)
    k = np.float32(power - _SUBNORMAL_SHIFT if small else power)
    y = _log_sum(k, f, k * _LN2_LOW)
    y = x if x == _INF else y
    y = -_INF if x == _ZERO else y
    return y if x >= _ZERO else _NAN


@jit
def _log1p(x):
    """For ``x`` in [0, 1], where log1p has no special cases; something else than the canonical NaN for a NaN."""
    u = x + _ONE
    back = u - _ONE
    error = ((back - u) + _ONE) + (x - back)
    power, f = _log_reduced(u)
    near_one = power == 0
    correction = (_ZERO if near_one else error) / u
    k = np.float32(np.int32(power))
    return _log_sum(k, x if near_one else f, k * _LN2_LOW + correction)


@jit
def _sigmoid(x):
    power, high, low = _exp_reduced(max(-abs(x), _EXP_LOWEST))
    s = high + low
    e = s + _ONE
    d = (low - (s - high)) + (s - (e - _ONE))
    half = power >> 1
    first, second = _power_of_two(half), _power_of_two(power - half)
    e = (e * first) * second
    d = (d * first) * second
    v = e + _ONE
    g = (e - (v - _ONE)) + d
    n = e if x < _ZERO else _ONE
    m = d if x < _ZERO else _ZERO
    b = n / v
    y = (m - g * b) / v + b
    return y if x == x else _NAN


@jit
def _tanh(x):
    a = min(abs(x), _TANH_SATURATION)
    power, high, low = _exp_reduced(a + a)
    e = ((low + high) + _ONE) * _power_of_two(power)
    large = -(_TWO / (e + _ONE)) + _ONE
    square = a * a
    p = ((((square * _T5 + _T4) * square + _T3) * square + _T2) * square + _T1) * square + _T0
    small = ((p * square) * a) + a
    y = _with_sign_of(x, small if a < _TANH_END else large)
    return y if x == x else _NAN


@jit
def _erf(x):
    a = min(abs(x), _ERF_SATURATION)
    q = (((((a * _G6 + _G5) * a + _G4) * a + _G3) * a + _G2) * a + _G1) * a + _G0
    power, high, low = _exp_reduced(q)
    large = -(((low + high) + _ONE) * _power_of_two(power)) + _ONE
    t = a * a
    p = (((((t * _F6 + _F5) * t + _F4) * t + _F3) * t + _F2) * t + _F1) * t + _F0
    y = _with_sign_of(x, p * a + a if a < _ERF_END else large)
    return y if x == x else _NAN


@jit
def gelu(x, y, first, last):
    source, target = x[first:last], y[first:last]
    for i in range(source.size):
        v = source[i]
        target[i] = (v * _HALF) * (_erf(v * _SQRT_HALF) + _ONE)


@jit
def gelu_gradient(grad, x, y, first, last):
    upstream, source, target = grad[first:last], x[first:last], y[first:last]
    for i in range(source.size):
        v = source[i]
        density = _exp((v * v) * -_HALF) * _INVERSE_SQRT_2PI
        target[i] = upstream[i] * ((_erf(v * _SQRT_HALF) + _ONE) * _HALF + v * density)


@jit
def silu(x, y, first, last):
    source, target = x[first:last], y[first:last]
    for i in range(source.size):
        target[i] = source[i] * _sigmoid(source[i])


@jit
def silu_gradient(grad, x, y, first, last):
    upstream, source, target = grad[first:last], x[first:last], y[first:last]
    for i in range(source.size):
        s = _sigmoid(source[i])
        target[i] = upstream[i] * (s * (source[i] * (_ONE - s) + _ONE))


@jit
def sigmoid(x, y, first, last):
    source, target = x[first:last], y[first:last]
    for i in range(source.size):
        target[i] = _sigmoid(source[i])


@jit
def sigmoid_gradient(grad, x, y, first, last):
    upstream, source, target = grad[first:last], x[first:last], y[first:last]
    for i in range(source.size):
        s = _sigmoid(source[i])
        target[i] = upstream[i] * (s * (_ONE - s))


@jit
def tanh(x, y, first, last):
    source, target = x[first:last], y[first:last]
    for i in range(source.size):
        target[i] = _tanh(source[i])


@jit
def tanh_gradient(grad, x, y, first, last):
    upstream, source, target = grad[first:last], x[first:last], y[first:last]
    for i in range(source.size):
        t = _tanh(source[i])
        target[i] = upstream[i] * (_ONE - t * t)


@jit
def glu(a, b, y, first, last):
    halves, gates, target = a[first:last], b[first:last], y[first:last]
    for i in range(target.size):
        target[i] = halves[i] * _sigmoid(gates[i])


@jit
def glu_gradient_a(grad, a, b, y, first, last):
    upstream, gates, target = grad[first:last], b[first:last], y[first:last]
    for i in range(target.size):
        target[i] = upstream[i] * _sigmoid(gates[i])


@jit
def glu_gradient_b(grad, a, b, y, first, last):
    upstream, halves, gates, target = grad[first:last], a[first:last], b[first:last], y[first:last]
    for i in range(target.size):
        s = _sigmoid(gates[i])
        target[i] = (upstream[i] * halves[i]) * (s * (_ONE - s))


@jit
def exp(x, y, first, last):
    source, target = x[first:last], y[first:last]
    for i in range(source.size):
        target[i] = _exp(source[i])


@jit
def log(x, y, first, last):
    source, target = x[first:last], y[first:last]
    for i in range(source.size):
        target[i] = _log(source[i])


@jit
def bce(weighted, pulled, x, y, weight, pos_weight, loss, first, last):
    """The losses of logits ``x`` and targets ``y``; an absent factor's array is not looked at."""
    source, aim, factors, pulls = x[first:last], y[first:last], weight[first:last], pos_weight[first:last]
    target = loss[first:last]
    for i in range(target.size):
        v = source[i]
        softplus = _log1p(_exp(-abs(v))) + (-v if v < _ZERO else _ZERO)
        lift = (pulls[i] - _ONE) * aim[i] + _ONE if pulled else _ONE
        own = (_ONE - aim[i]) * v + lift * softplus
        target[i] = own * (factors[i] if weighted else _ONE)


@jit
def bce_gradient(weighted, pulled, x, y, weight, pos_weight, grad, slope, first, last):
    """The gradients of :func:`bce` to the logits."""
    source, aim, factors, pulls = x[first:last], y[first:last], weight[first:last], pos_weight[first:last]
    upstream, target = grad[first:last], slope[first:last]
    for i in range(target.size):
        v = source[i]
        z = _exp(-abs(v))
        large, small = _ONE / (z + _ONE), z / (z + _ONE)
        up = large if v >= _ZERO else small
        down = small if v >= _ZERO else large
        pull = pulls[i] if pulled else _ONE
        own = (_ONE - aim[i]) * up - (pull * aim[i]) * down
        target[i] = (own * (factors[i] if weighted else _ONE)) * upstream[i]


@jit
def _largest(row):
    """The largest term; whatever is no number makes it NaN."""
    top = row[0]
    odd = False
    for i in range(row.size):
        top = max(top, row[i])
        odd |= row[i] != row[i]
    return _NAN if odd else top


@jit
def _exponentials(row, top, out):
    """``exp(row - top)``, and the sum of their multiples of ``2**-32``, truncated."""
    for i in range(row.size):
        out[i] = _exp(row[i] - top)
    total = np.int64(0)
    for i in range(row.size):
        total += np.float64(np.trunc(np.float64(out[i]) * _UP) + _INTEGER).view(np.int64)
    return total - row.size * _INTEGER_BITS


@jit
def softmax_rows(x, y, length, first, last):
    """The softmax of rows of that length; the canonical NaN in a row without one."""
    for row in range(first, last):
        source, target = x[row * length : (row + 1) * length], y[row * length : (row + 1) * length]
        top = _largest(source)
        if abs(top) < _INF:
            total = np.float32(_exponentials(source, top, target)) * _DOWN
            for i in range(target.size):
                target[i] = target[i] / total
        else:
            target[:] = _NAN


@jit
def _top_and_total(row, kept):
    """The largest term of a row and the sum of its exponentials; 0 and the canonical NaN in a row without one."""
    top = _largest(row)
    if abs(top) < _INF:
        return top, np.float32(_exponentials(row, top, kept)) * _DOWN
    return _ZERO, _NAN


@jit
def softmax_totals(x, tops, totals, length, first, last):
    """The largest term of rows of that length and the sum of their exponentials; 0 and the canonical NaN without one."""
    kept = np.empty(length, np.float32)
    for row in range(first, last):
        tops[row], totals[row] = _top_and_total(x[row * length : (row + 1) * length], kept)


@jit
def _sum_of_one(v):
    """The exact sum of one term: +0 for -0, the canonical NaN for a non-finite one."""
    return v + _ZERO if abs(v) < _INF else _NAN


@jit
def class_losses(x, labels, weight, weighted, ignored, length, losses, tops, totals, row_weights, first, last):
    """The cross entropies of rows of that length and their classes, with what :func:`softmax_totals` finds.

    An absent weight's array is not looked at, and of a row whose label is the ignored one, only the totals count.
    """
    kept = np.empty(length, np.float32)
    for row in range(first, last):
        source = x[row * length : (row + 1) * length]
        top, total = _top_and_total(source, kept)
        label = labels[row]
        counted = label != ignored
        loss, own = _ZERO, _ZERO
        if counted:
            surprise = -((source[label] - top) - _log(total))
            own = _sum_of_one(weight[label]) if weighted else _ONE
            loss = _ZERO if own == _ZERO and surprise == _INF else _sum_of_one(own * surprise)
        losses[row], tops[row], totals[row], row_weights[row] = loss, top, total, own


@jit
def class_loss_gradient(
    factors, x, labels, weight, weighted, ignored, a, b, length, tops, totals, sums, slope, first, last
):
    """The gradients of cross entropies to the logits: ``a`` of each target is at its class, ``b`` at every class."""
    scaled = weighted and b != _ZERO
    for row in range(first, last):
        source, target = x[row * length : (row + 1) * length], slope[row * length : (row + 1) * length]
        label = labels[row]
        if label == ignored:
            target[:] = _ZERO
            continue
        top, total, whole, factor = tops[row], totals[row], sums[row], factors[row]
        for i in range(target.size):
            p = _exp(source[i] - top) / total
            target[i] = (p * whole - (b * weight[i] if scaled else b)) * factor
        t = a + b
        t = t * weight[label] if weighted and t != _ZERO else t
        p = _exp(source[label] - top) / total
        target[label] = (p * whole - t) * factor
