"""cross_entropy over the rows of a matrix of logits, for class indices and for class probabilities alike.

Written order for one row (sample) with logits ``x``, every operation rounded once to binary32 (R1), ``S`` an exact sum
over the classes rounded once (R2), exp and log the library's own (R3); ``m``, ``s`` and ``Z`` are softmax's::

    m = max x      s = x - m      Z = S(exp(s))      n_c = -(s_c - log(Z))
    q = the target probabilities; a class index y means q_y = 1 and 0 elsewhere
    t_c = ((q_c * a) + b) * w_c, but +0 where the first factor is 0
    a = binary32(1 - label_smoothing)      b = binary32(label_smoothing / C), quotient and difference in binary64
    loss = S(t_c * n_c), where a class with t_c = 0 and n_c = +Inf counts +0
    grad_x_c = (((exp(s_c) / Z) * S(t)) - t_c) * k
    grad_q_c = ((n_c * w_c) * a) * k            for probabilities

An absent weight skips its multiplication. A class index without smoothing leaves one term, ``loss = w_y * n_y``: the
same bits, without the sum. ``k`` is the upstream gradient of that row's loss. With ``reduction="mean"`` the losses'
exact sum is divided by ``D``, and ``k = g / D``: ``D`` is the exact sum of ``w_y`` over rows that are not ignored for
class indices, and the number of rows for probabilities. An ignored row has loss +0 and gradient +0 whatever its logits
are. A row without softmax, or with an infinite term, has the canonical NaN as its loss.
Batch-invariant: a row's loss depends on that row, its target and the weights alone.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.exact._jit import compiles
from dettriton.exact.compiled_elementwise import class_loss_gradient_of, class_losses_of, softmax_of
from dettriton.exact.elementary import exp
from dettriton.exact.ieee import canonical_nan
from dettriton.ops._contract import contract
from dettriton.ops._device_elementary import log_f32
from dettriton.ops._device_rows import (
    add_terms,
    exp_over_total,
    largest_bits,
    rounded_sum,
    row_plan,
    row_tile,
    row_variants,
    softmax_statistics,
    store_row_tile,
)
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._launch import jit, kernel, tl
from dettriton.ops._reduction import check_reduction, count_of, loss_factor, reduce_loss, require_no_gradient
from dettriton.ops.elementary import LOG
from dettriton.ops.softmax import LOG_FORWARD, softmax_totals_torch
from dettriton.ops.sum import exact_sum


class Target(NamedTuple):
    """What the rows should be: class indices (R,) int64, or probabilities (R, C) binary32, and how they count.

    ``a`` and ``b`` are binary32 values held as Python floats.
    """

    of_rows: torch.Tensor
    weight: torch.Tensor | None
    ignore_index: int
    a: float
    b: float

    @property
    def indices(self) -> bool:
        return not self.of_rows.is_floating_point()

    @property
    def single_term(self) -> bool:
        return self.indices and self.b == 0.0


class RowLosses(NamedTuple):
    """Each (R,): the losses, what their gradient needs (m, Z, S(t)), and the rows' weights in a mean over indices."""

    loss: torch.Tensor
    top: torch.Tensor
    total: torch.Tensor
    target_sum: torch.Tensor
    row_weight: torch.Tensor


