"""exp2, expm1, log2, erf and atan in binary32: fixed sequences of R1 operations, continuing :mod:`elementary`.

``dettriton/ops/_device_elementary.py`` is the same sequences for kernels and shares its constants. Bounds in
units in the last place (ulp) were measured against binary64 over every input between the magnitudes where a function
becomes linear and where it becomes constant (log2: between 2**-6 and 2**6, and the subnormal ones), and over every 211th
of all 2**32 inputs.
"""

import torch

from dettriton.exact import elementary
from dettriton.exact.elementary import (
    _exp_reduced,
    _half_scales,
    _keep_nan,
    _log_reduced,
    _logarithm_limits,
    _power_of_two,
    _require_binary32,
)
from dettriton.exact.elementary_constants import (
    ATAN_POLYNOMIAL,
    ERF_LOG_POLYNOMIAL,
    ERF_POLYNOMIAL,
    ERF_POLYNOMIAL_END,
    ERF_SATURATION,
    EXP2_HIGHEST,
    EXP2_LOWEST,
    EXP2_POLYNOMIAL,
    EXP_HIGHEST,
    EXPM1_LOWEST,
    HALF_PI,
    HALF_PI_LOW,
    HIGH_HALF,
    INVERSE_LN2,
    INVERSE_LN2_HIGH,
    INVERSE_LN2_LOW,
    LOG_POLYNOMIAL,
    ROUNDER,
    ROUNDER_BITS,
    SMALLEST_NORMAL,
    SUBNORMAL_SHIFT,
)


def exp2(x: torch.Tensor) -> torch.Tensor:
    """2**x, at most 1.08 ulp from the exact value.

    With ``x`` clamped to [-150, 128]: ``t = (x + ROUNDER) - ROUNDER``, ``r = x - t``, ``y = 1 + r * P(r)``; the result
    is ``(y * 2**(t >> 1)) * 2**(t - (t >> 1))``, rounded a second time only where it is subnormal.

    Args:
        x: binary32, any shape and strides.

    Returns:
        A new tensor of the same shape; exact for integers; exp2(-Inf) = +0, exp2(Inf) = Inf, Inf on overflow, the
        canonical NaN for NaN.

    Raises:
        InputError: ``x`` is not binary32.
    """
    _require_binary32("exp2", x)
    safe = x.clamp(EXP2_LOWEST, EXP2_HIGHEST)
    t = safe + ROUNDER
    power = t.view(torch.int32) - ROUNDER_BITS
    r = safe.sub_(t.sub_(ROUNDER))
    y = elementary._polynomial(EXP2_POLYNOMIAL, r).mul_(r).add_(1.0)
    for factor in _half_scales(power):
        y.mul_(factor)
    return _keep_nan(x, y)


def log2(x: torch.Tensor) -> torch.Tensor:
    """The logarithm to base 2, at most 1.25 ulp from the exact value.

    ``k``, ``f`` and ``p = (P(f) * f) * (f * f) - (f * f) * 0.5`` as in :func:`log`; ``g`` is ``f`` with its low 12 bits
    cleared. The result is
    ``k + (g * INVERSE_LN2_HIGH + (((f - g) * INVERSE_LN2 + p * INVERSE_LN2) + g * INVERSE_LN2_LOW))``.

    Args:
        x: binary32, any shape and strides.

    Returns:
        A new tensor of the same shape; exact for powers of two; log2(±0) = -Inf, log2(Inf) = Inf, log2(1) = +0, the
        canonical NaN for negative numbers and NaN.

    Raises:
        InputError: ``x`` is not binary32.
    """
    _require_binary32("log2", x)
    subnormal = x < SMALLEST_NORMAL
    power, f = _log_reduced(torch.where(subnormal, x * 2.0**SUBNORMAL_SHIFT, x))
    power = power.sub_(subnormal.to(torch.int32).mul_(SUBNORMAL_SHIFT)).to(torch.float32)
    g = f.view(torch.int32).bitwise_and(HIGH_HALF).view(torch.float32)
    square = f * f
    p = elementary._polynomial(LOG_POLYNOMIAL, f).mul_(f).mul_(square).sub_(square.mul_(0.5))
    low = p.mul_(INVERSE_LN2).add_((f - g).mul_(INVERSE_LN2)).add_(g * INVERSE_LN2_LOW)
    return _logarithm_limits(x, low.add_(g * INVERSE_LN2_HIGH).add_(power), pole=0.0)


