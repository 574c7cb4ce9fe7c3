"""ctc_loss: connectionist temporal classification (Graves et al., 2006) by two recursions of logarithms.

A sample with target ``y_1 .. y_U`` has the ``L = 2U + 1`` states blank, y_1, blank, .. y_U, blank; ``c(s)`` is the
class of state ``s`` and ``x`` the log-probabilities. Written order, every operation rounded once to binary32 (R1),
exp and log the library's own (R3), ``S`` an exact sum rounded once (R2); what lies outside the states is -Inf::

    LSE(a, b, c) = m + log((exp(a - m) + exp(b - m)) + exp(c - m))      m = max(a, b, c), replaced by 0 if -Inf
    r_t(s) = LSE(A_{t-1}(s), A_{t-1}(s-1), A_{t-1}(s-2)) + x_t(c(s))    A_{-1} = 0 in the first state, -Inf elsewhere
    n_t = max_s r_t(s), replaced by 0 if -Inf                           A_t = r_t - n_t
    loss = 0 - (LSE(A_{T-1}(L-1), A_{T-1}(L-2), -Inf) + S(n_t))

    q_t(s) = LSE(e_t(s), e_t(s+1), e_t(s+2))      e_t(s) = x_{t+1}(c(s)) + B_{t+1}(s)
    B_t = q_t - max_s q_t (0 if -Inf)             B_{T-1} = 0 in the last two states, -Inf elsewhere
    p_t(s) = softmax over s of A_t(s) + B_t(s), as in softmax.py
    grad_x_t(c) = (exp(x_t(c)) - S(p_t(s) over the states of class c)) * k

The step by two states is -Inf where both have one class. Taking ``n_t`` out of each step keeps the recursion's
rounding errors relative to numbers near 0 instead of the whole logarithm. Steps beyond a sample's length and states
beyond its target count nothing. As in torch, the gradient is that for inputs which are a log_softmax.

An impossible alignment has loss +Inf, which makes a sum or a mean NaN (R2), and a NaN gradient; with
``zero_infinity`` both are +0. ``k`` is the upstream gradient of that sample's loss; with ``reduction="mean"`` each
loss is divided by its target's length (at least 1), their exact sum by the number of samples ``N``, and ``k = (g /
N) / length``. Batch-invariant: a sample's loss depends on that sample alone.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.exact import elementary as host
from dettriton.exact.ieee import canonical_nan
from dettriton.ops._contract import contract
from dettriton.ops._ctc_alignment import Alignment, alignment_of
from dettriton.ops._device_elementary import exp_f32, log_f32
from dettriton.ops._elementwise import evaluate, formula
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._index_sum import index_sum
from dettriton.ops._launch import Variant, jit, kernel, tl
from dettriton.ops._reduction import check_reduction, count_of, loss_factor, reduce_loss
from dettriton.ops.elementary import EXP
from dettriton.ops.softmax import FORWARD as SOFTMAX
from dettriton.ops.sum import exact_sum

MOST_STATES = 4096
"""The kernels keep all states of a sample in one block; longer targets run as a composition."""

NOTHING = tl.constexpr(float("-inf"))


def log_sum_exp_torch(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    top = torch.where(a > b, a, b)
    top = torch.where(c > top, c, top)
    top = torch.where(top == -math.inf, torch.zeros_like(top), top)
    return top + host.log((host.exp(a - top) + host.exp(b - top)) + host.exp(c - top))


@jit
def _log_sum_exp(a, b, c):
    top = tl.where(a > b, a, b)
    top = tl.where(c > top, c, top)
    top = tl.where(top == NOTHING, 0.0, top)
    return top + log_f32((exp_f32(a - top) + exp_f32(b - top)) + exp_f32(c - top))


LOG_SUM_EXP = formula("ctc_loss", log_sum_exp_torch, _log_sum_exp, tensors=3)


def _nothing(like: torch.Tensor, *shape: int) -> torch.Tensor:
    return torch.full(shape, -math.inf, dtype=torch.float32, device=like.device)


def _shift_out(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, L) values less their largest, which is (N,): +0 instead of -0, and 0 where all are -Inf."""
    top = values.amax(1) + 0.0
    top = torch.where(top == -math.inf, torch.zeros_like(top), top)
    return values - top[:, None], top


