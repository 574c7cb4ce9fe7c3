"""amax, amin, max, min, argmax, argmin: the extreme element in one total order, found by comparing integers. Exact.

Values are ordered ``-Inf < ... < -0 < +0 < ... < Inf``; a NaN beats all of them in a maximum and in a minimum. Equal
values (every NaN equals every other, -0 and +0 are not equal) go to the lowest index. A result is the chosen element's
bits, or the canonical NaN.

Gradient of amax, amin, and of max and min over everything: the ``c`` elements equal to the result get ``grad / c``
each (one rounding, ``c`` rounded to the type), the others +0. Of max and min along a dimension: the chosen element gets
``grad``, the others +0.

binary32, binary64, binary16 and bfloat16 alike; half precision is compared as binary32. Composed of integer operations.
"""

from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.ops._compile import values_and_indices
from dettriton.ops._contract import contract
from dettriton.ops._float_types import narrowed, require_float, widened
from dettriton.ops._function import first_derivative_only
from dettriton.ops._order import order_keys, values_of_keys
from dettriton.ops.sum import reduced_dims

Dims = int | tuple[int, ...] | None


def extreme_keys(keys: torch.Tensor, dims: tuple[int, ...], largest: bool) -> torch.Tensor:
    """The largest or smallest key over ``dims``, which keep size 1."""
    return keys.amax(dims, keepdim=True) if largest else keys.amin(dims, keepdim=True)


def first_position(keys: torch.Tensor, best: torch.Tensor, dim: int) -> torch.Tensor:
    """The lowest index along ``dim`` (kept with size 1) whose key is the best one, as int64."""
    length = keys.shape[dim]
    return torch.where(keys == best, _positions(keys.shape, dim, keys.device), length).amin(dim, keepdim=True)


def _positions(shape: torch.Size, dim: int, device: torch.device) -> torch.Tensor:
    along = [-1 if d == dim else 1 for d in range(len(shape))]
    return torch.arange(shape[dim], dtype=torch.int64, device=device).view(along)


class Extreme(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dims: tuple[int, ...], keepdim: bool, largest: bool) -> torch.Tensor:
        engine_for(x)
        keys = order_keys(x, nan_last=largest)
        best = extreme_keys(keys, dims, largest)
        ctx.dims = dims
        ctx.save_for_backward(keys == best)
        y = values_of_keys(best, x.dtype)
        return y if keepdim or not dims else y.squeeze(dims)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (chosen,) = ctx.saved_tensors
        count = (chosen.sum(ctx.dims, keepdim=True) if ctx.dims else chosen).to(grad.dtype)
        share = grad.reshape(count.shape) / count
        return torch.where(chosen, share, torch.zeros((), dtype=grad.dtype, device=grad.device)), None, None, None


