"""smooth_l1_loss and huber_loss, elementwise over inputs ``x`` and targets ``y``.

Written order, every operation rounded once to binary32 (R1), ``b`` and ``c`` being ``beta`` and ``delta`` in
binary32::

    d = x - y      a = |d|
    smooth_l1    loss = ((d * 0.5) * d) / b if a < b, else a - (b * 0.5)
                 grad_x = (d / b) * k if a < b, else k * sign(d)
    huber        loss = (d * 0.5) * d if a <= c, else (a - (c * 0.5)) * c
                 grad_x = d * k if a <= c, else (k * c) * sign(d)

and ``loss * weight`` for a huber_loss with weights; ``grad_y`` is ``grad_x`` with ``x`` and ``y`` exchanged. A NaN
difference gives a NaN loss and gradient. ``k = g * weight`` with ``g`` the upstream gradient of that element's
loss, divided first by the number of losses for ``reduction="mean"``, whose value is the losses' exact sum (R2) over
that number. Where shapes differ both are broadcast, and a gradient is the exact sum over the broadcast dimensions.
Batch-invariant: elementwise.
"""

import torch

from dettriton.errors import InputError
from dettriton.ops._contract import contract
from dettriton.ops._elementwise import elementwise, formula
from dettriton.ops._function import require_float32
from dettriton.ops._launch import jit, tl
from dettriton.ops._reduction import (
    binary32,
    check_reduction,
    of_one_shape,
    reduced,
    require_no_gradient,
    require_weight_like,
)
from dettriton.ops.mse_loss import l1_loss


def smooth_l1_torch(x: torch.Tensor, y: torch.Tensor, beta: float) -> torch.Tensor:
    d, b = x - y, torch.tensor(beta, dtype=torch.float32)
    a = d.abs()
    return torch.where(a < b, ((d * 0.5) * d) / b, a - b * 0.5)


@jit
def _smooth_l1(x, y, beta):
    d = x - y
    a = tl.abs(d)
    return tl.where(a < beta, tl.div_rn((d * 0.5) * d, beta), a - beta * 0.5)


def smooth_l1_grad_torch(k: torch.Tensor, x: torch.Tensor, y: torch.Tensor, beta: float) -> torch.Tensor:
    d, b = x - y, torch.tensor(beta, dtype=torch.float32)
    return torch.where(d >= b, k, torch.where(d <= -b, -k, (d / b) * k))


@jit
def _smooth_l1_grad(k, x, y, beta):
    d = x - y
    return tl.where(d >= beta, k, tl.where(d <= beta * -1.0, k * -1.0, tl.div_rn(d, beta) * k))


def smooth_l1_target_grad_torch(k: torch.Tensor, x: torch.Tensor, y: torch.Tensor, beta: float) -> torch.Tensor:
    return smooth_l1_grad_torch(k, y, x, beta)


@jit
def _smooth_l1_target_grad(k, x, y, beta):
    return _smooth_l1_grad(k, y, x, beta)


def huber_torch(x: torch.Tensor, y: torch.Tensor, delta: float) -> torch.Tensor:
    d, c = x - y, torch.tensor(delta, dtype=torch.float32)
    a = d.abs()
    return torch.where(a <= c, (d * 0.5) * d, (a - c * 0.5) * c)


@jit
def _huber(x, y, delta):
    d = x - y
    a = tl.abs(d)
    return tl.where(a <= delta, (d * 0.5) * d, (a - delta * 0.5) * delta)


def huber_grad_torch(k: torch.Tensor, x: torch.Tensor, y: torch.Tensor, delta: float) -> torch.Tensor:
    d, c = x - y, torch.tensor(delta, dtype=torch.float32)
    outside = k * c
    return torch.where(d > c, outside, torch.where(d < -c, -outside, d * k))


@jit
def _huber_grad(k, x, y, delta):
    d = x - y
    outside = k * delta
    return tl.where(d > delta, outside, tl.where(d < delta * -1.0, outside * -1.0, d * k))


def huber_target_grad_torch(k: torch.Tensor, x: torch.Tensor, y: torch.Tensor, delta: float) -> torch.Tensor:
    return huber_grad_torch(k, y, x, delta)


@jit
def _huber_target_grad(k, x, y, delta):
    return _huber_grad(k, y, x, delta)


