"""Digit planes of convolutions' operands, written in one pass as the product kernels read them.

The sides that are convolved keep their channels innermost, a group at a time, padded to a multiple of 16 channels, and
carry their zero padding with them: every tap of every position is then a plain offset, with no mask. Filters are laid
out as the rows of a matrix: for each tap outside of a run, its run of channels, or of all taps of a kernel's row and
their channels where these are adjacent in memory, padded with zeros to whole blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from dettriton.exact.convolution import Geometry
from dettriton.exact.grid import PRECISION_DIGITS
from dettriton.ops._device import grid_exponent, grid_integer
from dettriton.ops._digits import store_digits
from dettriton.ops._launch import Variant, blocks, kernel, tl
from dettriton.ops._plans import PADDING

BLOCK_P = 64
BLOCK_C = 64
BLOCK = 512


@kernel("*fp32 *i32 *i8" + " i64" * 14, Variant({"DIGITS": 3}), Variant({"DIGITS": 2}))
def _position_digits_kernel(
    x_ptr, top_ptr, planes_ptr, groups, channels, size_d, size_h, size_w, low_d, low_h, low_w,
    full_d, full_h, full_w, channel_sixteenths, plane_sixteenths, volume,
    DIGITS: tl.constexpr, BLOCK_P: tl.constexpr = BLOCK_P, BLOCK_C: tl.constexpr = BLOCK_C,
):  # fmt: skip
    """Planes (DIGITS, batch, groups, full_d, full_h, full_w, 16 * channel_sixteenths) of x, one grid a sample."""
    full = full_d * full_h * full_w
    tiles = tl.cdiv(full, BLOCK_P)
    slab = tl.program_id(0).to(tl.int64) // tiles
    position = tl.program_id(0).to(tl.int64) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.program_id(1).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    d = position // (full_h * full_w) - low_d
    h = position // full_w % full_h - low_h
    w = position % full_w - low_w
    inside = (d >= 0) & (d < size_d) & (h >= 0) & (h < size_h) & (w >= 0) & (w < size_w)
    at = (d * size_h + h) * size_w + w
    mask = (inside & (position < full))[None, :] & (channel < channels)[:, None]
    x = tl.load(x_ptr + (slab * channels + channel)[:, None] * volume + at[None, :], mask=mask, other=0.0)
    q = grid_integer(x, grid_exponent(tl.load(top_ptr + slab // groups)), 7 * DIGITS - 1)
    to = (slab * full + position)[None, :] * channel_sixteenths * 16 + channel[:, None]
    written = (position < full)[None, :] & (channel < channel_sixteenths * 16)[:, None]
    store_digits(q, planes_ptr, plane_sixteenths * 16, to, written, DIGITS)


@kernel("*fp32 *i32 *i8" + " i64" * 13, Variant({"DIGITS": 3}), Variant({"DIGITS": 2}))
def _filter_digits_kernel(
    w_ptr, top_ptr, planes_ptr, n, outs, row, run, run_terms, run_taps, channels, padded_channels,
    group_stride, out_stride, channel_stride, flip, plane,
    DIGITS: tl.constexpr, BLOCK: tl.constexpr = BLOCK,
):  # fmt: skip
    """Planes (DIGITS, groups * outs, row) of filters: runs of ``run`` terms, the first ``run_terms`` of them filled."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    out = i // row
    term = i % row
    place = term % run
    tap = term // run * run_taps
    along = place // padded_channels
    tap += tl.where(flip != 0, run_taps - 1 - along, along)
    channel = place % padded_channels
    mask = (i < n) & (place < run_terms) & (channel < channels)
    at = out // outs * group_stride + out % outs * out_stride + channel * channel_stride + tap
    exponent = grid_exponent(tl.load(top_ptr + out, mask=i < n, other=0))
    q = grid_integer(tl.load(w_ptr + at, mask=mask, other=0.0), exponent, 7 * DIGITS - 1)
    store_digits(q, planes_ptr, plane, i, i < n, DIGITS)


def up(n: int, unit: int) -> int:
    return blocks(n, unit) * unit


