"""conv1d, conv2d, conv3d: exact integer convolutions (rule R2), then ``+ bias`` (one rounding).

One definition for three dimensions: a 2-D one is 3-D with depth 1, a 1-D one has height 1 too. Grids: forward, input
per sample and weight per output channel; gradient to the input, grad per sample and weight per input channel; gradient
to the weight, input per input channel and grad per output channel, both over batch and positions; gradient to the bias
an exact sum. Errors as matmul's. Batch-invariant: a sample's result depends only on its own sample.
"""

from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.exact.convolution import (
    Consumer,
    Geometry,
    integer_conv,
    integer_conv_input_grad,
    integer_conv_weight_grad,
)
from dettriton.exact.depthwise import (
    depthwise_conv,
    depthwise_conv_input_grad,
    depthwise_conv_weight_grad,
    is_depthwise,
)
from dettriton.exact.grid import bits_of, check_terms, grid_exponents, quantize
from dettriton.exact.grid import round_dot as round_dot_torch
from dettriton.ops._broadcast import add_bias
from dettriton.ops._contract import contract
from dettriton.ops._conv_geometry import IntOrInts, conv_arguments
from dettriton.ops._device import FLUSH, grid_exponent, round_dot
from dettriton.ops._digits import Planes, digit_planes
from dettriton.ops._function import first_derivative_only
from dettriton.ops._launch import Variant, blocks, jit, kernel, tl

BLOCK_M, BLOCK_N, BLOCK_K = 64, 32, 64
SPLIT_TERMS = 1 << 14


@jit
def _split3(index, size_1, size_2):
    """A flat index of a (., size_1, size_2) array as three indices."""
    return index // (size_1 * size_2), index // size_2 % size_1, index % size_2


@kernel(
    "*i8 *i8 *i32 *i32 *fp32 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64",
    *(
        Variant({"DIGITS": d, "KD": kd, "KH": 3, "KW": 3, "RANK": rank, "TRANSPOSED": t})
        for rank, kd in ((2, 1), (3, 3))
        for d in (3, 2)
        for t in (False, True)
    ),
)
def _conv_kernel(
    src_ptr, w_ptr, src_top_ptr, w_top_ptr, y_ptr, batch, red_group, out_group, src_d, src_h, src_w, y_d, y_h, y_w,
    stride_d, stride_h, stride_w, pad_d, pad_h, pad_w, dil_d, dil_h, dil_w,
    w_out_stride, w_red_stride, plane_src, plane_w,
    DIGITS: tl.constexpr, KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, RANK: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    BLOCK_M: tl.constexpr = BLOCK_M, BLOCK_N: tl.constexpr = BLOCK_N, BLOCK_K: tl.constexpr = BLOCK_K,
):  # fmt: skip
    """Convolution as a gather: y (batch, groups*out_group, *y_size) from src (batch, groups*red_group, *src_size).

    Forward reads src at ``y * stride - pad + tap * dil``; TRANSPOSED (the gradient to the input) reads it at
    ``(y + pad - tap * dil) / stride`` where that divides. Below RANK 3 the depths are 1 and cost nothing.
    """
    group = tl.program_id(2).to(tl.int64)
    positions = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    outs = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    volume = y_d * y_h * y_w
    sample = positions // volume
    depth, row, col = _split3(positions % volume, y_h, y_w)
    channels = tl.num_programs(2).to(tl.int64) * red_group
    terms = red_group * (KD * KH * KW)
    inside = positions < batch * volume
    total = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.int64)
    for start in range(0, terms, FLUSH):
        stop = tl.minimum(start + FLUSH, terms)
        for weight in tl.static_range(2 * DIGITS - 1):
            acc = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.int32)
            for k0 in range(start, stop, BLOCK_K):
                ks = k0 + tl.arange(0, BLOCK_K)
                red = ks // (KD * KH * KW)
                tap = ks % (KD * KH * KW)
                tap_d, tap_h, tap_w = _split3(tap, KH, KW)
                if TRANSPOSED:
                    up = row[:, None] + pad_h - tap_h[None, :] * dil_h
                    left = col[:, None] + pad_w - tap_w[None, :] * dil_w
                    on_grid = (up % stride_h == 0) & (left % stride_w == 0) & (up >= 0) & (left >= 0)
                    h, w = up // stride_h, left // stride_w
                else:
                    h = row[:, None] * stride_h - pad_h + tap_h[None, :] * dil_h
                    w = col[:, None] * stride_w - pad_w + tap_w[None, :] * dil_w
                    on_grid = (h >= 0) & (w >= 0)
                src_mask = inside[:, None] & (ks < stop)[None, :] & on_grid & (h < src_h) & (w < src_w)
                src_channel = (sample * channels + group * red_group)[:, None] + red[None, :]
                src_at = src_channel * (src_d * src_h * src_w) + h * src_w + w
                if RANK == 3:
                    if TRANSPOSED:
                        front = depth[:, None] + pad_d - tap_d[None, :] * dil_d
                        src_mask = src_mask & (front % stride_d == 0) & (front >= 0)
                        d = front // stride_d
                    else:
                        d = depth[:, None] * stride_d - pad_d + tap_d[None, :] * dil_d
                        src_mask = src_mask & (d >= 0)
                    src_mask = src_mask & (d < src_d)
                    src_at += d * (src_h * src_w)
                w_mask = (ks < stop)[:, None] & (outs < out_group)[None, :]
                w_group = group * out_group * w_out_stride
                if TRANSPOSED:
                    w_group = group * red_group * w_red_stride
                w_at = w_group + outs[None, :] * w_out_stride + (red * w_red_stride + tap)[:, None]
                for i in tl.static_range(DIGITS):
                    if weight - i >= 0 and weight - i < DIGITS:
                        a = tl.load(src_ptr + i * plane_src + src_at, mask=src_mask, other=0)
                        b = tl.load(w_ptr + (weight - i) * plane_w + w_at, mask=w_mask, other=0)
                        acc = tl.dot(a, b, acc, out_dtype=tl.int32)
            total += acc.to(tl.int64) << (7 * weight)
    src_exp = grid_exponent(tl.load(src_top_ptr + sample, mask=inside, other=0))
    w_exp = grid_exponent(tl.load(w_top_ptr + group * out_group + outs, mask=outs < out_group, other=0))
    y = round_dot(total, src_exp[:, None] + w_exp[None, :] - 2 * (7 * DIGITS - 1))
    y_channels = tl.num_programs(2).to(tl.int64) * out_group
    y_at = ((sample * y_channels + group * out_group)[:, None] + outs[None, :]) * volume
    tl.store(y_ptr + y_at + (positions % volume)[:, None], y, mask=inside[:, None] & (outs < out_group)[None, :])


