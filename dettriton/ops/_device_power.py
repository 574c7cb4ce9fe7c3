"""pow and rsqrt inside kernels: the sequences of :mod:`dettriton.exact.power`."""

from dettriton.exact import power
from dettriton.ops._device64 import power_of_two64
from dettriton.ops._device_trigonometric import polynomial64, quotient64
from dettriton.ops._launch import jit, tl

LOG2_POLYNOMIAL = tl.constexpr(power.LOG2_POLYNOMIAL)
EXP2_POLYNOMIAL = tl.constexpr(power.EXP2_POLYNOMIAL)
LOG2_DEGREE = tl.constexpr(len(power.LOG2_POLYNOMIAL) - 1)
EXP2_DEGREE = tl.constexpr(len(power.EXP2_POLYNOMIAL) - 1)
SQRT_HALF_BITS = tl.constexpr(power.SQRT_HALF_BITS)
FRACTION_BITS = tl.constexpr(power.FRACTION_BITS)
ROUNDER = tl.constexpr(power.ROUNDER)
LARGEST_POWER = tl.constexpr(power.LARGEST_POWER)
EVEN_FROM = tl.constexpr(power.EVEN_FROM)
INFINITY = tl.constexpr(float("inf"))


@jit
def pow_f32(x, y):
    magnitude = tl.abs(x)
    logarithm = _log2(magnitude)
    logarithm = tl.where(magnitude == INFINITY, INFINITY, tl.where(magnitude == 0, -INFINITY, logarithm))
    result = _exp2(y.to(tl.float64) * logarithm)
    small = tl.abs(y) < EVEN_FROM
    whole = tl.where(small, y, 0.0).to(tl.int32)
    fractional = small & (whole.to(tl.float32) != y)
    odd = (whole & 1) == 1
    negative = x.to(tl.int32, bitcast=True) < 0
    result = tl.where(odd & negative & (fractional == 0), result * -1.0, result)
    invalid = fractional & (x < 0) & (x > -INFINITY)
    result = tl.where(invalid | (x != x) | (y != y), float("nan"), result)
    one = (y == 0) | (x == 1) | ((x == -1) & (tl.abs(y) == INFINITY))
    return tl.where(one, 1.0, result)


@jit
def rsqrt_f32(x):
    valid = x >= 0
    q = tl.div_rn(tl.full(x.shape, 1.0, tl.float32), tl.sqrt_rn(tl.where(valid, x, 1.0)))
    wide = q.to(tl.float64)
    error = 1.0 - (wide * wide) * x.to(tl.float64)
    y = (wide + (wide * 0.5) * error).to(tl.float32)
    y = tl.where((x == 0) | (x == INFINITY), q, y)
    return tl.where(valid, y, float("nan"))


@jit
def _log2(a):
    bits = a.to(tl.float64).to(tl.int64, bitcast=True)
    power = tl.sub(bits, SQRT_HALF_BITS, sanitize_overflow=False) >> FRACTION_BITS
    m = tl.sub(bits, power << FRACTION_BITS, sanitize_overflow=False).to(tl.float64, bitcast=True)
    s = quotient64(m - 1.0, m + 1.0)
    return power.to(tl.float64) + polynomial64(LOG2_POLYNOMIAL, LOG2_DEGREE, s * s) * s


@jit
def _exp2(t):
    t = tl.where(t > -LARGEST_POWER, t, -LARGEST_POWER)
    t = tl.where(t < LARGEST_POWER, t, LARGEST_POWER)
    rounder = tl.full(t.shape, ROUNDER, tl.float64)
    n = (t + rounder) - rounder
    r = t - n
    y = polynomial64(EXP2_POLYNOMIAL, EXP2_DEGREE, r) * r + 1.0
    return (y * power_of_two64(n.to(tl.int64))).to(tl.float32)
