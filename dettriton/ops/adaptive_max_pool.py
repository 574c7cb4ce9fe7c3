"""adaptive_max_pool1d, 2d, 3d: the largest element of each window of a grid that covers the map, and where it is.

Window ``o`` of ``n`` on an axis of size ``L`` runs from ``floor(o * L / n)`` to ``ceil((o + 1) * L / n)``. Order, ties,
NaN and gradient are :func:`dettriton.ops.max_pool.max_pool2d`'s: values are ordered ``-Inf < ... < -0 < +0 < ... < Inf <
NaN``, ties go to the lowest index, and an element's gradient starts at +0 and adds the gradients of the outputs that
chose it in ascending row-major order of the outputs (R1). The forward result is exact. Batch-invariant.

Where every output size divides its input size the windows are max_pool's and so are the kernels. Elsewhere values and
places are packed into integers whose maxima are taken one axis at a time, on either engine.
"""

from itertools import product
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.ops._contract import contract
from dettriton.ops._function import first_derivative_only
from dettriton.ops._packed_max import packed, unpacked
from dettriton.ops._pool import Runs, Size, adaptive_sizes, adaptive_windows, as_map, from_map, run_table
from dettriton.ops.max_pool import MaxPool, flat_indices


def largest_of_runs(op: str, x: torch.Tensor, runs: tuple[Runs, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest element of each window, and its place in its map."""
    best = packed(op, x, len(runs))
    for dim, run in zip(range(-len(runs), 0), runs, strict=True):
        wider, best = best, None
        # Where a window is shorter than the longest, its missing elements are its first one again.
        taps = run_table((run,), x.device)
        for tap in torch.where(taps == run.sources, taps[0], taps):
            found = wider.index_select(dim, tap)
            best = found if best is None else torch.maximum(best, found)
    return unpacked(best)


def gradient_of_chosen(grad: torch.Tensor, places: torch.Tensor, runs: tuple[Runs, ...]) -> torch.Tensor:
    """+0 plus the gradients of the outputs that chose each element, one by one in ascending order of the outputs."""
    dims = len(runs)
    sizes = [run.sources for run in runs]
    tables = [run_table((run.inverse(),), grad.device) for run in runs]
    own = torch.arange(torch.Size(sizes).numel(), device=grad.device).view(sizes)
    total = grad.new_zeros((*grad.shape[:-dims], *sizes))
    for taps in product(*tables):
        chosen, term = places, grad
        for dim, tap, run in zip(range(-dims, 0), taps, runs, strict=True):
            # Where an element is in fewer windows than others, an output that chose nothing stands for the missing one.
            outputs = tap.clamp(max=run.targets - 1)
            present = (tap < run.targets).view(-1, *(1,) * (-1 - dim))
            chosen = chosen.index_select(dim, outputs).masked_fill(~present, -1)
            term = term.index_select(dim, outputs)
        total = torch.where(chosen == own, total + term, total)
    return total


class AdaptiveMaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, op: str, runs: tuple[Runs, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        engine_for(x)
        y, places = largest_of_runs(op, x, runs)
        ctx.runs = runs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(places)
        ctx.mark_non_differentiable(places)
        return y, places

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor, _: None) -> tuple[torch.Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return gradient_of_chosen(grad, places, ctx.runs), None, None


def _adaptive_max_pool(
    op: str, dims: int, input: torch.Tensor, output_size: Any, return_indices: bool
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    x = as_map(op, input, dims)
    sizes = adaptive_sizes(op, x, output_size, dims)
    windows = adaptive_windows(tuple(x.shape[-len(sizes) :]), sizes)
    if windows.axes is not None:
        track = return_indices or (torch.is_grad_enabled() and input.requires_grad)
        y, taps = MaxPool.apply(x, windows.axes, track)
        places = flat_indices(taps, windows.axes) if return_indices else None
    else:
        y, places = AdaptiveMaxPool.apply(x, op, windows.runs)
    return (from_map(y, dims), from_map(places, dims)) if return_indices else from_map(y, dims)


def _adaptive_max_pool_contract(mirrors: str) -> Any:
    return contract(
        "Pooling and resampling",
        definition="max_pool over windows floor(o L / n) to ceil((o + 1) L / n); gradient: those of the outputs that "
        "chose the element, in ascending order from +0",
        error="exact; gradient: half an ulp for each addition",
        batch_invariant=True,
        kernels=True,
        mirrors=f"nn.functional.{mirrors}",
    )


@_adaptive_max_pool_contract("adaptive_max_pool1d")
def adaptive_max_pool1d(
    input: torch.Tensor, output_size: Size, return_indices: bool = False
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Largest element of each of ``output_size`` runs of a signal, as torch.nn.functional.adaptive_max_pool1d.

    The definition is :func:`adaptive_max_pool2d`'s with a height of 1.

    Args:
        input: binary32, (N, C, L) or (C, L).
        output_size: how many maxima, at least 1.
        return_indices: whether to return the positions as well.

    Returns:
        (N, C, output_size) or (C, output_size); with ``return_indices`` also the int64 position in the signal of each.

    Raises:
        InputError: ``input`` is not binary32 or has the wrong rank, or ``output_size`` is not positive.
        EngineError: the engine cannot run on the input's device.
    """
    return _adaptive_max_pool("adaptive_max_pool1d", 1, input, output_size, return_indices)


@_adaptive_max_pool_contract("adaptive_max_pool2d")
def adaptive_max_pool2d(
    input: torch.Tensor, output_size: Size | tuple[int | None, ...], return_indices: bool = False
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Maxima over a grid of windows that covers a map, as :func:`torch.nn.functional.adaptive_max_pool2d`.

    Window ``o`` of ``n`` on an axis of size ``L`` runs from ``floor(o * L / n)`` to ``ceil((o + 1) * L / n)``. Values
    are ordered ``-Inf < ... < -0 < +0 < ... < Inf < NaN``; of equal ones the first in row-major order is chosen. The
    gradient of an element starts at +0 and adds the gradients of the outputs that chose it in ascending row-major
    order, each addition rounded once. The forward result is exact.

    Args:
        input: binary32, (N, C, H, W) or (C, H, W).
        output_size: one integer or (rows, columns), at least 1; None in the pair keeps the input's size.
        return_indices: whether to return the positions as well.

    Returns:
        (N, C, rows, columns) or (C, rows, columns), where a NaN is the canonical one; with ``return_indices`` also the
        int64 position ``row * W + column`` of each in its map.

    Raises:
        InputError: ``input`` is not binary32 or has the wrong rank, or ``output_size`` is not positive.
        EngineError: the engine cannot run on the input's device.
    """
    return _adaptive_max_pool("adaptive_max_pool2d", 2, input, output_size, return_indices)


@_adaptive_max_pool_contract("adaptive_max_pool3d")
def adaptive_max_pool3d(
    input: torch.Tensor, output_size: Size | tuple[int | None, ...], return_indices: bool = False
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Maxima over a grid of windows that covers a volume, as :func:`torch.nn.functional.adaptive_max_pool3d`.

    The definition is :func:`adaptive_max_pool2d`'s with three axes.

    Args:
        input: binary32, (N, C, D, H, W) or (C, D, H, W).
        output_size: one integer or (depth, rows, columns), at least 1; None among them keeps the input's size.
        return_indices: whether to return the positions as well.

    Returns:
        (N, C, depth, rows, columns) or (C, depth, rows, columns); with ``return_indices`` also the int64 position
        ``(depth * H + row) * W + column`` of each in its volume.

    Raises:
        InputError: ``input`` is not binary32 or has the wrong rank, or ``output_size`` is not positive.
        EngineError: the engine cannot run on the input's device.
    """
    return _adaptive_max_pool("adaptive_max_pool3d", 3, input, output_size, return_indices)
