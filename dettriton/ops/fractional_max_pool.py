"""fractional_max_pool2d, 3d: the largest element of windows placed at random (Graham, arXiv 1412.6071).

On an axis of size ``L`` with ``n`` windows of ``k`` taps and a sample ``u`` in [0, 1), in binary32, each written
operation rounded once::

    alpha = (L - k) / (n - 1)
    start of window o < n - 1:  floor((o + u) * alpha) - floor(u * alpha)
    start of the last window:   L - k

A start is cut to [0, L - k], which rounding could leave. Order, ties and NaN are max_pool's. Gradient: the exact
windowed sum (R2) of the gradients of the outputs that chose the element. A map's result depends on that map and its own
samples, one for each of its ``d`` axes; samples drawn from ``rng`` are word ``(n * C + c) * d + s`` of the stream (its
top 24 bits times ``2**-24``). As torch has them, in a map ``s = 0`` is for the columns and 1 for the rows; in a volume 0
is for the depth, 1 for the rows and 2 for the columns.
"""

from itertools import product
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

SAMPLE_OF_AXIS = {2: (1, 0), 3: (0, 1, 2)}


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


def window_corners(
    samples: torch.Tensor, sizes: tuple[int, ...], kernels: tuple[int, ...], outputs: tuple[int, ...]
) -> torch.Tensor:
    """The row-major place of each window's first element in its map: (..., *outputs) int64 for (..., axes) samples."""
    leading = samples.shape[:-1]
    corners = torch.zeros(leading, dtype=torch.int64, device=samples.device)
    for axis, (size, kernel, windows) in enumerate(zip(sizes, kernels, outputs, strict=True)):
        starts = window_starts(samples[..., SAMPLE_OF_AXIS[len(sizes)][axis]], size, windows, kernel)
        corners = corners[..., None] * size + starts.view(*leading, *(1,) * axis, windows)
    return corners


class FractionalMaxPool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, op: str, x: torch.Tensor, samples: torch.Tensor, kernels: tuple[int, ...], outputs: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        engine_for(x, samples)
        dims = len(kernels)
        sizes = tuple(x.shape[-dims:])
        corners = window_corners(samples, sizes, kernels, outputs).flatten(-dims)
        elements = packed(op, x, dims).flatten(-dims)
        best = None
        for tap in product(*map(range, kernels)):
            shift = 0
            for t, size in zip(tap, sizes, strict=True):
                shift = shift * size + t
            found = elements.gather(-1, corners + shift)
            best = found if best is None else torch.maximum(best, found)
        y, places = unpacked(best.unflatten(-1, outputs))
        ctx.sizes = torch.Size(sizes)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(places)
        ctx.mark_non_differentiable(places)
        return y, places

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor, _: None) -> tuple[torch.Tensor | None, ...]:
        (places,) = ctx.saved_tensors
        dims, size = len(ctx.sizes), ctx.sizes.numel()
        leading = places.shape[:-dims]
        maps = torch.arange(leading.numel(), device=grad.device).view(*leading, *(1,) * dims)
        index = (maps * size + places).reshape(-1)
        grad_x = index_sum(grad.reshape(-1, 1), index, leading.numel() * size)
        return None, grad_x.view(*leading, *ctx.sizes), None, None, None


