"""embedding, embedding_bag: rows of a table by their index, alone or reduced over bags.

embedding is data movement. Its gradient is, for each row of the table, the exact sum (R2) of the gradients of the
outputs that took it; with ``scale_grad_by_freq`` each of them is first divided by how many there are (R1).

embedding_bag, with ``r_n`` the row that entry ``n`` of a bag names, entries equal to ``padding_idx`` left out:

- sum: the exact sum of ``r_n``, or of ``r_n * w_n`` (R1) with per-sample weights ``w``;
- mean: the exact sum of ``r_n``, divided by their number (R1);
- max: for each column the largest, in the order ``-Inf < ... < -0 < +0 < ... < Inf < NaN``; equal ones go to the first.

An empty bag is +0. Gradients, with ``g`` the bag's: a row's is the exact sum over its entries of ``g``, ``g * w_n``,
``g / count``, or of ``g`` where the entry is the one chosen; the weight's is the exact sum over the columns of
``g * r_n``. Batch-invariant forward: a bag's result depends on its own entries alone.
"""

from typing import Any, NamedTuple

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.ops._contract import contract
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._index_sum import SKIP, index_sum
from dettriton.ops._indexing import checked_index, count_slots, scatter_integers, take
from dettriton.ops._order import order_keys, values_of_keys
from dettriton.ops.sum import exact_sum

MODES = ("sum", "mean", "max")


class Embedding(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, index: torch.Tensor, padding_idx: int | None, by_frequency: bool
    ) -> torch.Tensor:
        engine_for(weight, index)
        ctx.size, ctx.padding_idx, ctx.by_frequency = weight.shape[0], padding_idx, by_frequency
        ctx.save_for_backward(index)
        return weight.index_select(0, index)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        if ctx.by_frequency:
            grad = grad / take(count_slots(index, ctx.size), index).to(grad.dtype)[:, None]
        return index_sum(grad, _without_padding(index, ctx.padding_idx), ctx.size), None, None, None


class Bags(NamedTuple):
    """Which rows go to which bag: (N,) int64 each, SKIP where an entry is padding; the number of bags; the mode."""

    rows: torch.Tensor
    bags: torch.Tensor
    count: int
    mode: str


class EmbeddingBag(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, factors: torch.Tensor | None, entries: Bags) -> torch.Tensor:
        engine_for(weight, entries.rows, entries.bags, *(() if factors is None else (factors,)))
        taken = take(weight, entries.rows)
        counts = chosen = None
        if entries.mode == "max":
            y, chosen = _largest_of_bags(taken, entries)
        else:
            y = index_sum(taken if factors is None else taken * factors[:, None], entries.bags, entries.count)
        if entries.mode == "mean":
            counts = count_slots(entries.bags, entries.count).clamp(min=1).to(y.dtype)[:, None]
            y = y / counts
        ctx.entries, ctx.size = entries, weight.shape
        ctx.save_for_backward(counts, chosen, factors, weight if ctx.needs_input_grad[1] else None)
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        counts, chosen, factors, weight = ctx.saved_tensors
        rows, bags, _, mode = ctx.entries
        if mode == "max":
            return _grad_of_largest(grad, chosen, rows, ctx.size), None, None
        of_entries = take(grad if counts is None else grad / counts, bags)
        grad_weight = grad_factors = None
        if ctx.needs_input_grad[0]:
            terms = of_entries if factors is None else of_entries * factors[:, None]
            grad_weight = index_sum(terms, rows, ctx.size[0])
        if ctx.needs_input_grad[1]:
            grad_factors = exact_sum(of_entries * take(weight, rows), (1,))
        return grad_weight, grad_factors, None


