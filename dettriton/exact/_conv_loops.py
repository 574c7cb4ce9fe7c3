"""The loops of convolutions on grids: columns of grid integers for the matrix product, and the rounding of its totals.

Arrays are flat, scales and units those of :mod:`dettriton.exact._grid_loops`. Output index ``i`` and tap ``t`` of a
dimension read input ``i * stride + offset[t]``, or 0 where there is none. Indices of inner loops are unsigned: a signed
one might count from the end, and that test keeps a loop from being vectorised.
"""

import numpy as np

from dettriton.exact._jit import jit

_CANONICAL_NAN = np.float32(np.nan)


@jit
def gather_columns(x, scale, by_channel, geometry, offsets, reach, first, last, begin, end, out):
    """Columns ``(channels, taps, samples, depths, rows, width)`` of the block from ``first`` to before ``last``.

    Args:
        x: binary32 ``(batch, channels, depth, height, width)``.
        scale: of the grids: one a channel where ``by_channel``, else one a sample.
        geometry: channels; input depth, height, width; strides; numbers of taps; output width; whether some of what is
            read is outside.
        offsets: of the taps, by depth, then by height, then by width.
        reach: for each tap by width, the first output index that reads inside, and that after the last.
        first, last: sample, depth and row of the output.
        begin, end: the channels whose columns are filled, from ``begin`` to before ``end``.
    """
    channels, depth, height, width = geometry[0], geometry[1], geometry[2], geometry[3]
    stride_d, stride_h, stride_w = geometry[4], geometry[5], np.uint64(geometry[6])
    taps_d, taps_h, taps_w, length, pads = geometry[7], geometry[8], geometry[9], geometry[10], geometry[11]
    first_n, first_d, first_h, last_n, last_d, last_h = first[0], first[1], first[2], last[0], last[1], last[2]
    column = taps_d * taps_h * taps_w * (last_n - first_n) * (last_d - first_d) * (last_h - first_h) * length
    if pads:
        out[begin * column : end * column] = 0.0
    at = begin * column
    for c in range(begin, end):
        for td in range(taps_d):
            for th in range(taps_h):
                offset_h = offsets[taps_d + th]
                for tw in range(taps_w):
                    low, high = reach[2 * tw], reach[2 * tw + 1]
                    count = np.uint64(high - low)
                    skipped = low * geometry[6] + offsets[taps_d + taps_h + tw]
                    for n in range(first_n, last_n):
                        factor = scale[c] if by_channel else scale[n]
                        for d in range(first_d, last_d):
                            source_d = d * stride_d + offsets[td]
                            inside = 0 <= source_d < depth
                            plane = ((n * channels + c) * depth + source_d) * height
                            for h in range(first_h, last_h):
                                source_h = h * stride_h + offset_h
                                to = np.uint64(at + low)
                                at += length
                                if not (inside and 0 <= source_h < height):
                                    continue
                                source = np.uint64((plane + source_h) * width + skipped)
                                if factor == 0.0:
                                    for i in range(count):
                                        out[to + i] = 0.0
                                elif stride_w == np.uint64(1):
                                    for i in range(count):
                                        out[to + i] = np.rint(x[source + i] * factor)
                                else:
                                    for i in range(count):
                                        out[to + i] = np.rint(x[source + i * stride_w] * factor)


@jit
def gather_runs(x, scale, channels, size, run, first, start, samples, begin, end, out):
    """Grid integers ``(channels, samples, run)`` of ``x`` (batch, channels, size), one grid a channel.

    They are those from ``start`` on of each map, from sample ``first`` on; channels from ``begin`` to before ``end``.
    """
    count, at = np.uint64(run), np.uint64(begin * samples * run)
    for c in range(begin, end):
        factor = scale[c]
        for n in range(first, first + samples):
            source = np.uint64((n * channels + c) * size + start)
            if factor == 0.0:
                for i in range(count):
                    out[at + i] = 0.0
            else:
                for i in range(count):
                    out[at + i] = np.rint(x[source + i] * factor)
            at += count


@jit
def round_maps(total, unit_samples, unit_channels, bias, placing, first, last, begin, end, y):
    """Exact totals ``(channels, samples, depths, rows, width)`` of a block into maps: to 24 bits once, by the units.

    Args:
        bias: empty, or one for each channel, added.
        placing: channels; depth, height, width of ``y``; steps and starts in ``y`` of depth, row and column; the width
            of ``total``.
        begin, end: the channels that are rounded, from ``begin`` to before ``end``.
        y: binary32 ``(batch, channels, depth, height, width)``.
    """
    channels, depth, height, width = placing[0], placing[1], placing[2], placing[3]
    step_d, step_h, step_w = placing[4], placing[5], np.uint64(placing[6])
    start_d, start_h, start_w, length = placing[7], placing[8], placing[9], placing[10]
    first_n, first_d, first_h, last_n, last_d, last_h = first[0], first[1], first[2], last[0], last[1], last[2]
    if placing[6] == 1 and step_h == 1:
        # Rows follow one another: they are one run.
        length, last_h = length * (last_h - first_h), first_h + 1
    rows = (last_n - first_n) * (last_d - first_d) * (last_h - first_h)
    count, at, one = np.uint64(length), np.uint64(begin * rows * length), np.uint64(1)
    for c in range(begin, end):
        for n in range(first_n, last_n):
            unit = unit_samples[n] * unit_channels[c]
            plane = (n * channels + c) * depth
            for d in range(first_d, last_d):
                for h in range(first_h, last_h):
                    row = (plane + d * step_d + start_d) * height + h * step_h + start_h
                    to = np.uint64(row * width + start_w)
                    # An exact zero is +0, whatever order and signs the products had.
                    if unit != unit:
                        for i in range(count):
                            y[to + i * step_w] = _CANONICAL_NAN
                    elif step_w == one:
                        for i in range(count):
                            y[to + i] = np.float32(total[at + i] + 0.0) * unit
                    else:
                        for i in range(count):
                            y[to + i * step_w] = np.float32(total[at + i] + 0.0) * unit
                    for plus in bias[c : c + 1]:
                        for i in range(count):
                            value = y[to + i * step_w] + plus
                            y[to + i * step_w] = value if value == value else _CANONICAL_NAN
                    at += count
