"""Fused attention kernels: the score matrix lives in registers, tile by tile, and is computed again by every pass.

Operands arrive as balanced base-128 digits on their grids, so a tile of scores is int8 tensor-core products whose sums
are exact; only integers and maxima are carried from tile to tile, and no tiling can move a bit. A mask has the type
``NO_MASK``, ``BOOL_MASK`` or ``FLOAT_MASK``; the pointer of the other type is never read.
"""

from dettriton.ops._device import grid_exponent, grid_integer, magnitude_bits, round_dot, window_of_bits
from dettriton.ops._device_elementary import exp_f32
from dettriton.ops._device_philox import philox_word
from dettriton.ops._device_rows import NON_FINITE, add_terms, largest_bits, rounded_sum
from dettriton.ops._launch import Variant, blocks, jit, kernel, tl

BLOCK_L, BLOCK_S = 64, 64
# Triton 3.8 turns a kernel with results 128 columns wide into a bare trap on sm_100; int8 dots need 32 terms.
WIDEST, NARROWEST = 64, 32
NO_MASK, BOOL_MASK, FLOAT_MASK = 0, 1, 2
_BOOL = tl.constexpr(BOOL_MASK)
_FLOAT = tl.constexpr(FLOAT_MASK)


def widths(terms: int, outputs: int) -> dict[str, int | bool]:
    """Launch constants for the two depths: of the summed products, and of the results (speed only)."""
    e, v = (min(WIDEST, max(NARROWEST, 1 << max(0, n - 1).bit_length())) for n in (terms, outputs))
    return {"BLOCK_E": e, "BLOCK_V": v, "WHOLE_E": terms <= e, "WHOLE_V": outputs <= v}


def query_grid(heads: int, queries: int, outputs: int, width: int) -> tuple[int, int]:
    """One program for each head, block of queries and chunk of the results' columns.

    Results without columns still need one chunk: it writes the rows' statistics.
    """
    return heads * blocks(queries, BLOCK_L), max(1, blocks(outputs, width))


def key_grid(heads: int, keys: int, terms: int, outputs: int, block_e: int, block_v: int) -> tuple[int, int]:
    """One program for each head, block of keys and chunk of the columns of dK and of dV."""
    return heads * blocks(keys, BLOCK_S), max(blocks(terms, block_e), blocks(outputs, block_v))


def _variants(**more) -> tuple[Variant, ...]:
    kinds = (
        ({"MASK": NO_MASK, "CAUSAL": True, "DROPOUT": False, "DIGITS": 3}, widths(64, 64)),
        ({"MASK": BOOL_MASK, "CAUSAL": False, "DROPOUT": False, "DIGITS": 3}, widths(300, 128)),
        ({"MASK": FLOAT_MASK, "CAUSAL": False, "DROPOUT": True, "DIGITS": 2}, widths(32, 32)),
    )
    return tuple(Variant({**kind, **depth, **more}, num_warps=8) for kind, depth in kinds)


@jit
def _load_digits(ptr, plane, at, mask, DIGITS: tl.constexpr):
    low = tl.load(ptr + at, mask=mask, other=0)
    middle = tl.load(ptr + plane + at, mask=mask, other=0)
    high = middle
    if DIGITS == 3:
        high = tl.load(ptr + 2 * plane + at, mask=mask, other=0)
    return low, middle, high


@jit
def _digits_of(x, exponent, DIGITS: tl.constexpr):
    """Balanced base-128 digits of ``x`` on its grid; with two digits the third is a copy nobody reads."""
    q = grid_integer(x, exponent, 7 * DIGITS - 1)
    low = ((q + 64) & 127) - 64
    middle = (q - low) >> 7
    high = middle
    if DIGITS == 3:
        rest = middle
        middle = ((rest + 64) & 127) - 64
        high = (rest - middle) >> 7
    return low.to(tl.int8), middle.to(tl.int8), high.to(tl.int8)