def _largest_of_bags(taken: torch.Tensor, entries: Bags) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest value of each bag and column, and the first entry that has it (N for none), both (B, D)."""
    n, columns = taken.shape
    keys = order_keys(taken, nan_last=True).reshape(-1)
    across = torch.arange(columns, dtype=torch.int64, device=taken.device)
    slots = torch.where(entries.bags[:, None] < 0, SKIP, entries.bags[:, None] * columns + across).reshape(-1)
    lowest = torch.full((entries.count * columns,), torch.iinfo(keys.dtype).min, dtype=keys.dtype, device=keys.device)
    best = scatter_integers(lowest, slots, keys, "amax")
    position = torch.arange(n, dtype=torch.int64, device=taken.device)[:, None].expand(n, columns).reshape(-1)
    none = torch.full_like(best, n, dtype=torch.int64)
    first = scatter_integers(none, slots, torch.where(take(best, slots) == keys, position, n), "amin")
    y = torch.where(first < n, values_of_keys(best, taken.dtype), torch.zeros((), device=taken.device))
    return y.view(entries.count, columns), first.view(entries.count, columns)


def _grad_of_largest(grad: torch.Tensor, chosen: torch.Tensor, rows: torch.Tensor, size: torch.Size) -> torch.Tensor:
    table_rows = torch.where(
        chosen < len(rows), take(rows, chosen.clamp(max=max(len(rows) - 1, 0)).reshape(-1)).view(chosen.shape), SKIP
    )
    across = torch.arange(size[1], dtype=torch.int64, device=grad.device)
    slots = torch.where(table_rows < 0, SKIP, table_rows * size[1] + across).reshape(-1)
    return index_sum(grad.reshape(-1, 1), slots, size.numel()).view(size)


def _without_padding(index: torch.Tensor, padding_idx: int | None) -> torch.Tensor:
    return index if padding_idx is None else torch.where(index == padding_idx, SKIP, index)


def _padding_row(op: str, padding_idx: int | None, rows: int) -> int | None:
    if padding_idx is None:
        return None
    if not -rows <= padding_idx < rows:
        raise InputError(f"{op}: padding_idx must lie in [{-rows}, {rows - 1}] for this weight, got {padding_idx}")
    return padding_idx % rows


def _check_options(op: str, weight: torch.Tensor, max_norm: float | None, sparse: bool) -> None:
    require_float32(op, weight=weight)
    if weight.dim() != 2:
        raise InputError(f"{op}: weight must be (rows, columns), got shape {tuple(weight.shape)}")
    if max_norm is not None:
        raise InputError(f"{op}: max_norm changes the weight in place and is not supported; renormalise it beforehand")
    if sparse:
        raise InputError(f"{op}: sparse gradients are not supported; leave sparse=False")


@contract(
    "Indexing",
    definition="rows of the table; gradient: exact windowed sum over the outputs that took a row",
    error="forward exact; gradient half an ulp + 2^-32 of the largest term for each term",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.embedding",
)
def embedding(
    input: torch.Tensor,
    weight: torch.Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> torch.Tensor:
    """Rows of a table by their index, as :func:`torch.nn.functional.embedding`.

    Args:
        input: int64 or int32 row numbers, any shape.
        weight: binary32, (V, D).
        padding_idx: the row that gets no gradient; may be negative.
        max_norm: only None.
        norm_type: of ``max_norm``, unused.
        scale_grad_by_freq: whether each gradient is divided by how often its row occurs in ``input``, padding included.
        sparse: only False.

    Returns:
        The rows, (*input, D). The gradient of a row is the exact sum of its outputs' gradients, rounded to nearest even
        once: half an ulp plus ``2**-32`` of the largest term for each term; +0 for a row not taken.

    Raises:
        InputError: a type, shape or option is wrong, or, on the CPU, an index is out of range. On a GPU that stops the
            device, as in torch.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    op = "embedding"
    _check_options(op, weight, max_norm, sparse)
    padding_idx = _padding_row(op, padding_idx, weight.shape[0])
    index = checked_index(op, input, weight.shape[0], "input").reshape(-1)
    rows = Embedding.apply(weight, index, padding_idx, scale_grad_by_freq)
    return rows.view(*input.shape, weight.shape[1])