@kernel(
    "*i8 *i8 *i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64",
    *(
        Variant({"DIGITS": d, "KD": kd, "KH": 3, "KW": 3, "RANK": rank})
        for rank, kd in ((2, 1), (3, 3))
        for d in (3, 2)
    ),
)
def _conv_weight_grad_kernel(
    g_ptr, x_ptr, total_ptr, batch, in_group, out_group, groups, x_d, x_h, x_w, g_d, g_h, g_w,
    stride_d, stride_h, stride_w, pad_d, pad_h, pad_w, dil_d, dil_h, dil_w, plane_g, plane_x, terms_each,
    DIGITS: tl.constexpr, KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, RANK: tl.constexpr,
    BLOCK_M: tl.constexpr = BLOCK_M, BLOCK_N: tl.constexpr = BLOCK_N, BLOCK_K: tl.constexpr = BLOCK_K,
):  # fmt: skip
    """Adds ``terms_each`` of the terms over batch and positions to total (groups*out_group, in_group*KD*KH*KW)."""
    splits = tl.num_programs(0) // groups
    group = (tl.program_id(0) // splits).to(tl.int64)
    start = (tl.program_id(0) % splits).to(tl.int64) * terms_each
    outs = tl.program_id(2).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    red = cols // (KD * KH * KW)
    tap_d, tap_h, tap_w = _split3(cols % (KD * KH * KW), KH, KW)
    volume = g_d * g_h * g_w
    stop = tl.minimum(start + terms_each, batch * volume)
    width = in_group * (KD * KH * KW)
    total = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.int64)
    for weight in tl.static_range(2 * DIGITS - 1):
        acc = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.int32)
        for k0 in range(start, stop, BLOCK_K):
            ks = k0 + tl.arange(0, BLOCK_K)
            sample = ks // volume
            depth, row, col = _split3(ks % volume, g_h, g_w)
            g_mask = (outs < out_group)[:, None] & (ks < stop)[None, :]
            g_at = (sample * (groups * out_group) + group * out_group)[None, :] + outs[:, None]
            g_at = g_at * volume + (ks % volume)[None, :]
            h = (row * stride_h - pad_h)[:, None] + tap_h[None, :] * dil_h
            w = (col * stride_w - pad_w)[:, None] + tap_w[None, :] * dil_w
            x_mask = (ks < stop)[:, None] & (cols < width)[None, :] & (h >= 0) & (w >= 0) & (h < x_h) & (w < x_w)
            x_channel = (sample * (groups * in_group) + group * in_group)[:, None] + red[None, :]
            x_at = x_channel * (x_d * x_h * x_w) + h * x_w + w
            if RANK == 3:
                d = (depth * stride_d - pad_d)[:, None] + tap_d[None, :] * dil_d
                x_mask = x_mask & (d >= 0) & (d < x_d)
                x_at += d * (x_h * x_w)
            for i in tl.static_range(DIGITS):
                if weight - i >= 0 and weight - i < DIGITS:
                    a = tl.load(g_ptr + i * plane_g + g_at, mask=g_mask, other=0)
                    b = tl.load(x_ptr + (weight - i) * plane_x + x_at, mask=x_mask, other=0)
                    acc = tl.dot(a, b, acc, out_dtype=tl.int32)
        total += acc.to(tl.int64) << (7 * weight)
    at = (group * out_group + outs)[:, None] * width + cols[None, :]
    tl.atomic_add(total_ptr + at, total, mask=(outs < out_group)[:, None] & (cols < width)[None, :])


