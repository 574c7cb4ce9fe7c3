"""scaled_dot_product_attention: exact scores, softmax of exact sums, exact mixture; fused, with the bits of its parts.

``q`` (.., L, E), ``k`` (.., S, E), ``v`` (.., S, V). ``dot(a, b)`` is the exact dot product of all rows of ``a`` with
all rows of ``b``, each row on a grid of its own (R2, as :mod:`dettriton.ops.matmul`); ``S`` is the exact windowed sum
over keys; every other written operation is rounded once (R1). An *excluded* pair of query and key has a False in the
bool mask or lies above the diagonal (``key > query``, torch's top-left alignment)::

    s  = dot(q, k) * scale                       scale = 1 / sqrt(E) in binary64, rounded to binary32
    s  = s + mask     (float mask)               -Inf at excluded pairs
    p  = softmax(s)                              as dettriton.ops.softmax: m, e = exp(s - m), Z = S(e), p = e / Z
                                                 +0 at excluded pairs, and in rows of nothing but -Inf
    p' = p * drop_scale or +0                    dropout by the pair's row-major place in (.., L, S)
    o  = dot(p', v^T)                            grids: each row of p' over all keys, each column of v over all keys

    dV = dot(p'^T, dO^T)                         grids: key columns of p' and columns of dO, over all queries
    dP = dot(dO, v), then the dropout above      grids: rows of dO and rows of v
    dA = p * (dP - S(dP * p))                    +0 at excluded pairs, whose terms in S are +0; float mask: dA summed
    dS = dA * scale
    dQ = dot(dS, k^T), dK = dot(dS^T, q^T)       grids: rows, columns of dS over keys, queries; columns of k, of q

A float mask's gradient is the exact sum of dA over what was broadcast; so are those of repeated heads and batches.
A row with NaN or +Inf among its scores has NaN probabilities. Batch-invariant: each (batch, head) stands alone.

The torch engine computes this a few heads at a time. The kernels never hold the score matrix: each pass over the keys
computes its integer dots again. The gradient of a float mask alone needs the matrix dA in memory, so that case runs as
the composition on both engines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.exact.grid import bits_of, check_terms
from dettriton.exact.philox import Stream, drop_threshold, keep_mask
from dettriton.ops._attention_kernels import (
    BOOL_MASK,
    FLOAT_MASK,
    NO_MASK,
    _attention_fwd_kernel,
    _attention_key_grad_kernel,
    _attention_query_grad_kernel,
    key_grid,
    query_grid,
    widths,
)
from dettriton.ops._broadcast import expand
from dettriton.ops._contract import contract
from dettriton.ops._digits import Planes, digit_planes
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops.dropout import scale_of
from dettriton.ops.matmul import dot_rows
from dettriton.ops.softmax import FORWARD as SOFTMAX
from dettriton.ops.sum import exact_sum

OP = "scaled_dot_product_attention"
BLOCK_PAIRS = 1 << 22
"""How many pairs of query and key the composition holds at a time, unless one head alone has more."""


@dataclass(frozen=True)
class How:
    """What an attention does beside its tensors; ``scale`` is a binary32 value."""

    scale: float
    causal: bool
    precision: str
    dropout_p: float
    rng: Stream | None


@dataclass(frozen=True)
class Pairs:
    """All pairs of some heads: probabilities, those after dropout, and which were excluded and kept (None: all)."""

    p: torch.Tensor
    dropped: torch.Tensor
    excluded: torch.Tensor | None
    keep: torch.Tensor | None


def _head_blocks(q: torch.Tensor, k: torch.Tensor) -> Iterator[slice]:
    step = max(1, BLOCK_PAIRS // max(q.shape[1] * k.shape[1], 1))
    return (slice(start, min(start + step, len(q))) for start in range(0, len(q), step))


def _drop(x: torch.Tensor, keep: torch.Tensor | None, p: float) -> torch.Tensor:
    return x if keep is None else torch.where(keep, x * scale_of(p), torch.zeros_like(x))


def _without(x: torch.Tensor, excluded: torch.Tensor | None) -> torch.Tensor:
    return x if excluded is None else torch.where(excluded, torch.zeros_like(x), x)


def _without_keys(s: torch.Tensor) -> torch.Tensor | None:
    """Which rows of scores (n, L, 1) are -Inf throughout; None where a CPU, which need not wait, sees that none are."""
    if s.shape[2] == 0:
        return None
    nothing = s.amax(2, keepdim=True) == -math.inf
    return None if s.device.type == "cpu" and not nothing.any() else nothing


def _pairs(part: slice, q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, how: How) -> Pairs:
    s = dot_rows(q[part], k[part], how.precision) * how.scale
    queries, keys = s.shape[1:]
    excluded = keep = None
    if mask is not None:
        which = torch.arange(part.start, part.stop, device=q.device)
        of_heads = mask[which // mask.shape[1], which % mask.shape[1]]
        if mask.dtype == torch.bool:
            excluded = ~of_heads
        else:
            s = s + of_heads
    if how.causal:
        places = torch.arange(max(queries, keys), device=q.device)
        excluded = (places[None, :keys] > places[:queries, None]).expand(s.shape)
    if excluded is not None:
        s = torch.where(excluded, torch.full_like(s, -math.inf), s)
    p = SOFTMAX[engine_for(s)](s.reshape(-1, keys)).view(s.shape)
    p = _without(p, _without_keys(s))
    p = _without(p, excluded)
    if how.dropout_p > 0:
        keep = keep_mask(how.rng, p.numel(), how.dropout_p, part.start * queries * keys, p.device).view(p.shape)
    return Pairs(p, _drop(p, keep, how.dropout_p), excluded, keep)


def attention_composed(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, how: How
) -> torch.Tensor:
    """The composition of exact parts on the tensors' engine, for n = b * h heads and a mask (b, h, L, S)."""
    parts = _head_blocks(q, k)
    mixed = [dot_rows(_pairs(i, q, k, mask, how).dropped, v[i].transpose(1, 2), how.precision) for i in parts]
    return torch.cat(mixed)


