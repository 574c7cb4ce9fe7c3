"""sin, cos and tan inside kernels: the sequences of :mod:`dettriton.exact.trigonometric`."""

from dettriton.exact import trigonometric
from dettriton.ops._device_elementary import SIGN_BIT
from dettriton.ops._launch import jit, tl

TWO_OVER_PI = tl.constexpr(trigonometric.TWO_OVER_PI)
WORD_MASK = tl.constexpr(trigonometric.WORD_MASK)
UNIT = tl.constexpr(trigonometric.UNIT)
SIN_POLYNOMIAL = tl.constexpr(trigonometric.SIN_POLYNOMIAL)
COS_POLYNOMIAL = tl.constexpr(trigonometric.COS_POLYNOMIAL)
SIN_DEGREE = tl.constexpr(len(trigonometric.SIN_POLYNOMIAL) - 1)
COS_DEGREE = tl.constexpr(len(trigonometric.COS_POLYNOMIAL) - 1)
REDUCED_FIELD = tl.constexpr(trigonometric.REDUCED_FIELD)
FIRST_BIT = tl.constexpr(trigonometric.FIRST_BIT)


@jit
def sin_f32(x):
    quarters, r = _reduced(x)
    y = _quarter_wave(quarters, r).to(tl.int32, bitcast=True) ^ (x.to(tl.int32, bitcast=True) & SIGN_BIT)
    return tl.where(tl.abs(x) < float("inf"), y.to(tl.float32, bitcast=True), float("nan"))


@jit
def cos_f32(x):
    quarters, r = _reduced(x)
    return tl.where(tl.abs(x) < float("inf"), _quarter_wave(quarters + 1, r), float("nan"))


@jit
def tan_f32(x):
    quarters, r = _reduced(x)
    z = r * r
    s = r + (r * z) * polynomial64(SIN_POLYNOMIAL, SIN_DEGREE, z)
    c = polynomial64(COS_POLYNOMIAL, COS_DEGREE, z) * z + 1.0
    odd = (quarters & 1) == 1
    y = quotient64(tl.where(odd, c * -1.0, s), tl.where(odd, s, c)).to(tl.float32)
    y = y.to(tl.int32, bitcast=True) ^ (x.to(tl.int32, bitcast=True) & SIGN_BIT)
    return tl.where(tl.abs(x) < float("inf"), y.to(tl.float32, bitcast=True), float("nan"))


@jit
def quotient64(a, b):
    divisor = b.to(tl.float32)
    q = tl.div_rn(a.to(tl.float32), divisor).to(tl.float64)
    rest = tl.div_rn((a - q * b).to(tl.float32), divisor)
    return q + rest.to(tl.float64)


@jit
def polynomial64(coefficients: tl.constexpr, degree: tl.constexpr, t):
    """The coefficients are filled tensors, because a bare constant may be rounded to binary32."""
    p = t * tl.full(t.shape, coefficients[degree], tl.float64)
    for i in tl.static_range(1, degree):
        p = (p + tl.full(t.shape, coefficients[degree - i], tl.float64)) * t
    return p + tl.full(t.shape, coefficients[0], tl.float64)


@jit
def _word(number, INDEX: tl.constexpr):
    """Word ``number + INDEX`` of ``2 / pi``, for numbers from 0 to 4."""
    found = tl.full(number.shape, TWO_OVER_PI[INDEX], tl.int64)
    for i in tl.static_range(1, 5):
        found = tl.where(number == i, tl.full(number.shape, TWO_OVER_PI[INDEX + i], tl.int64), found)
    return found


@jit
def _reduced(x):
    bits = (x.to(tl.int32, bitcast=True) & 0x7FFFFFFF).to(tl.int64)
    field = bits >> 23
    small = field < REDUCED_FIELD
    start = tl.maximum(field, REDUCED_FIELD) - FIRST_BIT
    significand = (bits & 0x7FFFFF) | 0x800000
    number = start >> 5
    shift = start & 31
    w1 = _word(number, 1)
    w2 = _word(number, 2)
    high = ((_word(number, 0) << shift) | (w1 >> (32 - shift))) & WORD_MASK
    middle = ((w1 << shift) | (w2 >> (32 - shift))) & WORD_MASK
    low = ((w2 << shift) | (_word(number, 3) >> (32 - shift))) & WORD_MASK
    middle = middle * significand + (low * significand >> 32)
    high = high * significand + (middle >> 32) + 536870912
    fraction = (((high & 0x3FFFFFFF) - 536870912) << 32) | (middle & WORD_MASK)
    angle = fraction.to(tl.float64) * tl.full(fraction.shape, UNIT, tl.float64)
    return tl.where(small, 0, (high >> 30) & 3), tl.where(small, tl.abs(x).to(tl.float64), angle)


@jit
def _quarter_wave(quarters, r):
    odd = (quarters & 1) == 1
    z = r * r
    lead = tl.where(odd, 1.0, r)
    sine = polynomial64(SIN_POLYNOMIAL, SIN_DEGREE, z)
    p = tl.where(odd, polynomial64(COS_POLYNOMIAL, COS_DEGREE, z), sine)
    y = lead + (lead * z) * p
    return tl.where((quarters & 2) == 2, y * -1.0, y).to(tl.float32)
