"""The total order of floating-point values as integers: ``-Inf < ... < -0 < +0 < ... < Inf``, every NaN beyond them.

A value's bits, with all but the sign inverted where it is negative, are integers in that order; the map is its own
inverse. Reducing these integers is exact in any order, on any device.
"""

import torch

from dettriton.ops._float_types import bits_of, canonical_nan_of


def _mirror(bits: torch.Tensor) -> torch.Tensor:
    info = torch.iinfo(bits.dtype)
    return bits ^ ((bits >> (info.bits - 1)) & info.max)


def order_keys(x: torch.Tensor, nan_last: bool) -> torch.Tensor:
    """Integers in the order of the values of ``x``; equal for every NaN, above all others or below all others."""
    keys = _mirror(bits_of(x))
    nan = bits_of(canonical_nan_of(x.dtype, x.device)) if nan_last else torch.iinfo(keys.dtype).min
    return torch.where(x == x, keys, nan)


def values_of_keys(keys: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The values that have these keys; the canonical NaN for a NaN's."""
    values = _mirror(keys).view(dtype)
    return torch.where(values == values, values, canonical_nan_of(dtype, keys.device))


def magnitude_keys(x: torch.Tensor) -> torch.Tensor:
    """The bits of ``|x|``: integers in the order of the magnitudes, a NaN's above Inf's."""
    bits = bits_of(x)
    return bits & torch.iinfo(bits.dtype).max
