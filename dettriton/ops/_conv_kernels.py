"""What launches the kernels of convolutions; groups of few channels have a kernel of their own, below.

A group of few channels has nothing to multiply as matrices: its terms are added one by one, each value put on its grid
as it is read.
"""

import torch

from dettriton.exact.convolution import Geometry
from dettriton.exact.grid import PRECISION_DIGITS, bits_of
from dettriton.ops._conv_gather import gathered
from dettriton.ops._conv_geometry import by_group
from dettriton.ops._conv_planes import Gather
from dettriton.ops._conv_weight import conv_weight_grad_triton
from dettriton.ops._device import grid_exponent, grid_integer, round_dot
from dettriton.ops._digits import grid_top
from dettriton.ops._epilogue import FUSED_CONSTANTS, PLAIN, PLAIN_CONSTANTS, Epilogue, store_finished
from dettriton.ops._launch import Variant, blocks, jit, kernel, tl

__all__ = [
    "conv_finished_triton",
    "conv_input_grad_finished_triton",
    "conv_input_grad_triton",
    "conv_triton",
    "conv_weight_grad_triton",
]

BLOCK_C, BLOCK_P = 8, 128

FEWEST_CHANNELS = 16
"""Channels of a group that are worth products of matrices, which pad them to a multiple of this."""


@jit
def _read_at(y, tap, size, stride, pad, dilation, TRANSPOSED: tl.constexpr):
    """Along one axis: where a result reads for a tap, and whether there is anything."""
    if TRANSPOSED:
        far = y + pad - tap * dilation
        at = far // stride
        there = (far >= 0) & (far % stride == 0) & (at < size)
    else:
        at = y * stride - pad + tap * dilation
        there = (at >= 0) & (at < size)
    return at, there