def _gradient(name: str, host, device):
    return formula(name, host, device, tensors=3, scalars=1)


SMOOTH_L1 = formula(
    "smooth_l1_loss",
    smooth_l1_torch,
    _smooth_l1,
    tensors=2,
    scalars=1,
    gradients=(
        _gradient("gradient of smooth_l1_loss", smooth_l1_grad_torch, _smooth_l1_grad),
        _gradient("gradient of smooth_l1_loss to the target", smooth_l1_target_grad_torch, _smooth_l1_target_grad),
    ),
)
HUBER = formula(
    "huber_loss",
    huber_torch,
    _huber,
    tensors=2,
    scalars=1,
    gradients=(
        _gradient("gradient of huber_loss", huber_grad_torch, _huber_grad),
        _gradient("gradient of huber_loss to the target", huber_target_grad_torch, _huber_target_grad),
    ),
)


@contract(
    "Softmax and losses",
    definition="d^2 / (2 beta) below beta, else abs(d) - beta / 2, in R1; exact sum over their number for the mean",
    error="at most four roundings a term; the mean adds the exact sum's and one division's",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.smooth_l1_loss",
)
def smooth_l1_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> torch.Tensor:
    """Squared below ``beta``, absolute above, as :func:`torch.nn.functional.smooth_l1_loss`; also for the target.

    The module's docstring has the written order; each operation is rounded once, so a loss is within 2 ulp of the
    exact one of the rounded difference below ``beta``, and within one ulp above.

    Args:
        input: binary32, any shape.
        target: binary32, the input's shape; shapes that broadcast give a warning, as in torch.
        size_average: deprecated in torch, refused.
        reduce: deprecated in torch, refused.
        reduction: ``"mean"``: the losses' exact sum divided by their number; ``"sum"``; or ``"none"``.
        beta: at least 0, rounded to binary32; 0 gives :func:`dettriton.ops.l1_loss`.

    Returns:
        A 0-dim tensor, or the losses for ``reduction="none"``. The mean of no losses is NaN.

    Raises:
        InputError: a shape, type or option is wrong.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    op = "smooth_l1_loss"
    check_reduction(op, size_average, reduce, reduction)
    require_float32(op, input=input, target=target)
    if not beta >= 0:
        raise InputError(f"{op}: beta must be at least 0, got {beta}")
    beta = binary32(beta)
    if beta == 0.0:
        return l1_loss(input, target, reduction=reduction)
    losses = elementwise(SMOOTH_L1, *of_one_shape(op, input, target, warn=True), scalars=(beta,))
    return reduced(op, losses, reduction)


@contract(
    "Softmax and losses",
    definition="d^2 / 2 up to delta, else delta (abs(d) - delta / 2), in R1; exact sum over their number for the mean",
    error="at most four roundings a term; the mean adds the exact sum's and one division's",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.huber_loss",
)
def huber_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Squared up to ``delta``, linear above, as :func:`torch.nn.functional.huber_loss`; also for the target.

    The module's docstring has the written order; each operation is rounded once, so a loss is within 2 ulp of the
    exact one of the rounded difference, before its weight.

    Args:
        input: binary32, any shape.
        target: binary32, the input's shape; shapes that broadcast give a warning, as in torch.
        reduction: ``"mean"``: the losses' exact sum divided by their number, also with weights, as in torch;
            ``"sum"``; or ``"none"``.
        delta: above 0, rounded to binary32.
        weight: binary32, the input's shape: a factor for each loss. Never differentiated.

    Returns:
        A 0-dim tensor, or the losses for ``reduction="none"``. The mean of no losses is NaN.

    Raises:
        InputError: a shape, type or option is wrong, or a gradient is asked for ``weight``.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    op = "huber_loss"
    check_reduction(op, None, None, reduction)
    require_float32(op, input=input, target=target, weight=weight)
    require_no_gradient(op, weight=weight)
    if not delta > 0:
        raise InputError(f"{op}: delta must be above 0, got {delta}")
    losses = elementwise(HUBER, *of_one_shape(op, input, target, warn=True), scalars=(binary32(delta),))
    require_weight_like(op, weight, input, losses)
    return reduced(op, losses, reduction, weight)
