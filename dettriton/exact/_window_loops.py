"""Loops that sum terms exactly in two windows: what :mod:`dettriton.exact.window` does in torch operations.

An array is flat and means (outer, kept, inner); a sum runs over outer and inner of one kept index. Its largest
magnitude is found first, then each term is cut into two integers below 2**32, which are added in int64, so the order
that the compiler chooses for the additions changes nothing.
"""

import numpy as np

from dettriton.exact._jit import jit

LOWEST_WINDOW = -5
NOT_FINITE = 0x7F800000
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_SIGN_FLIP = np.int32(0x7FFFFFFF)
_NAN = np.float32(np.nan)
_ZERO, _ONE = np.float32(0), np.float32(1)
_ONE_UP = 2.0**32
_ONE_DOWN = 2.0**-32
# Added to an integer below 2**51 it leaves that integer in the low bits of a binary64: a conversion that vectorises.
_INTEGER = 1.5 * 2.0**52
_INTEGER_BITS = np.int64(np.float64(_INTEGER).view(np.int64))
# Fits into an int64; where this many terms cannot reach it, each of them is below 2**51.
_LARGEST_TOTAL = 2.0**62
_FEWEST_TERMS = 1 << 11
# The same for a multiple of 2**32 below 2**64: it leaves the multiple's factor.
_MULTIPLE = 1.5 * 2.0**84
_MULTIPLE_BITS = np.int64(np.float64(_MULTIPLE).view(np.int64))


@jit
def _window(top):
    """The window of the magnitude with these bits."""
    if top >= 1 << 23:
        return ((np.int64(top) >> 23) - 127) >> 5
    return np.int64(-4) if top >= 1 << 21 else np.int64(LOWEST_WINDOW)


@jit
def _to_grid(window):
    """``2**(-32 * (window - 1))``, which makes the lower window's unit 1."""
    return np.int64((1023 - 32 * (window - 1)) << 52).view(np.float64)


@jit
def _rounded(window, hi, lo):
    """As ``round_window_pair``."""
    hi += lo >> 32
    lo &= 0xFFFFFFFF
    if -(1 << 31) <= hi < 1 << 31:
        return np.float32(np.float64(np.float32((hi << 32) | lo)) / _to_grid(window))
    return np.float32(np.float64(np.float32(hi | np.int64(lo != 0))) / _to_grid(window + 1))


@jit
def _bits(value):
    # Numba widens a result of 32 bits to 64, in which the largest of several takes much longer to find.
    return np.uint32(np.float32(value).view(np.uint32) & _MAGNITUDE)


@jit
def _top(run):
    """The bits of the largest magnitude; a NaN's exceed those of an infinity."""
    top = np.uint32(0)
    for i in range(run.size):
        top = max(top, _bits(run[i]))
    return top


@jit
def _halves(term, grid):
    """The term's integers in both windows, each plus ``_INTEGER_BITS``."""
    scaled = np.float64(term) * grid
    hi = np.trunc(scaled * _ONE_DOWN)
    lo = np.trunc(scaled - hi * _ONE_UP)
    return np.float64(hi + _INTEGER).view(np.int64), np.float64(lo + _INTEGER).view(np.int64)


@jit
def _split(term, grid):
    """Other integers of the same sum, found sooner: the nearest multiple of 2**32 and what is left.

    The first comes as the multiple's factor plus ``_MULTIPLE_BITS``, the second one plus ``_INTEGER_BITS``.
    """
    whole = np.trunc(np.float64(term) * grid)
    nearest = whole + _MULTIPLE
    left = whole - (nearest - _MULTIPLE)
    return np.float64(nearest).view(np.int64), np.float64(left + _INTEGER).view(np.int64)


@jit
def _sums(run, grid):
    hi = np.int64(0)
    lo = np.int64(0)
    for i in range(run.size):
        h, low = _halves(run[i], grid)
        hi += h
        lo += low
    return hi - run.size * _INTEGER_BITS, lo - run.size * _INTEGER_BITS


@jit
def _kept_sums(x, outer, kept, inner, k, grid):
    """The integers of both windows, summed over the terms of one kept index."""
    hi = np.int64(0)
    lo = np.int64(0)
    for o in range(outer):
        at = (o * kept + k) * inner
        h, low = _sums(x[at : at + inner], grid)
        hi += h
        lo += low
    return hi, lo


@jit
def accumulate_runs(x, outer, kept, inner, first, last, window, hi, lo, finite):
    """The accumulators of the kept indices ``first`` to ``last``; a run of ``inner`` terms at a time."""
    for k in range(first, last):
        top = np.uint32(0)
        for o in range(outer):
            at = (o * kept + k) * inner
            top = max(top, _top(x[at : at + inner]))
        finite[k] = top < NOT_FINITE
        window[k] = _window(top if finite[k] else np.uint32(0))
        hi[k] = 0
        lo[k] = 0
        if finite[k]:
            hi[k], lo[k] = _kept_sums(x, outer, kept, inner, k, _to_grid(window[k]))


