"""fractional_max_pool2d: the largest element of windows whose places are drawn at random (Graham, arXiv 1412.6071).

On an axis of size ``L`` with ``n`` windows of ``k`` taps and a sample ``u`` in [0, 1), in binary32, each written
operation rounded once::

    alpha = (L - k) / (n - 1)
    start of window o < n - 1:  floor((o + u) * alpha) - floor(u * alpha)
    start of the last window:   L - k

A start is cut to [0, L - k], which rounding could leave. Order, ties and NaN are max_pool's. Gradient: the exact
windowed sum (R2) of the gradients of the outputs that chose the element. A map's result depends on that map and its own
two samples; samples drawn from ``rng`` are word ``(n * C + c) * 2 + axis`` of the stream (its top 24 bits times
``2**-24``), axis 0 for the columns and 1 for the rows, as torch has them.
"""

from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.exact.philox import Stream, uniform
from dettriton.ops._contract import contract
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._index_sum import index_sum
from dettriton.ops._packed_max import packed, unpacked
from dettriton.ops._pool import Size, as_map, spatial


def window_starts(samples: torch.Tensor, size: int, windows: int, kernel: int) -> torch.Tensor:
    """(..., windows) int64 for (...) binary32 samples."""
    free = size - kernel
    last = torch.full((*samples.shape, 1), free, dtype=torch.int64, device=samples.device)
    if windows == 1:
        return last
    span, gaps = (torch.full((), v, dtype=torch.float32, device=samples.device) for v in (free, windows - 1))
    alpha = span / gaps
    u = samples[..., None]
    places = torch.arange(windows - 1, device=samples.device).to(torch.float32)
    starts = torch.floor((places + u) * alpha) - torch.floor(u * alpha)
    return torch.cat((starts.to(torch.int64).clamp(0, free), last), -1)


class FractionalMaxPool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, samples: torch.Tensor, kernels: tuple[int, int], outputs: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        engine_for(x, samples)
        height, width = x.shape[-2:]
        top = window_starts(samples[..., 1], height, outputs[0], kernels[0])
        left = window_starts(samples[..., 0], width, outputs[1], kernels[1])
        corner = (top[..., :, None] * width + left[..., None, :]).flatten(-2)
        elements = packed("fractional_max_pool2d", x, 2).flatten(-2)
        best = None
        for row in range(kernels[0]):
            for column in range(kernels[1]):
                found = elements.gather(-1, corner + (row * width + column))
                best = found if best is None else torch.maximum(best, found)
        y, places = unpacked(best.unflatten(-1, outputs))
        ctx.map = (height, width)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(places)
        ctx.mark_non_differentiable(places)
        return y, places

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor, _: None) -> tuple[torch.Tensor | None, ...]:
        (places,) = ctx.saved_tensors
        leading, size = places.shape[:-2], ctx.map[0] * ctx.map[1]
        maps = torch.arange(leading.numel(), device=grad.device).view(*leading, 1, 1)
        index = (maps * size + places).reshape(-1)
        grad_x = index_sum(grad.reshape(-1, 1), index, leading.numel() * size)
        return grad_x.view(*leading, *ctx.map), None, None, None


def _output_sizes(x: torch.Tensor, kernels: tuple[int, ...], output_size: Any, output_ratio: Any) -> tuple[int, ...]:
    op = "fractional_max_pool2d"
    if (output_size is None) == (output_ratio is None):
        raise InputError(f"{op}: give either output_size or output_ratio")
    if output_size is None:
        ratios = tuple(output_ratio) if isinstance(output_ratio, (tuple, list)) else (output_ratio,) * 2
        if len(ratios) != 2 or not all(0 < r < 1 for r in ratios):
            raise InputError(f"{op}: output_ratio must lie in (0, 1), one number or two, got {output_ratio!r}")
        output_size = tuple(int(size * r) for size, r in zip(x.shape[-2:], ratios, strict=True))
    sizes = spatial(op, "output_size", output_size, 2)
    for size, out, kernel in zip(x.shape[-2:], sizes, kernels, strict=True):
        if kernel < 1 or out < 1 or out + kernel - 1 > size:
            raise InputError(
                f"{op}: {out} windows of {kernel} need a map of at least {out + kernel - 1}, got {size}; "
                "lower kernel_size or output_size"
            )
    return sizes


@contract(
    "Pooling and resampling",
    definition="max_pool over windows from floor((o + u) alpha) - floor(u alpha), u from Philox or given; gradient: "
    "exact windowed sum of those of the outputs that chose the element",
    error="exact; gradient: half an ulp + 2^-32 of the largest term for each term",
    batch_invariant=False,
    kernels=False,
    mirrors="nn.functional.fractional_max_pool2d",
)
def fractional_max_pool2d(
    input: torch.Tensor,
    kernel_size: Size,
    output_size: Size | None = None,
    output_ratio: float | tuple[float, float] | None = None,
    return_indices: bool = False,
    _random_samples: torch.Tensor | None = None,
    *,
    rng: Stream | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Maxima of windows placed at random, as :func:`torch.nn.functional.fractional_max_pool2d`, from a stream.

    The windows' starts are the module's definition; the largest element is :func:`dettriton.ops.max_pool2d`'s, exact
    and first among equals. The gradient of an element is the exact sum of the gradients of the outputs that chose it.

    Args:
        input: binary32, (N, C, H, W) or (C, H, W).
        kernel_size: taps of a window, one integer or (rows, columns).
        output_size: the windows of each axis, one integer or (rows, columns).
        output_ratio: instead, the output's size over the input's, in (0, 1); the product is truncated.
        return_indices: whether to return the positions as well.
        _random_samples: binary32 (N, C, 2), or (C, 2), in [0, 1): for columns, then for rows; instead of ``rng``.
        rng: the stream of this layer at this step, as ``Stream(seed, layer, step)``.

    Returns:
        (N, C, rows, columns) or (C, rows, columns); with ``return_indices`` also the int64 position
        ``row * W + column`` of each in its map.

    Raises:
        InputError: ``input`` is not binary32, the windows do not fit, or neither samples nor ``rng`` are given.
        EngineError: the engine cannot run on the input's device.
    """
    op = "fractional_max_pool2d"
    x = as_map(op, input, 2)
    kernels = spatial(op, "kernel_size", kernel_size, 2)
    outputs = _output_sizes(x, kernels, output_size, output_ratio)
    leading = x.shape[:-2]
    samples = _random_samples
    if samples is None:
        if not isinstance(rng, Stream):
            raise InputError(
                f"{op}: rng must be a dettriton.exact.philox.Stream, got {rng!r}; "
                "pass rng=Stream(seed, layer, step), a different one for each layer and step"
            )
        samples = uniform(rng, 2 * leading.numel(), device=x.device).view(*leading, 2)
    require_float32(op, _random_samples=samples)
    samples = samples.squeeze(0) if samples.dim() == len(leading) + 2 and samples.shape[0] == 1 else samples
    if samples.shape != (*leading, 2):
        raise InputError(f"{op}: _random_samples must be {(*leading, 2)}, got {tuple(samples.shape)}")
    y, places = FractionalMaxPool.apply(x, samples, kernels, outputs)
    return (y, places) if return_indices else y
