"""What layer_norm, group_norm, instance_norm and rms_norm share: normalising rows by their own mean and variance.

The input is seen as (N, G, D, P): a row is the D * P elements of one ``(n, g)``, and weight and bias have one value for
each ``(g, d)``. Written order, every operation rounded once to binary32 (R1), every ``S`` an exact sum of a row rounded
once (R2), ``n`` the number of its terms and ``eps`` rounded to binary32 first::

    m = S(x) / n (rms_norm: 0)      d = x - m      v = S(d * d) / n      r = 1 / sqrt(v + eps)
    h = d * r                       y = (h * weight) + bias

    t = g * weight      grad_x = ((t - S(t) / n) - (h * (S(t * h) / n))) * r, for rms_norm without ``- S(t) / n``
    grad_bias = S'(g)   grad_weight = S'(g * h), ``S'`` the exact sum over N and P

An absent weight or bias skips its operation. Batch-invariant: a row's result depends on that row alone.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.exact._jit import compiles
from dettriton.exact.ieee import sqrt
from dettriton.ops._device_rows import (
    add_terms,
    largest_bits,
    rounded_sum,
    row_plan,
    row_tile,
    row_variants,
    store_row_tile,
)
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._launch import jit, kernel, tl
from dettriton.ops._reduction import binary32
from dettriton.ops.sum import exact_sum

ROW, REPEATS = (2, 3), (0, 3)
LONGEST_ROW = 1 << 30

MaybeTensor = torch.Tensor | None


@jit
def _deviations(x_ptr, mean, rows, start, R, C, SQUARED: tl.constexpr, BLOCK_C: tl.constexpr):
    """``x - mean`` or its square; 0 outside the matrix, because ``mean`` stands there for ``x``."""
    centred = row_tile(x_ptr, rows, start, R, C, mean, BLOCK_C) - mean
    if SQUARED:
        centred = centred * centred
    return centred


@jit
def _sums_of_rows(x_ptr, mean, rows, R, C, SQUARED: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """The exact sum (BLOCK_R, 1) of each row's deviations from ``mean``, or of their squares."""
    bits = tl.zeros((BLOCK_R, 1), tl.int32)
    for start in range(0, C, BLOCK_C):
        bits = largest_bits(bits, _deviations(x_ptr, mean, rows, start, R, C, SQUARED, BLOCK_C))
    hi = tl.zeros((BLOCK_R, 1), tl.int64)
    lo = tl.zeros((BLOCK_R, 1), tl.int64)
    for start in range(0, C, BLOCK_C):
        hi, lo = add_terms(hi, lo, _deviations(x_ptr, mean, rows, start, R, C, SQUARED, BLOCK_C), bits)
    return rounded_sum(hi, lo, bits)