@jit
def _widen_tops(row, tops):
    for k in range(row.size):
        tops[k] = max(tops[k], _bits(row[k]))


@jit
def _add_row(row, grids, hi, lo):
    for k in range(row.size):
        h, low = _halves(row[k], grids[k])
        hi[k] += h - _INTEGER_BITS
        lo[k] += low - _INTEGER_BITS


@jit
def accumulate_columns(x, outer, kept, inner, first, last, window, hi, lo, finite):
    """As ``accumulate_runs`` where ``inner`` is 1; a row of kept indices at a time."""
    tops = np.zeros(last - first, np.uint32)
    grids = np.empty(last - first, np.float64)
    for o in range(outer):
        _widen_tops(x[o * kept + first : o * kept + last], tops)
    for k in range(last - first):
        finite[first + k] = tops[k] < NOT_FINITE
        window[first + k] = _window(tops[k] if finite[first + k] else np.uint32(0))
        grids[k] = _to_grid(window[first + k])
    hi[first:last] = 0
    lo[first:last] = 0
    for o in range(outer):
        _add_row(x[o * kept + first : o * kept + last], grids, hi[first:last], lo[first:last])
    for k in range(first, last):
        if not finite[k]:
            hi[k] = 0
            lo[k] = 0


@jit
def round_all(window, hi, lo, finite, total):
    """Round each accumulator; the canonical NaN where a term was not finite."""
    for k in range(total.size):
        total[k] = _rounded(window[k], hi[k], lo[k]) if finite[k] else _NAN


@jit
def index_sums(terms, index, columns, first, last, y):
    """``y[t] = S(y[t], terms[n] for all n whose index is t)`` for the columns ``first`` to ``last`` of (n, columns)."""
    width = last - first
    count = y.size // columns * width
    tops, grids = np.zeros(count, np.uint32), np.empty(count)
    window, hi, lo = np.empty(count, np.int64), np.zeros(count, np.int64), np.zeros(count, np.int64)
    for at in range(0, count, width):
        start = at // width * columns
        _widen_tops(y[start + first : start + last], tops[at : at + width])
    for n in range(index.size):
        at = index[n] * width
        if width == 1:
            tops[at] = max(tops[at], _bits(terms[n * columns + first]))
        else:
            _widen_tops(terms[n * columns + first : n * columns + last], tops[at : at + width])
    for k in range(count):
        window[k] = _window(tops[k] if tops[k] < NOT_FINITE else np.uint32(0))
        grids[k] = _to_grid(window[k])
    for at in range(0, count, width):
        start, end = at // width * columns, at + width
        _add_row(y[start + first : start + last], grids[at:end], hi[at:end], lo[at:end])
    for n in range(index.size):
        at, end = index[n] * width, (index[n] + 1) * width
        if width == 1:
            h, low = _halves(terms[n * columns + first], grids[at])
            hi[at] += h - _INTEGER_BITS
            lo[at] += low - _INTEGER_BITS
            continue
        _add_row(terms[n * columns + first : n * columns + last], grids[at:end], hi[at:end], lo[at:end])
    for k in range(count):
        place = k // width * columns + first + k % width
        y[place] = _rounded(window[k], hi[k], lo[k]) if tops[k] < NOT_FINITE else _NAN


@jit
def scattered_sums(terms, index, y):
    """``y[t] = S(y[t], terms[n] for all n whose index is t)``; what no index names stays as it is."""
    tops, named = np.zeros(y.size, np.uint32), np.zeros(y.size, np.bool_)
    # Grid and sums of a target lie together, for targets are reached in any order.
    records = np.zeros(3 * y.size, np.int64)
    for n in range(index.size):
        at = np.uint64(index[n])
        tops[at] = max(tops[at], _bits(terms[n]))
        named[at] = True
    for at in range(y.size):
        if named[at]:
            tops[at] = max(tops[at], _bits(y[at]))
            grid = _to_grid(_window(tops[at] if tops[at] < NOT_FINITE else np.uint32(0)))
            high, low = _halves(y[at], grid)
            records[3 * at] = np.float64(grid).view(np.int64)
            records[3 * at + 1], records[3 * at + 2] = high - _INTEGER_BITS, low - _INTEGER_BITS
    for n in range(index.size):
        at = np.uint64(3) * np.uint64(index[n])
        high, low = _halves(terms[n], np.int64(records[at]).view(np.float64))
        records[at + np.uint64(1)] += high - _INTEGER_BITS
        records[at + np.uint64(2)] += low - _INTEGER_BITS
    for at in range(y.size):
        if named[at]:
            finite = tops[at] < NOT_FINITE
            y[at] = _rounded(_window(tops[at]), records[3 * at + 1], records[3 * at + 2]) if finite else _NAN