@kernel(
    "*fp32 *fp32 *i32 *i32 *fp32 *fp32 *fp32" + " i64" * 24,
    *(Variant({"DIGITS": d, "TRANSPOSED": t, **PLAIN_CONSTANTS}) for d in (3, 2) for t in (False, True)),
    *(Variant({"DIGITS": 3, "TRANSPOSED": False, **fused}) for fused in FUSED_CONSTANTS),
)
def _conv_few_kernel(
    src_ptr, w_ptr, src_top_ptr, w_top_ptr, y_ptr, bias_ptr, before_ptr,
    channels, sources, outs, src_d, src_h, src_w, y_d, y_h, y_w, taps_d, taps_h, taps_w,
    stride_d, stride_h, stride_w, pad_d, pad_h, pad_w, dil_d, dil_h, dil_w, w_group, w_out, w_source,
    DIGITS: tl.constexpr, TRANSPOSED: tl.constexpr,
    HAS_BIAS: tl.constexpr, KEEP: tl.constexpr, ACTIVATION: tl.constexpr,
    BLOCK_C: tl.constexpr = BLOCK_C, BLOCK_P: tl.constexpr = BLOCK_P,
):  # fmt: skip
    """y (batch, channels, y_d, y_h, y_w) from src (batch, groups * sources, src_d, src_h, src_w)."""
    volume = y_d * y_h * y_w
    tiles = tl.cdiv(volume, BLOCK_P)
    sample = tl.program_id(0).to(tl.int64) // tiles
    place = tl.program_id(0).to(tl.int64) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.program_id(1).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    has_channel = channel < channels
    group = channel // outs
    y_depth, y_row, y_col = place // (y_h * y_w), place // y_w % y_h, place % y_w
    src_exp = grid_exponent(tl.load(src_top_ptr + sample))
    w_exp = grid_exponent(tl.load(w_top_ptr + channel, mask=has_channel, other=0))
    src_volume = src_d * src_h * src_w
    src_at = src_ptr + (sample * (channels // outs) + group)[:, None] * sources * src_volume
    w_at = w_ptr + group * w_group + channel % outs * w_out
    total = tl.zeros([BLOCK_C, BLOCK_P], dtype=tl.int64)
    for tap in range(taps_d * taps_h * taps_w):
        d, in_d = _read_at(y_depth, tap // (taps_h * taps_w), src_d, stride_d, pad_d, dil_d, TRANSPOSED)
        h, in_h = _read_at(y_row, tap // taps_w % taps_h, src_h, stride_h, pad_h, dil_h, TRANSPOSED)
        w, in_w = _read_at(y_col, tap % taps_w, src_w, stride_w, pad_w, dil_w, TRANSPOSED)
        at = ((d * src_h + h) * src_w + w)[None, :]
        mask = has_channel[:, None] & (in_d & in_h & in_w & (place < volume))[None, :]
        for source in range(sources):
            x = tl.load(src_at + source * src_volume + at, mask=mask, other=0.0)
            weight = tl.load(w_at + source * w_source + tap, mask=has_channel, other=0.0)
            q = grid_integer(weight, w_exp, 7 * DIGITS - 1).to(tl.int64)
            total += q[:, None] * grid_integer(x, src_exp, 7 * DIGITS - 1)
    y = round_dot(total, (src_exp + w_exp)[:, None] - 2 * (7 * DIGITS - 1))
    y_at = (sample * channels + channel)[None, :] * volume + place[:, None]
    mask = (place < volume)[:, None] & has_channel[None, :]
    store_finished(
        tl.trans(y), bias_ptr, channel, has_channel, before_ptr, y_ptr, y_at, mask, HAS_BIAS, KEEP, ACTIVATION
    )


def _few(
    src: torch.Tensor,
    weight: torch.Tensor,
    gather: Gather,
    precision: str,
    tops: tuple[torch.Tensor, torch.Tensor],
    epilogue: Epilogue,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """As :func:`gathered`, for groups of few channels."""
    g = gather.geometry
    channels, filters = g.groups * gather.outs, g.group_in * g.taps
    y = torch.empty(g.batch, channels, *gather.out_size, dtype=torch.float32, device=src.device)
    kept, pointers, finish = epilogue.launch(y)
    strides = (g.taps, filters) if gather.transposed else (filters, g.taps)
    _conv_few_kernel(
        (g.batch * blocks(y.shape[2:].numel(), BLOCK_P), blocks(channels, BLOCK_C)),
        src.contiguous(), weight.contiguous(), *tops, y, *pointers, channels, gather.sources, gather.outs,
        *gather.size, *gather.out_size, *g.kernel, *g.stride, *g.padding, *g.dilation, g.group_out * filters, *strides,
        DIGITS=PRECISION_DIGITS[precision], TRANSPOSED=gather.transposed, **finish,
    )  # fmt: skip
    return y, kept


def _convolved(
    src: torch.Tensor, weight: torch.Tensor, gather: Gather, precision: str, w_top: torch.Tensor, epilogue: Epilogue
) -> tuple[torch.Tensor, torch.Tensor | None]:
    src = src.contiguous()
    tops = grid_top(src, 1, src.shape[0], src.shape[1:].numel()), w_top
    few = gather.geometry.groups > 1 and gather.sources < FEWEST_CHANNELS
    return (_few if few else gathered)(src, weight, gather, precision, tops, epilogue)


def conv_finished_triton(
    x: torch.Tensor, weight: torch.Tensor, g: Geometry, precision: str, epilogue: Epilogue
) -> tuple[torch.Tensor, torch.Tensor | None]:
    bits_of(precision)
    w_top = grid_top(weight.contiguous(), 1, g.out_channels, g.terms_forward)
    return _convolved(x, weight, Gather(g, transposed=False), precision, w_top, epilogue)


def conv_input_grad_finished_triton(
    grad: torch.Tensor, weight: torch.Tensor, g: Geometry, precision: str, epilogue: Epilogue
) -> tuple[torch.Tensor, torch.Tensor | None]:
    bits_of(precision)
    # The grids are the input channels of each group.
    outer, of_grids = g.out_channels, weight
    if g.groups > 1:
        outer, of_grids = 1, by_group(weight, g).transpose(1, 2)
    w_top = grid_top(of_grids.contiguous(), outer, g.in_channels, g.terms_input_grad if outer == 1 else g.taps)
    return _convolved(grad, weight, Gather(g, transposed=True), precision, w_top, epilogue)


def conv_triton(x: torch.Tensor, weight: torch.Tensor, g: Geometry, precision: str) -> torch.Tensor:
    return conv_finished_triton(x, weight, g, precision, PLAIN)[0]


def conv_input_grad_triton(grad: torch.Tensor, weight: torch.Tensor, g: Geometry, precision: str) -> torch.Tensor:
    return conv_input_grad_finished_triton(grad, weight, g, precision, PLAIN)[0]