@jit
def _parameter_tile(
    ptr, rows, start, R, C, groups, depth, positions, BY_COLUMN: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """Weights or biases of a tile: one for each column, or for each (row's group, column's channel)."""
    columns = start + tl.arange(0, BLOCK_C)[None, :]
    if BY_COLUMN:
        values = tl.load(ptr + columns, mask=columns < C, other=0.0)
    else:
        channel = columns.to(tl.int32) // tl.cast(positions, tl.int32)
        inside = (rows[:, None] < R) & (columns < C)
        values = tl.load(ptr + (rows % groups)[:, None] * depth + channel, mask=inside, other=0.0)
    return values


FORWARD_VARIANTS = (
    {"CENTRE": True, "BY_COLUMN": True, "HAS_WEIGHT": True, "HAS_BIAS": True},
    {"CENTRE": True, "BY_COLUMN": False, "HAS_WEIGHT": True, "HAS_BIAS": True},
    {"CENTRE": True, "BY_COLUMN": False, "HAS_WEIGHT": False, "HAS_BIAS": False},
    {"CENTRE": False, "BY_COLUMN": True, "HAS_WEIGHT": True, "HAS_BIAS": False},
)

BACKWARD_VARIANTS = (
    {"CENTRE": True, "BY_COLUMN": True, "HAS_WEIGHT": True, "GRAD_X": True, "PRODUCT": True},
    {"CENTRE": True, "BY_COLUMN": False, "HAS_WEIGHT": True, "GRAD_X": True, "PRODUCT": True},
    {"CENTRE": True, "BY_COLUMN": False, "HAS_WEIGHT": False, "GRAD_X": True, "PRODUCT": False},
    {"CENTRE": False, "BY_COLUMN": True, "HAS_WEIGHT": True, "GRAD_X": True, "PRODUCT": True},
    {"CENTRE": False, "BY_COLUMN": True, "HAS_WEIGHT": True, "GRAD_X": False, "PRODUCT": True},
)


@kernel(
    "*fp32 *fp32 *fp32 *fp32 *fp32 *fp32 i64 i64 i64 i64 i64 fp32",
    *(v for constants in FORWARD_VARIANTS for v in row_variants(**constants)),
)
def _row_norm_fwd_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    mean_ptr,
    scale_ptr,
    R,
    C,
    groups,
    depth,
    positions,
    eps,
    CENTRE: tl.constexpr,
    BY_COLUMN: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    n = tl.zeros((BLOCK_R, 1), tl.float32) + tl.cast(C, tl.float32)
    mean = tl.zeros((BLOCK_R, 1), tl.float32)
    if CENTRE:
        mean = tl.div_rn(_sums_of_rows(x_ptr, mean, rows, R, C, False, BLOCK_R, BLOCK_C), n)
        tl.store(mean_ptr + rows[:, None], mean, mask=rows[:, None] < R)
    variance = tl.div_rn(_sums_of_rows(x_ptr, mean, rows, R, C, True, BLOCK_R, BLOCK_C), n)
    scale = tl.div_rn(tl.full((BLOCK_R, 1), 1.0, tl.float32), tl.sqrt_rn(variance + eps))
    tl.store(scale_ptr + rows[:, None], scale, mask=rows[:, None] < R)
    for start in range(0, C, BLOCK_C):
        y = _deviations(x_ptr, mean, rows, start, R, C, False, BLOCK_C) * scale
        if HAS_WEIGHT:
            y = y * _parameter_tile(weight_ptr, rows, start, R, C, groups, depth, positions, BY_COLUMN, BLOCK_C)
        if HAS_BIAS:
            y = y + _parameter_tile(bias_ptr, rows, start, R, C, groups, depth, positions, BY_COLUMN, BLOCK_C)
        store_row_tile(y_ptr, rows, start, R, C, y, BLOCK_C)


@jit
def _weighted_grad(
    grad_ptr,
    weight_ptr,
    rows,
    start,
    R,
    C,
    groups,
    depth,
    positions,
    BY_COLUMN: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    weighted = row_tile(grad_ptr, rows, start, R, C, 0.0, BLOCK_C)
    if HAS_WEIGHT:
        weighted = weighted * _parameter_tile(
            weight_ptr, rows, start, R, C, groups, depth, positions, BY_COLUMN, BLOCK_C
        )
    return weighted


@kernel(
    "*fp32 *fp32 *fp32 *fp32 *fp32 *fp32 *fp32 i64 i64 i64 i64 i64",
    *(v for constants in BACKWARD_VARIANTS for v in row_variants(**constants)),
)
def _row_norm_bwd_kernel(
    grad_ptr,
    x_ptr,
    weight_ptr,
    mean_ptr,
    scale_ptr,
    grad_x_ptr,
    product_ptr,
    R,
    C,
    groups,
    depth,
    positions,
    CENTRE: tl.constexpr,
    BY_COLUMN: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    GRAD_X: tl.constexpr,
    PRODUCT: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """GRAD_X: the gradient to x. PRODUCT: ``g * h``, whose sums are the gradient to the weight."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    scale = tl.load(scale_ptr + rows[:, None], mask=rows[:, None] < R, other=0.0)
    mean = tl.zeros((BLOCK_R, 1), tl.float32)
    if CENTRE:
        mean = tl.load(mean_ptr + rows[:, None], mask=rows[:, None] < R, other=0.0)
    if GRAD_X:
        n = tl.zeros((BLOCK_R, 1), tl.float32) + tl.cast(C, tl.float32)
        bits = tl.zeros((BLOCK_R, 1), tl.int32)
        product_bits = tl.zeros((BLOCK_R, 1), tl.int32)
        for start in range(0, C, BLOCK_C):
            t = _weighted_grad(
                grad_ptr, weight_ptr, rows, start, R, C, groups, depth, positions, BY_COLUMN, HAS_WEIGHT, BLOCK_C
            )
            h = _deviations(x_ptr, mean, rows, start, R, C, False, BLOCK_C) * scale
            product_bits = largest_bits(product_bits, t * h)
            if CENTRE:
                bits = largest_bits(bits, t)
        hi = tl.zeros((BLOCK_R, 1), tl.int64)
        lo = tl.zeros((BLOCK_R, 1), tl.int64)
        product_hi = tl.zeros((BLOCK_R, 1), tl.int64)
        product_lo = tl.zeros((BLOCK_R, 1), tl.int64)
        for start in range(0, C, BLOCK_C):
            t = _weighted_grad(
                grad_ptr, weight_ptr, rows, start, R, C, groups, depth, positions, BY_COLUMN, HAS_WEIGHT, BLOCK_C
            )
            h = _deviations(x_ptr, mean, rows, start, R, C, False, BLOCK_C) * scale
            product_hi, product_lo = add_terms(product_hi, product_lo, t * h, product_bits)
            if CENTRE:
                hi, lo = add_terms(hi, lo, t, bits)
        product_mean = tl.div_rn(rounded_sum(product_hi, product_lo, product_bits), n)
        grad_mean = tl.zeros((BLOCK_R, 1), tl.float32)
        if CENTRE:
            grad_mean = tl.div_rn(rounded_sum(hi, lo, bits), n)
    for start in range(0, C, BLOCK_C):
        h = _deviations(x_ptr, mean, rows, start, R, C, False, BLOCK_C) * scale
        if PRODUCT:
            grad = row_tile(grad_ptr, rows, start, R, C, 0.0, BLOCK_C)
            store_row_tile(product_ptr, rows, start, R, C, grad * h, BLOCK_C)
        if GRAD_X:
            t = _weighted_grad(
                grad_ptr, weight_ptr, rows, start, R, C, groups, depth, positions, BY_COLUMN, HAS_WEIGHT, BLOCK_C
            )
            store_row_tile(grad_x_ptr, rows, start, R, C, ((t - grad_mean) - h * product_mean) * scale, BLOCK_C)


def _terms(x: torch.Tensor) -> torch.Tensor:
    return torch.full((), math.prod(x.shape[2:]), dtype=torch.float32, device=x.device)


def _per_row(statistic: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return statistic.view(*x.shape[:2], 1, 1)


def _per_parameter(parameter: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return parameter.reshape(1, *x.shape[1:3], 1)


def row_norm_torch(
    x: torch.Tensor, weight: MaybeTensor, bias: MaybeTensor, eps: float, centre: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``(y, mean, scale)``, mean and scale (N * G,); without a centre the mean is the scale and unused."""
    if compiles():
        from dettriton.exact.compiled_norm import normalised_rows

        y, mean, scale = normalised_rows(x, weight, bias, eps, centre)
        return y, mean if centre else scale, scale
    n = _terms(x)
    mean = exact_sum(x, ROW) / n if centre else None
    d = x if mean is None else x - _per_row(mean, x)
    shifted = exact_sum(d * d, ROW) / n + torch.full((), eps, dtype=torch.float32)
    scale = torch.ones_like(shifted) / sqrt(shifted)
    y = d * _per_row(scale, x)
    if weight is not None:
        y = y * _per_parameter(weight, x)
    if bias is not None:
        y = y + _per_parameter(bias, x)
    return y, (scale if mean is None else mean).reshape(-1), scale.reshape(-1)


def row_norm_grad_torch(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: MaybeTensor,
    mean: torch.Tensor,
    scale: torch.Tensor,
    centre: bool,
    wanted: Sequence[bool],
) -> tuple[MaybeTensor, MaybeTensor]:
    """The gradient to x, and ``grad * h``, where wanted."""
    if compiles():
        from dettriton.exact.compiled_norm import gradients_of_rows

        return gradients_of_rows(grad, x, weight, mean, scale, centre, wanted)
    n, scale = _terms(x), _per_row(scale, x)
    h = (x - _per_row(mean, x) if centre else x) * scale
    grad_x = None
    if wanted[0]:
        t = grad if weight is None else grad * _per_parameter(weight, x)
        centred = t - exact_sum(t, ROW, keepdim=True) / n if centre else t
        grad_x = (centred - h * (exact_sum(t * h, ROW, keepdim=True) / n)) * scale
    return grad_x, grad * h if wanted[1] else None


def _layout(x: torch.Tensor) -> tuple[tuple[int, ...], dict[str, bool]]:
    """Row count and length, groups, channels of a group, positions; and how kernels find a parameter."""
    count, groups, depth, positions = x.shape
    if depth * positions > LONGEST_ROW:
        raise InputError(f"{depth * positions} elements are normalised together, at most {LONGEST_ROW} fit")
    return (count * groups, depth * positions, groups, depth, positions), {"BY_COLUMN": groups == positions == 1}


def row_norm_triton(
    x: torch.Tensor, weight: MaybeTensor, bias: MaybeTensor, eps: float, centre: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = x.contiguous()
    y = torch.empty_like(x)
    layout, flags = _layout(x)
    scale = torch.empty(layout[0], dtype=x.dtype, device=x.device)
    mean = torch.empty_like(scale) if centre else scale
    affine = (scale if t is None else t.contiguous() for t in (weight, bias))
    flags |= {"CENTRE": centre, "HAS_WEIGHT": weight is not None, "HAS_BIAS": bias is not None}
    grid, plan = row_plan(*layout[:2])
    _row_norm_fwd_kernel(grid, x, *affine, y, mean, scale, *layout, eps, **flags, **plan)
    return y, mean, scale


def row_norm_grad_triton(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: MaybeTensor,
    mean: torch.Tensor,
    scale: torch.Tensor,
    centre: bool,
    wanted: Sequence[bool],
) -> tuple[MaybeTensor, MaybeTensor]:
    grad, x = grad.contiguous(), x.contiguous()
    layout, flags = _layout(x)
    grad_x, product = (torch.empty_like(x) if w else None for w in wanted)
    pointers = (
        scale if weight is None else weight.contiguous(),
        mean,
        scale,
        *(x if t is None else t for t in (grad_x, product)),
    )
    flags |= {"CENTRE": centre, "HAS_WEIGHT": weight is not None, "GRAD_X": wanted[0], "PRODUCT": wanted[1]}
    grid, plan = row_plan(*layout[:2])
    _row_norm_bwd_kernel(grid, grad, x, *pointers, *layout, **flags, **plan)
    return grad_x, product


FORWARD = {"torch": row_norm_torch, "triton": row_norm_triton}
BACKWARD = {"torch": row_norm_grad_torch, "triton": row_norm_grad_triton}


class RowNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, op: str, x: torch.Tensor, weight: MaybeTensor, bias: MaybeTensor, eps: float, centre: bool
    ) -> torch.Tensor:
        y, mean, scale = FORWARD[engine_for(x)](x, weight, bias, eps, centre)
        ctx.op, ctx.centre = op, centre
        ctx.save_for_backward(x, weight, mean, scale)
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[MaybeTensor, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad[1:4]
        grad_x = product = grad_weight = grad_bias = None
        if to_x or to_weight:
            backward = BACKWARD[engine_for(grad, x)]
            grad_x, product = backward(grad, x, weight, mean, scale, ctx.centre, (to_x, to_weight))
        if to_weight:
            grad_weight = exact_sum(product, REPEATS).reshape(-1)
        if to_bias:
            grad_bias = exact_sum(grad, REPEATS).reshape(-1)
        return None, grad_x, grad_weight, grad_bias, None, None


def row_norm(
    op: str,
    input: torch.Tensor,
    view: tuple[int, int, int, int],
    weight: MaybeTensor,
    bias: MaybeTensor,
    eps: float,
    centre: bool = True,
) -> torch.Tensor:
    """``input`` normalised by rows of its (N, G, D, P) view, by the definition at the top of this file.

    Args:
        op: the public op, for messages.
        input: binary32, any shape.
        view: (N, G, D, P).
        weight, bias: binary32 with G * D elements, or None.
        eps: added to the variance.
        centre: whether the mean is subtracted.
    """
    tensors = [t for t in (input, weight, bias) if t is not None]
    engine_for(*tensors)
    flat = (None if t is None else t.reshape(-1) for t in (weight, bias))
    return RowNorm.apply(op, input.reshape(view), *flat, binary32(eps), centre).reshape(input.shape)


def check_row_norm(
    op: str, shape: tuple[int, ...], input: torch.Tensor, weight: MaybeTensor, bias: MaybeTensor
) -> None:
    """Raise unless all are binary32, and weight and bias have ``shape``."""
    require_float32(op, input=input, weight=weight, bias=bias)
    for name, values in (("weight", weight), ("bias", bias)):
        if values is not None and tuple(values.shape) != shape:
            raise InputError(f"{op}: {name} must have shape {shape}, got {tuple(values.shape)}")
