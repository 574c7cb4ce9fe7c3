"""Gradients of convolutions to their weights as products of digit planes whose terms are places: implicit GEMM.

Both operands are laid on one grid of places, that of the results and as many more as the taps reach further, the
gradient with zeros there. A tap then reads the input at its own distance from each place, the same for all places, and
the terms of a whole batch are one row. Strides sort the input's places into phases. Copies of a row, each begun one
place later than the one before, let every tap's row begin at a multiple of 4 bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from dettriton.exact.convolution import Geometry
from dettriton.exact.grid import PRECISION_DIGITS, bits_of
from dettriton.ops._conv_planes import up
from dettriton.ops._device import grid_exponent, grid_integer
from dettriton.ops._digits import grid_top, store_digits
from dettriton.ops._epilogue import PLAIN
from dettriton.ops._launch import Variant, blocks, kernel, tl
from dettriton.ops._plans import LARGE, NARROW, PADDING, SMALL, choose, for_runs, planned
from dettriton.ops._product import add_products, carried, exact_total, part_of_columns, round_totals

COPIES = 4
BLOCK = 256
BLOCK_R, BLOCK_W = 16, 64

SHORT_RUN = PADDING // 2
"""Terms of a block where they are read 4 bytes at a time: fewer addresses have to stay in registers."""


@kernel(
    "*fp32 *i32 *i8" + " i64" * 17,
    *(Variant({"DIGITS": digits, "COPIES": copies}) for digits in (3, 2) for copies in (1, 4)),
)
def _place_digits_kernel(
    x_ptr, top_ptr, planes_ptr, batch, channels, size_d, size_h, size_w, grid_d, grid_h, grid_w,
    stride_d, stride_h, stride_w, low_d, low_h, low_w, phases_h, phases_w, length,
    DIGITS: tl.constexpr, COPIES: tl.constexpr, BLOCK_R: tl.constexpr = BLOCK_R, BLOCK_W: tl.constexpr = BLOCK_W,
):  # fmt: skip
    """Planes (DIGITS, channels, phases, COPIES, length) of x (batch, channels, sizes), one grid a channel."""
    phases = tl.num_programs(2).to(tl.int64)
    phase = tl.program_id(2).to(tl.int64)
    rows = tl.cdiv(length, grid_w)
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    channel = row // rows
    has_channel = channel < channels
    row = row % rows
    column = tl.program_id(1).to(tl.int64) * BLOCK_W + tl.arange(0, BLOCK_W)
    sample = row // (grid_d * grid_h)
    d = row // grid_h % grid_d * stride_d + phase // (phases_h * phases_w) - low_d
    h = row % grid_h * stride_h + phase // phases_w % phases_h - low_h
    w = column * stride_w + phase % phases_w - low_w
    has_row = has_channel & (sample < batch) & (d >= 0) & (d < size_d) & (h >= 0) & (h < size_h)
    mask = has_row[:, None] & ((column < grid_w) & (w >= 0) & (w < size_w))[None, :]
    at = (((sample * channels + channel) * size_d + d) * size_h + h) * size_w
    x = tl.load(x_ptr + at[:, None] + w[None, :], mask=mask, other=0.0)
    exponent = grid_exponent(tl.load(top_ptr + channel, mask=has_channel, other=0))
    q = grid_integer(x, exponent[:, None], 7 * DIGITS - 1)
    place = (row * grid_w)[:, None] + column[None, :]
    written = has_channel[:, None] & (column < grid_w)[None, :] & (place < length)
    plane = channels * phases * COPIES * length
    for copy in tl.static_range(COPIES):
        to = ((channel * phases + phase) * COPIES + copy)[:, None] * length + place - copy
        store_digits(q, planes_ptr, plane, to, written & (place >= copy), DIGITS)


@kernel("*i64" + " i64" * 18)
def _tap_rows_kernel(
    rows_ptr, width, grid_h, grid_w, taps_d, taps_h, taps_w, dil_d, dil_h, dil_w, stride_d, stride_h, stride_w,
    phases_d, phases_h, phases_w, copies, length, unit,
    BLOCK: tl.constexpr = BLOCK,
):  # fmt: skip
    """Of every channel of the first group and tap: where its row of places begins, in units that divide it.

    A product kernel would otherwise divide for each of its many copies of a row.
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    far_d = i // (taps_h * taps_w) % taps_d * dil_d
    far_h = i // taps_w % taps_h * dil_h
    far_w = i % taps_w * dil_w
    phase = (far_d % stride_d * phases_h + far_h % stride_h) * phases_w + far_w % stride_w
    distance = (far_d // stride_d * grid_h + far_h // stride_h) * grid_w + far_w // stride_w
    channel = i // (taps_d * taps_h * taps_w)
    row = (channel * phases_d * phases_h * phases_w + phase) * copies + distance % copies
    tl.store(rows_ptr + i, (row * length + distance - distance % copies) // unit, mask=i < width)


@kernel(
    "*i8 *i8 *i64 *i64" + " i64" * 9,
    *(
        planned(for_runs(p[d], SHORT_RUN), {"DIGITS": d, "UNIT": COPIES})
        for p in (LARGE, SMALL, NARROW)
        for d in (3, 2)
    ),
    *(planned(LARGE[d], {"DIGITS": d, "UNIT": 16}) for d in (3, 2)),
)
def _conv_weight_grad_kernel(
    g_ptr, x_ptr, tap_rows_ptr, total_ptr, width, outs, col_tiles, split_steps, terms,
    g_sixteenths, x_group_sixteenths, g_plane_sixteenths, x_plane_sixteenths,
    DIGITS: tl.constexpr, UNIT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Adds some of the terms, places of the whole batch, to total (groups * outs, width: channels of a group and taps).

    Every row begins at a multiple of UNIT bytes.
    """
    group = tl.program_id(1).to(tl.int64)
    start = tl.program_id(2).to(tl.int64) * split_steps
    row = tl.program_id(0).to(tl.int64) // col_tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    col_tile = tl.program_id(0).to(tl.int64) % col_tiles
    col = tl.minimum(col_tile * BLOCK_N + tl.arange(0, BLOCK_N), width - 1)
    x_at = tl.load(tap_rows_ptr + col) * UNIT + group * x_group_sixteenths * 16
    ks = start * BLOCK_K + tl.arange(0, BLOCK_K)
    g_at = g_ptr + (group * outs + tl.minimum(row, outs - 1))[:, None] * g_sixteenths * 16 + ks[None, :]
    x_at = x_ptr + x_at[None, :] + ks[:, None]
    steps = tl.minimum(terms // BLOCK_K - start, split_steps)
    c0 = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.int32)
    c1, c2, c3, c4 = c0, c0, c0, c0
    for _ in range(steps):
        c0, c1, c2, c3, c4 = add_products(
            g_at, x_at, g_plane_sixteenths * 16, x_plane_sixteenths * 16, c0, c1, c2, c3, c4, DIGITS
        )
        g_at += BLOCK_K
        x_at += BLOCK_K
    low, rest = carried(c0, c1, c2, c3, c4, DIGITS)
    for part in tl.static_range(PARTS):
        total = exact_total(part_of_columns(low, part, PARTS), part_of_columns(rest, part, PARTS), DIGITS)
        cols = col_tile * BLOCK_N + part * (BLOCK_N // PARTS) + tl.arange(0, BLOCK_N // PARTS)
        at = (group * outs + row)[:, None] * width + cols[None, :]
        tl.atomic_add(total_ptr + at, total, mask=(row < outs)[:, None] & (cols < width)[None, :], sem="relaxed")


@dataclass(frozen=True)
class Places:
    """The grid of places of a convolution's gradient to its weight. Triples are (depth, height, width)."""

    geometry: Geometry

    @property
    def _farthest(self) -> tuple[int, ...]:
        return tuple((k - 1) * d for k, d in zip(self.geometry.kernel, self.geometry.dilation, strict=True))

    @property
    def phases(self) -> tuple[int, ...]:
        """Kinds of places of the input that taps read."""
        return tuple(min(s, far + 1) for s, far in zip(self.geometry.stride, self._farthest, strict=True))

    @property
    def reach(self) -> tuple[int, ...]:
        return tuple(far // s for s, far in zip(self.geometry.stride, self._farthest, strict=True))

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(y + r for y, r in zip(self.geometry.out_size, self.reach, strict=True))

    @property
    def terms(self) -> int:
        return up(self.geometry.batch * math.prod(self.grid), PADDING)

    @property
    def farthest(self) -> int:
        """The greatest distance between a place and what a tap reads for it."""
        depth, height, width = self.reach
        return (depth * self.grid[1] + height) * self.grid[2] + width


def _place_planes(
    x: torch.Tensor,
    top: torch.Tensor,
    places: Places,
    count: int,
    length: int,
    copies: int,
    stride: tuple[int, ...] = (1, 1, 1),
    low: tuple[int, ...] = (0, 0, 0),
    phases: tuple[int, ...] = (1, 1, 1),
) -> torch.Tensor:
    """Digits ``(count, channels, phases, copies, length)`` of x (batch, channels, D, H, W) on the grid of places."""
    channels, grid = x.shape[1], places.grid
    block_w = min(BLOCK_W, max(16, 1 << (grid[2] - 1).bit_length()))
    block_r = BLOCK_R * BLOCK_W // block_w
    planes = torch.empty(count, channels, math.prod(phases), copies, length, dtype=torch.int8, device=x.device)
    _place_digits_kernel(
        (blocks(channels * blocks(length, grid[2]), block_r), blocks(grid[2], block_w), math.prod(phases)),
        x.contiguous(), top, planes, x.shape[0], channels, *x.shape[2:], *grid, *stride, *low, *phases[1:], length,
        DIGITS=count, COPIES=copies, BLOCK_R=block_r, BLOCK_W=block_w,
    )  # fmt: skip
    return planes


def _channel_top(x: torch.Tensor) -> torch.Tensor:
    return grid_top(x.contiguous(), x.shape[0], x.shape[1], x.shape[2:].numel())


def conv_weight_grad_triton(
    grad: torch.Tensor,
    x: torch.Tensor,
    g: Geometry,
    precision: str,
    grad_top: torch.Tensor | None = None,
    x_top: torch.Tensor | None = None,
) -> torch.Tensor:
    """The gradient to the weight (out_channels, group_in, D, H, W).

    ``grad_top`` and ``x_top`` hold the bits of each channel's largest magnitude where another kernel found them.
    """
    bits_of(precision)
    places, digits = Places(g), PRECISION_DIGITS[precision]
    tops = tuple(_channel_top(t) if top is None else top for t, top in ((grad, grad_top), (x, x_top)))
    copies = COPIES if places.farthest else 1
    g_planes = _place_planes(grad, tops[0], places, digits, places.terms, 1)
    x_length = up(places.terms + places.farthest, 16)
    x_planes = _place_planes(x, tops[1], places, digits, x_length, copies, g.stride, g.padding, places.phases)
    width = g.terms_forward
    plan = choose(
        digits, g.group_out, width, places.terms, x.device, problems=g.groups, run=SHORT_RUN if copies > 1 else None
    )
    unit = COPIES if copies > 1 else 16
    tap_rows = torch.empty(width, dtype=torch.int64, device=x.device)
    _tap_rows_kernel(
        (blocks(width, BLOCK),), tap_rows, width, *places.grid[1:], *g.kernel, *g.dilation, *g.stride, *places.phases,
        copies, x_length, unit,
    )  # fmt: skip
    total = torch.zeros(g.out_channels, width, dtype=torch.int64, device=x.device)
    _conv_weight_grad_kernel(
        (plan.tiles(g.group_out, width), g.groups, blocks(places.terms, plan.split_terms)),
        g_planes, x_planes, tap_rows, total, width, g.group_out, blocks(width, plan.block_n),
        plan.split_terms // plan.block_k, places.terms, places.terms // 16,
        g.group_in * math.prod(places.phases) * copies * x_length // 16,
        g_planes[0].numel() // 16, x_planes[0].numel() // 16,
        DIGITS=digits, UNIT=unit, **plan.constants, **plan.options,
    )  # fmt: skip
    grad_weight = torch.empty(g.out_channels, g.group_in, *g.kernel, dtype=torch.float32, device=x.device)
    _, pointers, finish = PLAIN.launch(grad_weight)
    # Result (out, in, tap) is on the grids of its output channel and of its input channel.
    grids = (width, g.group_out * width, g.group_in, g.taps, g.group_in)
    round_totals(total, *tops, grad_weight, pointers, grids, digits, finish)
    return grad_weight
