"""binary_cross_entropy_with_logits and binary_cross_entropy, elementwise over inputs ``x`` and targets ``y``.

Written order of the loss of logits, every operation rounded once to binary32 (R1), exp, log and log1p the library's own
(R3)::

    z = exp(-|x|)
    loss = ((1 - y) * x) + ((1 + ((v - 1) * y)) * (log1p(z) + max(-x, +0)))        v = pos_weight
    loss = loss * weight
    d = 1 + z      up = 1 / d, down = z / d where x >= 0, and the other way round elsewhere
    grad_x = (((1 - y) * up) - ((v * y) * down)) * weight * k
    grad_y = (((v - 1) * (log1p(z) + max(-x, +0))) - x) * weight * k, without pos_weight (-x) * weight * k

``up`` and ``down`` are sigmoid(x) and sigmoid(-x), so neither tail cancels. An absent weight or pos_weight skips its
operations, with the bits that 1 would give where inputs and targets are finite. ``k`` is the upstream gradient of that
element's loss. With ``reduction="mean"`` the losses' exact sum (R2) is divided by their number ``n`` in binary32, and
``k = g / n``. Batch-invariant: elementwise.

The loss of probabilities, where ``clamped`` replaces what is below -100 by -100::

    l = clamped(log(x))      m = clamped(log1p(-x))
    loss = (((y - 1) * m) - (y * l)) * weight      with k = g * weight:
    grad_x = (k * (x - y)) / max((1 - x) * x, [1e-12])      grad_y = (m - l) * k
"""

from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.exact import compiled_elementwise
from dettriton.exact._jit import compiles
from dettriton.exact.elementary import exp, log, log1p
from dettriton.ops._contract import contract
from dettriton.ops._device_elementary import exp_f32, log1p_f32, log_f32
from dettriton.ops._elementwise import elementwise, evaluate, formula
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._launch import Variant, blocks, jit, kernel, tl
from dettriton.ops._reduction import (
    binary32,
    check_reduction,
    count_of,
    loss_factor,
    reduce_loss,
    reduced,
    require_no_gradient,
)
from dettriton.ops.elementary import EXP, LOG1P

BLOCK = 1024
LOWEST_LOG = tl.constexpr(-100.0)
SMALLEST_VARIANCE = tl.constexpr(binary32(1e-12))

_VARIANTS = [Variant({"HAS_WEIGHT": w, "HAS_POS_WEIGHT": v}) for w in (False, True) for v in (False, True)]


@jit
def _repeated(values_ptr, offsets, period, mask):
    return tl.load(values_ptr + offsets % period, mask=mask, other=1.0)


@kernel("*fp32 *fp32 *fp32 *fp32 *fp32 i64 i64 i64", *_VARIANTS)
def _bce_fwd_kernel(
    x_ptr,
    y_ptr,
    weight_ptr,
    pos_weight_ptr,
    loss_ptr,
    n,
    weight_period,
    pos_weight_period,
    HAS_WEIGHT: tl.constexpr,
    HAS_POS_WEIGHT: tl.constexpr,
    BLOCK: tl.constexpr = BLOCK,
):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0)
    y = tl.load(y_ptr + offsets, mask=mask, other=0.0)
    softplus = log1p_f32(exp_f32(tl.abs(x) * -1.0)) + tl.where(x < 0, x * -1.0, 0.0)
    if HAS_POS_WEIGHT:
        softplus = (1.0 + (_repeated(pos_weight_ptr, offsets, pos_weight_period, mask) - 1.0) * y) * softplus
    loss = (1.0 - y) * x + softplus
    if HAS_WEIGHT:
        loss = loss * _repeated(weight_ptr, offsets, weight_period, mask)
    tl.store(loss_ptr + offsets, loss, mask=mask)


