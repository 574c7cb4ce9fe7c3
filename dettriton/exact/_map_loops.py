"""Loops of products that are added up in tiles, each of them small enough for a processor's registers.

Most are of convolutions that add up shifted maps: a sample's channels are padded once, and a tap is where reading starts.
No columns are written, so this is quicker than a matrix product wherever the maps of a sample fit a cache. Arrays,
scales, units and indices are those of :mod:`dettriton.exact._conv_loops`. ``geometry`` is: channels of a group; input
depth, height, width; strides; depth, height, width of a phase's map. ``phases`` holds for each phase the first input
index by dimension (it may be outside), the first column of its map that is inside the input, and that after the last.

The last ones are of dot products of rows; their scales and units are those of :mod:`dettriton.exact._grid_loops`.
"""

import numpy as np

from dettriton.exact._jit import Intrinsic, jit, jit_of_integers

_CANONICAL_NAN = np.float32(np.nan)
_CHUNK = 256
TILE = 32
"""Sums that are kept in registers: two vectors of four for each of four rows."""
ROWS = 4
_LANES = TILE // ROWS


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


@Intrinsic
def _sum_tile(_, rows, adds, vectors, steps, start, scalars, places, bases, total, at, pitch):
    """A tile of sums of products, ``TILE // rows`` elements wide, that stays in registers; compilers' loops do not.

    ``total[at + r * pitch + i]`` becomes, or grows by where ``adds``, the sum over all ``t`` of
    ``scalars[bases[r] + places[t]] * vectors[start + steps[t] + i]``. ``rows`` and ``adds`` are literals, and there is at
    least one ``t``. All numbers are integers whose sums are below 2**53: a processor may fuse as it likes.
    """
    from llvmlite import ir
    from numba.core import types

    height, width = rows.literal_value, TILE // rows.literal_value
    vector, word, lane = ir.VectorType(ir.DoubleType(), width), ir.IntType(64), ir.IntType(32)
    undefined, same_lane = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(lane, width), None)

    def instructions(context, builder, signature, arguments):
        def array(of):
            return context.make_array(signature.args[of])(context, builder, arguments[of])

        def load(data, index):
            return builder.load(builder.gep(data, [index]))

        def vector_at(data, index):
            return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())

        steps, data, places, bases, total = array(3), array(5).data, array(6).data, array(7).data, array(8).data
        offsets = [builder.add(arguments[9], builder.mul(arguments[10], word(r))) for r in range(height)]
        rows_of = [builder.gep(data, [load(bases, word(r))]) for r in range(height)]
        grows = adds.literal_value
        first = [builder.load(vector_at(total, o), align=8) if grows else ir.Constant(vector, None) for o in offsets]
        from_start = builder.gep(array(2).data, [arguments[4]])
        before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.branch(loop)
        builder.position_at_end(loop)
        t, sums = builder.phi(word), [builder.phi(vector) for _ in range(height)]
        elements = builder.load(vector_at(from_start, load(steps.data, t)), align=8)
        place, following, finished = load(places, t), builder.add(t, word(1)), []
        for row, running in zip(rows_of, sums, strict=True):
            scalar = builder.insert_element(undefined, load(row, place), lane(0))
            product = builder.fmul(builder.shuffle_vector(scalar, undefined, same_lane), elements, flags=("contract",))
            finished.append(builder.fadd(running, product, flags=("contract",)))
        for phi, initial, later in zip((t, *sums), (word(0), *first), (following, *finished), strict=True):
            phi.add_incoming(initial, before)
            phi.add_incoming(later, loop)
        builder.cbranch(builder.icmp_signed("<", following, steps.nitems), loop, after)
        builder.position_at_end(after)
        for offset, done in zip(offsets, finished, strict=True):
            builder.store(done, vector_at(total, offset), align=8)
        return context.get_dummy_value()

    given = rows, adds, vectors, steps, start, scalars, places, bases, total, at, pitch
    return types.void(*given), instructions


@jit
def _rows(left):
    """Outputs of the next tile where so many are left."""
    return 4 if left >= 4 else 2 if left >= 2 else 1


@jit
def _pack(weight, outputs, count, packed):
    """Weights ``(outputs, count)`` for one tile after another, each as ``(count, rows)``."""
    o = 0
    while o < outputs:
        rows = _rows(outputs - o)
        for t in range(count):
            for r in range(rows):
                packed[o * count + t * rows + r] = weight[(o + r) * count + t]
        o += rows