def attention_grad_composed(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    how: How,
    keep_scores: bool = False,
) -> tuple[torch.Tensor, ...]:
    """dQ, dK, dV, and with ``keep_scores`` also dA."""
    precision = how.precision
    found: list[tuple[torch.Tensor, ...]] = []
    for i in _head_blocks(q, k):
        pairs = _pairs(i, q, k, mask, how)
        grad_v = dot_rows(pairs.dropped.transpose(1, 2), grad[i].transpose(1, 2), precision)
        slope = _drop(dot_rows(grad[i], v[i], precision), pairs.keep, how.dropout_p)
        mean = exact_sum(_without(slope * pairs.p, pairs.excluded), (2,), keepdim=True)
        scores = _without(pairs.p * (slope - mean), pairs.excluded)
        scaled = _without(scores * how.scale, pairs.excluded)
        grad_q = dot_rows(scaled, k[i].transpose(1, 2), precision)
        grad_k = dot_rows(scaled.transpose(1, 2), q[i].transpose(1, 2), precision)
        found.append((grad_q, grad_k, grad_v, *((scores,) if keep_scores else ())))
    return tuple(torch.cat(each) for each in zip(*found, strict=True))


def _options(q: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, how: How, unread: Planes) -> tuple:
    """The kernels' last run-time arguments and the launch constants; ``unread`` stands in for absent masks."""
    bools, floats, kind, heads, strides = unread.digits, q, NO_MASK, 1, (0, 0, 0, 0)
    if mask is not None:
        heads, strides = mask.shape[1], mask.stride()
        if mask.dtype == torch.bool:
            bools, kind = mask.view(torch.int8), BOOL_MASK
        else:
            floats, kind = mask, FLOAT_MASK
    rng = how.rng or Stream(0)
    words = (rng.seed, rng.stream, rng.step & 0xFFFFFFFF, rng.step >> 32)
    dropping = (scale_of(how.dropout_p), drop_threshold(how.dropout_p), *words)
    (_, queries, terms), (_, keys, outputs) = q.shape, v.shape
    constants = {"MASK": kind, "CAUSAL": how.causal, "DROPOUT": how.dropout_p > 0, "DIGITS": unread.count}
    sizes = (queries, keys, terms, outputs)
    return (bools, floats, heads, *strides, how.scale, *dropping, *sizes), {**constants, **widths(terms, outputs)}


def _planes(x: torch.Tensor, how: How) -> Planes:
    return digit_planes(x, x.shape[0] * x.shape[1], x.shape[2], how.precision)


def _arguments(*operands: Planes, strides: int) -> tuple:
    """Digits, tops, and the plane strides of the first few operands."""
    return *(x.digits for x in operands), *(x.top for x in operands), *(x.plane_stride for x in operands[:strides])


