"""One int64 for an element's value and its place, whose maximum is the largest value at the lowest place.

The high half is the value's key in max pooling's order (``-Inf < ... < -0 < +0 < ... < Inf < NaN``), the low half counts
places down from ``2**31 - 1``. Integer maxima have no order, so any tree of them picks the same element.
"""

import torch

from dettriton.errors import InputError
from dettriton.exact.ieee import CANONICAL_NAN_BITS

MAGNITUDE = 0x7FFFFFFF


def packed(op: str, x: torch.Tensor, dims: int) -> torch.Tensor:
    """The elements of maps of ``dims`` axes as int64, each with its row-major place in its map.

    Raises:
        InputError: a map has 2**31 elements or more.
    """
    shape = x.shape[-dims:]
    places = shape.numel()
    if places > MAGNITUDE:
        raise InputError(f"{op}: a map may have at most {MAGNITUDE} elements, got {places}; split it")
    bits = x.contiguous().view(torch.int32).masked_fill(x != x, CANONICAL_NAN_BITS)
    keys = (bits ^ ((bits >> 31) & MAGNITUDE)).to(torch.int64)
    countdown = MAGNITUDE - torch.arange(places, dtype=torch.int64, device=x.device).view(shape)
    return (keys << 32) | countdown


def unpacked(best: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The values (a NaN is the canonical one) and the int64 places."""
    keys = (best >> 32).to(torch.int32)
    values = keys ^ ((keys >> 31) & MAGNITUDE)
    return values.view(torch.float32), MAGNITUDE - (best & MAGNITUDE)
