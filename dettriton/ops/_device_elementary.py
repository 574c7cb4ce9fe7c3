"""exp, log, log1p, sigmoid and tanh inside kernels: the sequences of :mod:`dettriton.exact.elementary`.

They take and return binary32 tensors of any shape. Inputs are brought into range before any arithmetic, so that no
operation is invalid or overflows.
"""

from dettriton.exact import elementary_constants as constants
from dettriton.ops._launch import jit, tl

EXP_POLYNOMIAL = tl.constexpr(constants.EXP_POLYNOMIAL)
LOG_POLYNOMIAL = tl.constexpr(constants.LOG_POLYNOMIAL)
TANH_POLYNOMIAL = tl.constexpr(constants.TANH_POLYNOMIAL)
EXP_DEGREE = tl.constexpr(len(constants.EXP_POLYNOMIAL) - 1)
LOG_DEGREE = tl.constexpr(len(constants.LOG_POLYNOMIAL) - 1)
TANH_DEGREE = tl.constexpr(len(constants.TANH_POLYNOMIAL) - 1)
INVERSE_LN2 = tl.constexpr(constants.INVERSE_LN2)
LN2_HIGH = tl.constexpr(constants.LN2_HIGH)
LN2_LOW = tl.constexpr(constants.LN2_LOW)
ROUNDER = tl.constexpr(constants.ROUNDER)
ROUNDER_BITS = tl.constexpr(constants.ROUNDER_BITS)
SQRT_HALF_BITS = tl.constexpr(constants.SQRT_HALF_BITS)
EXPONENT_BIAS = tl.constexpr(constants.EXPONENT_BIAS)
FRACTION_BITS = tl.constexpr(constants.FRACTION_BITS)
EXP_LOWEST = tl.constexpr(constants.EXP_LOWEST)
EXP_HIGHEST = tl.constexpr(constants.EXP_HIGHEST)
LOG1P_LOWEST = tl.constexpr(constants.LOG1P_LOWEST)
LOG1P_HIGHEST = tl.constexpr(constants.LOG1P_HIGHEST)
SMALLEST_NORMAL = tl.constexpr(constants.SMALLEST_NORMAL)
SUBNORMAL_SHIFT = tl.constexpr(constants.SUBNORMAL_SHIFT)
SUBNORMAL_SCALE = tl.constexpr(2.0**constants.SUBNORMAL_SHIFT)
TANH_POLYNOMIAL_END = tl.constexpr(constants.TANH_POLYNOMIAL_END)
TANH_SATURATION = tl.constexpr(constants.TANH_SATURATION)
EXP2_POLYNOMIAL = tl.constexpr(constants.EXP2_POLYNOMIAL)
EXP2_DEGREE = tl.constexpr(len(constants.EXP2_POLYNOMIAL) - 1)
EXP2_LOWEST = tl.constexpr(constants.EXP2_LOWEST)
EXP2_HIGHEST = tl.constexpr(constants.EXP2_HIGHEST)
INVERSE_LN2_HIGH = tl.constexpr(constants.INVERSE_LN2_HIGH)
INVERSE_LN2_LOW = tl.constexpr(constants.INVERSE_LN2_LOW)
HIGH_HALF = tl.constexpr(constants.HIGH_HALF)
ATAN_POLYNOMIAL = tl.constexpr(constants.ATAN_POLYNOMIAL)
ATAN_DEGREE = tl.constexpr(len(constants.ATAN_POLYNOMIAL) - 1)
HALF_PI = tl.constexpr(constants.HALF_PI)
HALF_PI_LOW = tl.constexpr(constants.HALF_PI_LOW)
EXPM1_LOWEST = tl.constexpr(constants.EXPM1_LOWEST)
ERF_POLYNOMIAL = tl.constexpr(constants.ERF_POLYNOMIAL)
ERF_DEGREE = tl.constexpr(len(constants.ERF_POLYNOMIAL) - 1)
ERF_LOG_POLYNOMIAL = tl.constexpr(constants.ERF_LOG_POLYNOMIAL)
ERF_LOG_DEGREE = tl.constexpr(len(constants.ERF_LOG_POLYNOMIAL) - 1)
ERF_POLYNOMIAL_END = tl.constexpr(constants.ERF_POLYNOMIAL_END)
ERF_SATURATION = tl.constexpr(constants.ERF_SATURATION)
SIGN_BIT = tl.constexpr(-(2**31))
INFINITY = tl.constexpr(float("inf"))


