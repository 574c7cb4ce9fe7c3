"""scatter, scatter_add, scatter_reduce: elements written to or reduced into the slots of a tensor that an index names.

scatter writes: of several elements for one slot the last in row-major order wins, as in index_put, whose gradient it
has. The others reduce.

A slot is an element of the result. Of a slot ``x`` that elements ``s_1, s_2, ...`` of ``src`` go to, in row-major order
of the index, with ``c`` their number, and with ``include_self`` one more:

- sum: the exact sum (R2) of them and, with ``include_self``, of ``x``, rounded once;
- mean: that sum divided by ``c`` in binary32 (R1);
- amax, amin: the largest, the smallest in the order ``-Inf < ... < -0 < +0 < ... < Inf``; a NaN beats all;
- prod: ``s_1 ... s_n`` in a tree over their numbers in the slot: neighbours are multiplied, ``s_1 * s_2``,
  ``s_3 * s_4`` and so on, then neighbouring products, the last one as it is where there is no neighbour; then, with
  ``include_self``, ``x * p``. Each product is rounded once (R1). It alone depends on the elements' order.

A slot that nothing goes to keeps its bits, and hands its gradient to ``x``. Without ``include_self``, ``x`` has a
gradient of +0 in the other slots. Gradients, with ``g`` the slot's:

- sum: ``g`` each; mean: ``g / c`` each;
- amax, amin: ``g / t`` for each of the ``t`` elements equal to the result in the order above, +0 for the others;
- prod: ``g * (P / s)`` with ``P`` the product, in the same tree, of the factors that are not zero; ``g * P`` for the
  only zero of a slot; +0 for the others of a slot with a zero.
"""

from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.ops._compile import of_the_inputs_shape
from dettriton.ops._contract import contract
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._index_sum import index_sum
from dettriton.ops._indexing import checked_along, count_slots, dimension, flat_slots, scatter_integers, take
from dettriton.ops._order import order_keys, values_of_keys
from dettriton.ops.index_add import AddRows
from dettriton.ops.index_put import WriteRows

REDUCTIONS = ("sum", "prod", "mean", "amax", "amin")


def _slot_sums(x: torch.Tensor, src: torch.Tensor, slots: torch.Tensor, include_self: bool) -> torch.Tensor:
    return index_sum(src[:, None], slots, len(x), x[:, None] if include_self else None).view(-1)