def forward_recursion(x: torch.Tensor, to: Alignment) -> tuple[torch.Tensor, torch.Tensor]:
    """``A`` (T + 1, N, L), its first row before the first step, and ``n`` (T, N), of the states' ``x`` (T, N, L)."""
    _, samples, states = x.shape
    before = _nothing(x, samples, 2)
    found = [torch.cat((torch.zeros_like(before[:, :1]), _nothing(x, samples, states - 1)), 1)]
    shifts = []
    for emitted in x:
        padded = torch.cat((before, found[-1]), 1)
        skipped = torch.where(to.skips, padded[:, :-2], before[:, :1])
        reached = evaluate(LOG_SUM_EXP, found[-1], padded[:, 1:-1], skipped)
        values, shift = _shift_out(reached + emitted)
        found.append(values)
        shifts.append(shift)
    return torch.stack(found), torch.stack(shifts) if shifts else x.new_zeros(0, samples)


def backward_recursion(x: torch.Tensor, to: Alignment) -> torch.Tensor:
    """``B`` (T, N, L) of the states' ``x`` (T, N, L); -Inf beyond a sample's steps."""
    steps, samples, states = x.shape
    after = _nothing(x, samples, 2)
    rank = to.states[:, None] - torch.arange(states, device=x.device)
    last = torch.where((rank == 1) | (rank == 2), torch.zeros_like(after[:, :1]), after[:, :1])
    skips = torch.cat((to.skips, torch.zeros_like(to.skips[:, :2])[:, :1].expand(-1, 2)), 1)[:, 2:]
    values = after[:, :1].expand(samples, states)
    found = []
    for t in reversed(range(steps)):
        if t + 1 < steps:
            padded = torch.cat((x[t + 1] + values, after), 1)
            skipped = torch.where(skips, padded[:, 2:], after[:, :1])
            values, _ = _shift_out(evaluate(LOG_SUM_EXP, padded[:, :-2].contiguous(), padded[:, 1:-1], skipped))
        left = (to.input_lengths - t)[:, None]
        values = torch.where(left > 1, values, torch.where(left == 1, last, after[:, :1]))
        found.append(values)
    return torch.stack(found[::-1])


@jit
def _without_largest(values):
    """Like ``_shift_out``, of one sample's states."""
    undefined = tl.max((values != values).to(tl.int32), axis=0)
    top = tl.max(tl.where(values == values, values, NOTHING), axis=0) + 0.0
    top = tl.where(top == NOTHING, 0.0, top)
    top = tl.where(undefined > 0, float("nan"), top)
    return values - top, top


@kernel("*fp32 *i1 *fp32 *fp32 i64 i64 i64", Variant({"BLOCK": 64}), Variant({"BLOCK": 1024}, 8))
def _ctc_forward_kernel(x_ptr, skips_ptr, values_ptr, shifts_ptr, T, N, L, BLOCK: tl.constexpr):
    """One program a sample; neighbouring states are read back from the step before, behind a barrier."""
    sample = tl.program_id(0).to(tl.int64)
    states = tl.arange(0, BLOCK)
    inside = states < L
    skips = tl.load(skips_ptr + sample * L + states, mask=inside, other=0) != 0
    tl.store(values_ptr + sample * L + states, tl.where(states == 0, 0.0, NOTHING), mask=inside)
    for t in range(0, T):
        tl.debug_barrier()
        before_ptr = values_ptr + (t * N + sample) * L + states
        stayed = tl.load(before_ptr, mask=inside, other=NOTHING)
        moved = tl.load(before_ptr - 1, mask=inside & (states >= 1), other=NOTHING)
        skipped = tl.load(before_ptr - 2, mask=inside & (states >= 2) & skips, other=NOTHING)
        emitted = tl.load(x_ptr + (t * N + sample) * L + states, mask=inside, other=NOTHING)
        values, shift = _without_largest(_log_sum_exp(stayed, moved, skipped) + emitted)
        tl.store(values_ptr + ((t + 1) * N + sample) * L + states, values, mask=inside)
        tl.store(shifts_ptr + t * N + sample, shift)