@kernel("*fp32 *fp32 *fp32 *fp32 *fp32 *fp32 i64 i64 i64 i64", *_VARIANTS)
def _bce_bwd_kernel(
    factor_ptr,
    x_ptr,
    y_ptr,
    weight_ptr,
    pos_weight_ptr,
    grad_x_ptr,
    n,
    factor_step,
    weight_period,
    pos_weight_period,
    HAS_WEIGHT: tl.constexpr,
    HAS_POS_WEIGHT: tl.constexpr,
    BLOCK: tl.constexpr = BLOCK,
):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0)
    y = tl.load(y_ptr + offsets, mask=mask, other=0.0)
    z = exp_f32(tl.abs(x) * -1.0)
    d = 1.0 + z
    large = tl.div_rn(tl.full((BLOCK,), 1.0, tl.float32), d)
    small = tl.div_rn(z, d)
    up = tl.where(x >= 0, large, small)
    down = tl.where(x >= 0, small, large)
    pull = y
    if HAS_POS_WEIGHT:
        pull = _repeated(pos_weight_ptr, offsets, pos_weight_period, mask) * y
    grad_x = (1.0 - y) * up - pull * down
    if HAS_WEIGHT:
        grad_x = grad_x * _repeated(weight_ptr, offsets, weight_period, mask)
    grad_x = grad_x * tl.load(factor_ptr + offsets * factor_step, mask=mask, other=0.0)
    tl.store(grad_x_ptr + offsets, grad_x, mask=mask)


def bce_torch(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None, pos_weight: torch.Tensor | None
) -> torch.Tensor:
    if compiles():
        return compiled_elementwise.bce_of(x, y, weight, pos_weight)
    one, zero = torch.ones(()), torch.zeros(())
    softplus = log1p(exp(-x.abs())) + torch.where(x < 0, -x, zero)
    if pos_weight is not None:
        softplus = (one + (pos_weight - one) * y) * softplus
    loss = (one - y) * x + softplus
    return loss if weight is None else loss * weight


def bce_grad_torch(
    factor: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor | None,
    pos_weight: torch.Tensor | None,
) -> torch.Tensor:
    if compiles():
        return compiled_elementwise.bce_gradient_of(factor, x, y, weight, pos_weight)
    one = torch.ones(())
    z = exp(-x.abs())
    d = one + z
    large, small = one / d, z / d
    up, down = torch.where(x >= 0, large, small), torch.where(x >= 0, small, large)
    grad_x = (one - y) * up - (y if pos_weight is None else pos_weight * y) * down
    return (grad_x if weight is None else grad_x * weight) * factor


@jit
def _clamped(log_of_it):
    return tl.where(log_of_it < LOWEST_LOG, LOWEST_LOG, log_of_it)


def _clamped_torch(log_of_it: torch.Tensor) -> torch.Tensor:
    return torch.where(log_of_it < -100.0, torch.full_like(log_of_it, -100.0), log_of_it)