@dataclass(frozen=True)
class Gather:
    """How a convolution, or the gradient to its input, reads a source at every tap of every result.

    Triples are (depth, height, width). A result is at ``phase + row * step``; below, ``rows`` are those of phase 0.

    Attributes:
        geometry: of the convolution.
        transposed: whether this is the gradient to the input.
    """

    geometry: Geometry
    transposed: bool

    @property
    def sources(self) -> int:
        """Channels of a group that are summed over."""
        return self.geometry.group_out if self.transposed else self.geometry.group_in

    @property
    def outs(self) -> int:
        """Channels of a group that result."""
        return self.geometry.group_in if self.transposed else self.geometry.group_out

    @property
    def size(self) -> tuple[int, ...]:
        return self.geometry.out_size if self.transposed else self.geometry.size

    @property
    def out_size(self) -> tuple[int, ...]:
        return self.geometry.size if self.transposed else self.geometry.out_size

    @property
    def steps(self) -> tuple[int, ...]:
        return self.geometry.stride if self.transposed else (1, 1, 1)

    @property
    def rows(self) -> tuple[int, ...]:
        return tuple(blocks(y, s) for y, s in zip(self.out_size, self.steps, strict=True))

    @property
    def low(self) -> tuple[int, ...]:
        """Zeros before the source."""
        g = self.geometry
        if not self.transposed:
            return g.padding
        reach = zip(g.kernel, g.dilation, g.padding, g.stride, strict=True)
        return tuple(max(blocks((k - 1) * d - p, s), 0) for k, d, p, s in reach)

    @property
    def full(self) -> tuple[int, ...]:
        """The source's sizes with the zeros around it, as far as it is read."""
        g = self.geometry
        if not self.transposed:
            reach = zip(g.out_size, g.stride, g.kernel, g.dilation, strict=True)
            return tuple((y - 1) * s + (k - 1) * d + 1 for y, s, k, d in reach)
        reach = zip(self.rows, g.stride, g.padding, self.low, strict=True)
        return tuple(r + (s - 1 + p) // s + low for r, s, p, low in reach)

    @property
    def padded_channels(self) -> int:
        return up(self.sources, 16)

    @property
    def tap_steps(self) -> tuple[int, ...]:
        """From a tap of a phase to the next one."""
        if not self.transposed:
            return (1, 1, 1)
        return tuple(s // math.gcd(s, d) for s, d in zip(self.geometry.stride, self.geometry.dilation, strict=True))

    @property
    def reach(self) -> tuple[int, ...]:
        """From what a tap of a phase reads to what the next one along each axis reads, in 16 channels."""
        g, (_, height, width) = self.geometry, self.full
        if self.transposed:
            moves = [-d * t // s for d, t, s in zip(g.dilation, self.tap_steps, g.stride, strict=True)]
        else:
            moves = g.dilation
        return tuple(m * e * self.padded_channels // 16 for m, e in zip(moves, (height * width, width, 1), strict=True))

    @property
    def folded(self) -> bool:
        """Whether the taps along the width are adjacent in memory, and so part of a run."""
        return self.geometry.dilation[2] == 1 and self.steps[2] == 1

    @property
    def run_terms(self) -> int:
        return self.padded_channels * (self.geometry.kernel[2] if self.folded else 1)


def position_planes(x: torch.Tensor, gather: Gather, top: torch.Tensor, count: int) -> torch.Tensor:
    """Digits ``(count, plane)`` of ``x`` (batch, channels, D, H, W), a grid a sample; a plane ends in unread slack."""
    g = gather.geometry
    x = x.contiguous()
    full, padded = gather.full, gather.padded_channels
    positions = full[0] * full[1] * full[2]
    slack = up(gather.run_terms, PADDING)
    plane = x.shape[0] * g.groups * positions * padded + slack
    planes = torch.empty(count, plane, dtype=torch.int8, device=x.device)
    block_c = min(BLOCK_C, 1 << (padded - 1).bit_length())
    _position_digits_kernel(
        (x.shape[0] * g.groups * blocks(positions, BLOCK_P), blocks(padded, block_c)),
        x, top, planes, g.groups, gather.sources, *gather.size, *gather.low, *full, padded // 16, plane // 16,
        x.shape[2:].numel(), DIGITS=count, BLOCK_C=block_c,
    )  # fmt: skip
    return planes


def filter_planes(
    weight: torch.Tensor, gather: Gather, top: torch.Tensor, precision: str, block_k: int
) -> torch.Tensor:
    """Digits ``(count, groups * outs, row)`` of a weight (out_channels, group_in, *kernel), a grid for each row."""
    g = gather.geometry
    weight = weight.contiguous()
    count, run = PRECISION_DIGITS[precision], up(gather.run_terms, block_k)
    run_taps = g.kernel[2] if gather.folded else 1
    row = g.taps // run_taps * run
    planes = torch.empty(count, g.groups * gather.outs, row, dtype=torch.int8, device=weight.device)
    filters, channels = g.group_in * g.taps, g.taps
    out_stride, channel_stride = (channels, filters) if gather.transposed else (filters, channels)
    n = planes[0].numel()
    _filter_digits_kernel(
        (blocks(n, BLOCK),), weight, top, planes, n, gather.outs, row, run, gather.run_terms, run_taps, gather.sources,
        gather.padded_channels, g.group_out * filters, out_stride, channel_stride, int(gather.transposed), n, DIGITS=count,
    )  # fmt: skip
    return planes
