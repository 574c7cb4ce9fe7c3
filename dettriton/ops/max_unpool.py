"""max_unpool1d, 2d, 3d: elements put back at the places that max pooling took them from, +0 everywhere else.

Of several elements for one place, the one with the highest row-major position in the input is put there. Exact.
Gradient: an element that was put somewhere gets the gradient there, any other +0. Batch-invariant.

The positions are compared as integers, whose maximum has no order.
"""

from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.ops._contract import contract
from dettriton.ops._function import first_derivative_only
from dettriton.ops._pool import Size, as_map, spatial


def owners(places: torch.Tensor, size: int) -> torch.Tensor:
    """(maps, size) int64: the highest position that names each place; -1 for none."""
    positions = torch.arange(places.shape[-1], device=places.device).expand_as(places)
    nobody = torch.full((*places.shape[:-1], size), -1, dtype=torch.int64, device=places.device)
    return nobody.scatter_reduce(-1, places, positions, "amax")


class MaxUnpool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, places: torch.Tensor, size: int) -> torch.Tensor:
        engine_for(x, places)
        owner = owners(places, size)
        ctx.save_for_backward(places, owner)
        y = x.gather(-1, owner.clamp(min=0)) if x.shape[-1] else x.new_zeros(owner.shape)
        return y.masked_fill(owner < 0, 0.0)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        places, owner = ctx.saved_tensors
        lost = owner.gather(-1, places) != torch.arange(places.shape[-1], device=places.device)
        return grad.gather(-1, places).masked_fill(lost, 0.0), None, None


def _sizes(
    op: str, dims: int, x: torch.Tensor, kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> tuple[int, ...]:
    kernels = spatial(op, "kernel_size", kernel_size, dims)[-dims:]
    steps = kernels if stride is None or stride == () else spatial(op, "stride", stride, dims)[-dims:]
    paddings = spatial(op, "padding", padding, dims)[-dims:]
    default = tuple(
        (size - 1) * s + k - 2 * p for size, k, s, p in zip(x.shape[-dims:], kernels, steps, paddings, strict=True)
    )
    if output_size is None:
        return default
    asked = tuple(output_size)[-dims:]
    if len(output_size) not in (dims, dims + 2) or any(
        not d - s < o < d + s for o, d, s in zip(asked, default, steps, strict=True)
    ):
        raise InputError(f"{op}: output_size must be within a stride of {default}, got {tuple(output_size)}")
    return asked


def _max_unpool(
    op: str, dims: int, input: torch.Tensor, indices: torch.Tensor, kernel_size: Any, stride: Any, padding: Any,
    output_size: Any,
) -> torch.Tensor:  # fmt: skip
    as_map(op, input, dims)
    if indices.dtype != torch.int64 or indices.shape != input.shape:
        raise InputError(
            f"{op}: indices must be int64 of the input's shape {tuple(input.shape)}, "
            f"got {indices.dtype} {tuple(indices.shape)}"
        )
    sizes = _sizes(op, dims, input, kernel_size, stride, padding, output_size)
    places = torch.Size(sizes).numel()
    if indices.device.type == "cpu" and indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < places:
        raise InputError(f"{op}: indices must lie in [0, {places}), the places of an output of {sizes}")
    leading = input.shape[:-dims]
    flat = (leading.numel(), input.shape[-dims:].numel())
    y = MaxUnpool.apply(input.reshape(flat), indices.reshape(flat), places)
    return y.view(*leading, *sizes)


def _max_unpool_contract(mirrors: str) -> Any:
    return contract(
        "Pooling and resampling",
        definition="element to its place, +0 elsewhere; the highest position wins a place; gradient: a gather of the "
        "winners'",
        error="exact",
        batch_invariant=True,
        kernels=False,
        mirrors=f"nn.functional.{mirrors}",
    )


@_max_unpool_contract("max_unpool1d")
def max_unpool1d(
    input: torch.Tensor,
    indices: torch.Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: tuple[int, ...] | None = None,
) -> torch.Tensor:
    """Undo :func:`dettriton.ops.max_pool1d`, as :func:`torch.nn.functional.max_unpool1d`; see :func:`max_unpool2d`.

    Args:
        input: binary32, (N, C, L) or (C, L).
        indices: int64 of the same shape, positions in the output signal.
        kernel_size, stride, padding: the pool's.
        output_size: the output's length or shape; ``(L - 1) * stride + kernel_size - 2 * padding`` for None.

    Returns:
        (N, C, L_out) or (C, L_out).

    Raises:
        InputError: ``input`` is not binary32, ``indices`` do not fit it or (on the CPU) the output, or
            ``output_size`` is more than a stride from the default.
        EngineError: the engine cannot run on the input's device.
    """
    return _max_unpool("max_unpool1d", 1, input, indices, kernel_size, stride, padding, output_size)


@_max_unpool_contract("max_unpool2d")
def max_unpool2d(
    input: torch.Tensor,
    indices: torch.Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: tuple[int, ...] | None = None,
) -> torch.Tensor:
    """Undo :func:`dettriton.ops.max_pool2d`, as :func:`torch.nn.functional.max_unpool2d`. Exact.

    Of several elements with one index the last in row-major order is put there (torch leaves it open); the others'
    gradient is +0.

    Args:
        input: binary32, (N, C, H, W) or (C, H, W).
        indices: int64 of the same shape, positions ``row * W_out + column`` in the output map.
        kernel_size, stride, padding: the pool's, one integer or (rows, columns).
        output_size: the output's map or shape; ``(size - 1) * stride + kernel_size - 2 * padding`` for None.

    Returns:
        (N, C, H_out, W_out) or (C, H_out, W_out), +0 at the places that no index names.

    Raises:
        InputError: ``input`` is not binary32, ``indices`` do not fit it or (on the CPU) the output, or
            ``output_size`` is more than a stride from the default.
        EngineError: the engine cannot run on the input's device.
    """
    return _max_unpool("max_unpool2d", 2, input, indices, kernel_size, stride, padding, output_size)


@_max_unpool_contract("max_unpool3d")
def max_unpool3d(
    input: torch.Tensor,
    indices: torch.Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: tuple[int, ...] | None = None,
) -> torch.Tensor:
    """Undo :func:`dettriton.ops.max_pool3d`, as :func:`torch.nn.functional.max_unpool3d`; see :func:`max_unpool2d`.

    Args:
        input: binary32, (N, C, D, H, W) or (C, D, H, W).
        indices: int64 of the same shape, positions in the output volume.
        kernel_size, stride, padding: the pool's, one integer or (depth, rows, columns).
        output_size: the output's volume or shape; ``(size - 1) * stride + kernel_size - 2 * padding`` for None.

    Returns:
        (N, C, D_out, H_out, W_out) or (C, D_out, H_out, W_out).

    Raises:
        InputError: ``input`` is not binary32, ``indices`` do not fit it or (on the CPU) the output, or
            ``output_size`` is more than a stride from the default.
        EngineError: the engine cannot run on the input's device.
    """
    return _max_unpool("max_unpool3d", 3, input, indices, kernel_size, stride, padding, output_size)