def attention_triton(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, how: How
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``o`` (n, L, V), and each row's maximum and denominator (n, L)."""
    pq, pk, pv = (_planes(x, how) for x in (q, k, v.transpose(1, 2)))
    o = torch.empty(*q.shape[:2], v.shape[2], dtype=torch.float32, device=q.device)
    top, total = (torch.empty(q.shape[:2], dtype=torch.float32, device=q.device) for _ in range(2))
    options, plan = _options(q, v, mask, how, pq)
    grid = query_grid(*o.shape, plan["BLOCK_V"])
    _attention_fwd_kernel(grid, *_arguments(pq, pk, pv, strides=3), o, top, total, *options, num_warps=8, **plan)
    return o, top, total


def attention_grad_triton(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    how: How,
    top: torch.Tensor,
    total: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """dQ, dK and dV, from the forward's statistics."""
    in_rows = [_planes(x, how) for x in (q, k, grad, v)]
    pqt, pkt, pgt = (_planes(x.transpose(1, 2), how) for x in (q, k, grad))
    grad_q, grad_k, grad_v = (torch.empty(x.shape, dtype=torch.float32, device=q.device) for x in (q, k, v))
    mean = torch.empty_like(top)
    p_top, s_top = (torch.zeros(k.shape[:2], dtype=torch.int32, device=q.device) for _ in range(2))
    options, plan = _options(q, v, mask, how, pqt)
    statistics = (top, total, mean, p_top, s_top)
    _attention_query_grad_kernel(
        query_grid(*q.shape, plan["BLOCK_E"]),
        *_arguments(*in_rows, pkt, strides=4), *statistics, grad_q, *options, num_warps=8, **plan,
    )  # fmt: skip
    _attention_key_grad_kernel(
        key_grid(*k.shape, v.shape[2], plan["BLOCK_E"], plan["BLOCK_V"]),
        *_arguments(*in_rows, pqt, pgt, strides=4), *statistics, grad_k, grad_v, *options, num_warps=8, **plan,
    )  # fmt: skip
    return grad_q, grad_k, grad_v


def attention_torch(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, how: How
) -> tuple[torch.Tensor, None, None]:
    return attention_composed(q, k, v, mask, how), None, None


def attention_grad_torch(grad: torch.Tensor, *saved: Any) -> tuple[torch.Tensor, ...]:
    *operands, _, _ = saved
    return attention_grad_composed(grad, *operands)


FORWARD = {"torch": attention_torch, "triton": attention_triton}
BACKWARD = {"torch": attention_grad_torch, "triton": attention_grad_triton}


class Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, how: How
    ) -> torch.Tensor:
        ctx.op, ctx.how = OP, how
        ctx.nothing = 0 in (len(q), q.shape[1], k.shape[1])
        if ctx.nothing:
            ctx.save_for_backward(q, k, v, mask, None, None)
            return q.new_zeros(len(q), q.shape[1], v.shape[2])
        o, top, total = FORWARD[engine_for(q, k, v, *(() if mask is None else (mask,)))](q, k, v, mask, how)
        ctx.save_for_backward(q, k, v, mask, top, total)
        return o

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, mask, *statistics = ctx.saved_tensors
        mask_too = ctx.needs_input_grad[3]
        if ctx.nothing:
            return *(torch.zeros_like(x) for x in (q, k, v)), torch.zeros_like(mask) if mask_too else None, None
        check_terms(OP, max(q.shape[1], v.shape[2]))
        if mask_too:
            *grads, grad_mask = attention_grad_composed(grad, q, k, v, mask, ctx.how, keep_scores=True)
            return *grads, grad_mask.view(mask.shape), None
        grads = BACKWARD[engine_for(grad, q)](grad, q, k, v, mask, ctx.how, *statistics)
        return *grads, None, None


@contract(
    "Attention",
    definition="dot(q, k) * scale, + mask, softmax, dropout, dot with v; one grid a row or column; written gradient",
    error="matmul's for both dot products, softmax's between them",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.scaled_dot_product_attention",
)
def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    precision: str = "high",
    rng: Stream | None = None,
) -> torch.Tensor:
    """Attention, as :func:`torch.nn.functional.scaled_dot_product_attention`, in the order the module states.

    Args:
        query: binary32 ``(..., L, E)``.
        key: binary32 ``(..., S, E)``.
        value: binary32 ``(..., S, V)``; the leading dimensions of all three broadcast.
        attn_mask: broadcasts to ``(..., L, S)``: bool, False where a query may not see a key, or binary32, added to
            the scores. A query that sees no key gives +0.
        dropout_p: probability of dropping a probability, in [0, 1]; as in torch it is applied whenever it is not 0.
        is_causal: exclude keys after the query's own place; not together with ``attn_mask``.
        scale: factor of the scores, rounded to binary32; ``1 / sqrt(E)`` for None.
        enable_gqa: repeat each head of ``key`` and ``value`` (dimension -3) to as many heads as ``query`` has.
        precision: ``"high"`` (20-bit grids) or ``"medium"`` (13-bit grids) for all dot products.
        rng: the stream of this layer at this training step, required for dropout; see :func:`dettriton.ops.dropout`.

    Returns:
        ``(..., L, V)``. The canonical NaN in a row whose scores hold a NaN or +Inf that is not excluded, and in a
        column whose values hold a NaN or infinity. The softmax itself is the algorithm of Dao et al., "FlashAttention",
        2022, in its memory use, with global statistics instead of running ones.

    Raises:
        InputError: an operand is not binary32, shapes do not fit, E or S > 2**22, a mask is given with ``is_causal``,
            ``scale`` is not finite or is missing where E = 0, or ``rng`` is missing when it is needed.
        EngineError: the engine cannot run on the inputs' device.
    """
    require_float32(OP, query=query, key=key, value=value)
    bits_of(precision)
    if attn_mask is not None and attn_mask.dtype != torch.bool:
        require_float32(OP, attn_mask=attn_mask)
    if attn_mask is not None and is_causal:
        raise InputError(f"{OP}: attn_mask and is_causal exclude each other; put the causal mask into attn_mask")
    if drop_threshold(dropout_p) > 0 and not isinstance(rng, Stream):
        raise InputError(
            f"{OP}: rng must be a dettriton.exact.philox.Stream, got {rng!r}; "
            "pass rng=Stream(seed, layer, step), a different one for each layer and step"
        )
    if min(query.dim(), key.dim(), value.dim()) < 2:
        raise InputError(f"{OP}: query, key and value need at least two dimensions, (length, width)")
    if enable_gqa:
        key, value = (_repeated(name, x, query) for name, x in (("key", key), ("value", value)))
    batch = _batch(query, key, value)
    (queries, terms), (keys, outputs) = query.shape[-2:], value.shape[-2:]
    check_terms(OP, max(terms, keys))
    q, k, v = (expand(x, (*batch, *x.shape[-2:])).reshape(math.prod(batch), *x.shape[-2:]) for x in (query, key, value))
    mask = _four_dimensional(attn_mask, (*batch, queries, keys))
    how = How(_scale(scale, terms), is_causal, precision, float(dropout_p), rng)
    return Attention.apply(q, k, v, mask, how).view(*batch, queries, outputs)


