"""batch_norm: normalise each channel by its mean and variance, then scale and shift.

Written order, every operation rounded once to binary32 (R1), every ``S`` an exact sum rounded once (R2) over all axes
but the channel's, ``n`` the number of its terms and ``eps`` rounded to binary32 first::

    training   m = S(x) / n      q = S((x - m) * (x - m))      v = q / n        u = q / (n - 1)
    inference  m = running_mean  v = running_var
    both       r = 1 / sqrt(v + eps)      h = (x - m) * r      y = (h * weight) + bias
    running    running_mean = (running_mean * (1 - momentum)) + (m * momentum), running_var the same with u
    gradients  grad_bias = S(g)      grad_weight = S(g * h)      k = weight * r
    training   grad_x = ((g - grad_bias / n) - (h * (grad_weight / n))) * k
    inference  grad_x = g * k

batch_norm_relu's epilogue is ``relu(y + residual)``; ``g`` is then its gradient where the result is above 0, else +0.
An absent weight, bias or residual skips its operation; ``momentum`` and ``1 - momentum`` (binary64) are rounded to
binary32. At inference the op is elementwise, so a sample's result cannot depend on its batch.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.exact._jit import compiles
from dettriton.exact.ieee import sqrt
from dettriton.ops._compile import Mutation
from dettriton.ops._contract import contract
from dettriton.ops._elementwise import evaluate
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._launch import Variant, blocks, jit, kernel, tl
from dettriton.ops.relu import RELU, RELU_GRADIENT
from dettriton.ops.sum import exact_sum

BLOCK = 1024
MAX_POSITIONS = 1 << 30

relu_f32, relu_gradient_f32 = RELU.device, RELU_GRADIENT.device

TRACKED = ("running_mean", "running_var")
"""The tensors that training changes in place."""

MaybeTensor = torch.Tensor | None
Grads = tuple[MaybeTensor, MaybeTensor, MaybeTensor, MaybeTensor]
"""The gradients to x, weight, bias and residual."""


@jit
def _elements(n, channels, positions, BLOCK: tl.constexpr):
    # One 64-bit division a block and 32-bit ones per element: 64-bit division per element would cost more than the op.
    first = tl.program_id(0).to(tl.int64) * BLOCK
    channels, positions = tl.cast(channels, tl.int64), tl.cast(positions, tl.int64)
    channel = ((first // positions) % channels).to(tl.int32)
    position = (first % positions).to(tl.int32) + tl.arange(0, BLOCK)
    offsets = first + tl.arange(0, BLOCK)
    return offsets, offsets < n, (channel + position // positions.to(tl.int32)) % channels.to(tl.int32)


@kernel("*fp32 *fp32 *fp32 i64 i64 i64")
def _batch_norm_square_kernel(x_ptr, mean_ptr, out_ptr, n, channels, positions, BLOCK: tl.constexpr = BLOCK):
    at, mask, channel = _elements(n, channels, positions, BLOCK)
    centred = tl.load(x_ptr + at, mask=mask, other=0.0) - tl.load(mean_ptr + channel)
    tl.store(out_ptr + at, centred * centred, mask=mask)


EPILOGUES = ((False, False), (False, True), (True, True))
FORWARD_VARIANTS = tuple(
    Variant({"HAS_WEIGHT": weight, "HAS_BIAS": bias, "RESIDUAL": residual, "RELU": relu})
    for weight in (True, False)
    for bias in (True, False)
    for residual, relu in EPILOGUES
)


@kernel("*fp32 *fp32 *fp32 *fp32 *fp32 *fp32 *fp32 i64 i64 i64", *FORWARD_VARIANTS)
def _batch_norm_fwd_kernel(
    x_ptr,
    mean_ptr,
    scale_ptr,
    weight_ptr,
    bias_ptr,
    residual_ptr,
    y_ptr,
    n,
    channels,
    positions,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    RELU: tl.constexpr,
    BLOCK: tl.constexpr = BLOCK,
):
    at, mask, channel = _elements(n, channels, positions, BLOCK)
    y = (tl.load(x_ptr + at, mask=mask, other=0.0) - tl.load(mean_ptr + channel)) * tl.load(scale_ptr + channel)
    if HAS_WEIGHT:
        y = y * tl.load(weight_ptr + channel)
    if HAS_BIAS:
        y = y + tl.load(bias_ptr + channel)
    if RESIDUAL:
        y = y + tl.load(residual_ptr + at, mask=mask, other=0.0)
    if RELU:
        y = relu_f32(y)
    tl.store(y_ptr + at, y, mask=mask)


@kernel("*fp32 *fp32 *fp32 *fp32 *fp32 *fp32 *fp32 i64 i64 i64", *(Variant({"RELU": relu}) for relu in (True, False)))
def _batch_norm_product_kernel(
    grad_ptr,
    x_ptr,
    mean_ptr,
    scale_ptr,
    out_ptr,
    result_ptr,
    masked_ptr,
    n,
    channels,
    positions,
    RELU: tl.constexpr,
    BLOCK: tl.constexpr = BLOCK,
):
    """``grad * h``; after a RELU with this ``result`` the gradient is first masked by it, and kept."""
    at, mask, channel = _elements(n, channels, positions, BLOCK)
    h = (tl.load(x_ptr + at, mask=mask, other=0.0) - tl.load(mean_ptr + channel)) * tl.load(scale_ptr + channel)
    grad = tl.load(grad_ptr + at, mask=mask, other=0.0)
    if RELU:
        grad = relu_gradient_f32(grad, tl.load(result_ptr + at, mask=mask, other=0.0))
        tl.store(masked_ptr + at, grad, mask=mask)
    tl.store(out_ptr + at, grad * h, mask=mask)


@kernel(
    "*fp32 *fp32 *fp32 *fp32 *fp32 *fp32 *fp32 *fp32 i64 i64 i64",
    *(Variant({"TRAINING": training}) for training in (True, False)),
)
def _batch_norm_bwd_kernel(
    grad_ptr,
    x_ptr,
    mean_ptr,
    scale_ptr,
    slope_ptr,
    grad_mean_ptr,
    product_mean_ptr,
    grad_x_ptr,
    n,
    channels,
    positions,
    TRAINING: tl.constexpr,
    BLOCK: tl.constexpr = BLOCK,
):
    at, mask, channel = _elements(n, channels, positions, BLOCK)
    grad = tl.load(grad_ptr + at, mask=mask, other=0.0)
    if TRAINING:
        h = (tl.load(x_ptr + at, mask=mask, other=0.0) - tl.load(mean_ptr + channel)) * tl.load(scale_ptr + channel)
        grad = (grad - tl.load(grad_mean_ptr + channel)) - h * tl.load(product_mean_ptr + channel)
    tl.store(grad_x_ptr + at, grad * tl.load(slope_ptr + channel), mask=mask)


class Statistics(NamedTuple):
    mean: torch.Tensor  # (C,)
    scale: torch.Tensor  # (C,): 1 / sqrt(variance + eps)
    centred: torch.Tensor | None  # x - mean, free to be overwritten, where the engine has already made it


def _axes(x: torch.Tensor) -> tuple[int, ...]:
    return (0, *range(2, x.dim()))


def _per_channel(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return values.view(1, -1, *(1,) * (x.dim() - 2))


def _scalar(value: float, x: torch.Tensor) -> torch.Tensor:
    return torch.full((), value, dtype=torch.float32, device=x.device)


def _terms(x: torch.Tensor) -> int:
    return x.shape[0] * math.prod(x.shape[2:])


def _layout(x: torch.Tensor) -> tuple[int, int, int]:
    positions = math.prod(x.shape[2:])
    if positions > MAX_POSITIONS:
        raise InputError(f"batch_norm: {positions} positions per sample and channel, at most {MAX_POSITIONS} fit")
    return x.numel(), x.shape[1], positions


def _by_channel(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:]))


def batch_norm_statistics_torch(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, MaybeTensor]:
    if compiles():
        from dettriton.exact.compiled_window import mean_and_squares

        return *mean_and_squares(_by_channel(x)), None
    mean = exact_sum(x, _axes(x)) / _scalar(_terms(x), x)
    centred = x - _per_channel(mean, x)
    return mean, exact_sum(centred * centred, _axes(x)), centred


def batch_norm_torch(
    x: torch.Tensor,
    weight: MaybeTensor,
    bias: MaybeTensor,
    statistics: Statistics,
    keep: bool,
    residual: MaybeTensor = None,
    relu: bool = False,
) -> tuple[torch.Tensor, MaybeTensor]:
    mean, scale, centred = statistics
    if compiles():
        from dettriton.exact.compiled_norm import normalised

        # a view of a fresh tensor could not be changed in place by a caller's relu
        y = torch.empty(x.shape)
        added = None if residual is None else _by_channel(residual)
        normalised(_by_channel(x), mean, scale, weight, bias, added, relu, _by_channel(y))
        return y, None
    h = (x - _per_channel(mean, x) if centred is None else centred).mul_(_per_channel(scale, x))
    y = h
    if weight is not None:
        y = torch.mul(h, _per_channel(weight, x), out=None if keep else h)
    if bias is not None:
        y = torch.add(y, _per_channel(bias, x), out=None if keep and y is h else y)
    if residual is not None:
        y = torch.add(y, residual, out=None if keep and y is h else y)
    return RELU.host(y) if relu else y, h if keep else None


def batch_norm_grad_torch(
    grad: torch.Tensor,
    h: torch.Tensor,
    normalisation: tuple[torch.Tensor, torch.Tensor] | None,
    slope: torch.Tensor,
    training: bool,
    wanted: Sequence[bool],
    result: MaybeTensor = None,
) -> Grads:
    if compiles():
        return _batch_norm_grad_compiled(grad, h, normalisation, slope, training, wanted, result)
    if result is not None:
        grad = RELU_GRADIENT.host(grad, result)
    if normalisation is not None:
        mean, scale = (_per_channel(s, h) for s in normalisation)
        h = (h - mean).mul_(scale)
    centre = training and wanted[0]
    grad_bias = exact_sum(grad, _axes(grad)) if centre or wanted[2] else None
    product = grad * h if centre or wanted[1] else None
    grad_weight = None if product is None else exact_sum(product, _axes(grad))
    grad_x = None
    if centre:
        n = _scalar(_terms(grad), grad)
        torch.mul(h, _per_channel(grad_weight / n, h), out=product)
        grad_x = (grad - _per_channel(grad_bias / n, grad)).sub_(product).mul_(_per_channel(slope, grad))
    elif wanted[0]:
        grad_x = grad * _per_channel(slope, grad)
    return grad_x, grad_weight, grad_bias, grad


def _batch_norm_grad_compiled(
    grad: torch.Tensor,
    h: torch.Tensor,
    normalisation: tuple[torch.Tensor, torch.Tensor] | None,
    slope: torch.Tensor,
    training: bool,
    wanted: Sequence[bool],
    result: MaybeTensor,
) -> Grads:
    from dettriton.exact.compiled_norm import centred_gradient
    from dettriton.exact.compiled_window import sums_of_gradients

    centre = training and wanted[0]
    statistics = normalisation or (torch.zeros_like(slope), torch.ones_like(slope))
    terms = _by_channel(grad), _by_channel(h), None if result is None else _by_channel(result)
    grad_bias = grad_weight = grad_x = None
    if centre or wanted[1] or wanted[2]:
        grad_bias, grad_weight = sums_of_gradients(*terms, *statistics)
    if centre:
        n = _scalar(_terms(grad), grad)
        grad_x = centred_gradient(*terms, *statistics, grad_bias / n, grad_weight / n, slope).view(grad.shape)
    if result is not None and (wanted[3] or not centre):
        grad = RELU_GRADIENT.host(grad, result)
    if wanted[0] and not centre:
        grad_x = grad * _per_channel(slope, grad)
    return grad_x, grad_weight, grad_bias, grad


def batch_norm_statistics_triton(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, MaybeTensor]:
    x = x.contiguous()
    mean = exact_sum(x, _axes(x)) / _scalar(_terms(x), x)
    squares = torch.empty_like(x)
    _batch_norm_square_kernel((blocks(x.numel(), BLOCK),), x, mean, squares, *_layout(x))
    return mean, exact_sum(squares, _axes(x)), None


def batch_norm_triton(
    x: torch.Tensor,
    weight: MaybeTensor,
    bias: MaybeTensor,
    statistics: Statistics,
    keep: bool,
    residual: MaybeTensor = None,
    relu: bool = False,
) -> tuple[torch.Tensor, MaybeTensor]:
    x = x.contiguous()
    y = torch.empty_like(x)
    per_channel = (s.contiguous() for s in (statistics.mean, statistics.scale))
    added = (statistics.scale if t is None else t.contiguous() for t in (weight, bias, residual))
    flags = {"HAS_WEIGHT": weight is not None, "HAS_BIAS": bias is not None}
    flags |= {"RESIDUAL": residual is not None, "RELU": relu}
    _batch_norm_fwd_kernel((blocks(x.numel(), BLOCK),), x, *per_channel, *added, y, *_layout(x), **flags)
    return y, None


def batch_norm_grad_triton(
    grad: torch.Tensor,
    h: torch.Tensor,
    normalisation: tuple[torch.Tensor, torch.Tensor] | None,
    slope: torch.Tensor,
    training: bool,
    wanted: Sequence[bool],
    result: MaybeTensor = None,
) -> Grads:
    grad, h = grad.contiguous(), h.contiguous()
    result = None if result is None else result.contiguous()
    grid, layout = (blocks(grad.numel(), BLOCK),), _layout(grad)
    mean, scale = normalisation or (torch.zeros_like(slope), torch.ones_like(slope))
    centre = training and wanted[0]
    grad_weight = grad_x = None
    means = (slope, slope)
    if centre or wanted[1]:
        product = torch.empty_like(grad)
        masked = grad if result is None else torch.empty_like(grad)
        kept = (grad if result is None else result, masked)
        _batch_norm_product_kernel(grid, grad, h, mean, scale, product, *kept, *layout, RELU=result is not None)
        grad, grad_weight = masked, exact_sum(product, _axes(grad))
    elif result is not None:
        grad = evaluate(RELU_GRADIENT, grad, result)
    grad_bias = exact_sum(grad, _axes(grad)) if centre or wanted[2] else None
    if centre:
        n = _scalar(_terms(grad), grad)
        means = (grad_bias / n, grad_weight / n)
    if wanted[0]:
        grad_x = torch.empty_like(grad)
        _batch_norm_bwd_kernel(grid, grad, h, mean, scale, slope, *means, grad_x, *layout, TRAINING=training)
    return grad_x, grad_weight, grad_bias, grad


STATISTICS = {"torch": batch_norm_statistics_torch, "triton": batch_norm_statistics_triton}
FORWARD = {"torch": batch_norm_torch, "triton": batch_norm_triton}
BACKWARD = {"torch": batch_norm_grad_torch, "triton": batch_norm_grad_triton}


class BatchNorm(torch.autograd.Function):
    """batch_norm, or batch_norm_relu with or without a residual."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: MaybeTensor,
        bias: MaybeTensor,
        residual: MaybeTensor,
        statistics: Statistics,
        training: bool,
        relu: bool,
    ) -> torch.Tensor:
        y, h = FORWARD[engine_for(x)](x, weight, bias, statistics, True, residual, relu)
        ctx.op = "batch_norm_relu" if relu else "BatchNorm"
        ctx.normalisation = (statistics.mean, statistics.scale) if h is None else None
        ctx.training = training
        ctx.save_for_backward(x if h is None else h, statistics.scale, weight, y if relu else None)
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[MaybeTensor, ...]:
        h, scale, weight, result = ctx.saved_tensors
        slope = scale if weight is None else weight * scale
        wanted = ctx.needs_input_grad[:4]
        grads = BACKWARD[engine_for(grad, h)](grad, h, ctx.normalisation, slope, ctx.training, wanted, result)
        return *(g if w else None for g, w in zip(grads, wanted, strict=True)), None, None, None