@kernel("*i64 *i32 *i32 *fp32 i64 i64 i64 i64 i64", Variant({"DIGITS": 3}), Variant({"DIGITS": 2}))
def _round_weight_grad_kernel(
    total_ptr, g_top_ptr, x_top_ptr, y_ptr, n, out_group, in_group, taps, width,
    DIGITS: tl.constexpr, BLOCK: tl.constexpr = 256,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    out = i // width
    channel = out // out_group * in_group + (i % width) // taps
    exponent = grid_exponent(tl.load(g_top_ptr + out, mask=mask, other=0))
    exponent += grid_exponent(tl.load(x_top_ptr + channel, mask=mask, other=0))
    total = tl.load(total_ptr + i, mask=mask, other=0)
    tl.store(y_ptr + i, round_dot(total, exponent - 2 * (7 * DIGITS - 1)), mask=mask)


MAP = (2, 3, 4)
"""The spatial dimensions."""


def conv_torch(x: torch.Tensor, weight: torch.Tensor, g: Geometry, precision: str) -> torch.Tensor:
    bits = bits_of(precision)
    ex, ew = grid_exponents(x, (1, *MAP)), grid_exponents(weight, (1, *MAP))
    exponents = (ex + ew.view(1, -1, 1, 1, 1) - 2 * bits).expand(g.batch, g.out_channels, 1, 1, 1)
    y = torch.empty(g.batch, g.out_channels, *g.out_size)
    integers = depthwise_conv if is_depthwise(g, bits) else integer_conv
    integers(quantize(x, ex, bits), quantize(weight, ew, bits), g, bits, _rounded_into(y, exponents))
    return y


def _rounded_into(y: torch.Tensor, exponents: torch.Tensor) -> Consumer:
    def consume(part: tuple[slice, ...], total: torch.Tensor) -> None:
        y[part] = round_dot_torch(total, exponents[part[:2]])

    return consume


def _by_group(weight: torch.Tensor, g: Geometry) -> torch.Tensor:
    return weight.reshape(g.groups, g.group_out, g.group_in, *g.kernel)


def conv_input_grad_torch(grad: torch.Tensor, weight: torch.Tensor, g: Geometry, precision: str) -> torch.Tensor:
    bits = bits_of(precision)
    grouped = _by_group(weight, g)
    eg, ew = grid_exponents(grad, (1, *MAP)), grid_exponents(grouped, (1, 3, 4, 5))
    exponents = (eg + ew.view(1, -1, 1, 1, 1) - 2 * bits).expand(g.batch, g.in_channels, 1, 1, 1)
    grad_x = torch.empty(g.batch, g.in_channels, *g.size)
    integers = depthwise_conv_input_grad if is_depthwise(g, bits) else integer_conv_input_grad
    integers(quantize(grad, eg, bits), quantize(grouped, ew, bits), g, bits, _rounded_into(grad_x, exponents))
    return grad_x


def conv_weight_grad_torch(grad: torch.Tensor, x: torch.Tensor, g: Geometry, precision: str) -> torch.Tensor:
    bits = bits_of(precision)
    eg, ex = grid_exponents(grad, (0, *MAP)), grid_exponents(x, (0, *MAP))
    integers = depthwise_conv_weight_grad if is_depthwise(g, bits) else integer_conv_weight_grad
    total = integers(quantize(grad, eg, bits), quantize(x, ex, bits), g, bits)
    exponents = eg.view(g.groups, g.group_out, 1) + ex.view(g.groups, 1, g.group_in) - 2 * bits
    return round_dot_torch(total, exponents.view(g.out_channels, g.group_in, 1, 1, 1))


def _rank(*sizes: tuple[int, int, int]) -> int:
    """3 where depth matters to a kernel, otherwise 2."""
    return 2 if all(size[0] == 1 for size in sizes) else 3


def _gather(
    src: torch.Tensor, weight: Planes, g: Geometry, out_shape: tuple[int, ...], precision: str, transposed: bool
) -> torch.Tensor:
    planes = digit_planes(src, src.shape[0], src[0].numel() if len(src) else 0, precision)
    red_group, out_group = (g.group_out, g.group_in) if transposed else (g.group_in, g.group_out)
    channel_stride, filter_stride = g.taps, g.group_in * g.taps
    w_strides = (channel_stride, filter_stride) if transposed else (filter_stride, channel_stride)
    y = torch.empty(out_shape, dtype=torch.float32, device=src.device)
    _conv_kernel(
        (blocks(y.shape[0] * y.shape[2:].numel(), BLOCK_M), blocks(out_group, BLOCK_N), g.groups),
        planes.digits, weight.digits, planes.top, weight.top, y, g.batch, red_group, out_group,
        *src.shape[2:], *out_shape[2:], *g.stride, *g.padding, *g.dilation, *w_strides,
        planes.plane_stride, weight.plane_stride,
        DIGITS=planes.count, KD=g.kernel[0], KH=g.kernel[1], KW=g.kernel[2],
        RANK=_rank(g.kernel, g.size, g.out_size), TRANSPOSED=transposed,
    )  # fmt: skip
    return y


def conv_triton(x: torch.Tensor, weight: torch.Tensor, g: Geometry, precision: str) -> torch.Tensor:
    planes = digit_planes(weight, g.out_channels, g.group_in * g.taps, precision)
    return _gather(x, planes, g, (g.batch, g.out_channels, *g.out_size), precision, False)


def conv_input_grad_triton(grad: torch.Tensor, weight: torch.Tensor, g: Geometry, precision: str) -> torch.Tensor:
    # The grids are the input channels of each group: put them outermost to share one exponent, then back.
    grouped = _by_group(weight, g).transpose(1, 2)
    planes = digit_planes(grouped, g.in_channels, g.group_out * g.taps, precision)
    digits = planes.digits.transpose(2, 3).contiguous()
    return _gather(grad, Planes(digits, planes.top), g, (g.batch, g.in_channels, *g.size), precision, True)


def conv_weight_grad_triton(grad: torch.Tensor, x: torch.Tensor, g: Geometry, precision: str) -> torch.Tensor:
    gp = digit_planes(grad, g.out_channels, g.positions, precision)
    xp = digit_planes(x, g.in_channels, x.shape[2:].numel(), precision)
    width = g.terms_forward
    total = torch.zeros(g.out_channels, width, dtype=torch.int64, device=x.device)
    _conv_weight_grad_kernel(
        (blocks(g.terms_weight_grad, SPLIT_TERMS) * g.groups, blocks(width, BLOCK_N), blocks(g.group_out, BLOCK_M)),
        gp.digits, xp.digits, total, g.batch, g.group_in, g.group_out, g.groups, *g.size, *g.out_size,
        *g.stride, *g.padding, *g.dilation, gp.plane_stride, xp.plane_stride, SPLIT_TERMS,
        DIGITS=gp.count, KD=g.kernel[0], KH=g.kernel[1], KW=g.kernel[2], RANK=_rank(g.kernel, g.size, g.out_size),
    )  # fmt: skip
    grad_weight = torch.empty(g.out_channels, g.group_in, *g.kernel, dtype=torch.float32, device=x.device)
    n = total.numel()
    _round_weight_grad_kernel(
        (blocks(n, 256),), total, gp.top, xp.top, grad_weight, n, g.group_out, g.group_in, g.taps, width,
        DIGITS=gp.count,
    )  # fmt: skip
    return grad_weight


FORWARD = {"torch": conv_torch, "triton": conv_triton}
INPUT_GRAD = {"torch": conv_input_grad_torch, "triton": conv_input_grad_triton}
WEIGHT_GRAD = {"torch": conv_weight_grad_torch, "triton": conv_weight_grad_triton}


class Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, g: Geometry, precision: str) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.precision = g, precision
        check_terms("conv", g.terms_forward)
        return FORWARD[engine_for(x, weight)](x, weight, g, precision)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        g, precision, engine = ctx.geometry, ctx.precision, engine_for(grad, x, weight)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            check_terms("gradient of conv to its input", g.terms_input_grad)
            grad_x = INPUT_GRAD[engine](grad, weight, g, precision)
        if ctx.needs_input_grad[1]:
            check_terms("gradient of conv to its weight", g.terms_weight_grad)
            grad_weight = WEIGHT_GRAD[engine](grad, x, g, precision)
        return grad_x, grad_weight, None, None


