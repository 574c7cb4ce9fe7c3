"""Rule R2 for binary64 in Python integers and fractions, and hard binary64 inputs."""

import math
from fractions import Fraction

import torch

LOWEST_WINDOW = -31
KEPT = 4


def windowed_sum64(values: list[float]) -> float:
    """Terms truncated toward zero below window G - 3, summed exactly, rounded once."""
    if not all(map(math.isfinite, values)):
        return math.nan
    largest = max((abs(v) for v in values), default=0.0)
    if largest == 0:
        return 0.0
    window = max((math.frexp(largest)[1] - 1) // 32, LOWEST_WINDOW)
    unit = Fraction(2) ** (32 * (window - KEPT + 1))
    return to_float64(sum(math.trunc(Fraction(v) / unit) for v in values) * unit)


def to_float64(value: Fraction) -> float:
    """``value`` as binary64, to nearest even; Inf on overflow."""
    try:
        return value.numerator / value.denominator
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def sqrt64(x: float) -> float:
    """The correctly rounded square root of a positive binary64 value, from the integer one."""
    exponent = math.frexp(x)[1]
    shift = 120 - exponent + (exponent & 1)
    root = math.isqrt(int(Fraction(x) * Fraction(2) ** (2 * (shift // 2))))
    # The floor has more than 55 bits; odd where anything was cut off, it rounds as the exact root does.
    exact = Fraction(root) ** 2 == Fraction(x) * Fraction(2) ** (2 * (shift // 2))
    return to_float64(Fraction(2 * root + (not exact)) / 2 / Fraction(2) ** (shift // 2))


def hard_vectors64(n: int = 37, seed: int = 0) -> dict[str, torch.Tensor]:
    """Named finite binary64 vectors of length ``n`` that break careless arithmetic."""
    g = torch.Generator().manual_seed(seed)
    normal = torch.randn(n, generator=g, dtype=torch.float64)
    signs = torch.where(torch.rand(n, generator=g) < 0.5, -1.0, 1.0).double()
    cancel = normal.clone()
    cancel[n // 2 : n // 2 * 2] = -normal[: n // 2]
    cancel[0], cancel[-1] = 1e25, -1e25
    subnormal = torch.randint(1, 1 << 52, (n,), generator=g, dtype=torch.int64).view(torch.float64)
    spread = torch.randint(1, 0x7FE0 << 48, (n,), generator=g, dtype=torch.int64).view(torch.float64)
    return {
        "normal": normal,
        "cancellation": cancel,
        "huge": signs * 1.7e308,
        "tiny": normal * 1e-300,
        "subnormal": subnormal * signs,
        "spread": spread * signs,
        "zeros": torch.zeros(n, dtype=torch.float64) * signs,
        "integers": torch.randint(-5, 6, (n,), generator=g).double(),
    }


def non_finite_vectors64(n: int = 37) -> dict[str, torch.Tensor]:
    """Named binary64 vectors with a NaN or an infinity in them."""
    made = {name: hard_vectors64(n)["normal"].clone() for name in ("nan", "inf", "-inf")}
    for name, x in made.items():
        x[n // 3] = float(name)
    return made