@kernel("*fp32 *i1 *i64 *i64 *fp32 i64 i64 i64", Variant({"BLOCK": 64}), Variant({"BLOCK": 1024}, 8))
def _ctc_backward_kernel(
    x_ptr, skips_ptr, input_lengths_ptr, target_lengths_ptr, values_ptr, T, N, L, BLOCK: tl.constexpr
):
    sample = tl.program_id(0).to(tl.int64)
    states = tl.arange(0, BLOCK)
    inside = states < L
    has_next = states + 1 < L
    has_second = states + 2 < L
    skips = tl.load(skips_ptr + sample * L + states + 2, mask=has_second, other=0) != 0
    rank = tl.load(target_lengths_ptr + sample) * 2 + 1 - states
    last = tl.where((rank == 1) | (rank == 2), 0.0, NOTHING)
    length = tl.load(input_lengths_ptr + sample)
    for back in range(0, T):
        t = T - 1 - back
        after = ((t + 1) * N + sample) * L + states
        later = length - t > 1
        tl.debug_barrier()
        stayed = tl.load(values_ptr + after, mask=inside & later, other=NOTHING)
        stayed += tl.load(x_ptr + after, mask=inside & later, other=NOTHING)
        moved = tl.load(values_ptr + after + 1, mask=has_next & later, other=NOTHING)
        moved += tl.load(x_ptr + after + 1, mask=has_next & later, other=NOTHING)
        skipped = tl.load(values_ptr + after + 2, mask=has_second & skips & later, other=NOTHING)
        skipped += tl.load(x_ptr + after + 2, mask=has_second & skips & later, other=NOTHING)
        values, _ = _without_largest(_log_sum_exp(stayed, moved, skipped))
        values = tl.where(later, values, tl.where(length - t == 1, last, NOTHING))
        tl.store(values_ptr + (t * N + sample) * L + states, values, mask=inside)


