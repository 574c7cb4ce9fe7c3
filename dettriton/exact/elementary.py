"""exp, log, log1p, sigmoid and tanh in binary32: fixed sequences of R1 operations, the same bits on every machine.

Each function is a range reduction, a polynomial by Horner's rule and special cases. Only binary32 ``+ - * /``,
comparisons, selections, integer operations on the bits and scaling by powers of two occur, in the order written;
``dettriton/ops/_device_elementary.py`` is the same sequence for kernels and shares its constants.

The reductions follow W. J. Cody and W. Waite, "Software Manual for the Elementary Functions" (1980); sums whose
rounding errors are kept follow T. J. Dekker and D. E. Knuth. Bounds in units in the last place (ulp) were measured
over all 2**32 inputs against binary64 and hold in the subnormal range as well.
"""

import torch

from dettriton.errors import InputError
from dettriton.exact.elementary_constants import (
    EXP_HIGHEST,
    EXP_LOWEST,
    EXP_POLYNOMIAL,
    EXPONENT_BIAS,
    FRACTION_BITS,
    INVERSE_LN2,
    LN2_HIGH,
    LN2_LOW,
    LOG1P_HIGHEST,
    LOG1P_LOWEST,
    LOG_POLYNOMIAL,
    ROUNDER,
    ROUNDER_BITS,
    SMALLEST_NORMAL,
    SQRT_HALF_BITS,
    SUBNORMAL_SHIFT,
    TANH_POLYNOMIAL,
    TANH_POLYNOMIAL_END,
    TANH_SATURATION,
)
from dettriton.exact.ieee import canonical_nan


def exp(x: torch.Tensor) -> torch.Tensor:
    """The exponential, at most 0.90 ulp from the exact value.

    With ``x`` clamped to [-104, 88.72284]: ``t = (x * INVERSE_LN2 + ROUNDER) - ROUNDER``, ``h = x - t * LN2_HIGH``,
    ``l = t * LN2_LOW``, ``r = h - l``, ``q = P(r) * (r * r)``, ``y = (h + (q - l)) + 1``; the result is
    ``(y * 2**(t >> 1)) * 2**(t - (t >> 1))``, rounded a second time only where it is subnormal.

    Args:
        x: binary32, any shape and strides.

    Returns:
        A new tensor of the same shape; exp(-Inf) = +0, exp(Inf) = Inf, Inf on overflow, the canonical NaN for NaN.

    Raises:
        InputError: ``x`` is not binary32.
    """
    _require_binary32("exp", x)
    power, high, low = _exp_reduced(x.clamp(EXP_LOWEST, EXP_HIGHEST))
    y = low.add_(high).add_(1.0)
    for factor in _half_scales(power):
        y.mul_(factor)
    return _keep_nan(x, y.masked_fill_(x > EXP_HIGHEST, torch.inf))


def log(x: torch.Tensor) -> torch.Tensor:
    """The natural logarithm, at most 0.91 ulp from the exact value.

    ``x = 2**k * (1 + f)`` with ``1 + f`` in [sqrt(1/2), sqrt(2)), exactly, subnormals included. The result is
    ``k * LN2_HIGH + (f + (((P(f) * f) * (f * f) - (f * f) * 0.5) + k * LN2_LOW))``.

    Args:
        x: binary32, any shape and strides.

    Returns:
        A new tensor of the same shape; log(±0) = -Inf, log(Inf) = Inf, log(1) = +0, the canonical NaN for negative
        numbers and NaN.

    Raises:
        InputError: ``x`` is not binary32.
    """
    _require_binary32("log", x)
    subnormal = x < SMALLEST_NORMAL
    power, f = _log_reduced(torch.where(subnormal, x * 2.0**SUBNORMAL_SHIFT, x))
    power = power.sub_(subnormal.to(torch.int32).mul_(SUBNORMAL_SHIFT)).to(torch.float32)
    y = _log_sum(power, f, power * LN2_LOW)
    return _logarithm_limits(x, y, pole=0.0)


