"""What the losses share: the ``reduction`` argument, and the mean's one division forward and backward."""

import warnings
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.exact.ieee import canonical_nan
from dettriton.ops._broadcast import expand
from dettriton.ops._function import first_derivative_only
from dettriton.ops.sum import exact_sum

REDUCTIONS = ("mean", "sum", "none")


def check_reduction(op: str, size_average: bool | None, reduce: bool | None, reduction: str) -> None:
    """Raise for torch's deprecated ``size_average`` and ``reduce``, and for an unknown ``reduction``."""
    if size_average is not None or reduce is not None:
        raise InputError(f"{op}: size_average and reduce are deprecated in torch and refused here; use reduction=")
    if reduction not in REDUCTIONS:
        raise InputError(f"{op}: reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")


def require_no_gradient(op: str, **tensors: torch.Tensor | None) -> None:
    """Raise if a gradient is asked for a tensor that the op does not differentiate."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.requires_grad and torch.is_grad_enabled():
            raise InputError(f"{op}: there is no gradient with respect to {name}; pass {name}.detach()")


def reduce_loss(losses: torch.Tensor, divisor: torch.Tensor, reduction: str) -> torch.Tensor:
    """``losses``, their exact sum, or that sum ``/ divisor`` (0-dim binary32), whose NaN is the canonical one."""
    if reduction == "none":
        return losses
    total = exact_sum(losses)
    if reduction == "sum":
        return total
    mean = total / divisor
    return torch.where(mean == mean, mean, canonical_nan(mean))


def loss_factor(grad: torch.Tensor, divisor: torch.Tensor | None, reduction: str) -> torch.Tensor:
    """The gradient of each loss: ``grad`` as it is, or one ``grad / divisor`` for all the losses of a mean."""
    return grad / divisor if reduction == "mean" else grad


def count_of(losses: torch.Tensor) -> torch.Tensor:
    """How many losses there are, as 0-dim binary32 on their device."""
    return torch.full((), losses.numel(), dtype=torch.float32, device=losses.device)


class WeightedLoss(torch.autograd.Function):
    """``reduce_loss(losses * weight)``; the gradient of each loss is ``loss_factor(grad) * weight``."""

    @staticmethod
    def forward(
        ctx: Any,
        op: str,
        losses: torch.Tensor,
        weight: torch.Tensor | None,
        divisor: torch.Tensor | None,
        reduction: str,
    ) -> torch.Tensor:
        engine_for(losses, *(() if weight is None else (weight,)))
        if reduction == "mean" and divisor is None:
            divisor = count_of(losses)
        ctx.op, ctx.reduction, ctx.shape = op, reduction, losses.shape
        ctx.save_for_backward(weight, divisor)
        return reduce_loss(losses if weight is None else losses * weight, divisor, reduction)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, divisor = ctx.saved_tensors
        factor = loss_factor(grad, divisor, ctx.reduction).expand(ctx.shape)
        return None, factor if weight is None else factor * weight, None, None, None


def reduced(
    op: str,
    losses: torch.Tensor,
    reduction: str,
    weight: torch.Tensor | None = None,
    divisor: torch.Tensor | None = None,
) -> torch.Tensor:
    """Each loss times ``weight``, then the reduction, with the gradients of both.

    Args:
        op: the public op, for messages.
        losses: binary32, any shape.
        reduction: one of :data:`REDUCTIONS`.
        weight: binary32 of the losses' shape, never differentiated.
        divisor: 0-dim, what a mean divides by; None for the number of losses.
    """
    return (
        losses if reduction == "none" and weight is None else WeightedLoss.apply(op, losses, weight, divisor, reduction)
    )


def of_one_shape(
    op: str, input: torch.Tensor, target: torch.Tensor, *, warn: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """``input`` and ``target`` broadcast to one shape, their gradients exact sums; ``warn`` where theirs differ."""
    if input.shape == target.shape:
        return input, target
    try:
        shape = torch.broadcast_shapes(input.shape, target.shape)
    except RuntimeError:
        raise InputError(
            f"{op}: input of shape {tuple(input.shape)} and target of shape {tuple(target.shape)} do not broadcast"
        ) from None
    if warn:
        warnings.warn(
            f"{op}: the target's shape {tuple(target.shape)} differs from the input's {tuple(input.shape)}; they are "
            "broadcast, which is seldom meant: give them one shape",
            stacklevel=3,
        )
    return expand(input, shape), expand(target, shape)


def require_weight_like(op: str, weight: torch.Tensor | None, input: torch.Tensor, losses: torch.Tensor) -> None:
    """Raise unless a weight per element has the shape of the input, and of the losses that it multiplies."""
    if weight is not None and (weight.shape != input.shape or weight.shape != losses.shape):
        raise InputError(
            f"{op}: weight must have the input's shape {tuple(input.shape)}, and target no larger one; got "
            f"{tuple(weight.shape)} and losses of shape {tuple(losses.shape)}"
        )


def binary32(value: float) -> float:
    """A Python number rounded to binary32, as formulas take their scalars."""
    return float(torch.tensor(value, dtype=torch.float32))