@contract(
    "Indexing",
    definition="exact windowed sum of each bag's rows (times their weights), divided by their number for mean; or "
    "their maximum; gradients: exact windowed sums",
    error="half an ulp (sum), 1.5 ulp (mean) + 2^-32 of the largest term for each term; max exact",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.embedding_bag",
)
def embedding_bag(
    input: torch.Tensor,
    weight: torch.Tensor,
    offsets: torch.Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: torch.Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> torch.Tensor:
    """Rows of a table, reduced over bags of indices, as :func:`torch.nn.functional.embedding_bag`.

    Args:
        input: int64 or int32 row numbers: (B, L), a bag in each row; or (N,) with ``offsets``.
        weight: binary32, (V, D).
        offsets: int64 or int32, (B,): where each bag of a one-dimensional input starts, ascending from 0.
        max_norm: only None.
        norm_type: of ``max_norm``, unused.
        scale_grad_by_freq: only False.
        mode: ``"sum"``, ``"mean"`` or ``"max"``.
        sparse: only False.
        per_sample_weights: binary32, the input's shape: a factor for each entry, with mode ``"sum"``.
        include_last_offset: whether ``offsets`` ends with the input's length, (B + 1,).
        padding_idx: the row whose entries count nowhere; may be negative.

    Returns:
        The reduced rows, (B, D); +0 for an empty bag. Error of a sum at most half an ulp plus ``2**-32`` of the largest
        term for each term, of a mean one ulp more; a maximum is exact.

    Raises:
        InputError: a type, shape or option is wrong, or, on the CPU, an index is out of range or the offsets are not
            ascending. On a GPU, where looking would stall the device, an entry whose index is out of range counts as a
            row of zeros without a gradient.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    op = "embedding_bag"
    _check_options(op, weight, max_norm, sparse)
    require_float32(op, per_sample_weights=per_sample_weights)
    if mode not in MODES:
        raise InputError(f"{op}: mode must be one of {', '.join(MODES)}, got {mode!r}")
    if scale_grad_by_freq:
        raise InputError(f"{op}: scale_grad_by_freq is not supported; leave it False, or use embedding")
    if per_sample_weights is not None and (mode != "sum" or per_sample_weights.shape != input.shape):
        raise InputError(f"{op}: per_sample_weights go with mode 'sum' and have the input's shape {tuple(input.shape)}")
    bags, count = _bags(op, input, offsets, include_last_offset)
    rows = checked_index(op, input, weight.shape[0], "input").reshape(-1)
    padding_idx = _padding_row(op, padding_idx, weight.shape[0])
    if padding_idx is not None:
        rows, bags = (torch.where(rows == padding_idx, SKIP, v) for v in (rows, bags))
    factors = None if per_sample_weights is None else per_sample_weights.reshape(-1)
    return EmbeddingBag.apply(weight, factors, Bags(rows, bags, count, mode))


def _bags(op: str, x: torch.Tensor, offsets: torch.Tensor | None, last: bool) -> tuple[torch.Tensor, int]:
    """The bag of each entry, (N,) int64, and how many bags there are."""
    position = torch.arange(x.numel(), dtype=torch.int64, device=x.device)
    if x.dim() == 2:
        if offsets is not None:
            raise InputError(f"{op}: a two-dimensional input has a bag in each row; leave offsets out")
        return position // max(x.shape[1], 1), x.shape[0]
    if x.dim() != 1 or offsets is None or offsets.dim() != 1:
        raise InputError(f"{op}: input must be (B, L), or (N,) with one-dimensional offsets, got {tuple(x.shape)}")
    offsets = checked_index(op, offsets, x.numel() + 1, "offsets")
    count = len(offsets) - 1 if last else len(offsets)
    if count < 0:
        raise InputError(f"{op}: include_last_offset needs at least one offset")
    if offsets.device.type == "cpu":
        bounds = offsets.tolist()
        if (x.numel() and bounds[:1] != [0]) or bounds != sorted(bounds):
            raise InputError(f"{op}: offsets must start at 0 and ascend, got {bounds[:8]}")
        if last and bounds[-1] != x.numel():
            raise InputError(f"{op}: the last offset must be the input's length {x.numel()}, got {bounds[-1]}")
    starts = offsets[:count].contiguous()
    return torch.searchsorted(starts, position, right=True) - 1, count
