"""The kernels of convolutions and what launches them: implicit products of digit planes, gathered by position."""

import torch

from dettriton.exact.convolution import Geometry
from dettriton.ops._conv_geometry import by_group
from dettriton.ops._device import FLUSH, grid_exponent, round_dot
from dettriton.ops._digits import Planes, digit_planes
from dettriton.ops._epilogue import FUSED_CONSTANTS, PLAIN, PLAIN_CONSTANTS, Epilogue, store_finished
from dettriton.ops._launch import Variant, blocks, jit, kernel, tl

BLOCK_M, BLOCK_N, BLOCK_K = 64, 32, 64
SPLIT_TERMS = 1 << 14


@jit
def _split3(index, size_1, size_2):
    """A flat index of a (., size_1, size_2) array as three indices."""
    return index // (size_1 * size_2), index // size_2 % size_1, index % size_2


@kernel(
    "*i8 *i8 *i32 *i32 *fp32 *fp32 *fp32" + " i64" * 22,
    *(
        Variant({"DIGITS": d, "KD": kd, "KH": 3, "KW": 3, "RANK": rank, "TRANSPOSED": t, **PLAIN_CONSTANTS})
        for rank, kd in ((2, 1), (3, 3))
        for d in (3, 2)
        for t in (False, True)
    ),
    *(
        Variant({"DIGITS": 3, "KD": 1, "KH": 3, "KW": 3, "RANK": 2, "TRANSPOSED": False, **fused})
        for fused in FUSED_CONSTANTS
    ),
)
def _conv_kernel(
    src_ptr, w_ptr, src_top_ptr, w_top_ptr, y_ptr, bias_ptr, before_ptr,
    batch, red_group, out_group, src_d, src_h, src_w, y_d, y_h, y_w,
    stride_d, stride_h, stride_w, pad_d, pad_h, pad_w, dil_d, dil_h, dil_w,
    w_out_stride, w_red_stride, plane_src, plane_w,
    DIGITS: tl.constexpr, KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, RANK: tl.constexpr,
    TRANSPOSED: tl.constexpr, HAS_BIAS: tl.constexpr, KEEP: tl.constexpr, ACTIVATION: tl.constexpr,
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
    src_channels = tl.num_programs(2).to(tl.int64) * red_group
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
                src_channel = (sample * src_channels + group * red_group)[:, None] + red[None, :]
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
    channels = group * out_group + outs
    has_channel = outs < out_group
    w_exp = grid_exponent(tl.load(w_top_ptr + channels, mask=has_channel, other=0))
    y = round_dot(total, src_exp[:, None] + w_exp[None, :] - 2 * (7 * DIGITS - 1))
    y_channels = tl.num_programs(2).to(tl.int64) * out_group
    y_at = (sample[:, None] * y_channels + channels[None, :]) * volume + (positions % volume)[:, None]
    mask = inside[:, None] & has_channel[None, :]
    store_finished(y, bias_ptr, channels, has_channel, before_ptr, y_ptr, y_at, mask, HAS_BIAS, KEEP, ACTIVATION)


@kernel(
    "*i8 *i8 *i64" + " i64" * 22,
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


def _rank(*sizes: tuple[int, int, int]) -> int:
    """3 where depth matters to a kernel, otherwise 2."""
    return 2 if all(size[0] == 1 for size in sizes) else 3


def _gather(
    src: torch.Tensor,
    weight: Planes,
    g: Geometry,
    out_shape: tuple[int, ...],
    precision: str,
    transposed: bool,
    epilogue: Epilogue,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    planes = digit_planes(src, src.shape[0], src[0].numel() if len(src) else 0, precision)
    red_group, out_group = (g.group_out, g.group_in) if transposed else (g.group_in, g.group_out)
    channel_stride, filter_stride = g.taps, g.group_in * g.taps
    w_strides = (channel_stride, filter_stride) if transposed else (filter_stride, channel_stride)
    y = torch.empty(out_shape, dtype=torch.float32, device=src.device)
    kept, pointers, finish = epilogue.launch(y)
    _conv_kernel(
        (blocks(y.shape[0] * y.shape[2:].numel(), BLOCK_M), blocks(out_group, BLOCK_N), g.groups),
        planes.digits, weight.digits, planes.top, weight.top, y, *pointers, g.batch, red_group, out_group,
        *src.shape[2:], *out_shape[2:], *g.stride, *g.padding, *g.dilation, *w_strides,
        planes.plane_stride, weight.plane_stride,
        DIGITS=planes.count, KD=g.kernel[0], KH=g.kernel[1], KW=g.kernel[2],
        RANK=_rank(g.kernel, g.size, g.out_size), TRANSPOSED=transposed, **finish,
    )  # fmt: skip
    return y, kept


def conv_finished_triton(
    x: torch.Tensor, weight: torch.Tensor, g: Geometry, precision: str, epilogue: Epilogue
) -> tuple[torch.Tensor, torch.Tensor | None]:
    planes = digit_planes(weight, g.out_channels, g.group_in * g.taps, precision)
    return _gather(x, planes, g, (g.batch, g.out_channels, *g.out_size), precision, False, epilogue)


def conv_input_grad_finished_triton(
    grad: torch.Tensor, weight: torch.Tensor, g: Geometry, precision: str, epilogue: Epilogue
) -> tuple[torch.Tensor, torch.Tensor | None]:
    # The grids are the input channels of each group: put them outermost to share one exponent, then back.
    grouped = by_group(weight, g).transpose(1, 2)
    planes = digit_planes(grouped, g.in_channels, g.group_out * g.taps, precision)
    digits = planes.digits.transpose(2, 3).contiguous()
    shape = (g.batch, g.in_channels, *g.size)
    return _gather(grad, Planes(digits, planes.top), g, shape, precision, True, epilogue)


def conv_triton(x: torch.Tensor, weight: torch.Tensor, g: Geometry, precision: str) -> torch.Tensor:
    return conv_finished_triton(x, weight, g, precision, PLAIN)[0]


def conv_input_grad_triton(grad: torch.Tensor, weight: torch.Tensor, g: Geometry, precision: str) -> torch.Tensor:
    return conv_input_grad_finished_triton(grad, weight, g, precision, PLAIN)[0]


def conv_weight_grad_triton(
    grad: torch.Tensor,
    x: torch.Tensor,
    g: Geometry,
    precision: str,
    grad_top: torch.Tensor | None = None,
    x_top: torch.Tensor | None = None,
) -> torch.Tensor:
    gp = digit_planes(grad, g.out_channels, g.positions, precision, grad_top)
    xp = digit_planes(x, g.in_channels, x.shape[2:].numel(), precision, x_top)
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