@jit
def _add_maps(maps, terms, packed, places, rows, run, total, pitch):
    """The sums of ``rows`` outputs for all elements of a run, the terms' weights being ``packed``."""
    bases = np.arange(rows)
    for start in range(0, run, TILE // rows):
        if rows == 4:
            _sum_tile(4, False, maps, terms, start, packed, places, bases, total, start, pitch)
        elif rows == 2:
            _sum_tile(2, False, maps, terms, start, packed, places, bases, total, start, pitch)
        else:
            _sum_tile(1, False, maps, terms, start, packed, places, bases, total, start, pitch)


@jit
def _round_map(total, step, unit, bias, placing, map_h, map_w, out_size, start, y):
    """The sums of one output, which lie ``step`` apart in rows of ``map_w``, to their places."""
    height, width = placing[2], placing[3]
    step_w, count = np.uint64(placing[6]), np.uint64(out_size[2])
    for d in range(out_size[0]):
        for h in range(out_size[1]):
            row = (d * placing[4] + placing[7]) * height + h * placing[5] + placing[8]
            to, at = np.uint64(start + row * width + placing[9]), np.uint64((d * map_h + h) * map_w * step)
            if unit != unit:
                for i in range(count):
                    y[to + i * step_w] = _CANONICAL_NAN
            elif step == 1 and placing[6] == 1:
                for i in range(count):
                    y[to + i] = np.float32(total[at + i] + 0.0) * unit
            else:
                for i in range(count):
                    y[to + i * step_w] = np.float32(total[at + i * np.uint64(step)] + 0.0) * unit
            for plus in bias:
                for i in range(count):
                    value = y[to + i * step_w] + plus
                    y[to + i * step_w] = value if value == value else _CANONICAL_NAN


@jit
def direct(
    x, scale, units, weight, unit_channels, bias, geometry, phases, terms, placing, out_size, run, groups, span, y
):  # fmt: skip
    """Convolve by adding shifted maps: no columns are written, and the result is rounded in place.

    Args:
        x: binary32 ``(batch, groups * channels, depth, height, width)``.
        scale, units: of the samples' grids.
        weight: grid integers ``(groups * outputs, terms)``.
        unit_channels: of the grids of the outputs.
        geometry, phases: of the maps.
        terms: where each term's map starts in the maps of a group.
        placing: as for ``round_maps``.
        run: elements from the first output to the last, where outputs lie as in a map.
        span: samples: first, and after the last.
    """
    outputs, count = unit_channels.size // groups, terms.size
    map_d, map_h, map_w = geometry[7], geometry[8], geometry[9]
    elements, pitch = geometry[0] * phases.size // 5 * map_d * map_h * map_w, run + TILE
    maps, scales = np.zeros(elements + TILE), np.empty(geometry[0])
    total, packed, order = np.zeros(4 * pitch), np.empty(weight.size), np.arange(count)
    for g in range(groups):
        group = slice(g * outputs * count, (g + 1) * outputs * count)
        _pack(weight[group], outputs, count, packed[group])
    size = geometry[1] * geometry[2] * geometry[3]
    plane = placing[1] * placing[2] * placing[3]
    for n in range(span[0], span[1]):
        adds = scale[n] != 0.0 and count > 0
        for g in range(groups):
            if adds:
                scales[:] = scale[n]
                start = (n * groups + g) * geometry[0] * size
                _fill_maps(x, start, scales, geometry, phases, maps[:elements])
            else:
                total[:] = 0.0
            o, end = g * outputs, (g + 1) * outputs
            while o < end:
                rows = _rows(end - o)
                if adds:
                    own = packed[o * count : (o + rows) * count]
                    _add_maps(maps, terms, own, order * rows, rows, run, total, pitch)
                for r in range(rows):
                    unit, first = units[n] * unit_channels[o + r], (n * groups * outputs + o + r) * plane
                    sums = total[r * pitch : r * pitch + run]
                    _round_map(sums, 1, unit, bias[o + r : o + r + 1], placing, map_h, map_w, out_size, first, y)
                o += rows


@jit
def _fill_lanes(x, start, step_row, step_term, scales, count, packed):
    """Rows of ``count`` terms as grid integers ``(blocks of rows, count, rows of a block)``, with 0 for those too many.

    The scales of rows that are grid integers already are 1.
    """
    packed[:] = 0.0
    for o in range(scales.size):
        block, lane = o // _LANES * count, o % _LANES
        if scales[o] != 0.0:
            for t in range(count):
                packed[(block + t) * _LANES + lane] = np.rint(x[start + o * step_row + t * step_term] * scales[o])


@jit
def direct_of_positions(
    x, scale, units, weight, unit_channels, bias, geometry, phases, terms, placing, out_size, places, groups, span, y
):  # fmt: skip
    """As :func:`direct` with tiles of four positions and some outputs: nothing is computed between a map's rows.

    Args:
        places: where each output lies in a map, filled up to a multiple of four.
    """
    outputs, count = unit_channels.size // groups, terms.size
    elements = geometry[0] * phases.size // 5 * geometry[7] * geometry[8] * geometry[9]
    width = -(-outputs // _LANES) * _LANES
    maps, scales = np.empty(elements), np.empty(geometry[0])
    total, packed, steps = np.zeros(places.size * width), np.empty(groups * width * count), np.arange(count) * _LANES
    ones = np.ones(outputs)
    for g in range(groups):
        own = packed[g * width * count : (g + 1) * width * count]
        _fill_lanes(weight, g * outputs * count, count, 1, ones, count, own)
    size = geometry[1] * geometry[2] * geometry[3]
    plane = placing[1] * placing[2] * placing[3]
    for n in range(span[0], span[1]):
        for g in range(groups):
            if scale[n] != 0.0 and count > 0:
                scales[:] = scale[n]
                _fill_maps(x, (n * groups + g) * geometry[0] * size, scales, geometry, phases, maps)
                for o in range(0, width, _LANES):
                    start = (g * width + o) * count
                    for p in range(0, places.size, ROWS):
                        bases = places[p : p + ROWS]
                        _sum_tile(4, False, packed, steps, start, maps, terms, bases, total, p * width + o, width)
            else:
                total[:] = 0.0
            for o in range(outputs):
                to = g * outputs + o
                unit, first = units[n] * unit_channels[to], (n * groups * outputs + to) * plane
                one = bias[to : to + 1]
                _round_map(total[o:], width, unit, one, placing, out_size[1], out_size[2], out_size, first, y)


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
def _fill_rows(grad, start, scales, positions, width, rows):
    """One sample's outputs as grid integers, those of a position side by side: ``(positions, width)``."""
    for o in range(scales.size):
        scale, source, to = scales[o], np.uint64(start + o * positions), np.uint64(o)
        for i in range(np.uint64(positions)):
            value = np.rint(grad[source + i] * scale)
            rows[to + i * np.uint64(width)] = value if scale != 0.0 else 0.0


@jit
def weight_grad_of_positions(
    grad, x, grad_scale, x_scale, geometry, phases, terms, places, samples, groups, exact, span, total
):
    """Add the samples' part of the gradient to the weight, of some outputs and four terms at a time.

    Args:
        grad: binary32 ``(batch, groups * outputs, positions)``.
        x: binary32 ``(batch, groups * channels, depth, height, width)``.
        grad_scale, x_scale: of the channels' grids.
        geometry, phases: of the maps of ``x``.
        terms: where each term's map starts in the maps of a group; a multiple of four terms.
        places: where each position lies in a map.
        samples: how many are kept as integers at once.
        exact: how many products binary64 adds exactly; at least as many as there are positions.
        span: samples: first, and after the last.
        total: int64 ``(groups * outputs, terms)``, added to.
    """
    channels, outputs, count, positions = geometry[0], grad_scale.size // groups, terms.size, places.size
    size, width = geometry[1] * geometry[2] * geometry[3], -(-outputs // _LANES) * _LANES
    elements = channels * phases.size // 5 * geometry[7] * geometry[8] * geometry[9]
    samples = min(samples, max(exact // positions, 1))
    maps, rows = np.empty(samples * elements), np.zeros(samples * positions * width)
    every, steps = np.empty(samples * positions, np.int64), np.arange(samples * positions) * width
    for s in range(samples):
        for p in range(positions):
            every[s * positions + p] = places[p] + s * elements
    sums = np.zeros(count * width)
    for g in range(groups):
        inputs, results, room = g * channels, g * outputs, exact
        own = total[results * count : (results + outputs) * count]
        for first in range(span[0], span[1], samples):
            together = min(samples, span[1] - first)
            for s in range(together):
                start = ((first + s) * groups * channels + inputs) * size
                scales, to = x_scale[inputs : inputs + channels], s * elements
                _fill_maps(x, start, scales, geometry, phases, maps[to : to + elements])
                start, to = ((first + s) * groups * outputs + results) * positions, s * positions * width
                _fill_rows(grad, start, grad_scale[results : results + outputs], positions, width, rows[to:])
            used = together * positions
            if room < used:
                _flush(sums, width, own)
                room = exact
            room -= used
            for t in range(0, count, ROWS):
                bases = terms[t : t + ROWS]
                for o in range(0, width, _LANES):
                    _sum_tile(4, True, rows, steps[:used], o, maps, every, bases, sums, t * width + o, width)
        _flush(sums, width, own)


@jit
def _flush(sums, width, total):
    """Add sums ``(terms, width)`` to int64 totals ``(outputs, terms)``, and begin again."""
    count = sums.size // width
    for t in range(count):
        for o in range(total.size // count):
            total[o * count + t] += np.int64(sums[t * width + o])
    sums[:] = 0.0


@jit
def _flush_dots(sums, total):
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
                    _flush_dots(sums, own)
                    room = exact
                room -= length
                for o in range(0, outputs, 2):
                    pair = o + 1 < outputs
                    others = sums[(o + 1) * count : (o + 2) * count] if pair else unused
                    second = (o + 1 if pair else o) * run
                    mine = sums[o * count : (o + 1) * count]
                    _add_dots(upstream, o * run, second, maps, terms, begin, length, mine, others)
        _flush_dots(sums, own)


@jit
def _round_row(total, unit, units, bias, y):
    for c in range(y.size):
        # An exact zero is +0, whatever order and signs the products had.
        y[c] = np.float32(total[c] + 0.0) * (unit * units[c])
    for c in range(bias.size):
        y[c] = y[c] + bias[c]
    for c in range(y.size):
        y[c] = y[c] if y[c] == y[c] else _CANONICAL_NAN


@jit
def round_matrices(total, unit_rows, unit_cols, batch, rows, cols, bias, y):
    """Exact totals (batch, rows, cols) to binary32: to 24 bits once, by the units of row and column, ``+ bias``.

    ``bias`` is empty or has ``cols`` elements.
    """
    for b in range(batch):
        units = unit_cols[b * cols : (b + 1) * cols]
        for r in range(b * rows, (b + 1) * rows):
            start, stop = r * cols, (r + 1) * cols
            _round_row(total[start:stop], unit_rows[r], units, bias, y[start:stop])


@jit
def _fill_row(x, start, step, scale, maps):
    """A row as grid integers; 0 for a scale of 0."""
    if scale == 0.0:
        maps[:] = 0.0
    elif step == 1:
        at = np.uint64(start)
        for t in range(maps.size):
            maps[t] = np.rint(x[at + np.uint64(t)] * scale)
    else:
        for t in range(maps.size):
            maps[t] = np.rint(x[start + t * step] * scale)


@jit
def dots_of_rows(a, b, scale_a, scale_b, unit_a, unit_b, steps_a, steps_b, sizes, bias, first, last, y):
    """The rounded dot products of the rows of ``a`` (batch, rows, count) with those of ``b`` (batch, cols, count).

    Args:
        scale_a, scale_b, unit_a, unit_b: of the grids, one a row.
        steps_a, steps_b: from a row to the next, and from a term to the next.
        sizes: batch, rows, cols, count.
        bias: as for :func:`round_matrices`.
        first, last: fours of rows, numbered through all matrices of the batch.
        y: binary32 ``(batch, rows, cols)``.
    """
    rows, cols, count = sizes[1], sizes[2], sizes[3]
    width, fours = -(-cols // _LANES) * _LANES, -(-rows // ROWS)
    maps, total, packed = np.zeros(ROWS * count), np.empty(ROWS * width), np.empty(width * count)
    steps, terms, bases = np.arange(count) * _LANES, np.arange(count), np.arange(ROWS) * count
    packed_matrix = -1
    for four in range(first, last):
        n, begin = four // fours, four % fours * ROWS
        if n != packed_matrix:
            _fill_lanes(b, n * cols * count, steps_b[0], steps_b[1], scale_b[n * cols : (n + 1) * cols], count, packed)
            packed_matrix = n
        here = min(rows - begin, ROWS)
        for r in range(here):
            start = n * rows * count + (begin + r) * steps_a[0]
            _fill_row(a, start, steps_a[1], scale_a[n * rows + begin + r], maps[r * count : (r + 1) * count])
        for o in range(0, width, _LANES):
            _sum_tile(4, False, packed, steps, o * count, maps, terms, bases, total, o, width)
        for r in range(here):
            row = n * rows + begin + r
            sums = total[r * width : r * width + cols]
            _round_row(sums, unit_a[row], unit_b[n * cols : (n + 1) * cols], bias, y[row * cols : (row + 1) * cols])