@jit
def exp_f32(x):
    power, high, low = _exp_reduced(_clamp(x, EXP_LOWEST, EXP_HIGHEST))
    y = (high + low) + 1.0
    half = power >> 1
    y = (y * _power_of_two(half)) * _power_of_two(power - half)
    y = tl.where(x > EXP_HIGHEST, INFINITY, y)
    return tl.where(x == x, y, float("nan"))


@jit
def log_f32(x):
    subnormal = x < SMALLEST_NORMAL
    power, f = _log_reduced(tl.where(subnormal, _clamp(x, 0.0, SMALLEST_NORMAL) * SUBNORMAL_SCALE, x))
    power = tl.where(subnormal, power - SUBNORMAL_SHIFT, power).to(tl.float32)
    y = _log_sum(power, f, power * LN2_LOW)
    return _logarithm_limits(x, y, 0.0)


@jit
def log1p_f32(x):
    safe = _clamp(x, LOG1P_LOWEST, LOG1P_HIGHEST)
    u = safe + 1.0
    back = u - 1.0
    error = ((back - u) + 1.0) + (safe - back)
    power, f = _log_reduced(u)
    near_one = power == 0
    f = tl.where(near_one, safe, f)
    correction = tl.where(near_one, 0.0, tl.div_rn(error, u))
    power = power.to(tl.float32)
    y = _log_sum(power, f, power * LN2_LOW + correction)
    return _logarithm_limits(x, tl.where(x == 0, x, y), -1.0)


@jit
def sigmoid_f32(x):
    power, high, low = _exp_reduced(_clamp(tl.abs(x) * -1.0, EXP_LOWEST, 0.0))
    s = high + low
    e = s + 1.0
    d = (low - (s - high)) + (s - (e - 1.0))
    half = power >> 1
    scale0 = _power_of_two(half)
    scale1 = _power_of_two(power - half)
    e = (e * scale0) * scale1
    d = (d * scale0) * scale1
    v = e + 1.0
    g = (e - (v - 1.0)) + d
    negative = x < 0
    n = tl.where(negative, e, 1.0)
    m = tl.where(negative, d, 0.0)
    b = tl.div_rn(n, v)
    return tl.where(x == x, b + tl.div_rn(m - b * g, v), float("nan"))


@jit
def tanh_f32(x):
    a = _clamp(tl.abs(x), 0.0, TANH_SATURATION)
    power, high, low = _exp_reduced(a + a)
    e = ((high + low) + 1.0) * _power_of_two(power)
    large = 1.0 - tl.div_rn(tl.full(e.shape, 2.0, tl.float32), e + 1.0)
    square = a * a
    small = a + (_polynomial(TANH_POLYNOMIAL, TANH_DEGREE, square) * square) * a
    return _with_sign(x, tl.where(a < TANH_POLYNOMIAL_END, small, large))


@jit
def _clamp(x, low, high):
    """``low`` for NaN, whose result is replaced at the end."""
    x = tl.where(x > low, x, low)
    return tl.where(x < high, x, high)


@jit
def _polynomial(coefficients: tl.constexpr, degree: tl.constexpr, t):
    p = t * coefficients[degree]
    for i in tl.static_range(1, degree):
        p = (p + coefficients[degree - i]) * t
    return p + coefficients[0]


@jit
def _power_of_two(exponent):
    return ((exponent + EXPONENT_BIAS) << FRACTION_BITS).to(tl.float32, bitcast=True)


@jit
def _exp_reduced(x):
    t = x * INVERSE_LN2 + ROUNDER
    power = t.to(tl.int32, bitcast=True) - ROUNDER_BITS
    t = t - ROUNDER
    high = x - t * LN2_HIGH
    l = t * LN2_LOW
    r = high - l
    return power, high, _polynomial(EXP_POLYNOMIAL, EXP_DEGREE, r) * (r * r) - l


