"""Convolutions and the gradients to their inputs as products of digit planes, gathered by position: implicit GEMM.

The taps are walked outside, the terms of a run inside, all in one loop that is pipelined as a whole. Where a gradient
to an input has strides, results fall into phases, each with taps of its own; a phase is a product of its own.
"""

from __future__ import annotations

import math

import torch

from dettriton.exact.grid import PRECISION_DIGITS
from dettriton.ops._conv_planes import Gather, filter_planes, position_planes, up
from dettriton.ops._device import grid_exponent, round_dot
from dettriton.ops._epilogue import FUSED_CONSTANTS, PLAIN_CONSTANTS, Epilogue, store_finished
from dettriton.ops._launch import blocks, jit, kernel, tl
from dettriton.ops._plans import LARGE, NARROW, SMALL, choose, planned
from dettriton.ops._product import add_products, carried, exact_total, part_of_columns, round_totals

BLOCK = 512


@jit
def _phase_of_taps(phase, taps, stride, pad, dilation, tap_step, low, TRANSPOSED: tl.constexpr):
    """Along one axis: the first tap, how many there are, and where the first one reads for a source's row 0."""
    first = phase * 0
    count = first + taps
    at = first
    if TRANSPOSED:
        first += tap_step
        for tap in range(tap_step):
            first = tl.where((phase + pad - tap * dilation) % stride == 0, tap, first)
        count = tl.maximum(tl.where(first < tap_step, (taps - first + tap_step - 1) // tap_step, 0), 0)
        at = (phase + pad - first * dilation) // stride + low
    return first, count, at


@kernel("*i64" + " i64" * 19)
def _places_kernel(
    places_ptr, rows, groups, channel_sixteenths, channels, full_d, full_h, full_w, y_d, y_h, y_w,
    read_d, read_h, read_w, step_d, step_h, step_w, rows_d, rows_h, rows_w,
    BLOCK: tl.constexpr = BLOCK,
):  # fmt: skip
    """Of every row of every phase: where it reads in a source (in 16 channels), where it is in y or -1, its sample.

    A product kernel would otherwise divide for each of its many copies of a row.
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    n = rows * step_d * step_h * step_w
    phase, row = i // rows, i % rows
    sample = row // (rows_d * rows_h * rows_w)
    d, h, w = row // (rows_h * rows_w) % rows_d, row // rows_w % rows_h, row % rows_w
    place = (d * read_d * full_h + h * read_h) * full_w + w * read_w
    place = (sample * groups * full_d * full_h * full_w + place) * channel_sixteenths
    d = d * step_d + phase // (step_h * step_w)
    h = h * step_h + phase // step_w % step_h
    w = w * step_w + phase % step_w
    y_at = sample * channels * y_d * y_h * y_w + (d * y_h + h) * y_w + w
    y_at = tl.where((d < y_d) & (h < y_h) & (w < y_w), y_at, -1)
    tl.store(places_ptr + i, place, mask=i < n)
    tl.store(places_ptr + n + i, y_at, mask=i < n)
    tl.store(places_ptr + 2 * n + i, sample, mask=i < n)


@kernel(
    "*i8 *i8 *i64 *i32 *i32 *fp32 *i64 *fp32 *fp32" + " i64" * 39,
    *(
        planned(p[d], {"DIGITS": d, "TRANSPOSED": t, "SPLIT": False, **PLAIN_CONSTANTS})
        for p, t in ((LARGE, False), (LARGE, True), (SMALL, False), (NARROW, False))
        for d in (3, 2)
    ),
    planned(LARGE[3], {"DIGITS": 3, "TRANSPOSED": False, "SPLIT": True, **PLAIN_CONSTANTS}),
    *(planned(LARGE[3], {"DIGITS": 3, "TRANSPOSED": False, "SPLIT": False, **fused}) for fused in FUSED_CONSTANTS),
)
def _conv_kernel(
    src_ptr, w_ptr, places_ptr, src_top_ptr, w_top_ptr, y_ptr, total_ptr, bias_ptr, before_ptr,
    rows, volume, groups, outs, col_tiles, channel_sixteenths, chunks, folded, split_steps,
    src_plane_sixteenths, w_plane_sixteenths, row_sixteenths, full_d, full_h, full_w,
    taps_d, taps_h, taps_w, stride_d, stride_h, stride_w, pad_d, pad_h, pad_w, dil_d, dil_h, dil_w,
    tap_step_d, tap_step_h, tap_step_w, low_d, low_h, low_w, step_d, step_h, step_w, reach_d, reach_h, reach_w,
    DIGITS: tl.constexpr, TRANSPOSED: tl.constexpr, SPLIT: tl.constexpr,
    HAS_BIAS: tl.constexpr, KEEP: tl.constexpr, ACTIVATION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """y (batch, groups * outs, volume) from planes (batch, groups, full_d, full_h, full_w, channels) at ``places``.

    Programs are (tiles, phases * groups, splits); a row of filters is made of ``chunks`` blocks for each tap.
    """
    phase = tl.program_id(1).to(tl.int64) // groups
    group = tl.program_id(1).to(tl.int64) % groups
    phase_d, phase_h, phase_w = phase // (step_h * step_w), phase // step_w % step_h, phase % step_w
    tap_d, count_d, at_d = _phase_of_taps(phase_d, taps_d, stride_d, pad_d, dil_d, tap_step_d, low_d, TRANSPOSED)
    tap_h, count_h, at_h = _phase_of_taps(phase_h, taps_h, stride_h, pad_h, dil_h, tap_step_h, low_h, TRANSPOSED)
    tap_w, count_w, at_w = _phase_of_taps(phase_w, taps_w, stride_w, pad_w, dil_w, tap_step_w, low_w, TRANSPOSED)
    walked_w = taps_w
    if folded != 0:
        # A run holds all taps along the width, from the one that reads the lowest place.
        if TRANSPOSED:
            at_w = at_w - (taps_w - 1)
        tap_w, count_w, walked_w = tap_w * 0, count_w * 0 + 1, taps_w * 0 + 1
    row = tl.program_id(0).to(tl.int64) // col_tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    col_tile = tl.program_id(0).to(tl.int64) % col_tiles
    places_at = places_ptr + phase * rows + row
    in_group = group * full_d * full_h * full_w + (at_d * full_h + at_h) * full_w + at_w
    src_at = tl.load(places_at, mask=row < rows, other=0) + in_group * channel_sixteenths

    start = tl.program_id(2).to(tl.int64) * split_steps
    steps = tl.minimum(count_d * count_h * count_w * chunks - start, split_steps)
    left = chunks - start % chunks
    j_w = start // chunks % tl.maximum(count_w, 1)
    j_h = start // (chunks * tl.maximum(count_w, 1)) % tl.maximum(count_h, 1)
    j_d = start // (chunks * tl.maximum(count_w, 1) * tl.maximum(count_h, 1))
    ks = (chunks - left) * BLOCK_K + tl.arange(0, BLOCK_K)
    src_at = src_ptr + (src_at * 16)[:, None] + ks[None, :]
    src_at += (j_d * reach_d + j_h * reach_h + j_w * reach_w) * 16
    tap = ((tap_d + j_d * tap_step_d) * taps_h + tap_h + j_h * tap_step_h) * walked_w + tap_w + j_w * tap_step_w
    col = col_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    w_at = w_ptr + ((group * outs + tl.minimum(col, outs - 1))[None, :] * row_sixteenths * 16 + ks[:, None])
    w_at += tap * chunks * BLOCK_K
    # From the last block of a tap to the first of the next one, and further where a row or a plane of taps ends.
    to_w = reach_w * 16 - chunks * BLOCK_K
    to_h = (reach_h - count_w * reach_w) * 16
    to_d = (reach_d - count_h * reach_h) * 16
    w_to_w = (tap_step_w - 1) * chunks * BLOCK_K
    w_to_h = (tap_step_h * walked_w - count_w * tap_step_w) * chunks * BLOCK_K
    w_to_d = (tap_step_d * taps_h - count_h * tap_step_h) * walked_w * chunks * BLOCK_K
    left, left_w, left_h = left.to(tl.int32), (count_w - j_w).to(tl.int32), (count_h - j_h).to(tl.int32)
    c0 = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.int32)
    c1, c2, c3, c4 = c0, c0, c0, c0
    for _ in range(steps):
        c0, c1, c2, c3, c4 = add_products(
            src_at, w_at, src_plane_sixteenths * 16, w_plane_sixteenths * 16, c0, c1, c2, c3, c4, DIGITS
        )
        left -= 1
        left_w -= (left == 0).to(tl.int32)
        left_h -= ((left == 0) & (left_w == 0)).to(tl.int32)
        move = tl.where(left == 0, to_w, 0) + tl.where(left_w == 0, to_h, 0) + tl.where(left_h == 0, to_d, 0)
        src_at += BLOCK_K + move
        w_move = BLOCK_K
        if TRANSPOSED:
            w_move += (
                tl.where(left == 0, w_to_w, 0) + tl.where(left_w == 0, w_to_h, 0) + tl.where(left_h == 0, w_to_d, 0)
            )
        w_at += w_move
        left = tl.where(left == 0, chunks.to(tl.int32), left)
        left_w = tl.where(left_w == 0, count_w.to(tl.int32), left_w)
        left_h = tl.where(left_h == 0, count_h.to(tl.int32), left_h)
    low, rest = carried(c0, c1, c2, c3, c4, DIGITS)
    n = rows * step_d * step_h * step_w
    y_at = tl.load(places_at + n, mask=row < rows, other=-1)
    sample = tl.load(places_at + 2 * n, mask=row < rows, other=0)
    src_exp = grid_exponent(tl.load(src_top_ptr + sample))
    # Part by part, because 64-bit totals of all results at once would spill registers.
    for part in tl.static_range(PARTS):
        total = exact_total(part_of_columns(low, part, PARTS), part_of_columns(rest, part, PARTS), DIGITS)
        col = col_tile * BLOCK_N + part * (BLOCK_N // PARTS) + tl.arange(0, BLOCK_N // PARTS)
        channel = group * outs + col
        at = y_at[:, None] + channel[None, :] * volume
        mask = (y_at >= 0)[:, None] & (col < outs)[None, :]
        if SPLIT:
            tl.atomic_add(total_ptr + at, total, mask=mask, sem="relaxed")
        else:
            w_exp = grid_exponent(tl.load(w_top_ptr + channel, mask=col < outs, other=0))
            y = round_dot(total, src_exp[:, None] + w_exp[None, :] - 2 * (7 * DIGITS - 1))
            store_finished(y, bias_ptr, channel, col < outs, before_ptr, y_ptr, at, mask, HAS_BIAS, KEEP, ACTIVATION)


def gathered(
    src: torch.Tensor,
    weight: torch.Tensor,
    gather: Gather,
    precision: str,
    tops: tuple[torch.Tensor, torch.Tensor],
    epilogue: Epilogue,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The finished results and what backward keeps.

    Args:
        src: binary32 (batch, channels, D, H, W).
        weight: binary32 (out_channels, in_channels / groups, D, H, W).
        gather: what is computed from them.
        precision: of the grids.
        tops: the top bits of the grids of ``src``, by sample, and of ``weight``, by resulting channel.
        epilogue: what follows.
    """
    g, digits = gather.geometry, PRECISION_DIGITS[precision]
    channels = g.groups * gather.outs
    y = torch.empty(g.batch, channels, *gather.out_size, dtype=torch.float32, device=src.device)
    kept, pointers, finish = epilogue.launch(y)
    if y.numel() == 0:
        return y, kept
    problems, rows = g.groups * math.prod(gather.steps), g.batch * math.prod(gather.rows)
    terms = gather.sources * g.taps
    plan = choose(digits, rows, gather.outs, terms, src.device, problems=problems, run=gather.run_terms)
    src_planes = position_planes(src, gather, tops[0], digits)
    w_planes = filter_planes(weight, gather, tops[1], precision, plan.block_k)
    row, volume = w_planes.shape[2], math.prod(gather.out_size)
    splits = max(blocks(row, plan.split_terms), 1)
    places = torch.empty(3, math.prod(gather.steps), rows, dtype=torch.int64, device=src.device)
    _places_kernel(
        (blocks(places[0].numel(), BLOCK),), places, rows, g.groups, gather.padded_channels // 16, channels,
        *gather.full, *gather.out_size, *((1, 1, 1) if gather.transposed else g.stride), *gather.steps, *gather.rows,
    )  # fmt: skip
    total = torch.zeros(y.shape if splits > 1 else (0,), dtype=torch.int64, device=src.device)
    _conv_kernel(
        (plan.tiles(rows, gather.outs), problems, splits),
        src_planes, w_planes, places, *tops, y, total, *pointers,
        rows, volume, g.groups, gather.outs, blocks(gather.outs, plan.block_n), gather.padded_channels // 16,
        up(gather.run_terms, plan.block_k) // plan.block_k, int(gather.folded), plan.split_terms // plan.block_k,
        src_planes.shape[1] // 16, w_planes[0].numel() // 16, row // 16, *gather.full,
        *g.kernel, *g.stride, *g.padding, *g.dilation, *gather.tap_steps, *gather.low, *gather.steps, *gather.reach,
        DIGITS=digits, TRANSPOSED=gather.transposed, SPLIT=splits > 1,
        **(PLAIN_CONSTANTS if splits > 1 else finish), **plan.constants, **plan.options,
    )  # fmt: skip
    if splits > 1:
        # Result (sample, channel, place) is on the grids of its sample and of its channel.
        round_totals(total, *tops, y, pointers, (channels * volume, 1, 0, volume, channels), digits, finish)
    return y, kept
