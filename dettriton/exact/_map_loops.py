"""Loops of convolutions that add up shifted maps: a sample's channels are padded once, and a tap is where reading starts.

No columns are written, so this is quicker than a matrix product wherever the maps of a sample fit a cache. Arrays,
scales, units and indices are those of :mod:`dettriton.exact._conv_loops`. ``geometry`` is: channels of a group; input
depth, height, width; strides; depth, height, width of a phase's map. ``phases`` holds for each phase the first input
index by dimension (it may be outside), the first column of its map that is inside the input, and that after the last.
"""

import numpy as np

from dettriton.exact._jit import jit, jit_of_integers

_CANONICAL_NAN = np.float32(np.nan)
_CHUNK = 256


@jit
def _fill_maps(x, start, scales, geometry, phases, maps):
    """One sample's channels as grid integers, padded and split by their phases modulo the stride; 0 for a scale of 0."""
    channels, depth, height, width = geometry[0], geometry[1], geometry[2], geometry[3]
    stride_d, stride_h, stride_w = geometry[4], geometry[5], geometry[6]
    map_d, map_h, map_w = geometry[7], geometry[8], geometry[9]
    step, at = np.uint64(stride_w), 0
    maps[:] = 0.0
    for c in range(channels):
        scale = scales[c]
        for p in range(0, phases.size, 5):
            base_d, base_h, base_w = phases[p], phases[p + 1], phases[p + 2]
            low, count = phases[p + 3], np.uint64(phases[p + 4] - phases[p + 3])
            for d in range(map_d):
                source_d = d * stride_d + base_d
                for h in range(map_h):
                    source_h = h * stride_h + base_h
                    if 0 <= source_d < depth and 0 <= source_h < height and scale != 0.0:
                        row = start + ((c * depth + source_d) * height + source_h) * width
                        source, to = np.uint64(row + low * stride_w + base_w), np.uint64(at + low)
                        if stride_w == 1:
                            for i in range(count):
                                maps[to + i] = np.rint(x[source + i] * scale)
                        else:
                            for i in range(count):
                                maps[to + i] = np.rint(x[source + i * step] * scale)
                    at += map_w


@jit_of_integers
def _add_terms(maps, terms, weights, start, stop, total):
    """``total += weights @ maps[terms]`` for the elements from ``start`` to before ``stop``, four terms at a time."""
    count, to = np.uint64(stop - start), np.uint64(start)
    for t in range(0, terms.size, 4):
        a, b = np.uint64(terms[t] + start), np.uint64(terms[t + 1] + start)
        c, d = np.uint64(terms[t + 2] + start), np.uint64(terms[t + 3] + start)
        wa, wb, wc, wd = weights[t], weights[t + 1], weights[t + 2], weights[t + 3]
        for i in range(count):
            total[to + i] = (((total[to + i] + maps[a + i] * wa) + maps[b + i] * wb) + maps[c + i] * wc) + maps[
                d + i
            ] * wd


