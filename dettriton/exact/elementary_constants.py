"""The constants of the elementary functions, the same for torch operations, compiled loops and kernels."""

import struct


def _binary32(*bits: int) -> tuple[float, ...]:
    return struct.unpack(f"<{len(bits)}f", struct.pack(f"<{len(bits)}I", *bits))


# Polynomials: minimax fits of the relative error of the whole function by Lawson's reweighted least squares on 400
# Chebyshev nodes whose target values mpmath computed with 200 bits; coefficients were rounded to binary32 from the
# lowest degree up, the remaining ones fitted again after each rounding. The lowest degree comes first.

# (exp(r) - 1 - r) / r**2 on |r| <= ln(2) / 2, relative error of exp 2**-28.2
EXP_POLYNOMIAL = _binary32(0x3EFFFFFE, 0x3E2AAA49, 0x3D2AAC58, 0x3C091CC7, 0x3AB526B0)
# (log(1 + f) - f + f**2 / 2) / f**3 on [sqrt(1/2) - 1, sqrt(2) - 1], relative error of log 2**-27.3
LOG_POLYNOMIAL = _binary32(
    0x3EAAAAAA, 0xBE800113, 0x3E4CD00E, 0xBE2A3945, 0x3E116C97, 0xBE06C121, 0x3E02AF60, 0xBD9C64E0
)
# (tanh(a) - a) / a**3 in powers of a**2 on [0, 0.75], relative error of tanh 2**-29.1
TANH_POLYNOMIAL = _binary32(0xBEAAAAA5, 0x3E0886ED, 0xBD5CC084, 0x3CAFC841, 0xBBFB317F, 0x3AE44BA8)

(INVERSE_LN2,) = _binary32(0x3FB8AA3B)
# 15 significant bits, so that its product with an exponent is exact; LN2_LOW is the rest of ln(2)
LN2_HIGH, LN2_LOW = _binary32(0x3F317200, 0x35BFBE8E)

# adding and subtracting 1.5 * 2**23 rounds to an integer, which is then also the low bits of the sum
ROUNDER = 12582912.0
ROUNDER_BITS = 0x4B400000
SQRT_HALF_BITS = 0x3F3504F3
EXPONENT_BIAS = 127
FRACTION_BITS = 23

# exp is 0 below -104 and overflows above 88.72284; log1p is regular between its own two limits
EXP_LOWEST, EXP_HIGHEST = _binary32(0xC2D00000, 0x42B17217)
LOG1P_LOWEST, LOG1P_HIGHEST = _binary32(0xBF7FFFFF, 0x7F7FFFFF)
SMALLEST_NORMAL = 2.0**-126
SUBNORMAL_SHIFT = 25
TANH_POLYNOMIAL_END = 0.75
TANH_SATURATION = 16.0

# erf(a) / a - 1 in powers of a**2 on [0, 1], relative error of erf 2**-29.4
ERF_POLYNOMIAL = _binary32(0x3E0375D4, 0xBEC0939F, 0x3DE71673, 0xBCDBFB8D, 0x3BA9F912, 0xBA51A8AF, 0x38A3B8FE)
# log(1 - erf(a)) on [1, 3.93], absolute error of erf 2**-29.8
ERF_LOG_POLYNOMIAL = _binary32(0xB9B97215, 0xBF9042D9, 0xBF2362C4, 0xBDD30525, 0x3CB2A0B9, 0xBB40A572, 0x39429489)

# (2**r - 1) / r on |r| <= 1/2, relative error of exp2 2**-28.3
EXP2_POLYNOMIAL = _binary32(0x3F317218, 0x3E75FDEE, 0x3D6357BD, 0x3C1D96E9, 0x3AAF84A4, 0x3920BD4E)
# (atan(t) - t) / t**3 in powers of t**2 on [0, 1], relative error of atan 2**-28.5
ATAN_POLYNOMIAL = _binary32(
    0xBEAAAA9F, 0x3E4CC8F5, 0xBE12107D, 0x3DE0496F, 0xBDAC107C, 0x3D6D451A, 0xBCFF2C0E, 0x3C3294A4, 0xBAEAAC0D
)

# 12 significant bits of 1 / ln(2), so that its product with twelve bits of another number is exact; the rest of it
INVERSE_LN2_HIGH, INVERSE_LN2_LOW = _binary32(0x3FB8B000, 0xB9389AD4)
HIGH_HALF = -(1 << 12)
HALF_PI, HALF_PI_LOW = _binary32(0x3FC90FDB, 0xB33BBD2E)

EXP2_LOWEST, EXP2_HIGHEST = -150.0, 128.0
EXPM1_LOWEST = -18.0
ERF_POLYNOMIAL_END = 1.0
(ERF_SATURATION,) = _binary32(0x407B851F)