def _scale(scale: float | None, terms: int) -> float:
    if scale is None and terms == 0:
        raise InputError(f"{OP}: scale is 1 / sqrt(E), and E is 0; pass scale=")
    rounded = torch.tensor(1.0 / math.sqrt(terms) if scale is None else scale, dtype=torch.float32).item()
    if not math.isfinite(rounded):
        raise InputError(f"{OP}: scale must be finite in binary32, got {scale}")
    return rounded


def _repeated(name: str, x: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    heads, wanted = (y.shape[-3] if y.dim() > 2 else 0 for y in (x, query))
    if heads == 0 or wanted % heads:
        raise InputError(
            f"{OP}: enable_gqa needs query heads, dimension -3 of {tuple(query.shape)}, to be a multiple of those "
            f"of {name} {tuple(x.shape)}"
        )
    if heads == wanted:
        return x
    *batch, _, length, width = x.shape
    return expand(x.unsqueeze(-3), (*batch, heads, wanted // heads, length, width)).flatten(-4, -3)


def _batch(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[int, ...]:
    shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise InputError(f"{OP}: needs query (..., L, E), key (..., S, E) and value (..., S, V), got {shapes}")
    try:
        return tuple(torch.broadcast_shapes(*(x.shape[:-2] for x in (query, key, value))))
    except RuntimeError as error:
        raise InputError(f"{OP}: the leading dimensions of {shapes} do not broadcast") from error


def _four_dimensional(mask: torch.Tensor | None, shape: tuple[int, ...]) -> torch.Tensor | None:
    """The mask seen as (batch, heads, L, S): a view with strides of 0 wherever that can be."""
    if mask is None:
        return None
    try:
        fits = tuple(torch.broadcast_shapes(mask.shape, shape)) == shape
    except RuntimeError:
        fits = False
    if not fits:
        raise InputError(f"{OP}: attn_mask {tuple(mask.shape)} does not broadcast to (..., L, S) = {shape}")
    *batch, queries, keys = shape
    mask = mask.expand(shape) if mask.dtype == torch.bool else expand(mask, shape)
    return mask.reshape(math.prod(batch[:-1]), batch[-1] if batch else 1, queries, keys)