def expm1(x: torch.Tensor) -> torch.Tensor:
    """exp(x) - 1, at most 1.17 ulp from the exact value.

    With ``x`` clamped to [-18, 88.72284], :func:`exp`'s ``k``, ``h`` and ``w = q - l``: ``h + w`` where ``k = 0``.
    Elsewhere ``a = h * 2**(k-1)``, ``b = 2**(k-1) - 0.5``, ``c = a + b`` and its rounding error ``d = a - (c - b)``;
    the result is ``(c + (w * 2**(k-1) + d)) * 2``.

    Args:
        x: binary32, any shape and strides.

    Returns:
        A new tensor of the same shape; expm1(±0) = ±0, expm1(-Inf) = -1, expm1(Inf) = Inf, Inf on overflow, the
        canonical NaN for NaN.

    Raises:
        InputError: ``x`` is not binary32.
    """
    _require_binary32("expm1", x)
    power, high, low = _exp_reduced(x.clamp(EXPM1_LOWEST, EXP_HIGHEST))
    scale = _power_of_two(power - 1)
    a, b = high * scale, scale - 0.5
    c = a + b
    y = (low * scale).add_(a.sub_(c - b)).add_(c).mul_(2.0)
    y = torch.where(power == 0, low.add_(high), y)
    y = torch.where(x == 0, x, y.masked_fill_(x > EXP_HIGHEST, torch.inf))
    return _keep_nan(x, y)


def erf(x: torch.Tensor) -> torch.Tensor:
    """The error function, at most 1.36 ulp from the exact value; odd.

    With ``a = min(|x|, 3.93)``: ``a + a * P(a * a)`` below 1, otherwise ``1 - E`` with ``E`` the exponential of
    ``Q(a)`` by :func:`exp`'s sequence; then the sign of ``x``.

    Args:
        x: binary32, any shape and strides.

    Returns:
        A new tensor of the same shape, in [-1, 1]; erf(±0) = ±0, erf(±Inf) = ±1, the canonical NaN for NaN.

    Raises:
        InputError: ``x`` is not binary32.
    """
    _require_binary32("erf", x)
    a = x.abs().clamp_(max=ERF_SATURATION)
    power, high, low = _exp_reduced(elementary._polynomial(ERF_LOG_POLYNOMIAL, a))
    large = low.add_(high).add_(1.0).mul_(_power_of_two(power)).neg_().add_(1.0)
    small = elementary._polynomial(ERF_POLYNOMIAL, a * a).mul_(a).add_(a)
    return _keep_nan(x, torch.where(a < ERF_POLYNOMIAL_END, small, large).copysign_(x))


def atan(x: torch.Tensor) -> torch.Tensor:
    """The inverse tangent, at most 1.31 ulp from the exact value; odd.

    ``t = |x|`` up to 1 and ``1 / |x|`` above, ``p = (P(t * t) * (t * t)) * t``. Up to 1 the result is ``t + p``, above
    ``h + ((HALF_PI_LOW + l) - p)`` with ``h = HALF_PI - t`` and its rounding error ``l = (HALF_PI - h) - t``; then the
    sign of ``x``.

    Args:
        x: binary32, any shape and strides.

    Returns:
        A new tensor of the same shape; atan(±0) = ±0, atan(±Inf) = ±HALF_PI, the canonical NaN for NaN.

    Raises:
        InputError: ``x`` is not binary32.
    """
    _require_binary32("atan", x)
    a = x.abs()
    beyond = a > 1.0
    t = torch.where(beyond, 1.0, a).div_(torch.where(beyond, a, 1.0))
    square = t * t
    p = elementary._polynomial(ATAN_POLYNOMIAL, square).mul_(square).mul_(t)
    high = t.neg().add_(HALF_PI)
    low = high.neg().add_(HALF_PI).sub_(t).add_(HALF_PI_LOW)
    return _keep_nan(x, torch.where(beyond, low.sub_(p).add_(high), t.add_(p)).copysign_(x))
