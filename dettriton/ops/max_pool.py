"""max_pool1d, max_pool2d, max_pool3d: the largest element of each window, and where it is.

Values are compared in one total order, ``-Inf < ... < -0 < +0 < ... < Inf < NaN``, so a NaN wins and -0 loses to +0.
Equal values (every NaN equals every other) go to the lowest index, that is the first tap in row-major order. Padding
is never chosen. A result is the chosen element's bits, or the canonical NaN. Exact.

Gradient: an element's gradient starts at +0 and adds, in ascending order of the outputs, the gradient of each output
that chose it (R1). Batch-invariant: a map's result depends on that map alone.

The engines compare integers: the bits of a binary32 value, with all but the sign inverted where it is negative,
are in the order above once NaNs are canonical. That map is its own inverse.
"""

import math
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.exact import compiled_pool
from dettriton.exact._jit import compiles
from dettriton.exact.ieee import CANONICAL_NAN_BITS
from dettriton.ops._contract import contract
from dettriton.ops._function import first_derivative_only
from dettriton.ops._launch import Variant, blocks, jit, kernel, tl
from dettriton.ops._pool import Axis, Size, all_taps, as_map, from_map, strided_axes

BLOCK = 256
MAGNITUDE = 0x7FFFFFFF
INFINITY_BITS = 0x7F800000
LOWEST = -(2**31)
ONE_SLICE = Axis(1, 1, 1, 1)

_MAGNITUDE = tl.constexpr(MAGNITUDE)
_LOWEST = tl.constexpr(LOWEST)
_NAN_BITS = tl.constexpr(CANONICAL_NAN_BITS)

Axes = tuple[Axis, ...]


@jit
def _mirror(bits):
    return bits ^ ((bits >> 31) & _MAGNITUDE)


