"""mean: the exact sum divided by the number of terms: ``sum / n``, ``n`` rounded to the type; one more rounding.

Composed; half precision is computed as binary32 and rounded once more.
"""

import torch

from dettriton.errors import InputError
from dettriton.ops._contract import contract
from dettriton.ops._float_types import narrowed, require_float, widened
from dettriton.ops.sum import Sum, reduced_dims


def term_count(x: torch.Tensor, dims: tuple[int, ...], correction: float = 0) -> torch.Tensor:
    """``n - correction`` as a 0-dim tensor of the type and on the device of ``x``; at least 0, as in torch."""
    n = 1
    for d in dims:
        n *= x.shape[d]
    return torch.full((), max(n - correction, 0), dtype=x.dtype, device=x.device)


@contract(
    "Reductions",
    definition="exact sum / n; gradient: grad / n, broadcast",
    error="1 ulp + 2^-32 (float64: 2^-96) of the largest term",
    batch_invariant=True,
    kernels=True,
    mirrors="mean",
)
def mean(
    input: torch.Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False, *, dtype: None = None
) -> torch.Tensor:
    """Mean over dimensions, as :func:`torch.mean`: :func:`dettriton.ops.sum` divided by ``n``.

    Args:
        input: binary32, binary64, binary16 or bfloat16, any shape.
        dim: the dimension or dimensions to average over; all of them for None.
        keepdim: whether averaged dimensions stay with size 1.
        dtype: only None: the result has the input's type.

    Returns:
        ``sum(input) / n`` with one rounding for the division and ``n`` rounded to the type (half precision: to
        binary32, and the result rounded once more); NaN for no terms. The gradient is ``grad / n``. Error at most
        1 ulp plus the truncation of the sum.

    Raises:
        InputError: ``input`` is not floating-point, or ``dim`` is out of range or repeated.
    """
    require_float("mean", input)
    if dtype is not None:
        raise InputError("mean: dtype is not supported; convert the result with .to(dtype)")
    dims = reduced_dims("mean", input, dim)
    x = widened(input)
    total = Sum.apply(x, dims, keepdim)
    return narrowed(total / term_count(x, dims), input.dtype)
