"""interpolate: resampling on a regular grid, one axis at a time.

An axis of ``L`` inputs and ``n`` outputs has the exact rational step ``s = L / n``, or ``1 / scale_factor`` where one is
given (as the exact value of that binary64 number). Axes of nearest and linear that keep their size, and of nearest that
double it, use the ratio of the sizes all the same, as torch does for maps; for nearest signals and volumes torch does so
in the gradient only, which then is another function's. Output ``o`` reads around the source coordinate ``c``, exact too::

    nearest         tap floor(o * s)                 nearest-exact    tap floor((o + 1/2) * s)
    linear          c = max((o + 1/2) * s - 1/2, 0)  cubic            c = (o + 1/2) * s - 1/2
    align_corners   c = o * (L - 1) / (n - 1), and 0 for n = 1

With ``i = floor(c)`` and ``t = c - i`` the linear taps are ``i, i + 1`` with weights ``1 - t, t``, and the cubic ones
``i - 1 .. i + 2`` with Keys' weights for ``a = -3/4``. Taps are cut to [0, L - 1]. A weight is computed as a rational
number and rounded to binary64, then to binary32; no floating-point operation is older than that, so the tables are the
same everywhere. (torch computes coordinates in binary32: a nearest tap can be the neighbour of ours where ``o * s`` is
next to an integer.)

Forward: the last axis first, ``y = sum of weight * x`` over the taps in ascending order, each product and addition
rounded once (R1). nearest moves elements. Gradient: the first axis first; along an axis an input's gradient is +0 and
then ``grad * weight`` of each output and tap that reads it, added in ascending order (R1), or the exact windowed sum of
these products (R2) if an input has more than 64 of them. Batch-invariant.
"""

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.ops._contract import contract
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._taps import Taps, resampled, resampled_gradient
from dettriton.ops.avg_pool import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

AREA = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}
KERNELS = {"linear": "linear", "bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}
AXES = {
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "area": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "bicubic": (2,),
    "trilinear": (3,),
}
HALF = Fraction(1, 2)
CUBIC = Fraction(-3, 4)


def _cubic_weights(t: Fraction) -> tuple[Fraction, ...]:
    def near(d: Fraction) -> Fraction:
        return ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1

    def far(d: Fraction) -> Fraction:
        return ((CUBIC * d - 5 * CUBIC) * d + 8 * CUBIC) * d - 4 * CUBIC

    return far(t + 1), near(t), near(1 - t), far(2 - t)


@lru_cache(maxsize=256)
def interpolated_axis(kernel: str, size: int, out: int, align_corners: bool, scale: float | None) -> Taps:
    """The taps of one axis; ``kernel`` is nearest, nearest-exact, linear or cubic."""
    by_size = {"nearest": (size, 2 * size), "linear": (size,)}.get(kernel, ())
    step = Fraction(size, out) if scale is None or out in by_size else 1 / Fraction(scale)
    if kernel.startswith("nearest"):
        offset = HALF if kernel == "nearest-exact" else 0
        return Taps(size, tuple((min(math.floor((o + offset) * step), size - 1),) for o in range(out)))
    index, weights = [], []
    for o in range(out):
        c = Fraction(o * (size - 1), max(out - 1, 1)) if align_corners else (o + HALF) * step - HALF
        c = c if kernel == "cubic" else max(c, Fraction(0))
        first = math.floor(c)
        t = c - first
        around = range(first - 1, first + 3) if kernel == "cubic" else (first, first + 1)
        index.append([min(max(i, 0), size - 1) for i in around])
        weights.append([float(w) for w in (_cubic_weights(t) if kernel == "cubic" else (1 - t, t))])
    return Taps(size, tuple(index), tuple(weights))


class Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, axes: tuple[Taps, ...]) -> torch.Tensor:
        engine_for(x)
        ctx.axes = axes
        for after, taps in enumerate(reversed(axes)):
            x = resampled(x, -1 - after, taps)
        return x

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        for dim, taps in enumerate(ctx.axes, -len(ctx.axes)):
            grad = resampled_gradient(grad, dim, taps)
        return grad, None


