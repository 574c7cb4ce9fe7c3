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


@jit
def _fill_maps(x, start, scale, geometry, phases, maps):
    """One sample's channels as grid integers, padded and split by their phases modulo the stride."""
    channels, depth, height, width = geometry[0], geometry[1], geometry[2], geometry[3]
    stride_d, stride_h, stride_w = geometry[4], geometry[5], geometry[6]
    map_d, map_h, map_w = geometry[7], geometry[8], geometry[9]
    step, at = np.uint64(stride_w), 0
    maps[:] = 0.0
    for c in range(channels):
        for p in range(0, phases.size, 5):
            base_d, base_h, base_w = phases[p], phases[p + 1], phases[p + 2]
            low, count = phases[p + 3], np.uint64(phases[p + 4] - phases[p + 3])
            for d in range(map_d):
                source_d = d * stride_d + base_d
                for h in range(map_h):
                    source_h = h * stride_h + base_h
                    if 0 <= source_d < depth and 0 <= source_h < height:
                        row = start + ((c * depth + source_d) * height + source_h) * width
                        source, to = np.uint64(row + low * stride_w + base_w), np.uint64(at + low)
                        if stride_w == 1:
                            for i in range(count):
                                maps[to + i] = np.rint(x[source + i] * scale)
                        else:
                            for i in range(count):
                                maps[to + i] = np.rint(x[source + i * step] * scale)
                    at += map_w


@jit
def _add_terms(maps, terms, weights, start, stop, total):
    """``total += weights @ maps[terms]`` for the elements from ``start`` to before ``stop``, four terms at a time."""
    count, to = np.uint64(stop - start), np.uint64(start)
    for t in range(0, terms.size, 4):
        a, b = np.uint64(terms[t] + start), np.uint64(terms[t + 1] + start)
        c, d = np.uint64(terms[t + 2] + start), np.uint64(terms[t + 3] + start)
        wa, wb, wc, wd = weights[t], weights[t + 1], weights[t + 2], weights[t + 3]
        for i in range(count):
            total[to + i] += (maps[a + i] * wa + maps[b + i] * wb) + (maps[c + i] * wc + maps[d + i] * wd)


@jit
def _add_terms_twice(maps, terms, weights, others, start, stop, total, other):
    """As :func:`_add_terms` for two outputs, which share what is read."""
    count, to = np.uint64(stop - start), np.uint64(start)
    for t in range(0, terms.size, 4):
        a, b = np.uint64(terms[t] + start), np.uint64(terms[t + 1] + start)
        c, d = np.uint64(terms[t + 2] + start), np.uint64(terms[t + 3] + start)
        wa, wb, wc, wd = weights[t], weights[t + 1], weights[t + 2], weights[t + 3]
        va, vb, vc, vd = others[t], others[t + 1], others[t + 2], others[t + 3]
        for i in range(count):
            xa, xb, xc, xd = maps[a + i], maps[b + i], maps[c + i], maps[d + i]
            total[to + i] += (xa * wa + xb * wb) + (xc * wc + xd * wd)
            other[to + i] += (xa * va + xb * vb) + (xc * vc + xd * vd)


@jit
def _round_map(total, unit, bias, placing, map_h, map_w, out_size, start, y):
    height, width = placing[2], placing[3]
    step_w, count = np.uint64(placing[6]), np.uint64(out_size[2])
    for d in range(out_size[0]):
        for h in range(out_size[1]):
            row = (d * placing[4] + placing[7]) * height + h * placing[5] + placing[8]
            to, at = np.uint64(start + row * width + placing[9]), np.uint64((d * map_h + h) * map_w)
            if unit != unit:
                for i in range(count):
                    y[to + i * step_w] = _CANONICAL_NAN
            elif placing[6] == 1:
                for i in range(count):
                    y[to + i] = np.float32(total[at + i] + 0.0) * unit
            else:
                for i in range(count):
                    y[to + i * step_w] = np.float32(total[at + i] + 0.0) * unit
            for plus in bias:
                for i in range(count):
                    value = y[to + i * step_w] + plus
                    y[to + i * step_w] = value if value == value else _CANONICAL_NAN


@jit
def direct(x, scale, units, weight, unit_channels, bias, geometry, phases, terms, placing, out_size, groups, span, y):
    """Convolve by adding shifted maps, where few outputs share a map: no columns, and the result is rounded in place.

    Args:
        x: binary32 ``(batch, groups * channels, depth, height, width)``.
        scale, units: of the samples' grids.
        weight: grid integers ``(groups * outputs, terms)``; a multiple of four terms, those too many being 0.
        unit_channels: of the grids of the outputs.
        geometry: channels of a group; input depth, height, width; strides; depth, height, width of a phase's map.
        phases: for each five numbers: first input index by dimension (it may be outside), and the first column of its
            map that is inside the input, and that after the last.
        terms: where each term's map starts in the maps of a group.
        placing: as for :func:`round_maps`.
        span: samples: first, and after the last.
    """
    outputs, count, run = unit_channels.size // groups, terms.size, 0
    map_d, map_h, map_w = geometry[7], geometry[8], geometry[9]
    if out_size[0] and out_size[1] and out_size[2]:
        run = ((out_size[0] - 1) * map_h + out_size[1] - 1) * map_w + out_size[2]
    maps = np.empty(geometry[0] * phases.size // 5 * map_d * map_h * map_w)
    total, other = np.empty(run), np.empty(run)
    size = geometry[1] * geometry[2] * geometry[3]
    plane = placing[1] * placing[2] * placing[3]
    for n in range(span[0], span[1]):
        for g in range(groups):
            if scale[n] != 0.0:
                _fill_maps(x, (n * groups + g) * geometry[0] * size, scale[n], geometry, phases, maps)
            for o in range(g * outputs, (g + 1) * outputs, 2):
                pair = o + 1 < (g + 1) * outputs
                weights, others = weight[o * count : (o + 1) * count], weight[(o + 1) * count : (o + 2) * count]
                total[:] = 0.0
                other[:] = 0.0
                for start in range(0, run if scale[n] != 0.0 else 0, 256):
                    stop = min(start + 256, run)
                    if pair:
                        _add_terms_twice(maps, terms, weights, others, start, stop, total, other)
                    else:
                        _add_terms(maps, terms, weights, start, stop, total)
                for which in range(2 if pair else 1):
                    to, sums = o + which, other if which else total
                    unit, first = units[n] * unit_channels[to], (n * groups * outputs + to) * plane
                    _round_map(sums, unit, bias[to : to + 1], placing, map_h, map_w, out_size, first, y)