def _plan(states: int) -> dict[str, int]:
    block = max(1 << (states - 1).bit_length(), 16)
    return {"BLOCK": block, "num_warps": min(max(block // 128, 1), 8)}


def forward_recursion_triton(x: torch.Tensor, to: Alignment) -> tuple[torch.Tensor, torch.Tensor]:
    steps, samples, states = x.shape
    if states > MOST_STATES:
        return forward_recursion(x, to)
    values = torch.empty(steps + 1, samples, states, dtype=x.dtype, device=x.device)
    shifts = torch.empty(steps, samples, dtype=x.dtype, device=x.device)
    _ctc_forward_kernel((samples,), x, to.skips, values, shifts, steps, samples, states, **_plan(states))
    return values, shifts


def backward_recursion_triton(x: torch.Tensor, to: Alignment) -> torch.Tensor:
    steps, samples, states = x.shape
    if states > MOST_STATES:
        return backward_recursion(x, to)
    values = torch.empty_like(x)
    lengths = to.input_lengths, to.target_lengths
    _ctc_backward_kernel((samples,), x, to.skips, *lengths, values, steps, samples, states, **_plan(states))
    return values


FORWARD = {"torch": forward_recursion, "triton": forward_recursion_triton}
BACKWARD = {"torch": backward_recursion, "triton": backward_recursion_triton}


def state_values(x: torch.Tensor, to: Alignment) -> torch.Tensor:
    """The log-probability of each state at each step, (T, N, L); -Inf for states beyond a target."""
    values = x.gather(2, to.classes.expand(len(x), *to.classes.shape))
    beyond = torch.arange(to.classes.shape[1], device=x.device) >= to.states[:, None]
    return torch.where(beyond, _nothing(x, 1), values).contiguous()


def losses_of(values: torch.Tensor, shifts: torch.Tensor, to: Alignment) -> torch.Tensor:
    """(N,) losses from the forward recursion's results."""
    ends = values.gather(0, to.input_lengths[None, :, None].expand(1, *values.shape[1:])).squeeze(0)
    last = ends.gather(1, to.target_lengths[:, None] * 2).squeeze(1)
    second = ends.gather(1, (to.target_lengths[:, None] * 2 - 1).clamp(min=0)).squeeze(1)
    second = torch.where(to.target_lengths > 0, second, _nothing(values, 1))
    end = evaluate(LOG_SUM_EXP, last, second, torch.full_like(last, -math.inf))
    counted = torch.where(to.steps_inside(len(shifts)), shifts, torch.zeros_like(shifts))
    return 0.0 - (end + exact_sum(counted, (0,)))


def expected_classes(x: torch.Tensor, values: torch.Tensor, to: Alignment, usable: torch.Tensor) -> torch.Tensor:
    """(T, N, C): the probability of each class at each step over all alignments; +0 where ``usable`` (T, N) is not."""
    steps, samples, classes = x.shape
    engine = engine_for(x, values)
    joint = values[1:] + BACKWARD[engine](state_values(x, to), to)
    states = joint.shape[2]
    shares = SOFTMAX[engine](joint.reshape(-1, states)).view(joint.shape)
    shares = torch.where(usable[:, :, None], shares, torch.zeros_like(shares))
    places = to.classes + torch.arange(samples, device=x.device)[:, None] * classes
    terms = shares.permute(1, 2, 0).reshape(samples * states, steps)
    return index_sum(terms, places.reshape(-1), samples * classes).view(samples, classes, steps).permute(2, 0, 1)


class CTCLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, reduction: str, zero_infinity: bool, *alignment: torch.Tensor
    ) -> torch.Tensor:
        to = Alignment(*alignment)
        engine = engine_for(x, *alignment)
        values, shifts = FORWARD[engine](state_values(x, to), to)
        losses = losses_of(values, shifts, to)
        ctx.save_for_backward(x, values, losses, *alignment)
        ctx.op, ctx.reduction, ctx.zero_infinity = "ctc_loss", reduction, zero_infinity
        if zero_infinity:
            losses = torch.where(losses == math.inf, torch.zeros_like(losses), losses)
        if reduction == "mean":
            losses = losses / to.target_lengths.clamp(min=1).to(torch.float32)
        return reduce_loss(losses, count_of(losses), reduction)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, values, losses, *alignment = ctx.saved_tensors
        to = Alignment(*alignment)
        factor = loss_factor(grad, count_of(losses), ctx.reduction).expand(losses.shape)
        if ctx.reduction == "mean":
            factor = factor / to.target_lengths.clamp(min=1).to(torch.float32)
        zero = torch.zeros((), dtype=x.dtype, device=x.device)
        inside = to.steps_inside(len(x))
        finite = losses.abs() < math.inf
        expected = expected_classes(x, values, to, inside & finite)
        grad_x = (evaluate(EXP, x) - expected) * factor[None, :, None]
        grad_x = torch.where(finite[None, :, None], grad_x, canonical_nan(x))
        counted = inside & (losses != math.inf) if ctx.zero_infinity else inside
        return torch.where(counted[:, :, None], grad_x, zero), None, None, None, None, None, None


def _losses(log_probs: torch.Tensor, *args: Any, reduction: str = "mean", **_: Any) -> torch.Tensor:
    """A fake result; torch's own waits for the lengths."""
    reduction = args[4] if len(args) > 4 else reduction
    return log_probs.new_empty(log_probs.shape[1:-1] if reduction == "none" else ())


@contract(
    "Softmax and losses",
    definition="log-domain recursions, each step's maximum taken out; gradient exp(x) - exact sum of states' softmax",
    error="a few ulp of the numbers near 0 at each of T steps, and half an ulp of the loss",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.ctc_loss",
    fake=_losses,
)
def ctc_loss(
    log_probs: torch.Tensor,
    targets: torch.Tensor,
    input_lengths: torch.Tensor | Sequence[int],
    target_lengths: torch.Tensor | Sequence[int],
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> torch.Tensor:
    """Connectionist temporal classification, as :func:`torch.nn.functional.ctc_loss`.

    The module's docstring has the written order of both recursions; every operation is rounded once. The forward
    recursion's errors are a few ulp of numbers near 0 a step, where torch's are relative to the whole logarithm.

    Args:
        log_probs: binary32 logarithms of probabilities, (T, N, C) or (T, C), usually from
            :func:`dettriton.ops.log_softmax`, whose gradient this one's convention is made for.
        targets: int32 or int64 classes without the blank: (N, S) padded, (S,) for unbatched ``log_probs``, or all
            targets one after the other in one dimension.
        input_lengths: (N,) integers up to T, a tensor or a sequence.
        target_lengths: (N,) integers, a tensor or a sequence.
        blank: the class of the blank.
        reduction: ``"mean"``: each loss divided by its target's length, then their mean; ``"sum"``; or ``"none"``.
        zero_infinity: whether impossible alignments have loss and gradient +0.

    Returns:
        A 0-dim tensor, or the losses (N,), 0-dim if unbatched, for ``reduction="none"``. No host synchronisation where
        padded targets and lengths are already on a GPU; targets one after the other need their lengths on the host.

    Raises:
        InputError: a shape, type or option is wrong; or, for tensors on the CPU, a class or a length is out of range.
            On a GPU these are clamped into their range.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    op = "ctc_loss"
    check_reduction(op, None, None, reduction)
    require_float32(op, log_probs=log_probs)
    if log_probs.dim() not in (2, 3) or log_probs.shape[-1] == 0:
        raise InputError(f"{op}: log_probs must be (T, N, C) or (T, C) with C >= 1, got {tuple(log_probs.shape)}")
    batched = log_probs.dim() == 3
    x = log_probs if batched else log_probs.unsqueeze(1)
    if not 0 <= blank < x.shape[2]:
        raise InputError(f"{op}: blank must be a class, 0 to {x.shape[2] - 1}, got {blank}")
    targets = targets if batched or targets.dim() != 1 else targets.unsqueeze(0)
    to = alignment_of(x, targets, input_lengths, target_lengths, blank)
    loss = CTCLoss.apply(x, reduction, zero_infinity, *to)
    return loss if batched or reduction != "none" else loss.squeeze(0)
