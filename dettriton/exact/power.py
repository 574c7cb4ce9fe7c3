"""pow and rsqrt in binary32, through binary64: fixed sequences of R1 operations.

``dettriton/ops/_device_power.py`` is the same sequences for kernels and shares the constants below.
"""

import torch

from dettriton.errors import InputError
from dettriton.exact.elementary import _keep_nan, _require_binary32
from dettriton.exact.ieee import canonical_nan, power_of_two, sqrt
from dettriton.exact.trigonometric import _polynomial, quotient

# log2((1 + s) / (1 - s)) / s in powers of s**2, for (1 + s) / (1 - s) in [sqrt(1/2), sqrt(2)], absolute error 2**-45;
# (2**r - 1) / r on |r| <= 1/2, relative error of 2**r 2**-34.3; fitted like those of elementary.py, in binary64
LOG2_POLYNOMIAL = tuple(
    map(
        float.fromhex,
        (
            *("0x1.71547652b8250p+1", "0x1.ec709dc53df35p-1", "0x1.2776c291a3ae7p-1"),
            *("0x1.a61a2ff7f5a73p-2", "0x1.479528a616c98p-2", "0x1.21b353334b918p-2"),
        ),
    )
)
EXP2_POLYNOMIAL = tuple(
    map(
        float.fromhex,
        (
            *("0x1.62e42ff0e1986p-1", "0x1.ebfbe077883eap-3", "0x1.c6b08ac0601d4p-5", "0x1.3b29f39c84242p-7"),
            *("0x1.5d8a8609a7078p-10", "0x1.445c848a5368fp-13", "0x1.fde5f2271014ap-17"),
        ),
    )
)
SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
FRACTION_BITS = 52
ROUNDER = 1.5 * 2.0**52
"""Adding and subtracting it rounds binary64 to an integer."""
LARGEST_POWER = 200.0
"""2 to this and more is Inf in binary32, to its negative 0."""
EVEN_FROM = 2.0**24
"""Every binary32 number from here on is an even integer."""


def pow(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """``x`` to the power ``y``, at most 0.501 ulp from the exact value.

    The bound was measured on 10**7 pairs: random bit patterns, pairs whose result covers all of binary32, bases near 1
    and integer exponents, each a quarter, and every pair of 45 special values.

    In binary64 ``|x| = 2**k * m`` with ``m`` in [sqrt(1/2), sqrt(2)), ``f = m - 1`` and ``u = m + 1``, exactly;
    ``s = f / u`` as ``q + (f - q * u) / u`` whose divisions are of binary32; ``t = y * (k + s * P(s * s))`` clamped to
    [-200, 200]; ``n = (t + ROUNDER) - ROUNDER``, ``r = t - n``. The result is ``(1 + r * Q(r)) * 2**n``, rounded to
    binary32 once, with the sign of ``x`` where ``y`` is an odd integer.

    Args:
        x: binary32, any shape and strides.
        y: binary32, of the same shape.

    Returns:
        A new tensor of the same shape, special cases as in Annex F of C99: 1 where ``y`` is ±0 or ``x`` is 1 whatever
        the other is, and the canonical NaN for other NaNs and for negative finite ``x`` with ``y`` not an integer.

    Raises:
        InputError: an argument is not binary32, or the shapes differ.
    """
    _require_binary32("pow", x)
    _require_binary32("pow", y)
    if x.shape != y.shape:
        raise InputError(f"pow: shapes differ, {tuple(x.shape)} and {tuple(y.shape)}; expand them first")
    magnitude = x.abs()
    logarithm = _log2(magnitude)
    logarithm = torch.where(magnitude == torch.inf, torch.inf, logarithm.masked_fill_(magnitude == 0, -torch.inf))
    t = logarithm.mul_(y).clamp_(-LARGEST_POWER, LARGEST_POWER)
    result = _exp2(t)
    small = y.abs() < EVEN_FROM
    whole = torch.where(small, y, 0.0).to(torch.int32)
    fractional = small & (whole.to(torch.float32) != y)
    odd = (whole & 1) == 1
    result = torch.where(odd & ~fractional & x.signbit(), -result, result)
    invalid = fractional & (x < 0) & (x > -torch.inf)
    result = torch.where(invalid | (x != x) | (y != y), canonical_nan(x), result)
    one = (y == 0) | (x == 1) | ((x == -1) & (y.abs() == torch.inf))
    return torch.where(one, 1.0, result)


def rsqrt(x: torch.Tensor) -> torch.Tensor:
    """1 / sqrt(x), at most 0.501 ulp from the exact value: correctly rounded but for two of the 2**24 significands.

    ``q = 1 / sqrt(x)`` of two correctly rounded binary32 operations; in binary64 ``q + (q * 0.5) * (1 - (q * q) * x)``,
    rounded to binary32 once. An infinite ``q`` and ``q`` of an infinite ``x`` stay.

    Args:
        x: binary32, any shape and strides.

    Returns:
        A new tensor of the same shape; rsqrt(±0) = ±Inf, rsqrt(Inf) = +0, the canonical NaN for negative numbers and
        NaN.

    Raises:
        InputError: ``x`` is not binary32.
    """
    _require_binary32("rsqrt", x)
    q = torch.full_like(x, 1.0).div_(sqrt(x))
    wide = q.to(torch.float64)
    error = (wide * wide).mul_(x).neg_().add_(1.0)
    y = (wide * 0.5).mul_(error).add_(wide).to(torch.float32)
    y = torch.where((x == 0) | (x == torch.inf), q, y)
    return _keep_nan(y, y)


def _log2(a: torch.Tensor) -> torch.Tensor:
    bits = a.to(torch.float64).view(torch.int64)
    power = (bits - SQRT_HALF_BITS).bitwise_right_shift_(FRACTION_BITS)
    m = (bits - (power << FRACTION_BITS)).view(torch.float64)
    s = quotient(m - 1.0, m + 1.0)
    return _polynomial(LOG2_POLYNOMIAL, s * s).mul_(s).add_(power)


def _exp2(t: torch.Tensor) -> torch.Tensor:
    n = (t + ROUNDER).sub_(ROUNDER)
    r = t - n
    scale = power_of_two(n.nan_to_num_(0.0))
    return _polynomial(EXP2_POLYNOMIAL, r).mul_(r).add_(1.0).mul_(scale).to(torch.float32)
