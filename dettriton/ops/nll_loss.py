"""nll_loss: the negative log-likelihood of class indices, from log-probabilities ``x`` over ``C`` classes.

Written order for one sample with class ``y``, every operation rounded once to binary32 (R1)::

    loss = 0 - (w_y * x_y)
    grad_x_c = 0 - (w_y * k) for c = y, +0 elsewhere

An absent weight skips its multiplication. An ignored sample has loss +0 and gradient +0 whatever its row holds.
``k`` is the upstream gradient of that sample's loss. With ``reduction="mean"`` the losses' exact sum (R2) is
divided by ``D``, and ``k = g / D``: ``D`` is the exact sum of ``w_y`` over the samples that are not ignored.
Batch-invariant: a sample's loss depends on that sample, its class and the weights alone.
"""

from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.exact.ieee import canonical_nan
from dettriton.ops._contract import contract
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._reduction import check_reduction, loss_factor, reduce_loss, require_no_gradient
from dettriton.ops.sum import exact_sum


def picked(
    x: torch.Tensor, label: torch.Tensor, weight: torch.Tensor | None, ignore_index: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each sample's loss and weight, both (N, ...) like ``label``, from ``x`` (N, C, ...).

    A label that is no class has the canonical NaN for both.
    """
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    ignored = label == ignore_index
    usable = (label >= 0) & (label < x.shape[1])
    safe = torch.where(usable & ~ignored, label, 0)
    row_weight = torch.ones_like(safe, dtype=x.dtype) if weight is None else weight[safe]
    row_weight = torch.where(ignored, zero, torch.where(usable, row_weight, canonical_nan(x)))
    value = x.gather(1, safe.unsqueeze(1)).squeeze(1)
    return torch.where(ignored, zero, zero - row_weight * value), row_weight


class NLLLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        label: torch.Tensor,
        weight: torch.Tensor | None,
        ignore_index: int,
        reduction: str,
    ) -> torch.Tensor:
        engine_for(*(v for v in (x, label, weight) if v is not None))
        losses, row_weight = picked(x, label, weight, ignore_index)
        divisor = exact_sum(row_weight) if reduction == "mean" else None
        ctx.save_for_backward(label, row_weight, divisor)
        ctx.op, ctx.reduction, ctx.shape, ctx.ignore_index = "nll_loss", reduction, x.shape, ignore_index
        return reduce_loss(losses, divisor, reduction)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        label, row_weight, divisor = ctx.saved_tensors
        zero = torch.zeros((), dtype=grad.dtype, device=grad.device)
        pull = zero - row_weight * loss_factor(grad, divisor, ctx.reduction)
        classes = torch.arange(ctx.shape[1], device=grad.device).view(1, -1, *[1] * (len(ctx.shape) - 2))
        chosen = (classes == label.unsqueeze(1)) & (label != ctx.ignore_index).unsqueeze(1)
        return torch.where(chosen, pull.unsqueeze(1), zero), None, None, None, None


@contract(
    "Softmax and losses",
    definition="-(w_y x_y); mean: exact sum over the exact sum of w_y; gradient -(w_y k) at the class, +0 elsewhere",
    error="one rounding a sample; the mean adds two exact sums' and one division's",
    batch_invariant=True,
    kernels=False,
    mirrors="nn.functional.nll_loss",
)
def nll_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """Negative log-likelihood of class indices, as :func:`torch.nn.functional.nll_loss`.

    A sample's loss is ``0 - (w_y * x_y)``, rounded once. After :func:`dettriton.ops.log_softmax` it has the bits of
    :func:`dettriton.ops.cross_entropy` wherever the log-probability is finite.

    Args:
        input: binary32 log-probabilities, (C,), (N, C) or (N, C, d1, ...).
        target: int64 class indices, the input's shape without C, each in [0, C) or ``ignore_index``.
        weight: binary32, (C,): a factor for each class.
        size_average: deprecated in torch, refused.
        ignore_index: the class index whose samples count nothing.
        reduce: deprecated in torch, refused.
        reduction: ``"mean"``: the losses' exact sum divided by the exact sum of the target classes' weights, NaN when
            every sample is ignored; ``"sum"``; or ``"none"``.

    Returns:
        A 0-dim tensor, or the samples' losses in the target's shape for ``reduction="none"``.

    Raises:
        InputError: a shape, type or option is wrong; or, for tensors on the CPU, a class index is out of range. On a
            GPU, where looking would stall the device, such a sample's loss is NaN and its gradient +0.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    op = "nll_loss"
    check_reduction(op, size_average, reduce, reduction)
    require_float32(op, input=input, weight=weight)
    require_no_gradient(op, weight=weight)
    class_dim = 0 if input.dim() == 1 else 1
    if input.dim() == 0 or input.shape[class_dim] == 0:
        raise InputError(f"{op}: input must be (C,), (N, C) or (N, C, d1, ...) with C >= 1, got {tuple(input.shape)}")
    classes = input.shape[class_dim]
    if weight is not None and weight.shape != (classes,):
        raise InputError(f"{op}: weight must hold one factor per class, ({classes},), got {tuple(weight.shape)}")
    per_sample = input.select(class_dim, 0).shape
    if target.dtype != torch.int64 or target.shape != per_sample:
        raise InputError(
            f"{op}: class indices must be torch.int64 of shape {tuple(per_sample)} for this input, got "
            f"{target.dtype} of shape {tuple(target.shape)}"
        )
    if target.device.type == "cpu":
        wrong = ((target < 0) | (target >= classes)) & (target != ignore_index)
        if bool(wrong.any()):
            raise InputError(
                f"{op}: target {int(target[wrong][0])} is not a class: classes are 0 to {classes - 1}, and "
                f"ignore_index is {ignore_index}"
            )
    if input.dim() > 1:
        return NLLLoss.apply(input, target, weight, ignore_index, reduction)
    loss = NLLLoss.apply(input.unsqueeze(0), target.reshape(1), weight, ignore_index, reduction)
    return loss.reshape(()) if reduction == "none" else loss
