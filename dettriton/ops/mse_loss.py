"""mse_loss and l1_loss, elementwise over inputs ``x`` and targets ``y``.

Written order, every operation rounded once to binary32 (R1)::

    d = x - y
    mse    loss = (d * d) * weight      grad_x = k * (d + d)
    l1     loss = |d| * weight          grad_x = k if d > 0, -k if d < 0, else +0

``grad_y`` is ``grad_x`` of the losses with ``x`` and ``y`` exchanged. An absent weight skips its multiplication.
``k = g * weight`` with ``g`` the upstream gradient of that element's loss. With ``reduction="mean"`` the losses'
exact sum (R2) is divided by ``D``, and ``g`` by ``D`` first: ``D`` is the exact sum of the weights, or without them
the number of losses in binary32. Where shapes differ both are broadcast, and a gradient is the exact sum over the
broadcast dimensions. Batch-invariant: elementwise.
"""

import torch

from dettriton.ops._contract import contract
from dettriton.ops._elementwise import Formula, elementwise, formula
from dettriton.ops._function import require_float32
from dettriton.ops._launch import jit, tl
from dettriton.ops._reduction import (
    check_reduction,
    of_one_shape,
    reduced,
    require_no_gradient,
    require_weight_like,
)
from dettriton.ops.sum import exact_sum


def squared_difference_torch(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    d = x - y
    return d * d


@jit
def _squared_difference(x, y):
    d = x - y
    return d * d


def squared_difference_grad_torch(k: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    d = x - y
    return k * (d + d)


@jit
def _squared_difference_grad(k, x, y):
    d = x - y
    return k * (d + d)


def squared_difference_target_grad_torch(k: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return squared_difference_grad_torch(k, y, x)


@jit
def _squared_difference_target_grad(k, x, y):
    return _squared_difference_grad(k, y, x)


def distance_torch(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x - y).abs()


@jit
def _distance(x, y):
    return tl.abs(x - y)


def distance_grad_torch(k: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    d = x - y
    return torch.where(d > 0, k, torch.where(d < 0, -k, torch.zeros_like(k)))


@jit
def _distance_grad(k, x, y):
    d = x - y
    return tl.where(d > 0, k, tl.where(d < 0, k * -1.0, 0.0))


def distance_target_grad_torch(k: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return distance_grad_torch(k, y, x)


@jit
def _distance_target_grad(k, x, y):
    return _distance_grad(k, y, x)


SQUARED_DIFFERENCE = formula(
    "mse_loss",
    squared_difference_torch,
    _squared_difference,
    tensors=2,
    gradients=(
        formula("gradient of mse_loss", squared_difference_grad_torch, _squared_difference_grad, tensors=3),
        formula(
            "gradient of mse_loss to the target",
            squared_difference_target_grad_torch,
            _squared_difference_target_grad,
            tensors=3,
        ),
    ),
)
DISTANCE = formula(
    "l1_loss",
    distance_torch,
    _distance,
    tensors=2,
    gradients=(
        formula("gradient of l1_loss", distance_grad_torch, _distance_grad, tensors=3),
        formula("gradient of l1_loss to the target", distance_target_grad_torch, _distance_target_grad, tensors=3),
    ),
)


@contract(
    "Softmax and losses",
    definition="(x - y)^2 in R1, exact sum over their number or the exact sum of weights; gradient k * 2(x - y)",
    error="two roundings a term; the mean adds the exact sum's and one division's",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.mse_loss",
)
def mse_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Squared differences, as :func:`torch.nn.functional.mse_loss`; differentiable in the target too.

    ``d = x - y``, ``loss = (d * d) * weight``; each written operation is rounded once, so a loss is within 1.5 ulp of
    the square of the rounded difference.

    Args:
        input: binary32, any shape.
        target: binary32, the input's shape; shapes that broadcast give a warning, as in torch.
        size_average: deprecated in torch, refused.
        reduce: deprecated in torch, refused.
        reduction: ``"mean"``: the losses' exact sum divided by their number, or by the exact sum of ``weight``;
            ``"sum"``; or ``"none"``.
        weight: binary32, the input's shape: a factor for each loss. Never differentiated.

    Returns:
        A 0-dim tensor, or the losses for ``reduction="none"``. The mean of no losses is NaN.

    Raises:
        InputError: a shape, type or option is wrong, or a gradient is asked for ``weight``.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    check_reduction("mse_loss", size_average, reduce, reduction)
    return _difference_loss("mse_loss", SQUARED_DIFFERENCE, input, target, reduction, weight)


@contract(
    "Softmax and losses",
    definition="abs(x - y) in R1, exact sum over their number or the exact sum of weights; gradient k * sign(x - y)",
    error="one rounding a term; the mean adds the exact sum's and one division's",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.l1_loss",
)
def l1_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Absolute differences, as :func:`torch.nn.functional.l1_loss`; differentiable in the target too.

    ``loss = |x - y| * weight``, one rounding each; the gradient is ``+0`` where the difference is 0 or NaN.

    Args:
        input: binary32, any shape.
        target: binary32, the input's shape; shapes that broadcast give a warning, as in torch.
        size_average: deprecated in torch, refused.
        reduce: deprecated in torch, refused.
        reduction: ``"mean"``: the losses' exact sum divided by their number, or by the exact sum of ``weight``;
            ``"sum"``; or ``"none"``.
        weight: binary32, the input's shape: a factor for each loss. Never differentiated.

    Returns:
        A 0-dim tensor, or the losses for ``reduction="none"``. The mean of no losses is NaN.

    Raises:
        InputError: a shape, type or option is wrong, or a gradient is asked for ``weight``.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    check_reduction("l1_loss", size_average, reduce, reduction)
    return _difference_loss("l1_loss", DISTANCE, input, target, reduction, weight)


def _difference_loss(
    op: str,
    chosen: Formula,
    input: torch.Tensor,
    target: torch.Tensor,
    reduction: str,
    weight: torch.Tensor | None,
) -> torch.Tensor:
    require_float32(op, input=input, target=target, weight=weight)
    require_no_gradient(op, weight=weight)
    losses = elementwise(chosen, *of_one_shape(op, input, target, warn=True))
    require_weight_like(op, weight, input, losses)
    divisor = exact_sum(weight) if weight is not None and reduction == "mean" else None
    return reduced(op, losses, reduction, weight, divisor)
