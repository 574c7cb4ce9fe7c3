"""avg_pool1d, 2d, 3d and adaptive_avg_pool1d, 2d, 3d: the mean of each window, ``y = S / count``.

``S`` is one of two sums, and the arguments and the map's size alone decide which:

* *exact*: the exact sum of the window, rounded once (R2), where every window covers the whole map, at any size, or
  where a window has more than 64 taps (``kernel_size``, or the largest window of an adaptive pool);
* *in order* (R1) everywhere else: starting from the window's first element, the others added in ascending row-major
  order, each addition rounded to binary32; padding is skipped.

``count`` is an integer rounded to binary32, and the division is rounded once.

Gradient, at any size: an element's gradient starts at +0 and adds ``g / count`` of each output whose window holds it,
in ascending row-major order of the outputs (R1). Batch-invariant: a map's result depends on that map alone.
"""

import math
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.ops._contract import contract
from dettriton.ops._function import first_derivative_only
from dettriton.ops._launch import Variant, blocks, jit, kernel, tl
from dettriton.ops._pool import (
    Runs,
    Size,
    Windows,
    adaptive_sizes,
    adaptive_windows,
    all_taps,
    as_map,
    from_map,
    run_table,
    strided_axes,
    strided_windows,
)
from dettriton.ops._tables import device_tables
from dettriton.ops.sum import exact_sum

BLOCK = 256
NEGATIVE_ZERO_BITS = -(2**31)
ONE_SLICE = Runs(1, 1, 1, 0, 1, 1, 1)

_NEGATIVE_ZERO_BITS = tl.constexpr(NEGATIVE_ZERO_BITS)