@jit
def _products(a0, a1, a2, b0, b1, b2, DIGITS: tl.constexpr):
    """The exact int64 product of two tiles of grid integers; few terms, so no int32 sum can overflow."""
    total = tl.dot(a0, b0, out_dtype=tl.int32).to(tl.int64)
    first = tl.dot(a0, b1, out_dtype=tl.int32)
    total += tl.dot(a1, b0, first, out_dtype=tl.int32).to(tl.int64) << 7
    second = tl.dot(a1, b1, out_dtype=tl.int32)
    if DIGITS == 3:
        second = tl.dot(a0, b2, second, out_dtype=tl.int32)
        second = tl.dot(a2, b0, second, out_dtype=tl.int32)
        third = tl.dot(a1, b2, out_dtype=tl.int32)
        total += tl.dot(a2, b1, third, out_dtype=tl.int32).to(tl.int64) << 21
        total += tl.dot(a2, b2, out_dtype=tl.int32).to(tl.int64) << 28
    return total + (second.to(tl.int64) << 14)


@jit
def _chunk(a_ptr, b_ptr, a_plane, b_plane, a_at, b_at, a_mask, b_mask, k, K, DIGITS: tl.constexpr):
    a0, a1, a2 = _load_digits(a_ptr, a_plane, a_at + k[None, :], a_mask & (k < K)[None, :], DIGITS)
    b0, b1, b2 = _load_digits(b_ptr, b_plane, b_at + k[:, None], b_mask & (k < K)[:, None], DIGITS)
    return _products(a0, a1, a2, b0, b1, b2, DIGITS)


