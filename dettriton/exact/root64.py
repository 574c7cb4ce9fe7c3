"""The correctly rounded square root of binary64, which stock torch does not have.

``torch.sqrt`` on binary64 CPU tensors is a vector library's, off by one ulp for about 1 % of all inputs. (Rounded to
binary32, as in :func:`dettriton.exact.ieee.sqrt`, that cannot show: the root of a binary32 value is at least four
binary64 ulps away from any midpoint.) It serves as a guess here, which an exact integer residual moves to the nearest
value.
"""

import torch

from dettriton.exact.ieee import power_of_two

_FRACTION = 52
_BIAS = 1023
_UNIT = 1 << _FRACTION
_SPLIT = 27
_TINY = 2.0**-1000
_TINY_SHIFT = 200


def sqrt64(x: torch.Tensor) -> torch.Tensor:
    """Correctly rounded square root of a binary64 tensor of any shape, on any device.

    Any guess within 1.5 ulp leads to the same result.
    """
    ordinary = (x > 0) & (x < float("inf"))
    tiny = x < _TINY
    safe = torch.where(
        ordinary, torch.where(tiny, x * 2.0**_TINY_SHIFT, x), torch.ones((), dtype=x.dtype, device=x.device)
    )
    bits = safe.view(torch.int64)
    exponent = (bits >> _FRACTION) - _BIAS
    half = exponent >> 1
    # x = n * 2**(2 * half - 52) with n in [2**52, 2**54), whose root is sought as an integer r, about sqrt(n * 2**52).
    n = ((bits & (_UNIT - 1)) | _UNIT) << (exponent & 1)
    guess = ((n.to(torch.float64) * 2.0**-_FRACTION).sqrt() * 2.0**_FRACTION).to(torch.int64)
    residual = _residual(n, guess)
    root = guess + (residual > guess).to(torch.int64) - (residual <= -guess).to(torch.int64)
    y = (root.to(torch.float64) * 2.0**-_FRACTION) * power_of_two(half)
    return torch.where(ordinary, torch.where(tiny, y * 2.0 ** (-_TINY_SHIFT // 2), y), x.sqrt())


def _residual(n: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
    """``n * 2**52 - root**2`` exactly, by halves of the root, for a root within a few units of the right one."""
    high, low = root >> _SPLIT, root & ((1 << _SPLIT) - 1)
    leading = ((n - 4 * (high * high)) << (_FRACTION - _SPLIT)) - 2 * (high * low)
    return (leading << _SPLIT) - low * low