def check_channels(op: str, input: torch.Tensor, **per_channel: MaybeTensor) -> None:
    """Raise unless all are binary32, the input is (N, C, ...), and the rest (C,) or None."""
    given = {name: values for name, values in per_channel.items() if values is not None}
    require_float32(op, input=input, **given)
    if input.dim() < 2:
        raise InputError(f"{op}: input must be (N, C, ...), got shape {tuple(input.shape)}; add a batch axis")
    channels = input.shape[1]
    for name, values in given.items():
        if values.shape != (channels,):
            raise InputError(
                f"{op}: {name} must have shape ({channels},), one value a channel, got {tuple(values.shape)}"
            )
    if ("running_mean" in given) != ("running_var" in given):
        raise InputError(f"{op}: give both running_mean and running_var, or neither")


def check_statistics(op: str, input: torch.Tensor, training: bool, running_mean: MaybeTensor) -> None:
    """Raise unless there is something to normalise by."""
    if not training and running_mean is None:
        raise InputError(f"{op}: inference needs running_mean and running_var; pass them, or training=True")
    if training and _terms(input) < 2:
        raise InputError(
            f"{op}: training needs more than one value per channel, got shape {tuple(input.shape)}; "
            "use a larger batch, or drop the last incomplete one"
        )


def track(running: torch.Tensor, statistic: torch.Tensor, momentum: float) -> None:
    """``running = (running * (1 - momentum)) + (statistic * momentum)``, in place."""
    running.mul_(_scalar(1 - momentum, running)).add_(statistic * _scalar(momentum, running))