def _slot_extremes(
    x: torch.Tensor, src: torch.Tensor, slots: torch.Tensor, include_self: bool, reduce: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The keys of ``x``, of ``src``, and of the extreme of each slot."""
    largest = reduce == "amax"
    x_keys, keys = (order_keys(v, nan_last=largest) for v in (x, src))
    info = torch.iinfo(keys.dtype)
    start = x_keys if include_self else torch.full_like(x_keys, info.min if largest else info.max)
    return x_keys, keys, scatter_integers(start, slots, keys, reduce)


def slot_products(src: torch.Tensor, slots: torch.Tensor, size: int) -> torch.Tensor:
    """The product of the elements of each slot, in a tree over their numbers in the slot; 1 for none."""
    ordered, order = torch.sort(slots, stable=True)
    position = torch.arange(len(slots), dtype=torch.int64, device=slots.device)
    opens = torch.ones_like(ordered, dtype=torch.bool)
    opens[1:] = ordered[1:] != ordered[:-1]
    number = position - torch.cummax(torch.where(opens, position, 0), 0).values
    products = src.index_select(0, order)
    step = 1
    while step < len(slots):
        multiplies = (number[:-step] % (2 * step) == 0) & (ordered[:-step] == ordered[step:])
        head = torch.where(multiplies, products[:-step] * products[step:], products[:-step])
        products = torch.cat((head, products[-step:]))
        step *= 2
    found = torch.ones(size + 1, dtype=src.dtype, device=src.device)
    return found.scatter_(0, torch.where(opens & (ordered >= 0), ordered, size), products)[:-1]


def _grad_of_products(
    grad: torch.Tensor, x: torch.Tensor, src: torch.Tensor, slots: torch.Tensor, include_self: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    one, zero = (torch.full((), v, dtype=grad.dtype, device=grad.device) for v in (1.0, 0.0))
    zeros = scatter_integers(torch.zeros_like(x, dtype=torch.int64), slots, (src == 0).to(torch.int64), "sum")
    product = slot_products(torch.where(src == 0, one, src), slots, len(x))
    if include_self:
        zeros = zeros + (x == 0)
        product = torch.where(x == 0, one, x) * product

    def of_factor(factor: torch.Tensor, grad: torch.Tensor, product: torch.Tensor, zeros: torch.Tensor) -> torch.Tensor:
        others = torch.where(factor == 0, product, product / torch.where(factor == 0, one, factor))
        return torch.where(zeros > (factor == 0), zero, grad * others)

    return of_factor(x, grad, product, zeros), of_factor(src, *(take(v, slots) for v in (grad, product, zeros)))


class ScatterReduce(torch.autograd.Function):
    """Over flat tensors: x (S,), src and slots (N,)."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, src: torch.Tensor, slots: torch.Tensor, reduce: str, include_self: bool
    ) -> torch.Tensor:
        engine_for(x, src, slots)
        ctx.reduce, ctx.include_self = reduce, include_self
        ctx.save_for_backward(slots, *((None, None) if reduce in ("sum", "mean") else (x, src)))
        counts = count_slots(slots, len(x))
        if reduce in ("sum", "mean"):
            y = _slot_sums(x, src, slots, include_self)
            y = y / (counts + include_self).clamp(min=1).to(y.dtype) if reduce == "mean" else y
        elif reduce == "prod":
            y = slot_products(src, slots, len(x))
            y = x * y if include_self else y
        else:
            y = values_of_keys(_slot_extremes(x, src, slots, include_self, reduce)[2], x.dtype)
        return torch.where(counts > 0, y, x)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        slots, x, src = ctx.saved_tensors
        counts = count_slots(slots, len(grad))
        if ctx.reduce == "prod":
            grad_x, grad_src = _grad_of_products(grad, x, src, slots, ctx.include_self)
        elif ctx.reduce in ("amax", "amin"):
            x_keys, keys, best = _slot_extremes(x, src, slots, ctx.include_self, ctx.reduce)
            x_ties, ties = (x_keys == best) & ctx.include_self, keys == take(best, slots)
            total = scatter_integers(x_ties.to(torch.int64), slots, ties.to(torch.int64), "sum")
            share = grad / total.clamp(min=1).to(grad.dtype)
            nothing = torch.zeros((), dtype=grad.dtype, device=grad.device)
            grad_x, grad_src = torch.where(x_ties, share, nothing), torch.where(ties, take(share, slots), nothing)
        else:
            divided = ctx.reduce == "mean"
            grad_x = grad / (counts + ctx.include_self).clamp(min=1).to(grad.dtype) if divided else grad
            grad_src = take(grad_x, slots)
        untouched = counts == 0
        kept = grad_x if ctx.include_self else torch.zeros((), dtype=grad.dtype, device=grad.device)
        return torch.where(untouched, grad, kept), grad_src, None, None, None


