import itertools
import math
import sys

import mpmath
import pytest
import torch
from bits import INF, NAN, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.exact.ieee import CANONICAL_NAN_BITS
from dettriton.ops.ctc_loss import ctc_loss, log_sum_exp_torch
from dettriton.ops.softmax import log_softmax

REDUCTIONS = ("mean", "sum", "none")
STEPS, CLASSES = 9, 5
INPUT_LENGTHS, TARGET_LENGTHS = [9, 7, 6, 9], [3, 2, 0, 4]
each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


def arguments(seed=0, scale=1.0):
    """Log-probabilities (T, N, C), padded targets with a repeated class, and both lengths."""
    g = torch.Generator().manual_seed(seed)
    x = torch.log_softmax(torch.randn(STEPS, 4, CLASSES, generator=g, dtype=torch.float64) * scale, 2).float()
    targets = torch.randint(1, CLASSES, (4, 4), generator=g)
    targets[0] = torch.tensor([2, 2, 1, 3])
    return x, targets, torch.tensor(INPUT_LENGTHS), torch.tensor(TARGET_LENGTHS)


def results(x, *rest, **options):
    return values_and_grads(lambda x: ctc_loss(x, *rest, **options), x)


def stock(x, *rest, **options):
    return values_and_grads(lambda x: torch.nn.functional.ctc_loss(x, *rest, **options), x.double())


def assert_engines_agree(x, *rest, **options):
    reference, kernels = on_both_engines(results, x, *rest, **options)
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))
    return reference


def test_verify_engines_agree():
    x, *rest = arguments()
    rest[1] = torch.tensor([4, 3, 2, 4])
    value, grad = assert_engines_agree(x[:4], *rest, zero_infinity=True)
    assert bool(value > 0) and bool((grad != 0).any())


def test_verify_engines_agree_on_hard_values():
    x, *rest = arguments()
    x = x[:3].repeat(1, 2, 1)
    x[1, 0, 2], x[1, 1, 0], x[2, 2, 0], x[0, 3] = NAN, INF, -INF, -INF
    x[0, 4], x[1, 5], x[2, 6], x[2, 7] = 0.0, -0.0, 1e-40, -3e38
    targets = rest[0].repeat(2, 1)[:, :2]
    value, grad = assert_engines_agree(x, targets, [3] * 8, [2, 2, 0, 1, 2, 1, 1, 2], reduction="none")
    assert bool(value[0].isnan()) and bool(grad[:, 0].isnan().all()) and value[3] == INF and value[5].isfinite()


def test_verify_long_targets_run_without_kernels(monkeypatch):
    x, *rest = arguments()
    x, rest[1] = x[:2], torch.tensor([2, 1, 0, 2])
    whole = assert_engines_agree(x, *rest, reduction="none")
    monkeypatch.setattr(sys.modules["dettriton.ops.ctc_loss"], "MOST_STATES", 4)
    composed = assert_engines_agree(x, *rest, reduction="none")
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(whole, composed, strict=True))


@each_reduction
def test_verify_targets_one_after_the_other_and_lengths_as_tuples(reduction):
    x, targets, inputs, lengths = arguments()
    padded = results(x, targets, inputs, lengths, reduction=reduction)
    joined = torch.cat([t[:n] for t, n in zip(targets, TARGET_LENGTHS, strict=True)]).to(torch.int32)
    for other in (
        results(x, joined, inputs.to(torch.int32), lengths, reduction=reduction),
        results(x, targets, tuple(INPUT_LENGTHS), TARGET_LENGTHS, reduction=reduction),
    ):
        assert all(same_bits(a, b) for a, b in zip(padded, other, strict=True))


def test_verify_a_loss_does_not_depend_on_its_batch_or_padding():
    x, targets, inputs, lengths = arguments()
    whole, grad = results(x, targets, inputs, lengths, reduction="none")
    upstream = torch.randn(4, generator=torch.Generator().manual_seed(0))
    for i, (steps, size) in enumerate(zip(INPUT_LENGTHS, TARGET_LENGTHS, strict=True)):
        alone = x[:steps, i].detach().clone().requires_grad_()
        loss = ctc_loss(alone, targets[i, :size], torch.tensor(steps), torch.tensor(size), reduction="none")
        assert loss.shape == () and same_bits(loss.detach(), whole[i])
        loss.backward(upstream[i])
        assert same_bits(alone.grad, grad[:steps, i])
        assert same_bits(grad[steps:, i], torch.zeros(STEPS - steps, CLASSES))


def test_verify_non_contiguous_arguments():
    x, *rest = arguments()
    strided = x.permute(1, 2, 0).contiguous().permute(2, 0, 1), rest[0].t().contiguous().t()
    first, second = results(x, *rest), results(*strided, *rest[1:])
    assert all(same_bits(a, b) for a, b in zip(first, second, strict=True))


@each_reduction
@pytest.mark.parametrize("blank", [0, 3])
def test_corroborate_torch_in_float64(reduction, blank):
    x, targets, *lengths = arguments()
    targets = torch.where(targets == blank, 0, targets)
    ours = results(x, targets, *lengths, blank=blank, reduction=reduction)
    for a, b in zip(ours, stock(x, targets, *lengths, blank=blank, reduction=reduction), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-6, atol=1e-6)


@each_reduction
def test_corroborate_impossible_alignments(reduction):
    x, targets, inputs, lengths = arguments()
    inputs[0] = 3  # the repeated class needs a blank between, so three steps are too few
    for zero in (False, True):
        options = {"zero_infinity": zero, "reduction": reduction}
        ours, theirs = results(x, targets, inputs, lengths, **options), stock(x, targets, inputs, lengths, **options)
        assert same_bits(ours[1].isnan(), theirs[1].isnan())
        torch.testing.assert_close(ours[1].double(), theirs[1], rtol=1e-6, atol=1e-6, equal_nan=True)
        if zero or reduction == "none":
            torch.testing.assert_close(ours[0].double(), theirs[0], rtol=1e-6, atol=1e-6)
        else:
            assert ours[0].view(torch.int32).item() == CANONICAL_NAN_BITS