def normalise_batch(
    input: torch.Tensor,
    running_mean: MaybeTensor,
    running_var: MaybeTensor,
    weight: MaybeTensor,
    bias: MaybeTensor,
    residual: MaybeTensor,
    training: bool,
    momentum: float,
    eps: float,
    relu: bool,
) -> torch.Tensor:
    """The op on checked arguments, with ``relu(... + residual)`` after it where asked."""
    tensors = [t for t in (input, running_mean, running_var, weight, bias, residual) if t is not None]
    engine, differentiable = engine_for(*tensors), torch.is_grad_enabled()
    with torch.no_grad():
        statistics = _statistics(input.detach(), engine, running_mean, running_var, training, momentum, eps)
        if not (differentiable and any(t.requires_grad for t in tensors)):
            return FORWARD[engine](input, weight, bias, statistics, False, residual, relu)[0]
    return BatchNorm.apply(input, weight, bias, residual, statistics, training, relu)


def _statistics(
    x: torch.Tensor,
    engine: str,
    running_mean: MaybeTensor,
    running_var: MaybeTensor,
    training: bool,
    momentum: float,
    eps: float,
) -> Statistics:
    running = () if running_mean is None or running_var is None else (running_mean, running_var)
    if training and engine == "torch" and compiles():
        from dettriton.exact.compiled_norm import batch_statistics

        return Statistics(*batch_statistics(_by_channel(x), running, momentum, eps), None)
    if training:
        mean, squares, centred = STATISTICS[engine](x)
        variance = squares / _scalar(_terms(x), x)
        if running:
            track(running_mean, mean, momentum)
            track(running_var, squares / _scalar(_terms(x) - 1, x), momentum)
    else:
        mean, variance, centred = running_mean.clone(), running_var, None
    shifted = variance + _scalar(eps, variance)
    return Statistics(mean, torch.ones_like(shifted) / sqrt(shifted), centred)