class ExtremeAlong(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dim: int, keepdim: bool, largest: bool) -> tuple[torch.Tensor, torch.Tensor]:
        engine_for(x)
        keys = order_keys(x, nan_last=largest)
        best = extreme_keys(keys, (dim,), largest)
        index = first_position(keys, best, dim)
        ctx.dim, ctx.shape = dim, x.shape
        ctx.save_for_backward(index)
        ctx.set_materialize_grads(False)
        y = values_of_keys(best, x.dtype)
        out = index if keepdim else index.squeeze(dim)
        ctx.mark_non_differentiable(out)
        return y if keepdim else y.squeeze(dim), out

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor | None, _: None) -> tuple[torch.Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
        (index,) = ctx.saved_tensors
        grad = grad.reshape(index.shape)
        chosen = _positions(ctx.shape, ctx.dim, index.device) == index
        return torch.where(chosen, grad, torch.zeros((), dtype=grad.dtype, device=grad.device)), None, None, None


def _require_terms(op: str, x: torch.Tensor, dims: tuple[int, ...]) -> None:
    if any(x.shape[d] == 0 for d in dims):
        raise InputError(f"{op}: no elements to choose from in a tensor of shape {tuple(x.shape)}; reduce others")


def _extreme(op: str, x: torch.Tensor, dim: Dims, keepdim: bool, largest: bool) -> torch.Tensor:
    require_float(op, x)
    dims = reduced_dims(op, x, dim)
    _require_terms(op, x, dims)
    return narrowed(Extreme.apply(widened(x), dims, keepdim, largest), x.dtype)


def _one_dim(op: str, x: torch.Tensor, dim: int) -> int:
    if not isinstance(dim, int) or isinstance(dim, bool):
        what = "a tensor; use maximum or minimum" if isinstance(dim, torch.Tensor) else repr(dim)
        raise InputError(f"{op}: dim must be one integer, got {what}")
    reduced_dims(op, x, dim)
    return dim % (x.dim() or 1)


def _extreme_along(
    op: str, x: torch.Tensor, dim: int, keepdim: bool, largest: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    require_float(op, x)
    dim = _one_dim(op, x, dim)
    rows = widened(x).reshape(x.shape or (1,))
    _require_terms(op, rows, (dim,))
    y, index = ExtremeAlong.apply(rows, dim, keepdim, largest)
    if x.dim() == 0:
        y, index = y.reshape(()), index.reshape(())
    return getattr(torch.return_types, op)((narrowed(y, x.dtype), index))


def _position(op: str, x: torch.Tensor, dim: int | None, keepdim: bool, largest: bool) -> torch.Tensor:
    require_float(op, x)
    engine_for(x)
    rows = widened(x.detach())
    rows = rows.reshape(-1) if dim is None else rows.reshape(x.shape or (1,))
    along = 0 if dim is None else _one_dim(op, x, dim)
    _require_terms(op, rows, (along,))
    keys = order_keys(rows, nan_last=largest)
    index = first_position(keys, extreme_keys(keys, (along,), largest), along)
    if dim is None or x.dim() == 0:
        return index.reshape([1] * x.dim() if keepdim else ())
    return index if keepdim else index.squeeze(along)


@contract(
    "Reductions",
    definition="largest value in the order -Inf .. -0, +0 .. Inf, NaN; gradient: grad / count for each tie",
    error="exact",
    batch_invariant=True,
    kernels=False,
    mirrors="amax",
)
def amax(input: torch.Tensor, dim: Dims = None, keepdim: bool = False) -> torch.Tensor:
    """Largest element over dimensions, as :func:`torch.amax`.

    Args:
        input: binary32, binary64, binary16 or bfloat16, any shape.
        dim: the dimension or dimensions to reduce; all of them for None or an empty tuple.
        keepdim: whether reduced dimensions stay with size 1.

    Returns:
        The largest elements, ``-0 < +0``; the canonical NaN where there is a NaN. Exact. The ``c`` elements with the
        same bits get ``grad / c`` each.

    Raises:
        InputError: ``input`` is not floating-point, nothing to choose from, or ``dim`` is out of range or repeated.
    """
    return _extreme("amax", input, dim, keepdim, largest=True)


@contract(
    "Reductions",
    definition="smallest value in the order NaN, -Inf .. -0, +0 .. Inf; gradient: grad / count for each tie",
    error="exact",
    batch_invariant=True,
    kernels=False,
    mirrors="amin",
)
def amin(input: torch.Tensor, dim: Dims = None, keepdim: bool = False) -> torch.Tensor:
    """Smallest element over dimensions, as :func:`torch.amin`.

    Args:
        input: binary32, binary64, binary16 or bfloat16, any shape.
        dim: the dimension or dimensions to reduce; all of them for None or an empty tuple.
        keepdim: whether reduced dimensions stay with size 1.

    Returns:
        The smallest elements, ``-0 < +0``; the canonical NaN where there is a NaN. Exact. The ``c`` elements with the
        same bits get ``grad / c`` each.

    Raises:
        InputError: as for :func:`amax`.
    """
    return _extreme("amin", input, dim, keepdim, largest=False)


@contract(
    "Reductions",
    definition="amax, or along dim the largest value and its lowest index; gradient: grad to the index",
    error="exact",
    batch_invariant=True,
    kernels=False,
    mirrors="max",
    fake=values_and_indices,
)
def max(
    input: torch.Tensor, dim: int | None = None, keepdim: bool = False
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Largest element, as :func:`torch.max`.

    Args:
        input: binary32, binary64, binary16 or bfloat16, any shape.
        dim: the dimension to reduce; None reduces everything.
        keepdim: whether the reduced dimension stays with size 1.

    Returns:
        :func:`amax` of everything for ``dim`` None; else a named tuple of the largest ``values`` along ``dim`` and
        their int64 ``indices``, the lowest among equal ones (-0 and +0 differ, NaNs are equal and above all). The
        gradient of ``values`` goes to the indices.

    Raises:
        InputError: ``input`` is not floating-point, nothing to choose from, or ``dim`` is out of range or no integer.
    """
    return _max_or_min("max", input, dim, keepdim, largest=True)


@contract(
    "Reductions",
    definition="amin, or along dim the smallest value and its lowest index; gradient: grad to the index",
    error="exact",
    batch_invariant=True,
    kernels=False,
    mirrors="min",
    fake=values_and_indices,
)
def min(
    input: torch.Tensor, dim: int | None = None, keepdim: bool = False
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Smallest element, as :func:`torch.min`.

    Args:
        input: binary32, binary64, binary16 or bfloat16, any shape.
        dim: the dimension to reduce; None reduces everything.
        keepdim: whether the reduced dimension stays with size 1.

    Returns:
        As :func:`max`, for the smallest elements, with NaNs below all others.

    Raises:
        InputError: as for :func:`max`.
    """
    return _max_or_min("min", input, dim, keepdim, largest=False)


def _max_or_min(op: str, x: torch.Tensor, dim: int | None, keepdim: bool, largest: bool) -> Any:
    if dim is None:
        if keepdim:
            raise InputError(f"{op}: keepdim needs a dim; use a{op} to keep all dimensions")
        return _extreme(op, x, None, False, largest)
    return _extreme_along(op, x, dim, keepdim, largest)


@contract(
    "Reductions",
    definition="lowest index of the largest value, -0 below +0, a NaN above all",
    error="exact",
    batch_invariant=True,
    kernels=False,
    mirrors="argmax",
)
def argmax(input: torch.Tensor, dim: int | None = None, keepdim: bool = False) -> torch.Tensor:
    """Index of the largest element, as :func:`torch.argmax`: the lowest among equal ones, the first NaN if any.

    Args:
        input: binary32, binary64, binary16 or bfloat16, any shape.
        dim: the dimension to search; None for the row-major index in the whole tensor.
        keepdim: whether reduced dimensions stay with size 1.

    Returns:
        int64 indices.

    Raises:
        InputError: ``input`` is not floating-point, nothing to choose from, or ``dim`` is out of range or no integer.
    """
    return _position("argmax", input, dim, keepdim, largest=True)


@contract(
    "Reductions",
    definition="lowest index of the smallest value, -0 below +0, a NaN below all",
    error="exact",
    batch_invariant=True,
    kernels=False,
    mirrors="argmin",
)
def argmin(input: torch.Tensor, dim: int | None = None, keepdim: bool = False) -> torch.Tensor:
    """Index of the smallest element, as :func:`torch.argmin`: the lowest among equal ones, the first NaN if any.

    Args:
        input: binary32, binary64, binary16 or bfloat16, any shape.
        dim: the dimension to search; None for the row-major index in the whole tensor.
        keepdim: whether reduced dimensions stay with size 1.

    Returns:
        int64 indices.

    Raises:
        InputError: as for :func:`argmax`.
    """
    return _position("argmin", input, dim, keepdim, largest=False)
