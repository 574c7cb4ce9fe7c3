"""sin, cos and tan of any binary32 angle: an exact reduction in integers, polynomials in binary64, one rounding.

``dettriton/ops/_device_trigonometric.py`` is the same sequence for kernels and shares the constants below. The
reduction follows M. H. Payne and R. N. Hanek, "Radian reduction for trigonometric functions" (1983). Bounds in units in
the last place (ulp) were measured over all finite inputs by a transliteration in C, checked to have
the same bits on every 1009th.
"""

import torch

from dettriton.exact.elementary import _require_binary32
from dettriton.exact.ieee import canonical_nan

# 2 / pi in words of 32 bits, the first of which is its integer part
TWO_OVER_PI = (0, 0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041, 0xFE5163AB)
WORD_MASK = 0xFFFFFFFF
UNIT = float.fromhex("0x1.921fb54442d18p-62")
"""2**-62 quarter turns in radians."""

# (sin(r) - r) / r**3 and (cos(r) - 1) / r**2 in powers of r**2 on [0, pi / 4], relative errors 2**-37.6 and 2**-34.1;
# fitted like those of elementary.py, the coefficients binary64
SIN_POLYNOMIAL = tuple(
    map(
        float.fromhex,
        ("-0x1.5555554cb9d63p-3", "0x1.1111089643346p-7", "-0x1.a00f9da26f1f0p-13", "0x1.6cd857cf55c33p-19"),
    )
)
COS_POLYNOMIAL = tuple(
    map(
        float.fromhex,
        ("-0x1.ffffffd0c0c02p-2", "0x1.55553e0e7b498p-5", "-0x1.6c087dc39a62cp-10", "0x1.993400e8f495bp-16"),
    )
)

REDUCED_FIELD = 126
"""The exponent field of 0.5; smaller angles stay as they are."""
FIRST_BIT = 120
"""Of the bits of :data:`TWO_OVER_PI`, those from ``field - FIRST_BIT`` on decide the angle within a turn."""

_WORDS = torch.tensor(TWO_OVER_PI)


def sin(x: torch.Tensor) -> torch.Tensor:
    """The sine, at most 0.501 ulp from the exact value; odd.

    ``|x| = n * pi / 2 + r`` by :func:`reduced`. With ``z = r * r`` the result is ``r + (r * z) * S(z)`` for even ``n``
    and ``1 + (1 * z) * C(z)`` for odd ``n``, in binary64, negated where ``n`` has bit 1; rounded to binary32 once, then
    the sign of ``x``.

    Args:
        x: binary32 angles in radians, any shape and strides.

    Returns:
        A new tensor of the same shape, in [-1, 1]; sin(±0) = ±0, the canonical NaN for ±Inf and NaN.

    Raises:
        InputError: ``x`` is not binary32.
    """
    _require_binary32("sin", x)
    quarters, r = reduced(x)
    y = _quarter_wave(quarters, r)
    return _finite_only(x, torch.where(x.signbit(), -y, y))


def cos(x: torch.Tensor) -> torch.Tensor:
    """The cosine, at most 0.501 ulp from the exact value.

    :func:`sin`'s sequence with ``n + 1`` for ``n``, without the sign of ``x``.

    Args:
        x: binary32 angles in radians, any shape and strides.

    Returns:
        A new tensor of the same shape, in [-1, 1]; cos(±0) = 1, the canonical NaN for ±Inf and NaN.

    Raises:
        InputError: ``x`` is not binary32.
    """
    _require_binary32("cos", x)
    quarters, r = reduced(x)
    return _finite_only(x, _quarter_wave(quarters + 1, r))


def tan(x: torch.Tensor) -> torch.Tensor:
    """The tangent, at most 0.502 ulp from the exact value; odd.

    ``|x| = n * pi / 2 + r`` by :func:`reduced`; in binary64 ``s = r + (r * z) * S(z)``, ``c = 1 + z * C(z)`` with
    ``z = r * r``, and ``a / b = s / c`` for even ``n``, ``-c / s`` for odd ``n``. With ``q = a / b`` of both rounded to
    binary32, the result is ``q + (a - q * b) / b`` rounded to binary32 once, whose division is again one of binary32;
    then the sign of ``x``.

    Args:
        x: binary32 angles in radians, any shape and strides.

    Returns:
        A new tensor of the same shape; tan(±0) = ±0, the canonical NaN for ±Inf and NaN.

    Raises:
        InputError: ``x`` is not binary32.
    """
    _require_binary32("tan", x)
    quarters, r = reduced(x)
    z = r * r
    s = _polynomial(SIN_POLYNOMIAL, z).mul_(r * z).add_(r)
    c = _polynomial(COS_POLYNOMIAL, z).mul_(z).add_(1.0)
    odd = (quarters & 1) == 1
    y = quotient(torch.where(odd, -c, s), torch.where(odd, s, c)).to(torch.float32)
    return _finite_only(x, torch.where(x.signbit(), -y, y))


def quotient(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``a / b`` in binary64 to about 45 bits, through two binary32 divisions: ``q + (a - q * b) / b``."""
    divisor = b.to(torch.float32)
    q = a.to(torch.float32).div_(divisor).to(torch.float64)
    rest = (a - q * b).to(torch.float32).div_(divisor)
    return q.add_(rest)


def reduced(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``n, r`` with ``|x| = n * pi / 2 + r``, ``n`` modulo 4 and ``|r| <= pi / 4``; ``0, |x|`` below one half.

    ``|x| * 2 / pi`` multiplies the 24-bit significand by the 96 bits of ``2 / pi`` that matter, in integers. Its
    fraction, an int64 in units of 2**-62, is converted to binary64 and multiplied by ``UNIT``.
    """
    bits = x.view(torch.int32).to(torch.int64).bitwise_and_(0x7FFFFFFF)
    field = bits >> 23
    small = field < REDUCED_FIELD
    start = field.clamp_(min=REDUCED_FIELD).sub_(FIRST_BIT)
    significand = (bits & 0x7FFFFF).bitwise_or_(0x800000)
    word, shift = start >> 5, start & 31
    w = [_WORDS[word + i] for i in range(4)]
    high, middle, low = (((w[i] << shift) | (w[i + 1] >> (32 - shift))).bitwise_and_(WORD_MASK) for i in range(3))
    middle.mul_(significand).add_(low.mul_(significand).bitwise_right_shift_(32))
    high.mul_(significand).add_(middle >> 32).add_(1 << 29)
    fraction = ((high & 0x3FFFFFFF).sub_(1 << 29) << 32).bitwise_or_(middle.bitwise_and_(WORD_MASK))
    quarters = high.bitwise_right_shift_(30).bitwise_and_(3).masked_fill_(small, 0)
    return quarters, torch.where(small, x.abs().to(torch.float64), fraction.to(torch.float64).mul_(UNIT))


def _quarter_wave(quarters: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    odd = (quarters & 1) == 1
    z = r * r
    lead = torch.where(odd, 1.0, r)
    p = torch.where(odd, _polynomial(COS_POLYNOMIAL, z), _polynomial(SIN_POLYNOMIAL, z))
    y = p.mul_(lead * z).add_(lead)
    return torch.where((quarters & 2) == 2, -y, y).to(torch.float32)


def _polynomial(coefficients: tuple[float, ...], t: torch.Tensor) -> torch.Tensor:
    p = t * coefficients[-1]
    for c in coefficients[-2:0:-1]:
        p.add_(c).mul_(t)
    return p.add_(coefficients[0])


def _finite_only(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.where(x.abs() < torch.inf, y, canonical_nan(x))