def log1p(x: torch.Tensor) -> torch.Tensor:
    """log(1 + x), at most 0.91 ulp from the exact value.

    ``u = 1 + x`` with its rounding error ``e`` (Knuth's two-sum); ``u = 2**k * (1 + f)`` as in :func:`log`. Where
    ``k = 0``, ``f`` is ``x`` itself and ``c = 0``, elsewhere ``c = e / u``. The result is
    ``k * LN2_HIGH + (f + (((P(f) * f) * (f * f) - (f * f) * 0.5) + (k * LN2_LOW + c)))``.

    Args:
        x: binary32, any shape and strides.

    Returns:
        A new tensor of the same shape; log1p(±0) = ±0, log1p(-1) = -Inf, log1p(Inf) = Inf, the canonical NaN below
        -1 and for NaN.

    Raises:
        InputError: ``x`` is not binary32.
    """
    _require_binary32("log1p", x)
    safe = x.clamp(LOG1P_LOWEST, LOG1P_HIGHEST)
    u = safe + 1.0
    back = u - 1.0
    error = (back - u).add_(1.0).add_(safe - back)
    power, f = _log_reduced(u)
    near_one = power == 0
    f = torch.where(near_one, safe, f)
    correction = error.div_(u).masked_fill_(near_one, 0.0)
    power = power.to(torch.float32)
    y = _log_sum(power, f, (power * LN2_LOW).add_(correction))
    return _logarithm_limits(x, torch.where(x == 0, x, y), pole=-1.0)


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    """1 / (1 + exp(-x)), at most 1.17 ulp from the exact value.

    With ``E = exp(-|x|)`` as an unevaluated sum ``e + d``, from :func:`exp`'s ``h`` and ``w = q - l`` at
    ``max(-|x|, -104)``: ``s = h + w``, ``e = s + 1``, ``d = (s - (e - 1)) + (w - (s - h))``, both scaled by the power
    of two. The denominator is ``v = e + 1`` with the error ``g = (e - (v - 1)) + d``; the numerator ``n + m`` is
    ``1 + 0`` for ``x >= 0`` and ``e + d`` below. The result is ``b + (m - b * g) / v`` with ``b = n / v``.

    Args:
        x: binary32, any shape and strides.

    Returns:
        A new tensor of the same shape, in [0, 1]; sigmoid(-Inf) = +0, sigmoid(Inf) = 1, the canonical NaN for NaN.

    Raises:
        InputError: ``x`` is not binary32.
    """
    _require_binary32("sigmoid", x)
    power, high, low = _exp_reduced(x.abs().neg_().clamp_(min=EXP_LOWEST))
    s = high + low
    e = s + 1.0
    d = low.sub_(s - high).add_(s.sub_(e - 1.0))
    for factor in _half_scales(power):
        e.mul_(factor)
        d.mul_(factor)
    v = e + 1.0
    g = (e - (v - 1.0)).add_(d)
    negative = x < 0
    n = torch.where(negative, e, 1.0)
    m = d.masked_fill_(negative.logical_not_(), 0.0)
    b = n.div_(v)
    return _keep_nan(x, m.sub_(g.mul_(b)).div_(v).add_(b))


def tanh(x: torch.Tensor) -> torch.Tensor:
    """The hyperbolic tangent, at most 1.06 ulp from the exact value; odd.

    With ``a = min(|x|, 16)``: ``a + (P(a * a) * (a * a)) * a`` below 0.75, otherwise ``1 - 2 / (E + 1)`` with ``E``
    the exponential of ``a + a`` by :func:`exp`'s sequence; then the sign of ``x``.

    Args:
        x: binary32, any shape and strides.

    Returns:
        A new tensor of the same shape, in [-1, 1]; tanh(±0) = ±0, tanh(±Inf) = ±1, the canonical NaN for NaN.

    Raises:
        InputError: ``x`` is not binary32.
    """
    _require_binary32("tanh", x)
    a = x.abs().clamp_(max=TANH_SATURATION)
    power, high, low = _exp_reduced(a + a)
    e = low.add_(high).add_(1.0).mul_(_power_of_two(power))
    large = torch.full_like(e, 2.0).div_(e.add_(1.0)).neg_().add_(1.0)
    square = a * a
    small = _polynomial(TANH_POLYNOMIAL, square).mul_(square).mul_(a).add_(a)
    return _keep_nan(x, torch.where(a < TANH_POLYNOMIAL_END, small, large).copysign_(x))


def _require_binary32(name: str, x: torch.Tensor) -> None:
    if x.dtype != torch.float32:
        raise InputError(f"{name} is defined on torch.float32, got {x.dtype}; convert it with .float()")


def _polynomial(coefficients: tuple[float, ...], t: torch.Tensor) -> torch.Tensor:
    p = t * coefficients[-1]
    for c in coefficients[-2:0:-1]:
        p.add_(c).mul_(t)
    return p.add_(coefficients[0])


def _power_of_two(exponent: torch.Tensor) -> torch.Tensor:
    return (exponent + EXPONENT_BIAS).bitwise_left_shift_(FRACTION_BITS).view(torch.float32)


def _half_scales(power: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two normal factors whose product is ``2**power``, which itself may be subnormal or too large."""
    half = power >> 1
    return _power_of_two(half), _power_of_two(power - half)


def _exp_reduced(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``k, h, w`` with ``exp(x) = 2**k * (1 + (h + w))`` and ``|h + w| <= 0.42``."""
    t = (x * INVERSE_LN2).add_(ROUNDER)
    power = t.view(torch.int32) - ROUNDER_BITS
    t.sub_(ROUNDER)
    high = x - t * LN2_HIGH
    l = t.mul_(LN2_LOW)
    r = high - l
    return power, high, _polynomial(EXP_POLYNOMIAL, r).mul_(r.square_()).sub_(l)


def _log_reduced(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``k, f`` with ``x = 2**k * (1 + f)``; for bits that are no positive normal number, still ``|f| < 0.42``."""
    bits = x.view(torch.int32)
    power = (bits - SQRT_HALF_BITS).bitwise_right_shift_(FRACTION_BITS)
    return power, (bits - (power << FRACTION_BITS)).view(torch.float32).sub_(1.0)


def _log_sum(power: torch.Tensor, f: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    square = f * f
    p = _polynomial(LOG_POLYNOMIAL, f).mul_(f).mul_(square)
    return p.sub_(square.mul_(0.5)).add_(low).add_(f).add_(power * LN2_HIGH)


def _logarithm_limits(x: torch.Tensor, y: torch.Tensor, pole: float) -> torch.Tensor:
    y = torch.where(x == torch.inf, x, y).masked_fill_(x == pole, -torch.inf)
    return torch.where(x >= pole, y, canonical_nan(x))


def _keep_nan(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.where(x == x, y, canonical_nan(x))