@jit
def _target_tile(
    probability_ptr, weight_ptr, label, usable, rows, start, R, C, a, b,
    INDICES: tl.constexpr, HAS_WEIGHT: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    columns = start + tl.arange(0, BLOCK_C)[None, :]
    q = (columns == label).to(tl.float32) if INDICES else row_tile(probability_ptr, rows, start, R, C, 0.0, BLOCK_C)
    t = q * a + b
    if HAS_WEIGHT:
        t = tl.where(t == 0, 0.0, t * tl.load(weight_ptr + columns, mask=columns < C, other=0.0))
    return tl.where(columns < C, tl.where(usable, t, float("nan")), 0.0)


@jit
def _term_tile(t, x, top, log_total, ignored):
    surprise = ((x - top) - log_total) * -1.0
    return tl.where(((t == 0) & (surprise == float("inf"))) | ignored, 0.0, t * surprise)


@jit
def _sum_of_one(v):
    """The exact sum of one term: +0 for -0, the canonical NaN for a non-finite one."""
    return tl.where(tl.abs(v) < float("inf"), v + 0.0, float("nan"))


@jit
def _labels(label_ptr, rows, R, C, ignore_index, INDICES: tl.constexpr):
    """Each row's class, whether it is ignored, and whether it is ignored or a class at all; (BLOCK_R, 1)."""
    label = (rows * 0)[:, None]
    ignored = label != 0
    usable = label == 0
    if INDICES:
        label = tl.load(label_ptr + rows, mask=rows < R, other=0)[:, None]
        ignored = label == ignore_index
        usable = ignored | ((label >= 0) & (label < C))
    return label, ignored, usable


_FLAGS = [{"HAS_WEIGHT": True, "INDICES": True}, {"HAS_WEIGHT": False, "INDICES": False}]
_FORWARD_FLAGS = [{"SINGLE_TERM": True, **_FLAGS[0]}, *({"SINGLE_TERM": False, **flags} for flags in _FLAGS)]


@kernel(
    "*fp32 *i64 *fp32 *fp32 *fp32 *fp32 *fp32 *fp32 *fp32 i64 i64 i64 fp32 fp32",
    *(variant for flags in _FORWARD_FLAGS for variant in row_variants(**flags)),
)
def _cross_entropy_fwd_kernel(
    x_ptr, label_ptr, probability_ptr, weight_ptr, loss_ptr, top_ptr, total_ptr, target_sum_ptr, row_weight_ptr,
    R, C, ignore_index, a, b,
    INDICES: tl.constexpr, HAS_WEIGHT: tl.constexpr, SINGLE_TERM: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    here = rows[:, None] < R
    label, ignored, usable = _labels(label_ptr, rows, R, C, ignore_index, INDICES)
    top, total = softmax_statistics(x_ptr, rows, R, C, BLOCK_R, BLOCK_C)
    tl.store(top_ptr + rows[:, None], top, mask=here)
    tl.store(total_ptr + rows[:, None], total, mask=here)
    log_total = log_f32(total)
    if INDICES:
        labelled = here & usable & (ignored == 0)
        row_weight = tl.where(usable, 1.0, float("nan"))
        if HAS_WEIGHT:
            row_weight = tl.where(usable, tl.load(weight_ptr + label, mask=labelled, other=0.0), float("nan"))
            row_weight = _sum_of_one(row_weight)
        row_weight = tl.where(ignored, 0.0, row_weight)
        tl.store(row_weight_ptr + rows[:, None], row_weight, mask=here)
    if SINGLE_TERM:
        x = tl.load(x_ptr + rows[:, None] * C + label, mask=labelled, other=0.0)
        loss = _sum_of_one(_term_tile(row_weight, x, top, log_total, ignored))
        target_sum = row_weight
    else:
        term_bits = tl.zeros((BLOCK_R, 1), tl.int32)
        t_bits = tl.zeros((BLOCK_R, 1), tl.int32)
        for start in range(0, C, BLOCK_C):
            x = row_tile(x_ptr, rows, start, R, C, 0.0, BLOCK_C)
            t = _target_tile(
                probability_ptr, weight_ptr, label, usable, rows, start, R, C, a, b, INDICES, HAS_WEIGHT, BLOCK_C
            )
            term_bits = largest_bits(term_bits, _term_tile(t, x, top, log_total, ignored))
            t_bits = largest_bits(t_bits, t)
        zero = tl.zeros((BLOCK_R, 1), tl.int64)
        term_hi, term_lo, t_hi, t_lo = zero, zero, zero, zero
        for start in range(0, C, BLOCK_C):
            x = row_tile(x_ptr, rows, start, R, C, 0.0, BLOCK_C)
            t = _target_tile(
                probability_ptr, weight_ptr, label, usable, rows, start, R, C, a, b, INDICES, HAS_WEIGHT, BLOCK_C
            )
            term_hi, term_lo = add_terms(term_hi, term_lo, _term_tile(t, x, top, log_total, ignored), term_bits)
            t_hi, t_lo = add_terms(t_hi, t_lo, t, t_bits)
        loss = rounded_sum(term_hi, term_lo, term_bits)
        target_sum = rounded_sum(t_hi, t_lo, t_bits)
    tl.store(loss_ptr + rows[:, None], loss, mask=here)
    tl.store(target_sum_ptr + rows[:, None], target_sum, mask=here)


@kernel(
    "*fp32 *i64 *fp32 *fp32 *fp32 *fp32 *fp32 *fp32 *fp32 i64 i64 i64 fp32 fp32",
    *(variant for flags in _FLAGS for variant in row_variants(**flags)),
)
def _cross_entropy_bwd_kernel(
    x_ptr, label_ptr, probability_ptr, weight_ptr, top_ptr, total_ptr, target_sum_ptr, factor_ptr, grad_x_ptr,
    R, C, ignore_index, a, b,
    INDICES: tl.constexpr, HAS_WEIGHT: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    here = rows[:, None] < R
    label, ignored, usable = _labels(label_ptr, rows, R, C, ignore_index, INDICES)
    top = tl.load(top_ptr + rows[:, None], mask=here, other=0.0)
    total = tl.load(total_ptr + rows[:, None], mask=here, other=1.0)
    target_sum = tl.load(target_sum_ptr + rows[:, None], mask=here, other=0.0)
    factor = tl.load(factor_ptr + rows[:, None], mask=here, other=0.0)
    for start in range(0, C, BLOCK_C):
        x = row_tile(x_ptr, rows, start, R, C, float("-inf"), BLOCK_C)
        p = exp_over_total(x, top, total, BLOCK_R, BLOCK_C)
        t = _target_tile(
            probability_ptr, weight_ptr, label, usable, rows, start, R, C, a, b, INDICES, HAS_WEIGHT, BLOCK_C
        )
        grad_x = (p * target_sum - t) * factor
        store_row_tile(grad_x_ptr, rows, start, R, C, tl.where(ignored, 0.0, grad_x), BLOCK_C)


def _target_torch(target: Target, classes: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """``t`` (R, C), and which rows are ignored (R, 1)."""
    q, ignored = target.of_rows, None
    if target.indices:
        label = target.of_rows[:, None]
        ignored = label == target.ignore_index
        q = torch.zeros(len(label), classes).scatter_(1, torch.where(ignored, 0, label), 1.0)
    t = q * torch.tensor(target.a, dtype=torch.float32) + torch.tensor(target.b, dtype=torch.float32)
    if target.weight is not None:
        t = torch.where(t == 0, torch.zeros(()), t * target.weight)
    return t, ignored


def _sum_of_one_torch(v: torch.Tensor) -> torch.Tensor:
    return torch.where(v.abs() < math.inf, v + torch.zeros(()), canonical_nan(v))


def cross_entropy_torch(x: torch.Tensor, target: Target) -> RowLosses:
    if compiles() and target.single_term:
        *found, row_weight = class_losses_of(x, target.of_rows, target.weight, target.ignore_index)
        return RowLosses(*found, row_weight, row_weight)
    top, total = softmax_totals_torch(x)
    row_weight = torch.ones(len(x), 1)
    if target.indices:
        ignored = target.of_rows[:, None] == target.ignore_index
        label = torch.where(ignored, 0, target.of_rows[:, None])
        if target.weight is not None:
            row_weight = _sum_of_one_torch(target.weight[label])
        row_weight = torch.where(ignored, torch.zeros(()), row_weight)
    surprise = -(((x.gather(1, label) if target.single_term else x) - top) - LOG.on_cpu(total))
    if target.single_term:
        t, target_sum = row_weight, row_weight
    else:
        t, ignored = _target_torch(target, x.shape[1])
        target_sum = exact_sum(t, (1,), keepdim=True)
    counts_nothing = (t == 0) & (surprise == math.inf)
    terms = torch.where(counts_nothing if ignored is None else counts_nothing | ignored, torch.zeros(()), t * surprise)
    loss = _sum_of_one_torch(terms) if target.single_term else exact_sum(terms, (1,), keepdim=True)
    return RowLosses(*(v.squeeze(1) for v in (loss, top, total, target_sum, row_weight)))


def cross_entropy_grad_torch(
    factor: torch.Tensor, x: torch.Tensor, target: Target, top: torch.Tensor, total: torch.Tensor, t_sum: torch.Tensor
) -> torch.Tensor:
    if compiles() and target.indices:
        *of_target, a, b = target
        return class_loss_gradient_of(factor, x, *of_target, (a, b), (top, total, t_sum))
    t, ignored = _target_torch(target, x.shape[1])
    p = softmax_of(x) if compiles() else exp(x - top[:, None]) / total[:, None]
    grad_x = (p * t_sum[:, None] - t) * factor[:, None]
    return grad_x if ignored is None else torch.where(ignored, torch.zeros(()), grad_x)


def probability_grad(factor: torch.Tensor, x: torch.Tensor, target: Target) -> torch.Tensor:
    """The gradient to target probabilities, on the engine of ``x``."""
    surprise = -LOG_FORWARD[engine_for(factor, x)](x)
    weighted = surprise if target.weight is None else surprise * target.weight
    return (weighted * target.a) * factor[:, None]


def _flags(target: Target) -> dict[str, bool]:
    return {"INDICES": target.indices, "HAS_WEIGHT": target.weight is not None}


def _pointers(x: torch.Tensor, target: Target) -> tuple[torch.Tensor, ...]:
    """The kernels' first four arguments; the ones that a kernel's constants leave unused point anywhere."""
    return x, target.of_rows, target.of_rows, x if target.weight is None else target.weight


def cross_entropy_triton(x: torch.Tensor, target: Target) -> RowLosses:
    rows = RowLosses(*(torch.empty(len(x), dtype=x.dtype, device=x.device) for _ in RowLosses._fields))
    grid, plan = row_plan(*x.shape)
    _cross_entropy_fwd_kernel(
        grid, *_pointers(x, target), *rows,
        *x.shape, target.ignore_index, target.a, target.b, SINGLE_TERM=target.single_term, **_flags(target), **plan,
    )  # fmt: skip
    return rows


def cross_entropy_grad_triton(
    factor: torch.Tensor, x: torch.Tensor, target: Target, top: torch.Tensor, total: torch.Tensor, t_sum: torch.Tensor
) -> torch.Tensor:
    grad_x = torch.empty_like(x)
    grid, plan = row_plan(*x.shape)
    _cross_entropy_bwd_kernel(
        grid, *_pointers(x, target), top, total, t_sum, factor, grad_x,
        *x.shape, target.ignore_index, target.a, target.b, **_flags(target), **plan,
    )  # fmt: skip
    return grad_x


def _mean_divisor(rows: RowLosses, target: Target) -> torch.Tensor:
    if not target.indices:
        return count_of(rows.loss)
    if target.weight is None and rows.row_weight.is_cpu:
        # a sum of ones and zeros; on a GPU a wrong index has NaN
        return rows.row_weight.count_nonzero().to(torch.float32)
    return exact_sum(rows.row_weight)


FORWARD = {"torch": cross_entropy_torch, "triton": cross_entropy_triton}
BACKWARD = {"torch": cross_entropy_grad_torch, "triton": cross_entropy_grad_triton}


class CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, of_rows: torch.Tensor, weight: torch.Tensor | None, reduction: str, *rest: Any
    ) -> torch.Tensor:
        target = Target(of_rows, weight, *rest)
        rows = FORWARD[engine_for(*(v for v in (x, of_rows, weight) if v is not None))](x, target)
        divisor = _mean_divisor(rows, target) if reduction == "mean" else None
        ctx.save_for_backward(x, of_rows, weight, rows.top, rows.total, rows.target_sum, divisor)
        ctx.reduction, ctx.rest = reduction, rest
        return reduce_loss(rows.loss, divisor, reduction)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, of_rows, weight, *kept, divisor = ctx.saved_tensors
        factor = loss_factor(grad, divisor, ctx.reduction).reshape(-1).expand(len(x)).contiguous()
        target = Target(of_rows, weight, *ctx.rest)
        needs_x, needs_target, *_ = ctx.needs_input_grad
        grad_x = BACKWARD[engine_for(factor, x)](factor, x, target, *kept) if needs_x else None
        return grad_x, probability_grad(factor, x, target) if needs_target else None, None, None, None, None, None


@contract(
    "Softmax and losses",
    definition="exact sum over classes of -t log_softmax; mean: exact sum over D; gradient (p S(t) - t) k",
    error="a few ulp of log Z and of the largest term",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.cross_entropy",
)
def cross_entropy(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Cross entropy of logits and classes or class probabilities, as :func:`torch.nn.functional.cross_entropy`.

    With ``t_c = ((q_c * a) + b) * w_c`` the smoothed and weighted target and ``l`` the log-softmax of the logits, a
    sample's loss is the exact sum ``S(t_c * -l_c)`` and its gradient ``((p_c * S(t)) - t_c) * k``; the module's
    docstring has the whole written order. Each written operation is rounded once, so the error against the exact
    loss is a few ulp of ``log Z`` and of the largest term.

    Args:
        input: binary32 logits, (C,), (N, C) or (N, C, d1, ...).
        target: int64 class indices, the input's shape without C, each in [0, C) or ``ignore_index``; or binary32 class
            probabilities of the input's shape, differentiable.
        weight: binary32, (C,): a factor for each class.
        size_average: deprecated in torch, refused.
        ignore_index: the class index whose samples count nothing; probabilities need it negative.
        reduce: deprecated in torch, refused.
        reduction: ``"mean"``: the losses' sum, divided by the exact sum of the target classes' weights for indices, by
            the number of samples for probabilities; NaN when every sample is ignored. ``"sum"``; or ``"none"``.
        label_smoothing: in [0, 1], the share of the target spread evenly over the classes.

    Returns:
        A 0-dim tensor, or the samples' losses in the shape of class-index targets for ``reduction="none"``. A sample
        whose logits hold NaN or +Inf, or that puts target on a class of probability 0, has the canonical NaN.

    Raises:
        InputError: a shape, type or option is wrong; or, for tensors on the CPU, a class index is out of range. On a
            GPU, where looking would stall the device, such a sample's loss and gradient are NaN.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    op = "cross_entropy"
    check_reduction(op, size_average, reduce, reduction)
    require_float32(op, input=input, weight=weight)
    require_no_gradient(op, weight=weight)
    if not 0.0 <= label_smoothing <= 1.0:
        raise InputError(f"{op}: label_smoothing must lie in [0, 1], got {label_smoothing}")
    class_dim = 0 if input.dim() == 1 else 1
    if input.dim() == 0 or input.shape[class_dim] == 0:
        raise InputError(f"{op}: input must be (C,), (N, C) or (N, C, d1, ...) with C >= 1, got {tuple(input.shape)}")
    classes = input.shape[class_dim]
    if weight is not None and weight.shape != (classes,):
        raise InputError(f"{op}: weight must hold one factor per class, ({classes},), got {tuple(weight.shape)}")
    rows = _rows(input, class_dim)
    per_sample = input.shape[:class_dim] + input.shape[class_dim + 1 :]
    if target.is_floating_point():
        require_float32(op, target=target)
        _check_probabilities(input, target, ignore_index)
        of_rows = _rows(target, class_dim)
    else:
        _check_indices(target, per_sample, classes, ignore_index)
        of_rows = target.reshape(-1).contiguous()
    a, b = (float(np.float32(v)) for v in (1.0 - label_smoothing, label_smoothing / classes))
    weight = None if weight is None else weight.contiguous()
    loss = CrossEntropy.apply(rows, of_rows, weight, reduction, ignore_index, a, b)
    return loss.reshape(per_sample) if reduction == "none" else loss


def _rows(x: torch.Tensor, class_dim: int) -> torch.Tensor:
    rows = x if x.dim() == 2 else x.movedim(class_dim, -1).reshape(-1, x.shape[class_dim])
    return rows.contiguous()


def _check_probabilities(x: torch.Tensor, target: torch.Tensor, ignore_index: int) -> None:
    if target.shape != x.shape:
        raise InputError(
            f"cross_entropy: class probabilities must have the input's shape {tuple(x.shape)}, got "
            f"{tuple(target.shape)}; class indices must be torch.int64"
        )
    if ignore_index >= 0:
        raise InputError(f"cross_entropy: class probabilities have no index to ignore, got ignore_index={ignore_index}")


def _all_classes(target: torch.Tensor, classes: int) -> bool:
    if target.numel() == 0:
        return True
    lowest, highest = target.aminmax()
    return lowest.item() >= 0 and highest.item() < classes


def _check_indices(target: torch.Tensor, shape: torch.Size, classes: int, ignore_index: int) -> None:
    if target.dtype != torch.int64 or target.shape != shape:
        raise InputError(
            f"cross_entropy: class indices must be torch.int64 of shape {tuple(shape)} for this input, got "
            f"{target.dtype} of shape {tuple(target.shape)}"
        )
    if target.device.type != "cpu":
        return
    flat = target.reshape(-1)
    if _all_classes(flat, classes):
        return
    wrong = ((flat < 0) | (flat >= classes)) & (flat != ignore_index)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise InputError(
            f"cross_entropy: target {int(flat[row])} of sample {row} is not a class: classes are 0 to {classes - 1}, "
            f"and ignore_index is {ignore_index}"
        )