@jit
def _run(target, sources, step, first, end, per):
    # Triton's // truncates where the run's own floors; cutting at 0 makes them agree.
    low = tl.maximum((step * target + first) // per, 0)
    high = tl.minimum(tl.maximum((step * target + end) // per, 0), sources)
    return low, high


@kernel(
    "*fp32 *fp32 *fp32 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64",
    *(Variant({"GRADIENT": gradient, "VOLUME": volume}) for gradient in (False, True) for volume in (False, True)),
)
def _avg_pool_kernel(
    x_ptr, counts_ptr, y_ptr, n, in_d, in_h, in_w, out_d, out_h, out_w, step_d, first_d, end_d, per_d, longest_d,
    step_h, first_h, end_h, per_h, longest_h, step_w, first_w, end_w, per_w, longest_w,
    GRADIENT: tl.constexpr, VOLUME: tl.constexpr, BLOCK: tl.constexpr = BLOCK,
):  # fmt: skip
    """Sums of runs of x, one result a lane, ``n`` over all maps. counts has the shape of the pool's output map.

    Forward divides a sum by its count; the gradient divides each term by the term's count and starts at +0.
    Unless VOLUME, a map has one slice and the arguments of its depth say so.
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    plane = i // (out_h * out_w)
    front = plane * 0
    back = front + 1
    if VOLUME:
        front, back = _run(plane % out_d, in_d, step_d, first_d, end_d, per_d)
        plane = plane // out_d
    top, bottom = _run(i // out_w % out_h, in_h, step_h, first_h, end_h, per_h)
    left, right = _run(i % out_w, in_w, step_w, first_w, end_w, per_w)
    map_ptr = x_ptr + plane * (in_d * in_h * in_w)
    # -0 is the sum of nothing: adding it changes no value, not even -0. (As a float literal it would become +0.)
    total = tl.full([BLOCK], 0 if GRADIENT else _NEGATIVE_ZERO_BITS, tl.int32).to(tl.float32, bitcast=True)
    for c in range(longest_d):
        for a in range(longest_h):
            for b in range(longest_w):
                depth = front + c
                row = top + a
                column = left + b
                valid = inside & (depth < back) & (row < bottom) & (column < right)
                place = (depth * in_h + row) * in_w + column
                x = tl.load(map_ptr + place, mask=valid, other=0.0)
                if GRADIENT:
                    x = tl.div_rn(x, tl.load(counts_ptr + place, mask=valid, other=1.0))
                total = tl.where(valid, total + x, total)
    if not GRADIENT:
        total = tl.div_rn(total, tl.load(counts_ptr + i % (out_d * out_h * out_w), mask=inside, other=1.0))
    tl.store(y_ptr + i, total, mask=inside)


def counts_of(windows: Windows, device: torch.device) -> torch.Tensor:
    """The divisor of each output of a map or volume, binary32."""
    if windows.divisor is not None:
        return torch.full(windows.outputs, float(windows.divisor), dtype=torch.float32, device=device)
    return _count_tables(windows.counts, device)[0]


@device_tables(most=256)
def _count_tables(along_axes: tuple[tuple[int, ...], ...]) -> tuple[torch.Tensor]:
    counts = torch.ones((), dtype=torch.int64)
    for along in along_axes:
        counts = counts[..., None] * torch.tensor(along, dtype=torch.int64)
    return (counts.to(torch.float32),)


def exact_sums(x: torch.Tensor, windows: Windows) -> torch.Tensor:
    """The exact sum of each window, on the tensor's engine."""
    leading = x.shape[: -len(windows.runs)]
    if windows.whole_map:
        total = exact_sum(x, tuple(range(len(leading), x.dim())), keepdim=True)
        return total.expand(*leading, *windows.outputs)
    table = run_table(windows.runs, x.device)
    places = torch.nn.functional.pad(x.flatten(len(leading)), (0, 1))
    terms = places.index_select(-1, table.reshape(-1)).unflatten(-1, table.shape)
    return exact_sum(terms, (len(leading),)).unflatten(-1, windows.outputs)


def ordered_sums_torch(x: torch.Tensor, runs: tuple[Runs, ...], start: float) -> torch.Tensor:
    """``start`` plus each window's terms, one by one in ascending order; ``start`` is a zero."""
    leading, outputs = x.shape[: -len(runs)], [r.targets for r in runs]
    flat = x.reshape(math.prod(leading), math.prod(x.shape[len(leading) :]))
    # Maps last, so that a tap is copied and added for all maps at once; the last row is the sum of nothing.
    places = torch.cat((flat.t(), flat.new_full((1, len(flat)), -0.0)))
    total = places.new_full((math.prod(outputs), len(flat)), start)
    for tap in run_table(runs, x.device):
        total += places.index_select(0, tap)
    return total.t().reshape(*leading, *outputs)


def avg_pool_torch(x: torch.Tensor, windows: Windows) -> torch.Tensor:
    counts = counts_of(windows, x.device)
    if windows.exact:
        return exact_sums(x, windows) / counts
    if windows.axes is None:
        return ordered_sums_torch(x, windows.runs, -0.0) / counts
    # -0 is the sum of nothing: adding it changes no value, not even -0.
    total = torch.full((*x.shape[: -len(windows.runs)], *windows.outputs), -0.0, dtype=x.dtype)
    for _, outputs, inputs in all_taps(windows.axes):
        total[outputs] += x[inputs]
    return total / counts


def avg_pool_grad_torch(grad: torch.Tensor, windows: Windows) -> torch.Tensor:
    shares = grad / counts_of(windows, grad.device)
    shape = (*grad.shape[: -len(windows.runs)], *windows.inputs)
    if windows.whole_map and math.prod(windows.outputs) == 1:
        return (shares + 0.0).expand(shape)
    if windows.axes is None:
        return ordered_sums_torch(shares, windows.inverse_runs, 0.0)
    grad_x = torch.zeros(shape, dtype=grad.dtype)
    # The last tap of an element belongs to the first output that holds it.
    for _, outputs, inputs in reversed(list(all_taps(windows.axes))):
        grad_x[inputs] += shares[outputs]
    return grad_x


def avg_pool_triton(x: torch.Tensor, windows: Windows) -> torch.Tensor:
    if windows.exact:
        return exact_sums(x, windows) / counts_of(windows, x.device)
    return _launch(x, windows, windows.runs, gradient=False)


def avg_pool_grad_triton(grad: torch.Tensor, windows: Windows) -> torch.Tensor:
    return _launch(grad, windows, windows.inverse_runs, gradient=True)


def _launch(x: torch.Tensor, windows: Windows, runs: tuple[Runs, ...], gradient: bool) -> torch.Tensor:
    x = x.contiguous()
    volume = len(runs) == 3
    y = torch.empty((*x.shape[: -len(runs)], *(r.targets for r in runs)), dtype=x.dtype, device=x.device)
    runs = runs if volume else (ONE_SLICE, *runs)
    shapes = (*(r.sources for r in runs), *(r.targets for r in runs))
    bounds = [value for r in runs for value in (r.step, r.first, r.end, r.per, r.longest)]
    options = {"GRADIENT": gradient, "VOLUME": volume}
    grid = (blocks(y.numel(), BLOCK),)
    _avg_pool_kernel(grid, x, counts_of(windows, x.device), y, y.numel(), *shapes, *bounds, **options)
    return y


FORWARD = {"torch": avg_pool_torch, "triton": avg_pool_triton}
BACKWARD = {"torch": avg_pool_grad_torch, "triton": avg_pool_grad_triton}


class AvgPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, windows: Windows) -> torch.Tensor:
        ctx.windows = windows
        return FORWARD[engine_for(x)](x, windows)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return BACKWARD[engine_for(grad)](grad, ctx.windows), None


WINDOW_DEFINITION = (
    "sum of the window: exact where it covers the whole map or has more than 64 taps, otherwise in ascending order; "
    "divided by the count; gradient: g / count of the outputs that hold the element, in ascending order from +0"
)
WINDOW_ERROR = "n terms: n * 2^-24 of the mean magnitude in order; about 1 ulp + n * 2^-32 of the largest if exact"


def _pooling_contract(mirrors: str) -> Any:
    return contract(
        "Pooling and resampling", definition=WINDOW_DEFINITION, error=WINDOW_ERROR, batch_invariant=True, kernels=True,
        mirrors=f"nn.functional.{mirrors}",
    )  # fmt: skip


@_pooling_contract("avg_pool1d")
def avg_pool1d(
    input: torch.Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> torch.Tensor:
    """Mean of each window of a signal, as :func:`torch.nn.functional.avg_pool1d`.

    The definition is :func:`avg_pool2d`'s with a height of 1.

    Args:
        input: binary32, (N, C, L) or (C, L).
        kernel_size: taps of a window.
        stride: distance between windows; ``kernel_size`` for None.
        padding: taps beyond each end, at most half of a window; they add nothing.
        ceil_mode: whether a last window may reach beyond the padding.
        count_include_pad: whether taps in the padding count in the divisor.

    Returns:
        The means, (N, C, L_out) or (C, L_out).

    Raises:
        InputError: ``input`` is not binary32 or has the wrong rank, or an argument is out of range.
        EngineError: the engine cannot run on the input's device.
    """
    return _avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


@_pooling_contract("avg_pool2d")
def avg_pool2d(
    input: torch.Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> torch.Tensor:
    """Mean of each window of a map, as :func:`torch.nn.functional.avg_pool2d`: ``y = S / count``.

    ``S`` is the window's exact sum rounded once, if every window covers the whole map or ``kernel_size`` has more than
    64 taps. Otherwise it is the sum in ascending row-major order, each addition rounded to binary32, starting from the
    first element. Padding is skipped. ``count``, rounded to binary32, is the number of taps in the map and (by
    ``count_include_pad``) its padding, or the override. The gradient of an element starts at +0 and adds ``g / count``
    of the outputs that hold it, in ascending row-major order. Error of a mean of n terms, without overflow: at most
    ``n * 2**-24`` of the mean magnitude in order, and about 1 ulp of the result beside ``n * 2**-32`` of the largest
    magnitude if exact.

    Args:
        input: binary32, (N, C, H, W) or (C, H, W).
        kernel_size: taps of a window, one integer or (rows, columns); so are the next two.
        stride: distance between windows; ``kernel_size`` for None.
        padding: taps beyond each border, at most half of a window; they add nothing.
        ceil_mode: whether the last windows may reach beyond the padding.
        count_include_pad: whether taps in the padding count in the divisor.
        divisor_override: the divisor of every window, not 0.

    Returns:
        The means, (N, C, H_out, W_out) or (C, H_out, W_out). Inf or NaN in a window: the canonical NaN if the sum is
        exact, what IEEE addition gives otherwise.

    Raises:
        InputError: ``input`` is not binary32 or has the wrong rank, or an argument is out of range.
        EngineError: the engine cannot run on the input's device.
    """
    return _avg_pool(
        "avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


@_pooling_contract("avg_pool3d")
def avg_pool3d(
    input: torch.Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> torch.Tensor:
    """Mean of each window of a volume, as :func:`torch.nn.functional.avg_pool3d`.

    The definition is :func:`avg_pool2d`'s with three axes: the exact sum if every window covers the whole volume or
    ``kernel_size`` has more than 64 taps, ascending row-major order otherwise.

    Args:
        input: binary32, (N, C, D, H, W) or (C, D, H, W).
        kernel_size: taps of a window, one integer or (depth, rows, columns); so are the next two.
        stride: distance between windows; ``kernel_size`` for None.
        padding: taps beyond each border, at most half of a window; they add nothing.
        ceil_mode: whether the last windows may reach beyond the padding.
        count_include_pad: whether taps in the padding count in the divisor.
        divisor_override: the divisor of every window, not 0.

    Returns:
        The means, (N, C, D_out, H_out, W_out) or (C, D_out, H_out, W_out).

    Raises:
        InputError: ``input`` is not binary32 or has the wrong rank, or an argument is out of range.
        EngineError: the engine cannot run on the input's device.
    """
    return _avg_pool(
        "avg_pool3d", 3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


@_pooling_contract("adaptive_avg_pool1d")
def adaptive_avg_pool1d(input: torch.Tensor, output_size: Size) -> torch.Tensor:
    """Mean of each of ``output_size`` runs of a signal, as :func:`torch.nn.functional.adaptive_avg_pool1d`.

    The definition is :func:`adaptive_avg_pool2d`'s with a height of 1.

    Args:
        input: binary32, (N, C, L) or (C, L).
        output_size: how many means, at least 1.

    Returns:
        (N, C, output_size) or (C, output_size).

    Raises:
        InputError: ``input`` is not binary32 or has the wrong rank, or ``output_size`` is not positive.
        EngineError: the engine cannot run on the input's device.
    """
    return _adaptive_avg_pool("adaptive_avg_pool1d", 1, input, output_size)


@_pooling_contract("adaptive_avg_pool2d")
def adaptive_avg_pool2d(input: torch.Tensor, output_size: Size | tuple[int | None, int | None]) -> torch.Tensor:
    """Means over a grid of windows that covers a map, as :func:`torch.nn.functional.adaptive_avg_pool2d`.

    Window ``o`` of ``n`` on an axis of size ``L`` runs from ``floor(o * L / n)`` to ``ceil((o + 1) * L / n)``. Sum,
    division and gradient are :func:`avg_pool2d`'s; the sums are exact if every window covers the whole map (as with
    ``output_size=1``) or the largest window has more than 64 elements.

    Args:
        input: binary32, (N, C, H, W) or (C, H, W).
        output_size: one integer or (rows, columns), at least 1; None in the pair keeps the input's size.

    Returns:
        The means, (N, C, rows, columns) or (C, rows, columns).

    Raises:
        InputError: ``input`` is not binary32 or has the wrong rank, or ``output_size`` is not positive.
        EngineError: the engine cannot run on the input's device.
    """
    return _adaptive_avg_pool("adaptive_avg_pool2d", 2, input, output_size)


@_pooling_contract("adaptive_avg_pool3d")
def adaptive_avg_pool3d(input: torch.Tensor, output_size: Size | tuple[int | None, ...]) -> torch.Tensor:
    """Means over a grid of windows that covers a volume, as :func:`torch.nn.functional.adaptive_avg_pool3d`.

    The definition is :func:`adaptive_avg_pool2d`'s with three axes.

    Args:
        input: binary32, (N, C, D, H, W) or (C, D, H, W).
        output_size: one integer or (depth, rows, columns), at least 1; None among them keeps the input's size.

    Returns:
        The means, (N, C, depth, rows, columns) or (C, depth, rows, columns).

    Raises:
        InputError: ``input`` is not binary32 or has the wrong rank, or ``output_size`` is not positive.
        EngineError: the engine cannot run on the input's device.
    """
    return _adaptive_avg_pool("adaptive_avg_pool3d", 3, input, output_size)


def _avg_pool(
    op: str, dims: int, input: torch.Tensor, kernel_size: Size, stride: Size | None, padding: Size,
    ceil_mode: bool, count_include_pad: bool, divisor: int | None,
) -> torch.Tensor:  # fmt: skip
    if divisor == 0:
        raise InputError(f"{op}: divisor_override must not be 0; leave it out to divide by the number of taps")
    x = as_map(op, input, dims)
    axes = strided_axes(op, x, dims, kernel_size, stride, padding, 1, ceil_mode)
    return from_map(AvgPool.apply(x, strided_windows(axes, count_include_pad, divisor)), dims)


def _adaptive_avg_pool(op: str, dims: int, input: torch.Tensor, output_size: Any) -> torch.Tensor:
    x = as_map(op, input, dims)
    sizes = adaptive_sizes(op, x, output_size, dims)
    return from_map(AvgPool.apply(x, adaptive_windows(tuple(x.shape[-len(sizes) :]), sizes)), dims)