def test_corroborate_a_training_step_through_log_softmax():
    g = torch.Generator().manual_seed(5)
    logits = torch.randn(STEPS, 4, CLASSES, generator=g)
    _, *rest = arguments()
    ours = values_and_grads(lambda z: ctc_loss(log_softmax(z, 2), *rest), logits)
    theirs = values_and_grads(lambda z: torch.nn.functional.ctc_loss(torch.log_softmax(z, 2), *rest), logits.double())
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-6, atol=1e-7)


def test_corroborate_long_sequences_are_closer_than_torchs_own():
    g = torch.Generator().manual_seed(6)
    x = torch.log_softmax(torch.randn(200, 2, 30, generator=g, dtype=torch.float64) * 3, 2).float()
    rest = torch.randint(1, 30, (2, 40), generator=g), torch.tensor([200, 190]), torch.tensor([40, 35])
    ours, exact = results(x, *rest, reduction="sum"), stock(x, *rest, reduction="sum")
    single = values_and_grads(lambda x: torch.nn.functional.ctc_loss(x, *rest, reduction="sum"), x)
    errors = [(a[1].double() - exact[1]).abs().max() for a in (ours, single)]
    assert errors[0] < 1e-4 and errors[0] < errors[1] / 10


def collapsed(path):
    return [c for c, _ in itertools.groupby(path) if c != 0]


def test_validate_against_all_alignments():
    mpmath.mp.prec = 100
    g = torch.Generator().manual_seed(7)
    x = torch.log_softmax(torch.randn(5, 3, generator=g, dtype=torch.float64), 1).float().requires_grad_()
    target = [2, 1]
    loss = ctc_loss(x, torch.tensor(target), (5,), (2,), reduction="sum")
    loss.backward()
    loss, grad, x = float(loss.detach()), x.grad.tolist(), x.detach()
    p = [[mpmath.exp(mpmath.mpf(v)) for v in row] for row in x.tolist()]
    total, joint = mpmath.mpf(0), [[mpmath.mpf(0)] * 3 for _ in range(5)]
    for path in itertools.product(range(3), repeat=5):
        if collapsed(path) == target:
            chance = mpmath.fprod(p[t][c] for t, c in enumerate(path))
            total += chance
            for t, c in enumerate(path):
                joint[t][c] += chance
    assert abs(loss + mpmath.log(total)) <= 8 * 2.0**-24 * loss
    for t, c in itertools.product(range(5), range(3)):
        assert abs(grad[t][c] - (p[t][c] - joint[t][c] / total)) <= 12 * 2.0**-24


def test_validate_empty_targets_and_no_steps():
    x = arguments()[0][:3, :3]
    targets = torch.zeros(3, 0, dtype=torch.int64)
    for value, grad in on_both_engines(results, x[:2], targets, (2, 1, 0), (0, 0, 0), reduction="none"):
        assert value[2] == 0 and math.isclose(value[0], -float(x[:2, 0, 0].double().sum()), rel_tol=1e-6)
        assert same_bits(grad[1:, 1:], torch.zeros(1, 2, CLASSES))
    none = ctc_loss(x, torch.ones(3, 1).long(), (0, 0, 0), (1, 1, 1), reduction="none")
    assert none.tolist() == [INF] * 3
    assert ctc_loss(x[:, :0], targets[:0], (), (), reduction="sum") == 0


def test_verify_another_order_would_be_caught():
    x = arguments()[0].reshape(-1)
    a, b, c = x[:50], x[50:100], x[100:150]
    assert not same_bits(log_sum_exp_torch(a, b, c), torch.logsumexp(torch.stack((a, b, c)), 0))
    assert not same_bits(log_sum_exp_torch(a, b, c), log_sum_exp_torch(c, b, a))


def test_double_backward_names_the_op():
    x, *rest = arguments()
    x.requires_grad_()
    (grad,) = torch.autograd.grad(ctc_loss(x, *rest).square(), x, create_graph=True)
    with pytest.raises(InputError, match="ctc_loss has no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_probs": torch.zeros(4, 2, 3).double()}, r"log_probs must be torch\.float32"),
        ({"log_probs": torch.zeros(4)}, r"log_probs must be \(T, N, C\)"),
        ({"targets": torch.ones(2, 2)}, "targets must be int32 or int64"),
        ({"targets": torch.ones(3, 2).long()}, "a row per sample, 2, got 3"),
        ({"targets": torch.tensor([[1, 3], [1, 1]])}, "targets must be 0 to 2, got 3"),
        ({"targets": torch.ones(5).long()}, "target_lengths must add up to the 5 targets"),
        ({"target_lengths": (2, 3)}, "target_lengths must be 0 to 2, got 3"),
        ({"input_lengths": (4, 5)}, "input_lengths must be 0 to 4, got 5"),
        ({"input_lengths": (4,)}, "input_lengths must hold 2 integers"),
        ({"blank": 3}, "blank must be a class"),
        ({"reduction": "max"}, "reduction must be one of"),
    ],
)
def test_bad_arguments_are_refused(changes, message):
    given = {"targets": torch.ones(2, 2).long(), "input_lengths": (4, 4), "target_lengths": (2, 2)}
    with pytest.raises(InputError, match=f"ctc_loss: .*{message}"):
        ctc_loss(**{"log_probs": torch.zeros(4, 2, 3), **given, **changes})