@contract(
    "Normalisation",
    definition="m = S(x) / n, v = S((x - m)^2) / n, h = (x - m) * (1 / sqrt(v + eps)), (h * weight) + bias; "
    "gradient ((g - S(g) / n) - (h * (S(g * h) / n))) * (weight * r)",
    error="m and v: an ulp each, then one rounding an operation",
    batch_invariant=False,
    kernels=True,
    mirrors="nn.functional.batch_norm",
    mutation=Mutation(TRACKED, "training"),
)
def batch_norm(
    input: torch.Tensor,
    running_mean: MaybeTensor,
    running_var: MaybeTensor,
    weight: MaybeTensor = None,
    bias: MaybeTensor = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Batch normalisation, as :func:`torch.nn.functional.batch_norm` (Ioffe and Szegedy, 2015).

    The order of operations of result, running statistics and gradients is the contract written at the top of this
    file. Mean and variance are exact sums rounded once, then divided, so each is within 1 ulp of the exact mean of
    ``x`` and of the exact mean of the rounded squares (but for the sum's own truncation, 2^-32 of its largest term).

    Args:
        input: binary32, (N, C) or (N, C, ...) with any further axes.
        running_mean, running_var: binary32 (C,); used at inference, updated in place in training if given.
        weight, bias: binary32 (C,), or None to leave out that operation.
        training: normalise by this batch's statistics instead of the running ones.
        momentum: weight of the new statistic in the running one.
        eps: added to the variance.

    Returns:
        A new tensor of the input's shape. Any non-finite value in a channel makes that channel NaN in training.

    Raises:
        InputError: not binary32, fewer than two axes, shapes that do not fit, inference without running statistics,
            or training with fewer than two values per channel.
        EngineError: the engine cannot run on the tensors' device.
    """
    check_channels("batch_norm", input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    check_statistics("batch_norm", input, training, running_mean)
    return normalise_batch(input, running_mean, running_var, weight, bias, None, training, momentum, eps, relu=False)