@jit
def _extremes(run):
    """The smallest and the largest term as integers of the same order; NaNs lie beyond the infinities."""
    low = np.int32(0x7FFFFFFF)
    high = np.int32(-0x80000000)
    for i in range(run.size):
        bits = np.float32(run[i]).view(np.int32)
        key = np.int32(bits ^ ((bits >> 31) & _SIGN_FLIP))
        low = min(low, key)
        high = max(high, key)
    return low, high


@jit
def _of_key(key):
    return np.int32(key ^ ((key >> 31) & _SIGN_FLIP)).view(np.float32)


@jit
def _square_sums(run, mean, grid):
    hi = np.int64(0)
    lo = np.int64(0)
    for i in range(run.size):
        centred = run[i] - mean
        h, low = _split(centred * centred, grid)
        hi += h
        lo += low
    return hi - run.size * _MULTIPLE_BITS, lo - run.size * _INTEGER_BITS


@jit
def statistics(x, outer, kept, inner, first, last, means, squares):
    """``m = S(x) / n`` and ``S((x - m) * (x - m))`` of the kept indices ``first`` to ``last``."""
    terms = np.float32(outer * inner)
    for k in range(first, last):
        low = np.int32(0x7FFFFFFF)
        high = np.int32(-0x80000000)
        for o in range(outer):
            at = (o * kept + k) * inner
            smaller, larger = _extremes(x[at : at + inner])
            low = min(low, smaller)
            high = max(high, larger)
        smallest, largest = _of_key(low), _of_key(high)
        top = max(_bits(smallest), _bits(largest))
        mean = _NAN
        if top < NOT_FINITE:
            window = _window(top)
            hi, lo = _kept_sums(x, outer, kept, inner, k, _to_grid(window))
            mean = _rounded(window, hi, lo) / terms
        means[k] = mean
        # A rounded difference keeps the order of what it is taken from: the extremes have the largest squares.
        top = max(_bits(smallest - mean), _bits(largest - mean))
        farthest = np.uint32(top).view(np.float32)
        top = _bits(farthest * farthest)
        squares[k] = _NAN
        if top < NOT_FINITE:
            window = _window(top)
            grid = _to_grid(window)
            hi = np.int64(0)
            lo = np.int64(0)
            for o in range(outer):
                at = (o * kept + k) * inner
                h, below = _square_sums(x[at : at + inner], mean, grid)
                hi += h
                lo += below
            squares[k] = _rounded(window, hi, lo)


@jit
def _gradient_tops(grad, x, gate, gated, mean, scale):
    top = np.uint32(0)
    top_product = np.uint32(0)
    for i in range(grad.size):
        g = grad[i] if (gate[i] > _ZERO) | (not gated) else _ZERO
        top = max(top, _bits(g))
        top_product = max(top_product, _bits(g * ((x[i] - mean) * scale)))
    return top, top_product


@jit
def _gradient_sums(grad, x, gate, gated, mean, scale, grid, grid_product):
    hi = np.int64(0)
    lo = np.int64(0)
    hi_product = np.int64(0)
    lo_product = np.int64(0)
    for i in range(grad.size):
        g = grad[i] if (gate[i] > _ZERO) | (not gated) else _ZERO
        h, low = _split(g, grid)
        hi += h
        lo += low
        h, low = _split(g * ((x[i] - mean) * scale), grid_product)
        hi_product += h
        lo_product += low
    high, low = grad.size * _MULTIPLE_BITS, grad.size * _INTEGER_BITS
    return hi - high, lo - low, hi_product - high, lo_product - low


@jit
def gradient_sums(grad, x, gate, gated, outer, kept, inner, first, last, means, scales, totals, products):
    """``S(g)`` and ``S(g * h)``, ``h = (x - m) * r``; where ``gated``, ``g`` is the gradient where the gate is above 0."""
    for k in range(first, last):
        mean, scale = means[k], scales[k]
        top = np.uint32(0)
        top_product = np.uint32(0)
        for o in range(outer):
            at = (o * kept + k) * inner
            end = at + inner
            t, p = _gradient_tops(grad[at:end], x[at:end], gate[at:end], gated, mean, scale)
            top = max(top, t)
            top_product = max(top_product, p)
        window, window_product = _window(top), _window(top_product)
        grid, grid_product = _to_grid(window), _to_grid(window_product)
        hi = np.int64(0)
        lo = np.int64(0)
        hi_product = np.int64(0)
        lo_product = np.int64(0)
        for o in range(outer):
            at = (o * kept + k) * inner
            end = at + inner
            parts = _gradient_sums(grad[at:end], x[at:end], gate[at:end], gated, mean, scale, grid, grid_product)
            hi += parts[0]
            lo += parts[1]
            hi_product += parts[2]
            lo_product += parts[3]
        totals[k] = _rounded(window, hi, lo) if top < NOT_FINITE else _NAN
        products[k] = _rounded(window_product, hi_product, lo_product) if top_product < NOT_FINITE else _NAN


