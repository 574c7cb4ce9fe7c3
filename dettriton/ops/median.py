"""median, nanmedian, kthvalue: the element of a given rank. Exact: integers are sorted, never floats.

Values are ordered ``-Inf < ... < -0 < +0 < ... < Inf < NaN``; every NaN equals every other. Of ``n`` values the median
has rank ``(n - 1) // 2`` from 0, the lower of two middle ones; where there is a NaN it is NaN. nanmedian ranks the
values that are not NaN. The position of a value is the lowest one that has it. A result is that element's bits, or the
canonical NaN. Gradient: ``grad`` to that element, +0 to the others. Batch-invariant.
"""

from typing import Any, NamedTuple

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.ops._compile import values_and_indices
from dettriton.ops._contract import contract
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._indexing import dimension
from dettriton.ops._order import order_keys, values_of_keys


class Rank(NamedTuple):
    """Which value of each row: rank ``k`` from 0, or the median's for None, of all values or of those not NaN."""

    k: int | None
    skip_nan: bool = False

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """The rank in each row of (R, n), as (R, 1) int64."""
        n = x.shape[1]
        if self.k is not None:
            return torch.full((x.shape[0], 1), self.k, dtype=torch.int64, device=x.device)
        nans = (x != x).sum(1, keepdim=True)
        if self.skip_nan:
            return ((n - nans - 1) // 2).clamp(min=0)
        return torch.where(nans > 0, n - 1, (n - 1) // 2)


class Ranked(torch.autograd.Function):
    """Over the rows of (R, n): the values of the given rank and their positions, (R,) each."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, rank: Rank, op: str) -> tuple[torch.Tensor, torch.Tensor]:
        engine_for(x)
        ctx.op, ctx.n = op, x.shape[1]
        keys = order_keys(x, nan_last=True)
        chosen = keys.sort(1).values.gather(1, rank.of(x))
        position = torch.arange(ctx.n, dtype=torch.int64, device=x.device)
        positions = torch.where(keys == chosen, position, ctx.n).amin(1)
        ctx.save_for_backward(positions)
        ctx.mark_non_differentiable(positions)
        return values_of_keys(chosen, x.dtype).squeeze(1), positions

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (positions,) = ctx.saved_tensors
        rows = torch.zeros(len(grad), ctx.n, dtype=grad.dtype, device=grad.device)
        return rows.scatter_(1, positions[:, None], grad[:, None]), None, None


def _along(op: str, x: torch.Tensor, rank: Rank, dim: int, keepdim: bool) -> tuple[torch.Tensor, torch.Tensor]:
    dim = dimension(op, x, dim)
    moved = (x if x.dim() else x.reshape(1)).movedim(dim, -1)
    if moved.shape[-1] == 0:
        raise InputError(f"{op}: there is no value along dimension {dim} of shape {tuple(x.shape)}")
    found = Ranked.apply(moved.reshape(moved.shape[:-1].numel(), moved.shape[-1]), rank, op)
    shape = torch.Size(1 if keepdim and d == dim else s for d, s in enumerate(x.shape) if keepdim or d != dim)
    values, positions = (v.reshape(shape) for v in found)
    return values, positions


def _median(op: str, x: torch.Tensor, dim: int | None, keepdim: bool, skip_nan: bool) -> Any:
    require_float32(op, input=x)
    rank = Rank(None, skip_nan)
    if dim is None:
        if keepdim:
            raise InputError(f"{op}: keepdim needs dim")
        return _along(op, x.reshape(-1), rank, 0, False)[0]
    return getattr(torch.return_types, op)(_along(op, x, rank, dim, keepdim))


@contract(
    "Indexing",
    definition="the lower median by sorting integer keys, its lowest position; gradient: to that element",
    error="exact",
    batch_invariant=True,
    kernels=False,
    mirrors="median",
    fake=values_and_indices,
)
def median(input: torch.Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median of all elements or along a dimension, as :func:`torch.median`.

    Of several elements equal to it the one of the lowest index is chosen and has the whole gradient, also where torch
    shares it (without ``dim``). Exact.

    Args:
        input: binary32, not empty along ``dim``.
        dim: the dimension to go along; all elements for None.
        keepdim: whether that dimension stays with size 1.

    Returns:
        The 0-dim median; with ``dim`` a named tuple of ``values`` and int64 ``indices``. The canonical NaN, and the
        index of the first NaN, where there is a NaN.

    Raises:
        InputError: ``input`` is not binary32, ``dim`` is out of range, or there is no element.
        EngineError: the engine cannot run on the input's device.
    """
    return _median("median", input, dim, keepdim, False)


@contract(
    "Indexing",
    definition="the lower median of the values that are not NaN, its lowest position; gradient: to that element",
    error="exact",
    batch_invariant=True,
    kernels=False,
    mirrors="nanmedian",
    fake=values_and_indices,
)
def nanmedian(input: torch.Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median of the elements that are not NaN, as :func:`torch.nanmedian`; see :func:`median`.

    Args:
        input: binary32, not empty along ``dim``.
        dim: the dimension to go along; all elements for None.
        keepdim: whether that dimension stays with size 1.

    Returns:
        As :func:`median`; the canonical NaN, and the first index, where every element is NaN.

    Raises:
        InputError: ``input`` is not binary32, ``dim`` is out of range, or there is no element.
        EngineError: the engine cannot run on the input's device.
    """
    return _median("nanmedian", input, dim, keepdim, True)


@contract(
    "Indexing",
    definition="the k-th smallest value by sorting integer keys, its lowest position; gradient: to that element",
    error="exact",
    batch_invariant=True,
    kernels=False,
    mirrors="kthvalue",
)
def kthvalue(input: torch.Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The ``k``-th smallest element along a dimension, as :func:`torch.kthvalue`; NaN counts as the largest. Exact.

    Of several elements equal to it the one of the lowest index is chosen and has the whole gradient.

    Args:
        input: binary32.
        k: which, from 1 to the size along ``dim``.
        dim: the dimension to go along.
        keepdim: whether that dimension stays with size 1.

    Returns:
        A named tuple of ``values`` and int64 ``indices``.

    Raises:
        InputError: ``input`` is not binary32, or ``k`` or ``dim`` is out of range.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("kthvalue", input=input)
    size = input.shape[dimension("kthvalue", input, dim)] if input.dim() else 1
    if not 1 <= k <= size:
        raise InputError(f"kthvalue: k must lie in [1, {size}], the size along dimension {dim}, got {k}")
    return torch.return_types.kthvalue(_along("kthvalue", input, Rank(k - 1), dim, keepdim))