def _for_each_axis(value: Any, dims: int) -> tuple[Any, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return values * dims if len(values) == 1 else values


def _shrunk(sizes: tuple[int, ...], ratios: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(int(size * r) for size, r in zip(sizes, ratios, strict=True))


def _output_sizes(
    op: str, x: torch.Tensor, kernels: tuple[int, ...], output_size: Any, output_ratio: Any
) -> tuple[int, ...]:
    dims = len(kernels)
    if (output_size is None) == (output_ratio is None):
        raise InputError(f"{op}: give either output_size or output_ratio")
    if output_size is None:
        ratios = _for_each_axis(output_ratio, dims)
        if len(ratios) != dims or not all(0 < r < 1 for r in ratios):
            raise InputError(f"{op}: output_ratio must lie in (0, 1), one number or {dims}, got {output_ratio!r}")
        output_size = _shrunk(x.shape[-dims:], ratios)
    sizes = spatial(op, "output_size", output_size, dims)
    for size, out, kernel in zip(x.shape[-dims:], sizes, kernels, strict=True):
        if kernel < 1 or out < 1 or out + kernel - 1 > size:
            raise InputError(
                f"{op}: {out} windows of {kernel} need a map of at least {out + kernel - 1}, got {size}; "
                "lower kernel_size or output_size"
            )
    return sizes


def _samples(
    op: str, given: torch.Tensor | None, rng: Stream | None, shape: tuple[int, ...], device: torch.device
) -> torch.Tensor:
    """The samples given, or as many from the stream."""
    if given is None:
        if not isinstance(rng, Stream):
            raise InputError(
                f"{op}: rng must be a dettriton.exact.philox.Stream, got {rng!r}; "
                "pass rng=Stream(seed, layer, step), a different one for each layer and step"
            )
        return uniform(rng, torch.Size(shape).numel(), device=device).view(shape)
    require_float32(op, _random_samples=given)
    samples = given.squeeze(0) if given.dim() == len(shape) + 1 and given.shape[0] == 1 else given
    if samples.shape != shape:
        raise InputError(f"{op}: _random_samples must be {shape}, got {tuple(samples.shape)}")
    return samples


def _fractional_max_pool(
    op: str, dims: int, input: torch.Tensor, kernel_size: Size, output_size: Size | None, output_ratio: Any,
    return_indices: bool, given: torch.Tensor | None, rng: Stream | None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    x = as_map(op, input, dims)
    kernels = spatial(op, "kernel_size", kernel_size, dims)
    outputs = _output_sizes(op, x, kernels, output_size, output_ratio)
    samples = _samples(op, given, rng, (*x.shape[:-dims], dims), x.device)
    y, places = FractionalMaxPool.apply(op, x, samples, kernels, outputs)
    return (y, places) if return_indices else y


def _fractional_max_pool_contract(op: str, dims: int) -> Any:
    def results_on_fake_tensors(
        input: torch.Tensor,
        kernel_size: Size,
        output_size: Size | None = None,
        output_ratio: Any = None,
        return_indices: bool = False,
        *_: Any,
        **__: Any,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        # torch's own refuses volumes that are just large enough. Sizes may be symbols here, so the op alone checks them.
        sizes = _for_each_axis(output_size, dims)
        if output_size is None:
            sizes = _shrunk(input.shape[-dims:], _for_each_axis(output_ratio, dims))
        y = input.new_empty((*input.shape[:-dims], *sizes))
        return (y, torch.empty_like(y, dtype=torch.int64)) if return_indices else y

    return contract(
        "Pooling and resampling",
        definition="max_pool over windows from floor((o + u) alpha) - floor(u alpha), u from Philox or given; "
        "gradient: exact windowed sum of those of the outputs that chose the element",
        error="exact; gradient: half an ulp + 2^-32 of the largest term for each term",
        batch_invariant=False,
        kernels=False,
        mirrors=f"nn.functional.{op}",
        fake=results_on_fake_tensors,
    )


@_fractional_max_pool_contract("fractional_max_pool2d", 2)
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
    return _fractional_max_pool(
        "fractional_max_pool2d", 2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples, rng
    )


@_fractional_max_pool_contract("fractional_max_pool3d", 3)
def fractional_max_pool3d(
    input: torch.Tensor,
    kernel_size: Size,
    output_size: Size | None = None,
    output_ratio: float | tuple[float, float, float] | None = None,
    return_indices: bool = False,
    _random_samples: torch.Tensor | None = None,
    *,
    rng: Stream | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Maxima of windows placed at random in a volume, as :func:`torch.nn.functional.fractional_max_pool3d`.

    The definition is :func:`fractional_max_pool2d`'s with three axes; windows may also leave no element over on an axis
    (``output_size + kernel_size - 1`` equal to its size), where torch refuses.

    Args:
        input: binary32, (N, C, D, H, W) or (C, D, H, W).
        kernel_size: taps of a window, one integer or (depth, rows, columns).
        output_size: the windows of each axis, one integer or (depth, rows, columns).
        output_ratio: instead, the output's size over the input's, in (0, 1); the product is truncated.
        return_indices: whether to return the positions as well.
        _random_samples: binary32 (N, C, 3), or (C, 3), in [0, 1): for depth, rows and columns; instead of ``rng``.
        rng: the stream of this layer at this step, as ``Stream(seed, layer, step)``.

    Returns:
        (N, C, depth, rows, columns) or (C, depth, rows, columns); with ``return_indices`` also the int64 position
        ``(depth * H + row) * W + column`` of each in its volume.

    Raises:
        InputError: ``input`` is not binary32, the windows do not fit, or neither samples nor ``rng`` are given.
        EngineError: the engine cannot run on the input's device.
    """
    return _fractional_max_pool(
        "fractional_max_pool3d", 3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples, rng
    )