DEFINITION = (
    "dot products on a grid per sample and per output channel, then + bias; gradient to the input: grids per sample of "
    "grad and per input channel of weight; to the weight: grids per channel over batch and positions"
)
ERROR = "1.7e-6 relative on Gaussian data (medium: 2.1e-4); terms * 2^-p of the product of the largest magnitudes"


def _convolve(
    op: str,
    rank: int,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: IntOrInts,
    padding: IntOrInts | str,
    dilation: IntOrInts,
    groups: int,
    precision: str,
) -> torch.Tensor:
    call = conv_arguments(op, rank, input, weight, bias, stride, padding, dilation, groups, precision)
    return call.finish(add_bias(Conv.apply(call.input, call.weight, call.geometry, precision), bias, 1))


@contract(
    "Dot products",
    definition=DEFINITION,
    error=ERROR,
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.conv2d",
)
def conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    *,
    precision: str = "high",
) -> torch.Tensor:
    """2-D convolution, as :func:`torch.nn.functional.conv2d`.

    Args:
        input: binary32 ``(N, C_in, H, W)`` or ``(C_in, H, W)``; each sample is one grid.
        weight: binary32 ``(C_out, C_in/groups, kH, kW)``; each output channel is one grid.
        bias: binary32 ``(C_out,)``, added to the rounded sum.
        stride, dilation: positive integers or pairs.
        padding: zeros on each side: an integer, a pair, ``"valid"`` or ``"same"`` (stride 1).
        groups: divides both channel counts.
        precision: ``"high"`` (20-bit grids) or ``"medium"`` (13-bit grids).

    Returns:
        ``(N, C_out, H_out, W_out)``: exact sums of products of grid integers, rounded to 24 bits once, then scaled;
        relative error on Gaussian data about 1.7e-6 (``high``) and 2.1e-4 (``medium``). A NaN or infinity in a
        sample makes the whole sample the canonical NaN: it has no grid.

    Raises:
        InputError: an operand is not binary32, shapes or arguments do not fit, or a dot product (forward or gradient)
            has more than 2**22 terms.
    """
    return _convolve("conv2d", 2, input, weight, bias, stride, padding, dilation, groups, precision)