@jit_of_integers
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
            total[to + i] = (((total[to + i] + xa * wa) + xb * wb) + xc * wc) + xd * wd
            other[to + i] = (((other[to + i] + xa * va) + xb * vb) + xc * vc) + xd * vd


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
def direct(
    x, scale, units, weight, unit_channels, bias, geometry, phases, terms, placing, out_size, run, groups, span, y
):  # fmt: skip
    """Convolve by adding shifted maps, where few outputs share a map: no columns, and the result is rounded in place.

    Args:
        x: binary32 ``(batch, groups * channels, depth, height, width)``.
        scale, units: of the samples' grids.
        weight: grid integers ``(groups * outputs, terms)``; a multiple of four terms, those too many being 0.
        unit_channels: of the grids of the outputs.
        geometry, phases: of the maps.
        terms: where each term's map starts in the maps of a group.
        placing: as for ``round_maps``.
        run: elements from the first output to the last, where outputs lie as in a map.
        span: samples: first, and after the last.
    """
    outputs, count = unit_channels.size // groups, terms.size
    map_d, map_h, map_w = geometry[7], geometry[8], geometry[9]
    maps = np.empty(geometry[0] * phases.size // 5 * map_d * map_h * map_w)
    total, other, scales = np.empty(run), np.empty(run), np.empty(geometry[0])
    size = geometry[1] * geometry[2] * geometry[3]
    plane = placing[1] * placing[2] * placing[3]
    for n in range(span[0], span[1]):
        for g in range(groups):
            if scale[n] != 0.0:
                scales[:] = scale[n]
                _fill_maps(x, (n * groups + g) * geometry[0] * size, scales, geometry, phases, maps)
            for o in range(g * outputs, (g + 1) * outputs, 2):
                pair = o + 1 < (g + 1) * outputs
                weights, others = weight[o * count : (o + 1) * count], weight[(o + 1) * count : (o + 2) * count]
                total[:] = 0.0
                other[:] = 0.0
                for start in range(0, run if scale[n] != 0.0 else 0, _CHUNK):
                    stop = min(start + _CHUNK, run)
                    if pair:
                        _add_terms_twice(maps, terms, weights, others, start, stop, total, other)
                    else:
                        _add_terms(maps, terms, weights, start, stop, total)
                for which in range(2 if pair else 1):
                    to, sums = o + which, other if which else total
                    unit, first = units[n] * unit_channels[to], (n * groups * outputs + to) * plane
                    _round_map(sums, unit, bias[to : to + 1], placing, map_h, map_w, out_size, first, y)


@jit
def _fill_outputs(grad, start, scales, geometry, out_size, run, maps):
    """One sample's outputs as grid integers that lie as in a map, with 0 between the rows."""
    at = start
    count = np.uint64(out_size[2])
    maps[:] = 0.0
    for o in range(scales.size):
        for d in range(out_size[0]):
            for h in range(out_size[1]):
                to, source = np.uint64(o * run + (d * geometry[8] + h) * geometry[9]), np.uint64(at)
                if scales[o] != 0.0:
                    for i in range(count):
                        maps[to + i] = np.rint(grad[source + i] * scales[o])
                at += out_size[2]


@jit_of_integers
def _add_dots(grads, first, second, maps, terms, begin, length, sums, others):
    """The dot products of two outputs with every term's map, of ``length`` elements from ``begin`` on, four at a time."""
    count = np.uint64(length)
    to_first, to_second = np.uint64(first + begin), np.uint64(second + begin)
    for t in range(0, terms.size, 4):
        a, b = np.uint64(terms[t] + begin), np.uint64(terms[t + 1] + begin)
        c, d = np.uint64(terms[t + 2] + begin), np.uint64(terms[t + 3] + begin)
        pa, pb, pc, pd = 0.0, 0.0, 0.0, 0.0
        qa, qb, qc, qd = 0.0, 0.0, 0.0, 0.0
        for i in range(count):
            g, h = grads[to_first + i], grads[to_second + i]
            xa, xb, xc, xd = maps[a + i], maps[b + i], maps[c + i], maps[d + i]
            pa += g * xa
            pb += g * xb
            pc += g * xc
            pd += g * xd
            qa += h * xa
            qb += h * xb
            qc += h * xc
            qd += h * xd
        sums[t] += pa
        sums[t + 1] += pb
        sums[t + 2] += pc
        sums[t + 3] += pd
        others[t] += qa
        others[t + 1] += qb
        others[t + 2] += qc
        others[t + 3] += qd


@jit
def _flush(sums, total):
    for i in range(sums.size):
        total[i] += np.int64(sums[i])
        sums[i] = 0.0


@jit
def direct_weight_grad(
    grad, x, grad_scale, x_scale, geometry, phases, terms, out_size, run, groups, exact, span, total
):
    """Add the samples' part of the gradient to the weight: dot products of upstream gradients and shifted maps.

    Args:
        grad: binary32 ``(batch, groups * outputs, *out_size)``.
        x: binary32 ``(batch, groups * channels, depth, height, width)``.
        grad_scale, x_scale: of the channels' grids.
        geometry, phases: of the maps of ``x``.
        terms: where each term's map starts in the maps of a group; a multiple of four terms.
        run: as for :func:`direct`.
        exact: how many products binary64 adds exactly.
        span: samples: first, and after the last.
        total: int64 ``(groups * outputs, terms)``, added to.
    """
    channels, outputs, count = geometry[0], grad_scale.size // groups, terms.size
    size = geometry[1] * geometry[2] * geometry[3]
    positions = out_size[0] * out_size[1] * out_size[2]
    maps = np.empty(channels * phases.size // 5 * geometry[7] * geometry[8] * geometry[9])
    upstream, sums, unused = np.empty(outputs * run), np.zeros(outputs * count), np.zeros(count)
    chunk = min(_CHUNK, exact)
    for g in range(groups):
        inputs, results, room = g * channels, g * outputs, exact
        own = total[results * count : (results + outputs) * count]
        for n in range(span[0], span[1]):
            start = (n * groups * channels + inputs) * size
            _fill_maps(x, start, x_scale[inputs : inputs + channels], geometry, phases, maps)
            start = (n * groups * outputs + results) * positions
            _fill_outputs(grad, start, grad_scale[results : results + outputs], geometry, out_size, run, upstream)
            for begin in range(0, run, chunk):
                length = min(chunk, run - begin)
                if room < length:
                    _flush(sums, own)
                    room = exact
                room -= length
                for o in range(0, outputs, 2):
                    pair = o + 1 < outputs
                    others = sums[(o + 1) * count : (o + 2) * count] if pair else unused
                    second = (o + 1 if pair else o) * run
                    mine = sums[o * count : (o + 1) * count]
                    _add_dots(upstream, o * run, second, maps, terms, begin, length, mine, others)
        _flush(sums, own)