def _flat(
    op: str, input: torch.Tensor, dim: int, index: torch.Tensor, src: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The flat input, the flat part of ``src`` that the index reaches, and where each element of it goes."""
    require_float32(op, input=input, src=src)
    dim = dimension(op, input, dim)
    index = checked_along(op, index, dim, input=input, src=src)
    reached = src[tuple(slice(size) for size in index.shape)]
    return input.reshape(-1), reached.reshape(-1), flat_slots(index, dim, input.shape)


@contract(
    "Indexing",
    definition="data movement, the last element in row-major order wins; gradient: data movement, +0 for the losers",
    error="exact",
    batch_invariant=False,
    kernels=False,
    mirrors="scatter",
    fake=of_the_inputs_shape,
)
def scatter(input: torch.Tensor, dim: int, index: torch.Tensor, src: torch.Tensor | float) -> torch.Tensor:
    """Elements written at their index along a dimension, as :func:`torch.scatter`.

    Args:
        input: binary32, any shape.
        dim: the dimension that ``index`` counts along.
        index: int64 or int32, of the input's rank; not larger than ``src``, nor than the input in other dimensions.
        src: binary32, of the input's rank; what lies outside the index's shape is not used and gets a gradient of +0.
            Or a number, rounded to binary32.

    Returns:
        A tensor of the input's shape. Of several elements for one place the last in row-major order of the index is
        written, and alone gets a gradient, where torch leaves both open.

    Raises:
        InputError: a type or shape is wrong, or, on the CPU, an index is out of range. On a GPU, where looking would
            stall the device, such an element is left out.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    if not isinstance(src, torch.Tensor):
        src = torch.full(index.shape, src, dtype=input.dtype, device=input.device)
    x, written, slots = _flat("scatter", input, dim, index, src)
    return WriteRows.apply("scatter", x[:, None], slots, written[:, None]).view(input.shape)


@contract(
    "Indexing",
    definition="exact windowed sum of the element and of all that is added to it, rounded once; "
    "gradient: grad, and grad at the index",
    error="half an ulp + 2^-32 of the largest term for each term",
    batch_invariant=False,
    kernels=True,
    mirrors="scatter_add",
)
def scatter_add(input: torch.Tensor, dim: int, index: torch.Tensor, src: torch.Tensor) -> torch.Tensor:
    """Elements added at their index along a dimension, as :func:`torch.scatter_add`; their order does not matter.

    Args:
        input: binary32, any shape.
        dim: the dimension that ``index`` counts along.
        index: int64 or int32, of the input's rank; not larger than ``src``, nor than the input in other dimensions.
        src: binary32, of the input's rank; what lies outside the index's shape is not used and gets a gradient of +0.

    Returns:
        A tensor of the input's shape: for each element the exact sum of its input value and of what is added to it,
        rounded to nearest even once; where nothing is added, the input's bits. Error at most half an ulp plus
        ``2**-32`` of the largest magnitude for each term. The canonical NaN where a term is NaN or infinite.

    Raises:
        InputError: a type or shape is wrong, or, on the CPU, an index is out of range. On a GPU, where looking would
            stall the device, such an element is left out.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    x, terms, slots = _flat("scatter_add", input, dim, index, src)
    return AddRows.apply("scatter_add", x[:, None], slots, terms[:, None], 1).view(input.shape)


@contract(
    "Indexing",
    definition="sum, mean: exact windowed sum, one division; amax, amin: by integer keys; prod: fixed tree over the "
    "elements of a slot in row-major order; gradient: written formulas, ties share evenly",
    error="sum half an ulp, mean 1.5 ulp, each + 2^-32 of the largest term for each term; extremes exact; prod 0.5 ulp "
    "for each product",
    batch_invariant=False,
    kernels=True,
    mirrors="scatter_reduce",
)
def scatter_reduce(
    input: torch.Tensor, dim: int, index: torch.Tensor, src: torch.Tensor, reduce: str, *, include_self: bool = True
) -> torch.Tensor:
    """Elements reduced at their index along a dimension, as :func:`torch.scatter_reduce`.

    The definition of each reduction and of its gradient is the module's docstring.

    Args:
        input: binary32, any shape.
        dim: the dimension that ``index`` counts along.
        index: int64 or int32, of the input's rank; not larger than ``src``, nor than the input in other dimensions.
        src: binary32, of the input's rank; what lies outside the index's shape is not used and gets a gradient of +0.
        reduce: ``"sum"``, ``"mean"``, ``"amax"``, ``"amin"`` or ``"prod"``.
        include_self: whether an element that something goes to counts itself.

    Returns:
        A tensor of the input's shape; where nothing goes, the input's bits. All but ``"prod"`` are the same for any
        order of the elements.

    Raises:
        InputError: a type, shape or reduction is wrong, or, on the CPU, an index is out of range. On a GPU, where
            looking would stall the device, such an element is left out.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    if reduce not in REDUCTIONS:
        raise InputError(f"scatter_reduce: reduce must be one of {', '.join(REDUCTIONS)}, got {reduce!r}")
    x, terms, slots = _flat("scatter_reduce", input, dim, index, src)
    return ScatterReduce.apply(x, terms, slots, reduce, include_self).view(input.shape)