@contract(
    "Dot products",
    definition=DEFINITION,
    error=ERROR,
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.conv1d",
)
def conv1d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | tuple[int] = 1,
    padding: int | tuple[int] | str = 0,
    dilation: int | tuple[int] = 1,
    groups: int = 1,
    *,
    precision: str = "high",
) -> torch.Tensor:
    """1-D convolution, as :func:`torch.nn.functional.conv1d`: :func:`conv2d` with height 1.

    Args:
        input: binary32 ``(N, C_in, L)`` or ``(C_in, L)``; each sample is one grid.
        weight: binary32 ``(C_out, C_in/groups, k)``; each output channel is one grid.
        bias, stride, padding, dilation, groups, precision: as :func:`conv2d`.

    Returns:
        ``(N, C_out, L_out)``, with the error bound of :func:`conv2d`.

    Raises:
        InputError: as :func:`conv2d`.
    """
    return _convolve("conv1d", 1, input, weight, bias, stride, padding, dilation, groups, precision)


@contract(
    "Dot products",
    definition=DEFINITION,
    error=ERROR,
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.conv3d",
)
def conv3d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | tuple[int, int, int] = 1,
    padding: int | tuple[int, int, int] | str = 0,
    dilation: int | tuple[int, int, int] = 1,
    groups: int = 1,
    *,
    precision: str = "high",
) -> torch.Tensor:
    """3-D convolution, as :func:`torch.nn.functional.conv3d`.

    Args:
        input: binary32 ``(N, C_in, D, H, W)`` or ``(C_in, D, H, W)``; each sample is one grid.
        weight: binary32 ``(C_out, C_in/groups, kD, kH, kW)``; each output channel is one grid.
        bias, stride, padding, dilation, groups, precision: as :func:`conv2d`, triples instead of pairs.

    Returns:
        ``(N, C_out, D_out, H_out, W_out)``, with the error bound of :func:`conv2d`.

    Raises:
        InputError: as :func:`conv2d`.
    """
    return _convolve("conv3d", 3, input, weight, bias, stride, padding, dilation, groups, precision)
