"""What every op's ``autograd.Function`` shares."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from dettriton.errors import InputError


class _NoSecondDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, op: str, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.op = op
        return tuple(g.view_as(g) for g in grads)

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> Any:
        raise InputError(
            f"{ctx.op} has no second derivative in dettriton; call backward() without create_graph=True, "
            "or compute this part with the stock torch op"
        )


def first_derivative_only(backward: Callable) -> Callable:
    """Mark a ``Function.backward`` as not differentiable: a double backward raises an error that names the op."""

    @wraps(backward)
    def wrapped(ctx: Any, *grads: torch.Tensor | None) -> Any:
        differentiating_again = torch.is_grad_enabled()
        with torch.no_grad():
            results = backward(ctx, *grads)
        if not differentiating_again:
            return results
        several = isinstance(results, tuple)
        listed = list(results) if several else [results]
        present = [i for i, g in enumerate(listed) if g is not None]
        op = getattr(ctx, "op", None) or backward.__qualname__.split(".")[0].lstrip("_")
        sealed = _NoSecondDerivative.apply(op, *(listed[i].detach().requires_grad_() for i in present))
        for i, g in zip(present, sealed, strict=True):
            listed[i] = g
        return tuple(listed) if several else listed[0]

    return wrapped


def require_float32(op: str, **tensors: torch.Tensor | None) -> None:
    """Raise unless every given tensor is binary32."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype != torch.float32:
            raise InputError(f"{op}: {name} must be torch.float32, got {tensor.dtype}; convert it with .float()")
