"""var, std and both with the mean, each operation rounded once to the type, ``S`` the exact sum::

    d = x - S(x) / n      degrees = n - correction      var = S(d * d) / degrees      std = sqrt(var)

Gradients, in which the terms through the mean vanish because ``d`` sums to zero in exact arithmetic::

    var    (grad * (2 / degrees)) * d
    std    ((grad / std) / degrees) * d, and +0 where std is 0

Half precision is computed as binary32 and rounded once more. Composed.
"""

from typing import Any

import torch

from dettriton.errors import InputError
from dettriton.exact.ieee import sqrt
from dettriton.exact.root64 import sqrt64
from dettriton.ops._contract import contract
from dettriton.ops._float_types import narrowed, require_float, widened
from dettriton.ops._function import first_derivative_only
from dettriton.ops.mean import mean, term_count
from dettriton.ops.sum import exact_sum, reduced_dims

Dim = int | tuple[int, ...] | None


def _centred(x: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    return x - exact_sum(x, dims, keepdim=True) / term_count(x, dims)


def _kept(shape: torch.Size, dims: tuple[int, ...]) -> list[int]:
    return [1 if d in dims else s for d, s in enumerate(shape)]


def rooted(x: torch.Tensor) -> torch.Tensor:
    """Correctly rounded square root of binary32 or binary64."""
    return sqrt64(x) if x.dtype == torch.float64 else sqrt(x)


class Var(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dims: tuple[int, ...], correction: float, keepdim: bool) -> torch.Tensor:
        centred = _centred(x, dims)
        degrees = term_count(x, dims, correction)
        ctx.save_for_backward(centred, degrees)
        ctx.dims = dims
        return exact_sum(centred * centred, dims, keepdim) / degrees

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        centred, degrees = ctx.saved_tensors
        two = torch.full_like(degrees, 2.0)
        return (grad.reshape(_kept(centred.shape, ctx.dims)) * (two / degrees)) * centred, None, None, None


class Std(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dims: tuple[int, ...], correction: float, keepdim: bool) -> torch.Tensor:
        centred = _centred(x, dims)
        degrees = term_count(x, dims, correction)
        y = rooted(exact_sum(centred * centred, dims, keepdim) / degrees)
        ctx.save_for_backward(centred, degrees, y)
        ctx.dims = dims
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        centred, degrees, y = ctx.saved_tensors
        factor = ((grad / y) / degrees).reshape(_kept(centred.shape, ctx.dims))
        still = (y == 0).reshape(factor.shape)
        zero = torch.zeros((), dtype=y.dtype, device=y.device)
        return torch.where(still, zero, factor * centred), None, None, None


def _correction(op: str, dim: Dim | bool, unbiased: bool | None, correction: float | None) -> tuple[Dim, float]:
    """``dim`` and the correction, from both of torch's ways to give them."""
    if isinstance(dim, bool) and unbiased is None:
        dim, unbiased = None, dim
    if unbiased is not None:
        if not isinstance(unbiased, bool) or correction is not None:
            raise InputError(f"{op}: unbiased is True or False, without a correction, got {unbiased!r}, {correction!r}")
        return dim, float(unbiased)
    if not isinstance(correction, (int, float, type(None))):
        raise InputError(f"{op}: correction must be a number, got {correction!r}")
    return dim, 1 if correction is None else correction


def _spread(
    op: str,
    function: type[torch.autograd.Function],
    x: torch.Tensor,
    dim: Dim | bool,
    unbiased: bool | None,
    keepdim: bool,
    correction: float | None,
) -> torch.Tensor:
    require_float(op, x)
    dim, correction = _correction(op, dim, unbiased, correction)
    return narrowed(function.apply(widened(x), reduced_dims(op, x, dim), correction, keepdim), x.dtype)


def _spread_and_mean(
    op: str,
    function: type[torch.autograd.Function],
    x: torch.Tensor,
    dim: Dim | bool,
    unbiased: bool | None,
    keepdim: bool,
    correction: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    require_float(op, x)
    wide = widened(x)
    spread = _spread(op, function, wide, dim, unbiased, keepdim, correction)
    average = mean(wide, None if isinstance(dim, bool) else dim, keepdim)
    return narrowed(spread, x.dtype), narrowed(average, x.dtype)


def _reduced(input: torch.Tensor, dim: Dim | bool = None, unbiased: Any = None, keepdim: bool = False, **_: Any) -> Any:
    """A fake result; torch's own takes neither None for ``unbiased`` nor for ``dim`` where ``keepdim`` follows."""
    return torch.sum(input, None if isinstance(dim, bool) else dim, keepdim)


def _reduced_twice(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return _reduced(*args, **kwargs), _reduced(*args, **kwargs)


@contract(
    "Reductions",
    definition="S(d * d) / (n - correction), d = x - S(x) / n; gradient: (grad * (2 / (n - correction))) * d",
    error="2^-22 (float64: 2^-51) relative + the square of the mean's rounding",
    batch_invariant=True,
    kernels=True,
    mirrors="var",
    fake=_reduced,
)
def var(
    input: torch.Tensor,
    dim: Dim = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> torch.Tensor:
    """Variance over dimensions, as :func:`torch.var`, in two exact passes.

    Args:
        input: binary32, binary64, binary16 or bfloat16, any shape.
        dim: the dimension or dimensions to reduce; all of them for None.
        unbiased: torch's older way to ask for a ``correction`` of 1 or 0; it may take the place of ``dim``.
        keepdim: whether reduced dimensions stay with size 1.
        correction: subtracted from the number of terms (1: unbiased, the default; 0: population).

    Returns:
        ``S(d * d) / (n - correction)`` with ``d = x - S(x) / n``; NaN or Inf when ``n <= correction``. Never cancels:
        the mean's rounding adds at most its square, ``(2**-24 * |mean|)**2`` (binary64: ``2**-53``), to the variance,
        and the rest is at most ``2**-22`` (``2**-51``) relative. The gradient is
        ``(grad * (2 / (n - correction))) * d``.

    Raises:
        InputError: ``input`` is not floating-point, ``dim`` is out of range or repeated, or ``correction`` is no number
            or given beside ``unbiased``.
    """
    return _spread("var", Var, input, dim, unbiased, keepdim, correction)


@contract(
    "Reductions",
    definition="sqrt(var); gradient: ((grad / std) / (n - correction)) * d, 0 where std is 0",
    error="half of var's relative error + half an ulp",
    batch_invariant=True,
    kernels=True,
    mirrors="std",
    fake=_reduced,
)
def std(
    input: torch.Tensor,
    dim: Dim = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> torch.Tensor:
    """Standard deviation over dimensions, as :func:`torch.std`: the correctly rounded root of :func:`var`.

    Args:
        input: binary32, binary64, binary16 or bfloat16, any shape.
        dim: the dimension or dimensions to reduce; all of them for None.
        unbiased: torch's older way to ask for a ``correction`` of 1 or 0; it may take the place of ``dim``.
        keepdim: whether reduced dimensions stay with size 1.
        correction: subtracted from the number of terms (1: unbiased, the default; 0: population).

    Returns:
        ``sqrt(var(input))``; half precision rounds once, after the root. The gradient is
        ``((grad / std) / (n - correction)) * d`` with ``d`` as in :func:`var`, and +0 where ``std`` is 0.

    Raises:
        InputError: ``input`` is not floating-point, ``dim`` is out of range or repeated, or ``correction`` is no number
            or given beside ``unbiased``.
    """
    return _spread("std", Std, input, dim, unbiased, keepdim, correction)


@contract(
    "Reductions",
    definition="(var, mean); the two gradients are added, one rounding",
    error="those of var and mean",
    batch_invariant=True,
    kernels=True,
    mirrors="var_mean",
    fake=_reduced_twice,
)
def var_mean(
    input: torch.Tensor,
    dim: Dim = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``(var, mean)``, as :func:`torch.var_mean`.

    Args:
        input: binary32, binary64, binary16 or bfloat16, any shape.
        dim: the dimension or dimensions to reduce; all of them for None.
        unbiased: as for :func:`var`.
        keepdim: whether reduced dimensions stay with size 1.
        correction: as for :func:`var`.

    Returns:
        :func:`var` and :func:`dettriton.ops.mean` of the input, bit for bit. Where both are differentiated, the two
        gradients are added, in binary32 for half precision, with one rounding.

    Raises:
        InputError: as for :func:`var`.
    """
    return _spread_and_mean("var_mean", Var, input, dim, unbiased, keepdim, correction)


@contract(
    "Reductions",
    definition="(std, mean); the two gradients are added, one rounding",
    error="those of std and mean",
    batch_invariant=True,
    kernels=True,
    mirrors="std_mean",
    fake=_reduced_twice,
)
def std_mean(
    input: torch.Tensor,
    dim: Dim = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``(std, mean)``, as :func:`torch.std_mean`.

    Args:
        input: binary32, binary64, binary16 or bfloat16, any shape.
        dim: the dimension or dimensions to reduce; all of them for None.
        unbiased: as for :func:`std`.
        keepdim: whether reduced dimensions stay with size 1.
        correction: as for :func:`std`.

    Returns:
        :func:`std` and :func:`dettriton.ops.mean` of the input, bit for bit. Where both are differentiated, the two
        gradients are added, in binary32 for half precision, with one rounding.

    Raises:
        InputError: as for :func:`std`.
    """
    return _spread_and_mean("std_mean", Std, input, dim, unbiased, keepdim, correction)
