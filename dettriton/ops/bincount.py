"""bincount, histc: how many elements, or how much weight, falls into each bin.

bincount counts in int64, exactly. With weights a bin is the exact sum (R2) of its elements' weights, +0 for none; the
gradient of a weight is its bin's.

histc, with ``lo`` and ``hi`` the limits rounded to binary32, puts ``lo <= x <= hi`` into bin
``min(trunc(((x - lo) * bins) / (hi - lo)), bins - 1)``, each operation rounded once in binary64 (R1), and leaves the
others and NaN out. Counts are integers, rounded to binary32 at the end: exact up to ``2**24``. Where both limits are 0
they are the smallest and the largest element; where they are equal, each moves away by 1, rounded to binary32, and
where that leaves them equal every element at the limit is in the first bin.
"""

import math

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.ops._contract import contract
from dettriton.ops._function import require_float32
from dettriton.ops._index_sum import SKIP
from dettriton.ops._indexing import checked_index, count_slots
from dettriton.ops._order import order_keys, values_of_keys
from dettriton.ops.index_add import index_add


def _bins(input: torch.Tensor, weights: torch.Tensor | None = None, minlength: int = 0) -> torch.Tensor:
    """A fake result, whose length is a symbol of its own."""
    return input.new_empty(
        torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64 if weights is None else weights.dtype
    )


@contract(
    "Indexing",
    definition="int64 counts, or exact windowed sums of the weights; gradient of a weight: its bin's",
    error="exact; weights half an ulp + 2^-32 of the largest term for each term",
    batch_invariant=False,
    kernels=True,
    mirrors="bincount",
    fake=_bins,
)
def bincount(input: torch.Tensor, weights: torch.Tensor | None = None, minlength: int = 0) -> torch.Tensor:
    """How often each integer occurs, or the sum of the weights where it does, as :func:`torch.bincount`.

    The length depends on the values, so a GPU is waited for once; :func:`index_add` onto zeros of a known length gives
    the same bits without waiting.

    Args:
        input: int64 or int32, (N,), none negative.
        weights: binary32, (N,).
        minlength: the least number of bins.

    Returns:
        int64 counts, (bins,), with ``bins`` the larger of ``minlength`` and the largest value plus 1; or binary32 sums
        of the weights, in error by at most half an ulp plus ``2**-32`` of the largest magnitude for each term.

    Raises:
        InputError: a type or shape is wrong, ``minlength`` is negative, or a value is.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    op = "bincount"
    require_float32(op, weights=weights)
    if input.dim() != 1 or (weights is not None and weights.shape != input.shape):
        raise InputError(f"{op}: input must be (N,) and weights, if any, of its shape, got shape {tuple(input.shape)}")
    if minlength < 0:
        raise InputError(f"{op}: minlength must not be negative, got {minlength}")
    engine_for(*(v for v in (input, weights) if v is not None))
    index = checked_index(op, input, None, "input")
    low, high = (int(v) for v in torch.aminmax(index)) if len(index) else (0, -1)
    if low < 0:
        raise InputError(f"{op}: input must not hold negative integers, got {low}")
    bins = max(minlength, high + 1)
    if weights is None:
        return count_slots(index, bins)
    return index_add(torch.zeros(bins, dtype=weights.dtype, device=weights.device), 0, index, weights)


@contract(
    "Indexing",
    definition="bin min(trunc(((x - lo) * bins) / (hi - lo)), bins - 1) in binary64, integer counts; no gradient",
    error="exact up to 2^24 in a bin, then half an ulp",
    batch_invariant=False,
    kernels=False,
    mirrors="histc",
    differentiable=False,
)
def histc(input: torch.Tensor, bins: int = 100, min: float = 0, max: float = 0) -> torch.Tensor:
    """Histogram of the elements in equal bins, as :func:`torch.histc`; not differentiable.

    Args:
        input: binary32, any shape.
        bins: how many bins.
        min: the lower limit, rounded to binary32.
        max: the upper limit, rounded to binary32; both are taken from the data where both are 0.

    Returns:
        binary32 counts, (bins,). An element at the upper limit is in the last bin. With limits from data that hold a
        NaN or an infinity nothing is counted.

    Raises:
        InputError: ``input`` is not binary32, ``bins`` is not positive, or the limits are not finite and ascending.
        EngineError: the engine cannot run on the input's device.
    """
    op = "histc"
    require_float32(op, input=input)
    engine_for(input)
    if not isinstance(bins, int) or bins < 1:
        raise InputError(f"{op}: bins must be a positive integer, got {bins}")
    if not (math.isfinite(min) and math.isfinite(max) and min <= max):
        raise InputError(f"{op}: limits must be finite and ascending, got min={min} and max={max}")
    x = input.detach().reshape(-1)
    if min == 0 and max == 0 and x.numel():
        keys = order_keys(x, nan_last=True)
        low, high = (values_of_keys(k, x.dtype) for k in (keys.amin(), keys.amax()))
    else:
        low, high = (torch.full((), v, dtype=x.dtype, device=x.device) for v in (min, max))
    low, high = torch.where(low == high, low - 1.0, low), torch.where(low == high, high + 1.0, high)
    inside = (x >= low) & (x <= high)
    low, width = low.to(torch.float64), high.to(torch.float64) - low.to(torch.float64)
    place = (((x.to(torch.float64) - low) * float(bins)) / torch.where(width > 0, width, 1.0)).trunc()
    usable = inside & torch.isfinite(width)
    slots = torch.where(usable, place, torch.zeros_like(place)).to(torch.int64).clamp(0, bins - 1)
    return count_slots(torch.where(usable, slots, SKIP), bins).to(torch.float32)