def probability_bce_torch(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (y - 1.0) * _clamped_torch(log1p(-x)) - y * _clamped_torch(log(x))


@jit
def _probability_bce(x, y):
    return (y - 1.0) * _clamped(log1p_f32(x * -1.0)) - y * _clamped(log_f32(x))


def probability_bce_grad_torch(k: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    variance = (1.0 - x) * x
    floor = torch.full_like(variance, SMALLEST_VARIANCE.value)
    return (k * (x - y)) / torch.where(variance < floor, floor, variance)


@jit
def _probability_bce_grad(k, x, y):
    variance = (1.0 - x) * x
    return tl.div_rn(k * (x - y), tl.where(variance < SMALLEST_VARIANCE, SMALLEST_VARIANCE, variance))


def probability_bce_target_grad_torch(k: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (_clamped_torch(log1p(-x)) - _clamped_torch(log(x))) * k


@jit
def _probability_bce_target_grad(k, x, y):
    return (_clamped(log1p_f32(x * -1.0)) - _clamped(log_f32(x))) * k


PROBABILITY_BCE = formula(
    "binary_cross_entropy",
    probability_bce_torch,
    _probability_bce,
    tensors=2,
    gradients=(
        formula("gradient of binary_cross_entropy", probability_bce_grad_torch, _probability_bce_grad, tensors=3),
        formula(
            "gradient of binary_cross_entropy to the target",
            probability_bce_target_grad_torch,
            _probability_bce_target_grad,
            tensors=3,
        ),
    ),
)


def bce_target_grad(
    factor: torch.Tensor, x: torch.Tensor, weight: torch.Tensor | None, pos_weight: torch.Tensor | None
) -> torch.Tensor:
    """The gradient of the loss of logits to the targets, on the engine of ``x``."""
    grad_y = -x
    if pos_weight is not None:
        softplus = evaluate(LOG1P, evaluate(EXP, -x.abs())) + torch.where(x < 0, -x, torch.zeros_like(x))
        grad_y = (pos_weight - 1.0) * softplus - x
    return (grad_y if weight is None else grad_y * weight) * factor


def _repeating(values: torch.Tensor | None, like: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Contiguous values and the period with which they repeat along ``like``'s elements; expanded only at need."""
    if values is None:
        return like, 1
    shape = list(values.shape)
    while shape and shape[0] == 1:
        shape.pop(0)
    if tuple(shape) != tuple(like.shape[like.dim() - len(shape) :]):
        values = values.expand_as(like)
    return values.contiguous(), max(values.numel(), 1)


def bce_triton(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None, pos_weight: torch.Tensor | None
) -> torch.Tensor:
    x, y = x.contiguous(), y.contiguous()
    loss = torch.empty_like(x)
    n = x.numel()
    (w, w_period), (v, v_period) = _repeating(weight, x), _repeating(pos_weight, x)
    flags = {"HAS_WEIGHT": weight is not None, "HAS_POS_WEIGHT": pos_weight is not None}
    _bce_fwd_kernel((blocks(n, BLOCK),), x, y, w, v, loss, n, w_period, v_period, **flags)
    return loss


def bce_grad_triton(
    factor: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor | None,
    pos_weight: torch.Tensor | None,
) -> torch.Tensor:
    factor, x, y = factor.contiguous(), x.contiguous(), y.contiguous()
    grad_x = torch.empty_like(x)
    n = x.numel()
    (w, w_period), (v, v_period) = _repeating(weight, x), _repeating(pos_weight, x)
    factor_step = int(factor.numel() > 1)
    flags = {"HAS_WEIGHT": weight is not None, "HAS_POS_WEIGHT": pos_weight is not None}
    _bce_bwd_kernel((blocks(n, BLOCK),), factor, x, y, w, v, grad_x, n, factor_step, w_period, v_period, **flags)
    return grad_x


FORWARD = {"torch": bce_torch, "triton": bce_triton}
BACKWARD = {"torch": bce_grad_torch, "triton": bce_grad_triton}


class BCEWithLogits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        y: torch.Tensor,
        weight: torch.Tensor | None,
        pos_weight: torch.Tensor | None,
        reduction: str,
    ) -> torch.Tensor:
        losses = FORWARD[engine_for(*(t for t in (x, y, weight, pos_weight) if t is not None))](
            x, y, weight, pos_weight
        )
        ctx.save_for_backward(x, y, weight, pos_weight)
        ctx.reduction = reduction
        return reduce_loss(losses, count_of(losses), reduction)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, y, weight, pos_weight = ctx.saved_tensors
        factor = loss_factor(grad, count_of(x), ctx.reduction)
        needs_x, needs_y, *_ = ctx.needs_input_grad
        grad_x = BACKWARD[engine_for(factor, x)](factor, x, y, weight, pos_weight) if needs_x else None
        return grad_x, bce_target_grad(factor, x, weight, pos_weight) if needs_y else None, None, None, None


@contract(
    "Softmax and losses",
    definition="softplus form in R1 with our exp and log1p; exact sum over their number; gradient by sigmoid's tails",
    error="a few ulp of the largest term of a loss; gradient a few ulp for targets 0 and 1",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.binary_cross_entropy_with_logits",
)
def binary_cross_entropy_with_logits(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Binary cross entropy of logits, as :func:`torch.nn.functional.binary_cross_entropy_with_logits`.

    ``loss = ((1 - y) * x) + ((1 + ((pos_weight - 1) * y)) * (log1p(exp(-|x|)) + max(-x, 0)))``, times ``weight``; the
    module's docstring has the whole written order, gradient included. Each written operation is rounded once. For
    targets 0 and 1 the gradient keeps its relative accuracy (a few ulp) however large the logits are.

    Args:
        input: binary32 logits, any shape.
        target: binary32, the input's shape, usually in [0, 1]; differentiable.
        weight: binary32, a factor for each loss; broadcasts to the input's shape. Never differentiated.
        size_average: deprecated in torch, refused.
        reduce: deprecated in torch, refused.
        reduction: ``"mean"``: the losses' exact sum divided by their number; ``"sum"``; or ``"none"``.
        pos_weight: binary32, a factor for the positive part; broadcasts to the input's shape, usually (classes,).
            Never differentiated.

    Returns:
        A 0-dim tensor, or the losses in the input's shape for ``reduction="none"``. The mean of no losses is NaN.

    Raises:
        InputError: a shape, type or option is wrong, or a gradient is asked for a factor.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    op = "binary_cross_entropy_with_logits"
    check_reduction(op, size_average, reduce, reduction)
    require_float32(op, input=input, target=target, weight=weight, pos_weight=pos_weight)
    require_no_gradient(op, weight=weight, pos_weight=pos_weight)
    if target.shape != input.shape:
        raise InputError(f"{op}: target must have the input's shape {tuple(input.shape)}, got {tuple(target.shape)}")
    _require_broadcast(op, input, weight=weight, pos_weight=pos_weight)
    return BCEWithLogits.apply(input, target, weight, pos_weight, reduction)


@contract(
    "Softmax and losses",
    definition="(y - 1) log1p(-x) - y log x in R1, logs clamped at -100; exact sum over their number for the mean",
    error="1.5 ulp of each of the two terms; the mean adds the exact sum's and one division's",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.binary_cross_entropy",
)
def binary_cross_entropy(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """Binary cross entropy of probabilities, as :func:`torch.nn.functional.binary_cross_entropy`.

    ``((y - 1) * log1p(-x)) - (y * log(x))`` with logarithms not below -100, times ``weight``; the module's docstring
    has the whole written order. Each written operation is rounded once. Differentiable in the target too; where torch's
    gradient to the target is infinite, at probabilities 0 and 1, this one is that of the clamped logarithms.

    Args:
        input: binary32 probabilities in [0, 1], any shape.
        target: binary32, the input's shape, usually in [0, 1].
        weight: binary32, a factor for each loss; broadcasts to the input's shape. Never differentiated.
        size_average: deprecated in torch, refused.
        reduce: deprecated in torch, refused.
        reduction: ``"mean"``: the losses' exact sum divided by their number; ``"sum"``; or ``"none"``.

    Returns:
        A 0-dim tensor, or the losses in the input's shape for ``reduction="none"``. The mean of no losses is NaN.

    Raises:
        InputError: a shape, type or option is wrong, or a gradient is asked for ``weight``; or, for tensors on the CPU,
            a probability is outside [0, 1]. On a GPU, where looking would stall the device, its loss is NaN.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    op = "binary_cross_entropy"
    check_reduction(op, size_average, reduce, reduction)
    require_float32(op, input=input, target=target, weight=weight)
    require_no_gradient(op, weight=weight)
    if target.shape != input.shape:
        raise InputError(f"{op}: target must have the input's shape {tuple(input.shape)}, got {tuple(target.shape)}")
    _require_broadcast(op, input, weight=weight)
    if input.device.type == "cpu" and bool(((input < 0) | (input > 1)).any()):
        raise InputError(f"{op}: input must hold probabilities in [0, 1]; for logits use {op}_with_logits")
    losses = elementwise(PROBABILITY_BCE, input, target)
    return reduced(op, losses, reduction, None if weight is None else weight.expand_as(losses))


def _require_broadcast(op: str, input: torch.Tensor, **factors: torch.Tensor | None) -> None:
    for name, factor in factors.items():
        if factor is not None and not _broadcasts(factor.shape, input.shape):
            raise InputError(
                f"{op}: {name} of shape {tuple(factor.shape)} does not broadcast to the input's {tuple(input.shape)}"
            )


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(reversed(shape), reversed(to), strict=False))