@jit
def _dot_tile(
    a, a_first, i, I, b, b_first, j, J, K,
    DIGITS: tl.constexpr, WHOLE: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Exact dots of rows ``i < I`` (after row ``a_first``) with rows ``j < J`` (after ``b_first``), all K long.

    An operand is ``(digits, tops, distance of digit planes)``.
    """
    a_ptr, a_top_ptr, a_plane = a
    b_ptr, b_top_ptr, b_plane = b
    a_at = (a_first + i)[:, None] * K
    b_at = (b_first + j)[None, :] * K
    a_mask = (i < I)[:, None]
    b_mask = (j < J)[None, :]
    k = tl.arange(0, BLOCK_K)
    if WHOLE:
        total = _chunk(a_ptr, b_ptr, a_plane, b_plane, a_at, b_at, a_mask, b_mask, k, K, DIGITS)
    else:
        total = tl.zeros([BLOCK_I, BLOCK_J], tl.int64)
        for start in range(0, K, BLOCK_K):
            total += _chunk(a_ptr, b_ptr, a_plane, b_plane, a_at, b_at, a_mask, b_mask, start + k, K, DIGITS)
    a_exponent = grid_exponent(tl.load(a_top_ptr + a_first + i, mask=i < I, other=0))
    b_exponent = grid_exponent(tl.load(b_top_ptr + b_first + j, mask=j < J, other=0))
    return round_dot(total, a_exponent[:, None] + b_exponent[None, :] - 2 * (7 * DIGITS - 1))


@jit
def _pair_tile(
    a, a_length, b, b_length, n, r, c, K, DIGITS: tl.constexpr, WHOLE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_L: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Dots of head n's rows r of a query-sided operand with its rows c of a key-sided one; (c, r) if ``BY_KEY``."""
    if BY_KEY:
        return _dot_tile(b, n * b_length, c, b_length, a, n * a_length, r, a_length, K,
                         DIGITS, WHOLE, BLOCK_S, BLOCK_L, BLOCK_K)  # fmt: skip
    else:
        return _dot_tile(a, n * a_length, r, a_length, b, n * b_length, c, b_length, K,
                         DIGITS, WHOLE, BLOCK_L, BLOCK_S, BLOCK_K)  # fmt: skip


@jit
def _across(r, c, BY_KEY: tl.constexpr):
    """The queries' and keys' places, so shaped that they broadcast to a tile."""
    if BY_KEY:
        return r[None, :], c[:, None]
    else:
        return r[:, None], c[None, :]


@jit
def _scores(
    q, k, scoring, n, r, c, L, S, E, MASK: tl.constexpr, CAUSAL: tl.constexpr, DIGITS: tl.constexpr,
    WHOLE_E: tl.constexpr, BY_KEY: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """Scaled and masked scores, -Inf at excluded pairs and outside, and which pairs are neither."""
    scale, bool_ptr, float_ptr, heads, mask_b, mask_h, mask_l, mask_s = scoring
    rows, cols = _across(r, c, BY_KEY)
    at = (n // heads) * mask_b + (n % heads) * mask_h + rows * mask_l + cols * mask_s
    allowed = (rows < L) & (cols < S)
    s = _pair_tile(q, L, k, S, n, r, c, E, DIGITS, WHOLE_E, BY_KEY, BLOCK_L, BLOCK_S, BLOCK_E) * scale
    if MASK == _FLOAT:
        s = s + tl.load(float_ptr + at, mask=allowed, other=0.0)
    if MASK == _BOOL:
        allowed = allowed & (tl.load(bool_ptr + at, mask=allowed, other=0) != 0)
    if CAUSAL:
        allowed = allowed & (cols <= rows)
    return tl.where(allowed, s, float("-inf")), allowed


@jit
def _kept(drop, n, r, c, L, S, BY_KEY: tl.constexpr):
    """Which pairs dropout keeps."""
    _, threshold, seed, stream, step_low, step_high = drop
    rows, cols = _across(r, c, BY_KEY)
    return philox_word((n * L + rows) * S + cols, seed, stream, step_low, step_high).to(tl.int64) >= threshold


@jit
def _probability(s, allowed, top, total):
    return tl.where(allowed, tl.div_rn(exp_f32(s - top), tl.broadcast_to(total, s.shape)), 0.0)


@jit
def _probabilities_and_slopes(
    q, k, g, v, scoring, drop, top, total, n, r, c, L, S, E, V,
    MASK: tl.constexpr, CAUSAL: tl.constexpr, DROPOUT: tl.constexpr, DIGITS: tl.constexpr,
    WHOLE_E: tl.constexpr, WHOLE_V: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_L: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """p, p after dropout, dP after dropout, and which pairs are not excluded."""
    s, allowed = _scores(q, k, scoring, n, r, c, L, S, E,
                         MASK, CAUSAL, DIGITS, WHOLE_E, BY_KEY, BLOCK_L, BLOCK_S, BLOCK_E)  # fmt: skip
    slope = _pair_tile(g, L, v, S, n, r, c, V, DIGITS, WHOLE_V, BY_KEY, BLOCK_L, BLOCK_S, BLOCK_V)
    p = _probability(s, allowed, top, total)
    kept = p
    if DROPOUT:
        keep = _kept(drop, n, r, c, L, S, BY_KEY)
        kept = tl.where(keep, p * drop[0], 0.0)
        slope = tl.where(keep, slope * drop[0], 0.0)
    return p, kept, slope, allowed


@jit
def _score_slope(p, slope, mean, scale, allowed):
    """dS."""
    return tl.where(allowed, (p * (slope - mean)) * scale, 0.0)


@jit
def _add_product(total, x, exponent, b, b_first, s, S, v, V, DIGITS: tl.constexpr):
    """``total`` plus the products of ``x`` (its rows' grids given) with the rows v of b, S long."""
    x0, x1, x2 = _digits_of(x, exponent, DIGITS)
    b_mask = (s < S)[:, None] & (v < V)[None, :]
    b0, b1, b2 = _load_digits(b[0], b[2], (b_first + v)[None, :] * S + s[:, None], b_mask, DIGITS)
    return total + _products(x0, x1, x2, b0, b1, b2, DIGITS)


@jit
def _store_product(y_ptr, total, exponent, b, b_first, y_first, r, R, v, V, DIGITS: tl.constexpr):
    b_exponent = grid_exponent(tl.load(b[1] + b_first + v, mask=v < V, other=0))
    y = round_dot(total, exponent + b_exponent[None, :] - 2 * (7 * DIGITS - 1))
    tl.store(y_ptr + (y_first + r)[:, None] * V + v[None, :], y, mask=(r < R)[:, None] & (v < V)[None, :])


@jit
def _window(bits):
    return window_of_bits(tl.where(bits < NON_FINITE, bits, 0))


@jit
def _more_terms(hi, lo, bits, terms):
    """One pass of the rows' exact sums: when a larger term appears, bits below its two windows are dropped."""
    largest = largest_bits(bits, terms)
    raised = _window(largest) - _window(bits)
    lo = tl.where(raised == 0, lo, tl.where(raised == 1, hi, 0))
    hi = tl.where(raised == 0, hi, 0)
    hi, lo = add_terms(hi, lo, terms, largest)
    return hi, lo, largest


_OPTIONS = "*i8 *fp32 i64 i64 i64 i64 i64 fp32 fp32 i64 i64 i64 i64 i64 i64 i64 i64 i64"


@kernel("*i8 *i8 *i8 *i32 *i32 *i32 i64 i64 i64 *fp32 *fp32 *fp32 " + _OPTIONS, *_variants())
def _attention_fwd_kernel(
    q_ptr, k_ptr, v_ptr, q_top_ptr, k_top_ptr, v_top_ptr, plane_q, plane_k, plane_v, o_ptr, top_ptr, total_ptr,
    bool_ptr, float_ptr, heads, mask_b, mask_h, mask_l, mask_s,
    scale, drop_scale, threshold, seed, stream, step_low, step_high, L, S, E, V,
    MASK: tl.constexpr, CAUSAL: tl.constexpr, DROPOUT: tl.constexpr, DIGITS: tl.constexpr,
    WHOLE_E: tl.constexpr, WHOLE_V: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_L: tl.constexpr = BLOCK_L, BLOCK_S: tl.constexpr = BLOCK_S,
):  # fmt: skip
    """o (n, L, V), and each row's maximum and denominator, from digits q (n, L, E), k (n, S, E) and v (n, V, S)."""
    q = (q_ptr, q_top_ptr, plane_q)
    k = (k_ptr, k_top_ptr, plane_k)
    values = (v_ptr, v_top_ptr, plane_v)
    scoring = (scale, bool_ptr, float_ptr, heads, mask_b, mask_h, mask_l, mask_s)
    drop = (drop_scale, threshold, seed, stream, step_low, step_high)
    tile = tl.program_id(0).to(tl.int64) % tl.cdiv(L, BLOCK_L)
    n = tl.program_id(0).to(tl.int64) // tl.cdiv(L, BLOCK_L)
    r = tile * BLOCK_L + tl.arange(0, BLOCK_L)
    v = tl.program_id(1).to(tl.int64) * BLOCK_V + tl.arange(0, BLOCK_V)
    stop = S
    if CAUSAL:
        stop = tl.minimum(S, (tile + 1) * BLOCK_L)
    top = tl.full((BLOCK_L, 1), float("-inf"), tl.float32)
    nans = tl.zeros((BLOCK_L, 1), tl.int32)
    for start in range(0, stop, BLOCK_S):
        c = start + tl.arange(0, BLOCK_S)
        s, allowed = _scores(q, k, scoring, n, r, c, L, S, E,
                             MASK, CAUSAL, DIGITS, WHOLE_E, False, BLOCK_L, BLOCK_S, BLOCK_E)  # fmt: skip
        nans += tl.sum((s != s).to(tl.int32), axis=1)[:, None]
        top = tl.maximum(top, tl.max(tl.where(s == s, s, 0.0), axis=1)[:, None])
    dead = (nans == 0) & (top == float("-inf"))
    usable = (nans == 0) & (tl.abs(top) < float("inf"))
    top = tl.where(usable, top, 0.0)

    terms = tl.zeros((BLOCK_L, 1), tl.int64)
    largest = tl.zeros((BLOCK_L, 1), tl.int32)
    for start in range(0, stop, BLOCK_S):
        c = start + tl.arange(0, BLOCK_S)
        s, allowed = _scores(q, k, scoring, n, r, c, L, S, E,
                             MASK, CAUSAL, DIGITS, WHOLE_E, False, BLOCK_L, BLOCK_S, BLOCK_E)  # fmt: skip
        # A row without softmax counts a one for each pair: its NaN must survive unless dropout takes all of them.
        e = tl.where(allowed, tl.where(usable, exp_f32(s - top), tl.where(dead, 0.0, 1.0)), 0.0)
        terms += tl.sum((e * 4294967296.0).to(tl.int64), axis=1)[:, None]
        if DROPOUT:
            e = tl.where(_kept(drop, n, r, c, L, S, False), e, 0.0)
        largest = largest_bits(largest, e)
    total = tl.where(usable, terms.to(tl.float32) * 2.3283064365386963e-10, tl.where(dead, 1.0, float("nan")))
    # Division and scaling are monotone, so the largest kept e gives the largest kept p.
    highest = tl.div_rn(largest.to(tl.float32, bitcast=True), total)
    if DROPOUT:
        highest = highest * drop_scale
    exponent = grid_exponent(tl.where(largest > 0, magnitude_bits(highest), 0))

    result = tl.zeros([BLOCK_L, BLOCK_V], tl.int64)
    for start in range(0, stop, BLOCK_S):
        c = start + tl.arange(0, BLOCK_S)
        s, allowed = _scores(q, k, scoring, n, r, c, L, S, E,
                             MASK, CAUSAL, DIGITS, WHOLE_E, False, BLOCK_L, BLOCK_S, BLOCK_E)  # fmt: skip
        p = _probability(s, allowed, top, total)
        if DROPOUT:
            p = tl.where(_kept(drop, n, r, c, L, S, False), p * drop_scale, 0.0)
        result = _add_product(result, p, exponent, values, n * V, c, S, v, V, DIGITS)
    _store_product(o_ptr, result, exponent, values, n * V, n * L, r, L, v, V, DIGITS)
    tl.store(top_ptr + n * L + r[:, None], top, mask=(r < L)[:, None])
    tl.store(total_ptr + n * L + r[:, None], total, mask=(r < L)[:, None])


_SLOPES = "*i8 *i8 *i8 *i8 {i8} *i32 *i32 *i32 *i32 {i32} i64 i64 i64 i64 *fp32 *fp32 *fp32 *i32 *i32 {f} " + _OPTIONS


@kernel(_SLOPES.format(i8="*i8", i32="*i32", f="*fp32"), *_variants())
def _attention_query_grad_kernel(
    q_ptr, k_ptr, g_ptr, v_ptr, kt_ptr, q_top_ptr, k_top_ptr, g_top_ptr, v_top_ptr, kt_top_ptr,
    plane_q, plane_k, plane_g, plane_v, top_ptr, total_ptr, mean_ptr, p_top_ptr, s_top_ptr, grad_q_ptr,
    bool_ptr, float_ptr, heads, mask_b, mask_h, mask_l, mask_s,
    scale, drop_scale, threshold, seed, stream, step_low, step_high, L, S, E, V,
    MASK: tl.constexpr, CAUSAL: tl.constexpr, DROPOUT: tl.constexpr, DIGITS: tl.constexpr,
    WHOLE_E: tl.constexpr, WHOLE_V: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_L: tl.constexpr = BLOCK_L, BLOCK_S: tl.constexpr = BLOCK_S,
):  # fmt: skip
    """dQ (n, L, E) and S(dP * p) of each query; for the kernel below, each key's largest p' and dS.

    Digits: q, k, g = dO (n, L, V) and v (n, S, V) in rows, kt (n, E, S).
    """
    q = (q_ptr, q_top_ptr, plane_q)
    k = (k_ptr, k_top_ptr, plane_k)
    g = (g_ptr, g_top_ptr, plane_g)
    v = (v_ptr, v_top_ptr, plane_v)
    keys = (kt_ptr, kt_top_ptr, plane_k)
    scoring = (scale, bool_ptr, float_ptr, heads, mask_b, mask_h, mask_l, mask_s)
    drop = (drop_scale, threshold, seed, stream, step_low, step_high)
    tile = tl.program_id(0).to(tl.int64) % tl.cdiv(L, BLOCK_L)
    n = tl.program_id(0).to(tl.int64) // tl.cdiv(L, BLOCK_L)
    r = tile * BLOCK_L + tl.arange(0, BLOCK_L)
    x = tl.program_id(1).to(tl.int64) * BLOCK_E + tl.arange(0, BLOCK_E)
    inside = (r < L)[:, None]
    stop = S
    if CAUSAL:
        stop = tl.minimum(S, (tile + 1) * BLOCK_L)
    top = tl.load(top_ptr + n * L + r[:, None], mask=inside, other=0.0)
    total = tl.load(total_ptr + n * L + r[:, None], mask=inside, other=1.0)

    hi = tl.zeros((BLOCK_L, 1), tl.int64)
    lo = tl.zeros((BLOCK_L, 1), tl.int64)
    bits = tl.zeros((BLOCK_L, 1), tl.int32)
    for start in range(0, stop, BLOCK_S):
        c = start + tl.arange(0, BLOCK_S)
        p, kept, slope, allowed = _probabilities_and_slopes(
            q, k, g, v, scoring, drop, top, total, n, r, c, L, S, E, V, MASK, CAUSAL, DROPOUT, DIGITS,
            WHOLE_E, WHOLE_V, False, BLOCK_L, BLOCK_S, BLOCK_E, BLOCK_V,
        )  # fmt: skip
        tl.atomic_max(p_top_ptr + n * S + c, tl.max(magnitude_bits(kept), axis=0), mask=c < S)
        hi, lo, bits = _more_terms(hi, lo, bits, tl.where(allowed, slope * p, 0.0))
    mean = rounded_sum(hi, lo, bits)
    tl.store(mean_ptr + n * L + r[:, None], mean, mask=inside)

    largest = tl.zeros((BLOCK_L, 1), tl.int32)
    for start in range(0, stop, BLOCK_S):
        c = start + tl.arange(0, BLOCK_S)
        p, kept, slope, allowed = _probabilities_and_slopes(
            q, k, g, v, scoring, drop, top, total, n, r, c, L, S, E, V, MASK, CAUSAL, DROPOUT, DIGITS,
            WHOLE_E, WHOLE_V, False, BLOCK_L, BLOCK_S, BLOCK_E, BLOCK_V,
        )  # fmt: skip
        slope = _score_slope(p, slope, mean, scale, allowed)
        tl.atomic_max(s_top_ptr + n * S + c, tl.max(magnitude_bits(slope), axis=0), mask=c < S)
        largest = largest_bits(largest, slope)
    exponent = grid_exponent(largest)

    result = tl.zeros([BLOCK_L, BLOCK_E], tl.int64)
    for start in range(0, stop, BLOCK_S):
        c = start + tl.arange(0, BLOCK_S)
        p, kept, slope, allowed = _probabilities_and_slopes(
            q, k, g, v, scoring, drop, top, total, n, r, c, L, S, E, V, MASK, CAUSAL, DROPOUT, DIGITS,
            WHOLE_E, WHOLE_V, False, BLOCK_L, BLOCK_S, BLOCK_E, BLOCK_V,
        )  # fmt: skip
        slope = _score_slope(p, slope, mean, scale, allowed)
        result = _add_product(result, slope, exponent, keys, n * E, c, S, x, E, DIGITS)
    _store_product(grad_q_ptr, result, exponent, keys, n * E, n * L, r, L, x, E, DIGITS)


@kernel(_SLOPES.format(i8="*i8 *i8", i32="*i32 *i32", f="*fp32 *fp32"), *_variants())
def _attention_key_grad_kernel(
    q_ptr, k_ptr, g_ptr, v_ptr, qt_ptr, gt_ptr,
    q_top_ptr, k_top_ptr, g_top_ptr, v_top_ptr, qt_top_ptr, gt_top_ptr,
    plane_q, plane_k, plane_g, plane_v, top_ptr, total_ptr, mean_ptr, p_top_ptr, s_top_ptr, grad_k_ptr, grad_v_ptr,
    bool_ptr, float_ptr, heads, mask_b, mask_h, mask_l, mask_s,
    scale, drop_scale, threshold, seed, stream, step_low, step_high, L, S, E, V,
    MASK: tl.constexpr, CAUSAL: tl.constexpr, DROPOUT: tl.constexpr, DIGITS: tl.constexpr,
    WHOLE_E: tl.constexpr, WHOLE_V: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_L: tl.constexpr = BLOCK_L, BLOCK_S: tl.constexpr = BLOCK_S,
):  # fmt: skip
    """dK (n, S, E) and dV (n, S, V). Digits: q, k, g = dO and v in rows, qt (n, E, L) and gt (n, V, L)."""
    q = (q_ptr, q_top_ptr, plane_q)
    k = (k_ptr, k_top_ptr, plane_k)
    g = (g_ptr, g_top_ptr, plane_g)
    v = (v_ptr, v_top_ptr, plane_v)
    queries = (qt_ptr, qt_top_ptr, plane_q)
    grads = (gt_ptr, gt_top_ptr, plane_g)
    scoring = (scale, bool_ptr, float_ptr, heads, mask_b, mask_h, mask_l, mask_s)
    drop = (drop_scale, threshold, seed, stream, step_low, step_high)
    tile = tl.program_id(0).to(tl.int64) % tl.cdiv(S, BLOCK_S)
    n = tl.program_id(0).to(tl.int64) // tl.cdiv(S, BLOCK_S)
    c = tile * BLOCK_S + tl.arange(0, BLOCK_S)
    x = tl.program_id(1).to(tl.int64) * BLOCK_E + tl.arange(0, BLOCK_E)
    y = tl.program_id(1).to(tl.int64) * BLOCK_V + tl.arange(0, BLOCK_V)
    p_exponent = grid_exponent(tl.load(p_top_ptr + n * S + c[:, None], mask=(c < S)[:, None], other=0))
    s_exponent = grid_exponent(tl.load(s_top_ptr + n * S + c[:, None], mask=(c < S)[:, None], other=0))
    first = tile * 0
    if CAUSAL:
        first = tile * BLOCK_S // BLOCK_L * BLOCK_L
    grad_k = tl.zeros([BLOCK_S, BLOCK_E], tl.int64)
    grad_v = tl.zeros([BLOCK_S, BLOCK_V], tl.int64)
    for start in range(first, L, BLOCK_L):
        r = start + tl.arange(0, BLOCK_L)
        inside = (r < L)[None, :]
        top = tl.load(top_ptr + n * L + r[None, :], mask=inside, other=0.0)
        total = tl.load(total_ptr + n * L + r[None, :], mask=inside, other=1.0)
        mean = tl.load(mean_ptr + n * L + r[None, :], mask=inside, other=0.0)
        p, kept, slope, allowed = _probabilities_and_slopes(
            q, k, g, v, scoring, drop, top, total, n, r, c, L, S, E, V, MASK, CAUSAL, DROPOUT, DIGITS,
            WHOLE_E, WHOLE_V, True, BLOCK_L, BLOCK_S, BLOCK_E, BLOCK_V,
        )  # fmt: skip
        grad_v = _add_product(grad_v, kept, p_exponent, grads, n * V, r, L, y, V, DIGITS)
        slope = _score_slope(p, slope, mean, scale, allowed)
        grad_k = _add_product(grad_k, slope, s_exponent, queries, n * E, r, L, x, E, DIGITS)
    _store_product(grad_v_ptr, grad_v, p_exponent, grads, n * V, n * S, c, S, y, V, DIGITS)
    _store_product(grad_k_ptr, grad_k, s_exponent, queries, n * E, n * S, c, S, x, E, DIGITS)