@contract(
    "Pooling and resampling",
    definition="exact rational coordinates and weights, rounded once to binary32; axis by axis, products added in "
    "ascending order; gradient: the same with the axes reversed, from +0, or exact sums if more than 64 products",
    error="half an ulp for each product and addition and for each weight",
    batch_invariant=True,
    kernels=False,
    mirrors="nn.functional.interpolate",
)
def interpolate(
    input: torch.Tensor,
    size: int | tuple[int, ...] | None = None,
    scale_factor: float | tuple[float, ...] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> torch.Tensor:
    """Resample a signal, map or volume, as :func:`torch.nn.functional.interpolate`.

    Coordinates and weights are exact rationals, rounded to binary32 at the end; each axis is a sum of a few products in
    ascending order, the last axis first. The module's docstring has the whole definition.

    Args:
        input: binary32, (N, C, L), (N, C, H, W) or (N, C, D, H, W).
        size: the output's size, one integer or one for each axis.
        scale_factor: instead, the output's size over the input's; ``floor(size * scale_factor)`` elements (the product
            in binary64).
        mode: ``"nearest"``, ``"nearest-exact"``, ``"linear"`` (signals), ``"bilinear"`` or ``"bicubic"`` (maps),
            ``"trilinear"`` (volumes), or ``"area"``, which is adaptive average pooling.
        align_corners: whether the first and last elements of input and output coincide, rather than their outer edges;
            for the linear and cubic modes.
        recompute_scale_factor: whether coordinates use the ratio of the sizes instead of ``scale_factor``.
        antialias: only False.

    Returns:
        The resampled tensor. Its error is at most, for each axis, half an ulp of each weight, product and addition.

    Raises:
        InputError: ``input`` is not binary32 or has no such mode, sizes are missing, doubled or not positive, or
            ``antialias`` is set.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("interpolate", input=input)
    if antialias:
        raise InputError("interpolate: antialias=True is not supported; blur first, or use mode='area' to shrink")
    dims = input.dim() - 2
    if dims not in AXES.get(mode, ()):
        known = ", ".join(name for name, axes in AXES.items() if dims in axes) or "none: it has the wrong rank"
        raise InputError(f"interpolate: mode {mode!r} is not one for shape {tuple(input.shape)}; it has {known}")
    if align_corners is not None and mode not in KERNELS:
        raise InputError(f"interpolate: align_corners is for the linear and cubic modes, not for {mode!r}")
    outs, scales = _sizes(input, dims, size, scale_factor, recompute_scale_factor)
    if mode == "area":
        return AREA[dims](input, outs)
    kernel = KERNELS.get(mode, mode)
    axes = tuple(
        interpolated_axis(kernel, size, out, bool(align_corners), scale)
        for size, out, scale in zip(input.shape[2:], outs, scales, strict=True)
    )
    return Interpolate.apply(input, axes)


def _sizes(
    x: torch.Tensor, dims: int, size: Any, scale_factor: Any, recompute: bool | None
) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
    """The output's size and the scale factors that fix the coordinates (None: the ratio of the sizes)."""
    if (size is None) == (scale_factor is None):
        raise InputError("interpolate: give either size or scale_factor")
    if recompute and size is not None:
        raise InputError("interpolate: recompute_scale_factor is for scale_factor, not for size")
    given = size if scale_factor is None else scale_factor
    values = tuple(given) if isinstance(given, (tuple, list, torch.Size)) else (given,) * dims
    kinds = int if scale_factor is None else (int, float)
    if len(values) != dims or not all(isinstance(v, kinds) and not isinstance(v, bool) and v > 0 for v in values):
        raise InputError(f"interpolate: size or scale_factor must be positive, one or {dims} of them, got {given!r}")
    if 0 in x.shape[2:]:
        raise InputError(f"interpolate: only the batch may be empty, got shape {tuple(x.shape)}")
    if scale_factor is None:
        return values, (None,) * dims
    if not all(math.isfinite(v) for v in values):
        raise InputError(f"interpolate: scale_factor must be finite, got {scale_factor!r}")
    outs = tuple(math.floor(float(n) * float(v)) for n, v in zip(x.shape[2:], values, strict=True))
    if min(outs) < 1:
        raise InputError(f"interpolate: scale_factor {scale_factor!r} leaves nothing of {tuple(x.shape[2:])}")
    return outs, (None,) * dims if recompute else tuple(float(v) for v in values)
