"""Broadcasting whose gradient is an exact sum: torch's own would add floats in an order of its choosing."""

from typing import Any

import torch

from dettriton.ops._function import first_derivative_only
from dettriton.ops.sum import exact_sum


def sum_to_shape(grad: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The exact sum of ``grad`` over the dimensions that broadcasting ``shape`` to its shape added or stretched."""
    added = grad.dim() - len(shape)
    stretched = (d for d in range(added, grad.dim()) if shape[d - added] == 1 and grad.shape[d] != 1)
    dims = (*range(added), *stretched)
    return exact_sum(grad, dims, keepdim=True).reshape(shape) if dims else grad


class Expand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        ctx.shape = x.shape
        return x.expand(shape)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return sum_to_shape(grad, ctx.shape), None


def expand(x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """``x.expand(shape)`` with an exact sum as its gradient."""
    return x if tuple(x.shape) == tuple(shape) else Expand.apply(x, shape)