@jit
def _log_reduced(x):
    bits = x.to(tl.int32, bitcast=True)
    power = tl.sub(bits, SQRT_HALF_BITS, sanitize_overflow=False) >> FRACTION_BITS
    f = tl.sub(bits, power << FRACTION_BITS, sanitize_overflow=False).to(tl.float32, bitcast=True) - 1.0
    return power, f


@jit
def _log_sum(power, f, low):
    square = f * f
    p = (_polynomial(LOG_POLYNOMIAL, LOG_DEGREE, f) * f) * square
    return power * LN2_HIGH + (f + ((p - square * 0.5) + low))


@jit
def _logarithm_limits(x, y, pole):
    y = tl.where(x == INFINITY, x, y)
    y = tl.where(x == pole, -INFINITY, y)
    return tl.where(x >= pole, y, float("nan"))


@jit
def exp2_f32(x):
    safe = _clamp(x, EXP2_LOWEST, EXP2_HIGHEST)
    t = safe + ROUNDER
    power = t.to(tl.int32, bitcast=True) - ROUNDER_BITS
    r = safe - (t - ROUNDER)
    half = power >> 1
    y = _polynomial(EXP2_POLYNOMIAL, EXP2_DEGREE, r) * r + 1.0
    y = (y * _power_of_two(half)) * _power_of_two(power - half)
    return tl.where(x == x, y, float("nan"))


@jit
def log2_f32(x):
    subnormal = x < SMALLEST_NORMAL
    power, f = _log_reduced(tl.where(subnormal, _clamp(x, 0.0, SMALLEST_NORMAL) * SUBNORMAL_SCALE, x))
    power = tl.where(subnormal, power - SUBNORMAL_SHIFT, power).to(tl.float32)
    g = (f.to(tl.int32, bitcast=True) & HIGH_HALF).to(tl.float32, bitcast=True)
    square = f * f
    p = (_polynomial(LOG_POLYNOMIAL, LOG_DEGREE, f) * f) * square - square * 0.5
    low = ((f - g) * INVERSE_LN2 + p * INVERSE_LN2) + g * INVERSE_LN2_LOW
    return _logarithm_limits(x, power + (g * INVERSE_LN2_HIGH + low), 0.0)


@jit
def atan_f32(x):
    a = tl.abs(x)
    beyond = a > 1.0
    t = tl.div_rn(tl.where(beyond, 1.0, a), tl.where(beyond, a, 1.0))
    square = t * t
    p = (_polynomial(ATAN_POLYNOMIAL, ATAN_DEGREE, square) * square) * t
    high = HALF_PI - t
    low = ((HALF_PI - high) - t) + HALF_PI_LOW
    return _with_sign(x, tl.where(beyond, high + (low - p), t + p))


@jit
def expm1_f32(x):
    power, high, low = _exp_reduced(_clamp(x, EXPM1_LOWEST, EXP_HIGHEST))
    scale = _power_of_two(power - 1)
    a = high * scale
    b = scale - 0.5
    c = a + b
    y = (c + (low * scale + (a - (c - b)))) * 2.0
    y = tl.where(power == 0, high + low, y)
    y = tl.where(x > EXP_HIGHEST, INFINITY, y)
    return tl.where(x == x, tl.where(x == 0, x, y), float("nan"))


@jit
def erf_f32(x):
    a = _clamp(tl.abs(x), 0.0, ERF_SATURATION)
    power, high, low = _exp_reduced(_polynomial(ERF_LOG_POLYNOMIAL, ERF_LOG_DEGREE, a))
    large = 1.0 - ((high + low) + 1.0) * _power_of_two(power)
    small = a + _polynomial(ERF_POLYNOMIAL, ERF_DEGREE, a * a) * a
    return _with_sign(x, tl.where(a < ERF_POLYNOMIAL_END, small, large))


@jit
def _with_sign(x, magnitude):
    """``magnitude`` with the sign of ``x``; NaN where ``x`` is."""
    bits = magnitude.to(tl.int32, bitcast=True) | (x.to(tl.int32, bitcast=True) & SIGN_BIT)
    return tl.where(x == x, bits.to(tl.float32, bitcast=True), float("nan"))
