"""pad: a map continued beyond its borders by a constant, its mirror image, its border elements, or itself.

Exact: data movement. The gradient of ``constant`` is too. Elsewhere an element's gradient is a sum taken one padded axis
after the other, the last axis first: over the outputs that hold the element, +0 and then their gradients added in
ascending order (R1) if no element is held more than 64 times along that axis, otherwise their exact windowed sum (R2).
torch refuses some of these gradients on a GPU in its deterministic mode. Batch-invariant: padded axes never mix samples.
"""

from functools import lru_cache
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.ops._contract import contract
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._taps import Taps, resampled, resampled_gradient

MODES = ("constant", "reflect", "replicate", "circular")
RANKS = {1: (2, 3), 2: (3, 4), 3: (4, 5)}


@lru_cache(maxsize=256)
def padded_axis(mode: str, size: int, before: int, after: int) -> Taps:
    """One axis continued by ``before`` and ``after`` elements; negative numbers cut."""
    places = range(-before, size + after)
    if mode == "replicate":
        inputs = (min(max(i, 0), size - 1) for i in places)
    elif mode == "circular":
        first, kept = max(-before, 0), size + min(before, 0) + min(after, 0)
        inputs = (first + (i - first) % kept for i in places)
    else:
        inputs = (abs(i) if i < size else 2 * (size - 1) - i for i in places)
    return Taps(size, tuple((i,) for i in inputs))


class Pad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, axes: tuple[Taps, ...]) -> torch.Tensor:
        engine_for(x)
        ctx.axes = axes
        for dim, taps in enumerate(axes, -len(axes)):
            x = resampled(x, dim, taps)
        return x

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        for after, taps in enumerate(reversed(ctx.axes)):
            grad = resampled_gradient(grad, -1 - after, taps)
        return grad, None


@contract(
    "Pooling and resampling",
    definition="data movement; gradient: axis by axis, of the outputs that hold the element in ascending order from "
    "+0, or their exact windowed sum if more than 64",
    error="exact; gradient: half an ulp for each addition of an axis",
    batch_invariant=True,
    kernels=False,
    mirrors="nn.functional.pad",
)
def pad(input: torch.Tensor, pad: tuple[int, ...], mode: str = "constant", value: float | None = None) -> torch.Tensor:
    """Continue a tensor beyond its borders, as :func:`torch.nn.functional.pad`. Exact.

    Args:
        input: binary32; any shape for ``constant``, otherwise (N, C, ...) or (C, ...) with as many axes as are padded.
        pad: how many elements to add before and after the last axis, then before and after the one before it, and so
            on. Negative numbers cut (first of all, for ``circular``). Below the size of the axis for ``reflect``, up to
            what is left of it for ``circular``.
        mode: ``"constant"``; ``"reflect"`` (the mirror image, the border not repeated), ``"replicate"`` (the border
            element) or ``"circular"`` (the other end), each of one, two or three axes.
        value: the constant, rounded to binary32; 0 for None.

    Returns:
        The padded tensor. The gradient of an element is its outputs' gradients, added axis by axis from the last one:
        in ascending order from +0, or exactly where an element is repeated more than 64 times along an axis.

    Raises:
        InputError: ``input`` is not binary32, or ``pad``, ``mode`` or ``value`` do not fit it.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("pad", input=input)
    amounts = tuple(pad)
    if mode not in MODES:
        raise InputError(f"pad: mode must be one of {', '.join(MODES)}, got {mode!r}")
    if len(amounts) % 2 or not all(isinstance(v, int) and not isinstance(v, bool) for v in amounts):
        raise InputError(f"pad: pad must be pairs of integers, got {pad!r}")
    count = len(amounts) // 2
    pairs = [(amounts[2 * k], amounts[2 * k + 1]) for k in reversed(range(count))]
    if mode == "constant":
        if count > input.dim():
            raise InputError(f"pad: {count} axes to pad, but the input has {input.dim()}")
        sizes = input.shape[input.dim() - count :]
        _check_sizes(sizes, pairs, 0)
        engine_for(input)
        return torch.nn.functional.pad(input, amounts, "constant", 0.0 if value is None else float(value))
    if value not in (None, 0):
        raise InputError(f"pad: value is for mode 'constant', got {value!r} with {mode!r}")
    if input.dim() not in RANKS.get(count, ()):
        raise InputError(
            f"pad: mode {mode!r} pads 1 to 3 axes of (N, C, ...) or (C, ...), got {count} of {input.dim()}"
        )
    sizes = input.shape[-count:]
    _check_sizes(sizes, pairs, 1)
    for size, pair in zip(sizes, pairs, strict=True):
        limit = {"reflect": size - 1, "circular": size + sum(min(p, 0) for p in pair)}.get(mode)
        if size < 1 or (limit is not None and max(pair) > limit):
            most = "" if limit is None else f" of at most {limit}"
            raise InputError(f"pad: mode {mode!r} needs a padding{most} on an axis of {size}, got {pair}")
    axes = tuple(padded_axis(mode, size, *pair) for size, pair in zip(sizes, pairs, strict=True))
    return Pad.apply(input, axes)


def _check_sizes(sizes: torch.Size, pairs: list[tuple[int, int]], least: int) -> None:
    for size, (before, after) in zip(sizes, pairs, strict=True):
        if size + before + after < least or min(size + before, size + after) < 0:
            raise InputError(f"pad: an axis of {size} cannot be cut by {(-before, -after)}")