@kernel(
    "*fp32 *fp32 *u8 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64",
    *(Variant({"SLICES": 0, "ROWS": k, "COLUMNS": k, "TRACK": track}) for k in (2, 3) for track in (True, False)),
    *(Variant({"SLICES": k, "ROWS": k, "COLUMNS": k, "TRACK": True}) for k in (2, 3)),
)
def _max_pool_fwd_kernel(
    x_ptr, y_ptr, taps_ptr, n, in_d, in_h, in_w, out_d, out_h, out_w, stride_d, stride_h, stride_w, pad_d, pad_h, pad_w,
    dilation_d, dilation_h, dilation_w,
    SLICES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, TRACK: tl.constexpr, BLOCK: tl.constexpr = BLOCK,
):  # fmt: skip
    """One output element a lane; ``n`` of them over all maps. SLICES is the depth of a window, 0 for flat maps."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    top = i // out_w % out_h * stride_h - pad_h
    left = i % out_w * stride_w - pad_w
    plane = i // (out_h * out_w)
    if SLICES:
        front = plane % out_d * stride_d - pad_d
        plane = plane // out_d * in_d
    best = tl.full([BLOCK], _LOWEST, tl.int32)
    chosen = tl.zeros([BLOCK], tl.int32)
    for tap in range((SLICES if SLICES else 1) * ROWS * COLUMNS):
        row = top + tap // COLUMNS % ROWS * dilation_h
        column = left + tap % COLUMNS * dilation_w
        valid = inside & (row >= 0) & (row < in_h) & (column >= 0) & (column < in_w)
        place = plane * (in_h * in_w) + row * in_w + column
        if SLICES:
            depth = front + tap // (ROWS * COLUMNS) * dilation_d
            valid = valid & (depth >= 0) & (depth < in_d)
            place += depth * (in_h * in_w)
        x = tl.load(x_ptr + place, mask=valid, other=0.0)
        key = _mirror(tl.where(x == x, x.to(tl.int32, bitcast=True), _NAN_BITS))
        better = valid & (key > best)
        best = tl.where(better, key, best)
        chosen = tl.where(better, tap, chosen)
    tl.store(y_ptr + i, _mirror(best).to(tl.float32, bitcast=True), mask=inside)
    if TRACK:
        tl.store(taps_ptr + i, chosen.to(taps_ptr.dtype.element_ty), mask=inside)


@kernel(
    "*fp32 *u8 *fp32 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64",
    *(Variant({"SLICES": slices, "ROWS": k, "COLUMNS": k}) for k in (2, 3) for slices in (0, k)),
)
def _max_pool_bwd_kernel(
    grad_ptr, taps_ptr, grad_x_ptr, n, in_d, in_h, in_w, out_d, out_h, out_w, stride_d, stride_h, stride_w,
    pad_d, pad_h, pad_w, dilation_d, dilation_h, dilation_w,
    SLICES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr = BLOCK,
):  # fmt: skip
    """One input element a lane; ``n`` of them over all maps. The last tap belongs to the first output."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    bottom = i // in_w % in_h + pad_h
    right = i % in_w + pad_w
    plane = i // (in_h * in_w)
    if SLICES:
        behind = plane % in_d + pad_d
        plane = plane // in_d * out_d
    total = tl.zeros([BLOCK], tl.float32)
    TAPS: tl.constexpr = (SLICES if SLICES else 1) * ROWS * COLUMNS
    for step in range(TAPS):
        tap = TAPS - 1 - step
        row = bottom - tap // COLUMNS % ROWS * dilation_h
        column = right - tap % COLUMNS * dilation_w
        aligned = (row >= 0) & (row % stride_h == 0) & (column >= 0) & (column % stride_w == 0)
        row = row // stride_h
        column = column // stride_w
        valid = inside & aligned & (row < out_h) & (column < out_w)
        output = plane * (out_h * out_w) + row * out_w + column
        if SLICES:
            depth = behind - tap // (ROWS * COLUMNS) * dilation_d
            valid = valid & (depth >= 0) & (depth % stride_d == 0) & (depth // stride_d < out_d)
            output += depth // stride_d * (out_h * out_w)
        chosen = tl.load(taps_ptr + output, mask=valid, other=0).to(tl.int32)
        grad = tl.load(grad_ptr + output, mask=valid, other=0.0)
        total = tl.where(valid & (chosen == tap), total + grad, total)
    tl.store(grad_x_ptr + i, total, mask=inside)


def ordered_torch(x: torch.Tensor) -> torch.Tensor:
    """int32 keys in the order of the values."""
    bits = x.view(torch.int32)
    if x.numel() == 0:
        return bits
    low, high = (int(v) for v in torch.aminmax(bits))
    if low >= 0 and high <= INFINITY_BITS:
        return bits
    keys = mirrored_torch(bits)
    low, high = (int(v) for v in torch.aminmax(keys))
    if low < (INFINITY_BITS ^ MAGNITUDE) + LOWEST or high > INFINITY_BITS:
        keys.masked_fill_(x != x, CANONICAL_NAN_BITS)
    return keys


def mirrored_torch(bits: torch.Tensor) -> torch.Tensor:
    return (bits >> 31).bitwise_and_(MAGNITUDE).bitwise_xor_(bits)


def max_pool_torch(x: torch.Tensor, axes: Axes, track: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    if compiles():
        return compiled_pool.max_pooled(x, axes, tap_dtype(axes) if track else None)
    keys = ordered_torch(x)
    best = keys
    for after, axis in reversed(list(enumerate(reversed(axes)))):
        behind = (slice(None),) * after
        shape = [*best.shape]
        shape[-1 - after] = axis.out
        wider, best = best, torch.full(shape, LOWEST, dtype=torch.int32)
        for _, outputs, inputs in axis.taps():
            part = best[(..., outputs, *behind)]
            torch.maximum(part, wider[(..., inputs, *behind)], out=part)
    taps = first_taps_torch(keys, best, axes) if track else None
    return mirrored_torch(best).view(torch.float32), taps


def first_taps_torch(keys: torch.Tensor, best: torch.Tensor, axes: Axes) -> torch.Tensor:
    """The first tap of each window that equals its maximum, by scoring earlier taps higher."""
    count = taps_of_window(axes)
    score = torch.zeros(best.shape, dtype=tap_dtype(axes))
    for tap, outputs, inputs in all_taps(axes):
        equal = keys[inputs] == best[outputs]
        part = score[outputs]
        torch.maximum(part, equal.view(torch.uint8).to(score.dtype).mul_(count - tap), out=part)
    return count - score


def max_pool_grad_torch(grad: torch.Tensor, taps: torch.Tensor, axes: Axes) -> torch.Tensor:
    if compiles():
        return compiled_pool.max_pooled_gradient(grad, taps, axes)
    bits = grad.contiguous().view(torch.int32)
    grad_x = torch.zeros((*grad.shape[: -len(axes)], *(axis.size for axis in axes)), dtype=grad.dtype)
    for tap, outputs, inputs in reversed(list(all_taps(axes))):
        # All ones where this tap was chosen: keeps the gradient's bits, and +0 elsewhere, even for Inf and NaN.
        chosen = (taps == tap).view(torch.int8).neg_().to(torch.int32)
        grad_x[inputs] += chosen.bitwise_and_(bits).view(grad.dtype)[outputs]
    return grad_x


def max_pool_triton(x: torch.Tensor, axes: Axes, track: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    x = x.contiguous()
    y = torch.empty((*x.shape[: -len(axes)], *(axis.out for axis in axes)), dtype=x.dtype, device=x.device)
    taps = torch.empty(y.shape if track else (1,), dtype=tap_dtype(axes), device=x.device)
    geometry, kernels = _kernel_arguments(axes)
    grid = (blocks(y.numel(), BLOCK),)
    _max_pool_fwd_kernel(grid, x, y, taps, y.numel(), *geometry, TRACK=track, **kernels)
    return y, taps if track else None


def max_pool_grad_triton(grad: torch.Tensor, taps: torch.Tensor, axes: Axes) -> torch.Tensor:
    grad, taps = grad.contiguous(), taps.contiguous()
    shape = (*grad.shape[: -len(axes)], *(axis.size for axis in axes))
    grad_x = torch.empty(shape, dtype=grad.dtype, device=grad.device)
    geometry, kernels = _kernel_arguments(axes)
    grid = (blocks(grad_x.numel(), BLOCK),)
    _max_pool_bwd_kernel(grid, grad, taps, grad_x, grad_x.numel(), *geometry, **kernels)
    return grad_x


def _kernel_arguments(axes: Axes) -> tuple[list[int], dict[str, int]]:
    slices = axes[0].kernel if len(axes) == 3 else 0
    axes = axes if slices else (ONE_SLICE, *axes)
    names = ("size", "out", "stride", "padding", "dilation")
    geometry = [getattr(axis, name) for name in names for axis in axes]
    return geometry, {"SLICES": slices, "ROWS": axes[1].kernel, "COLUMNS": axes[2].kernel}


def taps_of_window(axes: Axes) -> int:
    return math.prod(axis.kernel for axis in axes)


def tap_dtype(axes: Axes) -> torch.dtype:
    return torch.uint8 if taps_of_window(axes) < 256 else torch.int32


def flat_indices(taps: torch.Tensor, axes: Axes) -> torch.Tensor:
    """The place in its map, ``row * width + column`` as int64, of the element that each output chose."""
    taps = taps.to(torch.int64)
    place, tap_size, place_size = 0, 1, 1
    for after, axis in enumerate(reversed(axes)):
        starts = torch.arange(axis.out, dtype=torch.int64, device=taps.device) * axis.stride - axis.padding
        along = starts.view(-1, *(1,) * after) + taps // tap_size % axis.kernel * axis.dilation
        place = place + along * place_size
        tap_size, place_size = tap_size * axis.kernel, place_size * axis.size
    return place


FORWARD = {"torch": max_pool_torch, "triton": max_pool_triton}
BACKWARD = {"torch": max_pool_grad_torch, "triton": max_pool_grad_triton}


class MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, axes: Axes, track: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        y, taps = FORWARD[engine_for(x)](x, axes, track)
        ctx.axes = axes
        ctx.set_materialize_grads(False)
        if track:
            ctx.save_for_backward(taps)
            ctx.mark_non_differentiable(taps)
        return y, taps

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor, _: None) -> tuple[torch.Tensor, None, None]:
        (taps,) = ctx.saved_tensors
        return BACKWARD[engine_for(grad, taps)](grad, taps, ctx.axes), None, None


def _max_pool_contract(mirrors: str) -> Any:
    return contract(
        "Pooling and resampling",
        definition="largest element, -0 below +0 and NaN above all, ties to the lowest index; gradient: those of the "
        "outputs that chose the element, in ascending order from +0",
        error="exact; gradient: half an ulp for each addition",
        batch_invariant=True,
        kernels=True,
        mirrors=f"nn.functional.{mirrors}",
    )


@_max_pool_contract("max_pool1d")
def max_pool1d(
    input: torch.Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Largest element of each window of a signal, as :func:`torch.nn.functional.max_pool1d`.

    The definition is :func:`max_pool2d`'s with a height of 1.

    Args:
        input: binary32, (N, C, L) or (C, L).
        kernel_size: taps of a window.
        stride: distance between windows; ``kernel_size`` for None.
        padding: taps beyond each end, at most half of a window; never chosen.
        dilation: distance between the taps of a window.
        ceil_mode: whether a last window may reach beyond the padding.
        return_indices: whether to return the positions as well.

    Returns:
        The maxima, (N, C, L_out) or (C, L_out); with ``return_indices`` also the int64 position in the signal of each.

    Raises:
        InputError: ``input`` is not binary32 or has the wrong rank, or an argument is out of range.
        EngineError: the engine cannot run on the input's device.
    """
    return _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@_max_pool_contract("max_pool2d")
def max_pool2d(
    input: torch.Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Largest element of each window of a map, as :func:`torch.nn.functional.max_pool2d`.

    Values are ordered ``-Inf < ... < -0 < +0 < ... < Inf < NaN``; of equal ones the first in row-major order is chosen
    (also among NaNs, where torch takes the last). The gradient of an element starts at +0 and adds the gradients of
    the outputs that chose it one by one, in ascending row-major order of the outputs, each addition rounded once to
    binary32, however many there are. The forward result is exact.

    Args:
        input: binary32, (N, C, H, W) or (C, H, W).
        kernel_size: taps of a window, one integer or (rows, columns); so are the next three.
        stride: distance between windows; ``kernel_size`` for None.
        padding: taps beyond each border, at most half of a window; never chosen.
        dilation: distance between the taps of a window.
        ceil_mode: whether the last windows may reach beyond the padding.
        return_indices: whether to return the positions as well.

    Returns:
        The maxima, (N, C, H_out, W_out) or (C, H_out, W_out), where a NaN is the canonical one; with
        ``return_indices`` also the int64 position ``row * W + column`` of each in its map.

    Raises:
        InputError: ``input`` is not binary32 or has the wrong rank, or an argument is out of range (a window that
            holds nothing but padding included).
        EngineError: the engine cannot run on the input's device.
    """
    return _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@_max_pool_contract("max_pool3d")
def max_pool3d(
    input: torch.Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Largest element of each window of a volume, as :func:`torch.nn.functional.max_pool3d`.

    The definition is :func:`max_pool2d`'s with three axes.

    Args:
        input: binary32, (N, C, D, H, W) or (C, D, H, W).
        kernel_size: taps of a window, one integer or (depth, rows, columns); so are the next three.
        stride: distance between windows; ``kernel_size`` for None.
        padding: taps beyond each border, at most half of a window; never chosen.
        dilation: distance between the taps of a window.
        ceil_mode: whether the last windows may reach beyond the padding.
        return_indices: whether to return the positions as well.

    Returns:
        The maxima, (N, C, D_out, H_out, W_out) or (C, D_out, H_out, W_out), where a NaN is the canonical one; with
        ``return_indices`` also the int64 position ``(depth * H + row) * W + column`` of each in its volume.

    Raises:
        InputError: ``input`` is not binary32 or has the wrong rank, or an argument is out of range (a window that
            holds nothing but padding included).
        EngineError: the engine cannot run on the input's device.
    """
    return _max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _max_pool(
    op: str, dims: int, input: torch.Tensor, kernel_size: Size, stride: Size | None, padding: Size, dilation: Size,
    ceil_mode: bool, return_indices: bool,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    x = as_map(op, input, dims)
    axes = strided_axes(op, x, dims, kernel_size, stride, padding, dilation, ceil_mode)
    track = return_indices or (torch.is_grad_enabled() and input.requires_grad)
    y, taps = MaxPool.apply(x, axes, track)
    y = from_map(y, dims)
    return (y, from_map(flat_indices(taps, axes), dims)) if return_indices else y