@jit
def _whole_total(run, grid):
    """The sum of the terms' integers where none reaches 2**51."""
    total = np.int64(0)
    for i in range(run.size):
        total += np.float64(np.trunc(np.float64(run[i]) * grid) + _INTEGER).view(np.int64)
    return total - run.size * _INTEGER_BITS


@jit
def _split_total(run, grid):
    """The sums of the terms' two integers of ``_split``."""
    hi = np.int64(0)
    lo = np.int64(0)
    for i in range(run.size):
        h, low = _split(run[i], grid)
        hi += h
        lo += low
    return hi - run.size * _MULTIPLE_BITS, lo - run.size * _INTEGER_BITS


@jit
def _total(run, top):
    """``S(run)``, whose largest magnitude has the bits ``top``; the canonical NaN where a term is not finite."""
    if top >= NOT_FINITE:
        return _NAN
    window = _window(top)
    grid = _to_grid(window)
    largest = np.float64(np.uint32(top).view(np.float32)) * grid
    if largest * max(run.size, _FEWEST_TERMS) < _LARGEST_TOTAL:
        return _rounded(window, np.int64(0), _whole_total(run, grid))
    hi, lo = _split_total(run, grid)
    return _rounded(window, hi, lo)


@jit
def _squares(x, mean, squares):
    """``(x - m) * (x - m)`` and the bits of the largest one."""
    top = np.uint32(0)
    for i in range(x.size):
        centred = x[i] - mean
        square = centred * centred
        squares[i] = square
        top = max(top, _bits(square))
    return top


@jit
def _affine(x, mean, scale, weights, biases, y):
    for i in range(x.size):
        y[i] = (((x[i] - mean) * scale) * weights[i]) + biases[i]


@jit
def normalise_rows(x, weights, biases, y, length, first, last, centre, eps, means, scales):
    """``y = (h * weight) + bias``, ``h = (x - m) * r``, of rows of that length; ``m`` is 0 without a centre.

    Weights and biases are those of one row or of several, which the next rows use again.
    """
    terms = np.float32(length)
    squares = np.empty(length, np.float32)
    for row in range(first, last):
        at, end = row * length, (row + 1) * length
        w, b = at % weights.size, at % biases.size
        run = x[at:end]
        mean = _total(run, _top(run)) / terms if centre else _ZERO
        top = _squares(run, mean, squares)
        scale = _ONE / np.sqrt((_total(squares, top) / terms) + eps)
        _affine(run, mean, scale, weights[w : w + length], biases[b : b + length], y[at:end])
        means[row], scales[row] = mean, scale


@jit
def _normalise(x, mean, scale, h):
    for i in range(x.size):
        h[i] = (x[i] - mean) * scale


@jit
def _multiply(a, b, product):
    """``a * b`` and the bits of the largest magnitude in it."""
    top = np.uint32(0)
    for i in range(product.size):
        value = a[i] * b[i]
        product[i] = value
        top = max(top, _bits(value))
    return top


@jit
def _gradient(t, h, grad_mean, product_mean, scale, grad_x):
    for i in range(grad_x.size):
        grad_x[i] = ((t[i] - grad_mean) - (h[i] * product_mean)) * scale


@jit
def row_gradients(grad, x, weights, grad_x, product, length, first, last, centre, means, scales):
    """The gradient to ``x``, and ``g * h``, of what ``normalise_rows`` computes; each unless it is empty.

    ``((t - S(t) / n) - (h * (S(t * h) / n))) * r``, ``t = g * weight``; without a centre no ``S(t) / n`` is subtracted.
    """
    terms = np.float32(length)
    t, h, products = np.empty(length, np.float32), np.empty(length, np.float32), np.empty(length, np.float32)
    for row in range(first, last):
        at, end, w = row * length, (row + 1) * length, row * length % weights.size
        run, scale = grad[at:end], scales[row]
        _normalise(x[at:end], means[row] if centre else _ZERO, scale, h)
        if grad_x.size:
            top = _multiply(run, weights[w : w + length], t)
            grad_mean = _total(t, top) / terms if centre else _ZERO
            top = _multiply(t, h, products)
            product_mean = _total(products, top) / terms
            _gradient(t, h, grad_mean, product_mean, scale, grad_x[at:end])
        if product.size:
            _multiply(run, h, product[at:end])
