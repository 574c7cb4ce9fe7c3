from functools import reduce

import oracle
import pytest
import torch
from bits import INF, NAN, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.exact.ieee import CANONICAL_NAN_BITS
from dettriton.ops.cross_entropy import cross_entropy
from dettriton.ops.nll_loss import NLLLoss, nll_loss
from dettriton.ops.softmax import log_softmax

REDUCTIONS = ("mean", "sum", "none")
SHAPES = [(6,), (9, 1), (20, 10), (3, 4, 5), (2, 3, 4, 2), (0, 3)]
each_weighted = pytest.mark.parametrize("weighted", [False, True])
each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


def arguments(shape, weighted=False, ignored=True, seed=0):
    """Log-probabilities, classes, some of them ignored, and keywords."""
    g = torch.Generator().manual_seed(seed)
    class_dim = 0 if len(shape) == 1 else 1
    classes = shape[class_dim]
    x = torch.log_softmax(torch.randn(shape, generator=g, dtype=torch.float64) * 2, class_dim).float()
    target = torch.randint(0, classes, shape[:class_dim] + shape[class_dim + 1 :], generator=g)
    if ignored and target.numel() > 2:
        target.view(-1)[1::4] = -100
    return x, target, {"weight": torch.rand(classes, generator=g) + 0.25} if weighted else {}


def results(x, target, **options):
    return values_and_grads(lambda x: nll_loss(x, target, **options), x)


@each_weighted
@each_reduction
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_verify_engines_agree(shape, reduction, weighted):
    x, target, options = arguments(shape, weighted)
    reference, kernels = on_both_engines(results, x, target, reduction=reduction, **options)
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))


@each_weighted
@each_reduction
@pytest.mark.parametrize("shape", SHAPES[:-1], ids=str)
def test_corroborate_torch_in_float64(shape, reduction, weighted):
    x, target, options = arguments(shape, weighted)
    wide = {k: v.double() for k, v in options.items()}
    theirs = values_and_grads(
        lambda x: torch.nn.functional.nll_loss(x, target, reduction=reduction, **wide), x.double()
    )
    for a, b in zip(results(x, target, reduction=reduction, **options), theirs, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)


@each_weighted
@each_reduction
def test_verify_log_softmax_then_nll_is_cross_entropy(reduction, weighted):
    g = torch.Generator().manual_seed(4)
    x = torch.randn(30, 7, generator=g)
    _, target, options = arguments((30, 7), weighted)
    composed = nll_loss(log_softmax(x, 1), target, reduction=reduction, **options)
    assert same_bits(composed, cross_entropy(x, target, reduction=reduction, **options))


def test_validate_losses_gradients_and_the_mean_by_the_written_order():
    x, target, options = arguments((40, 9), weighted=True)
    weight = options["weight"]
    losses = nll_loss(x, target, reduction="none", **options)
    counted = target >= 0
    rows = torch.arange(40)[counted]
    assert same_bits(losses[counted], 0.0 - weight[target[counted]] * x[rows, target[counted]])
    assert same_bits(losses[~counted], torch.zeros(int((~counted).sum())))
    total = oracle.windowed_sum(losses.tolist())
    weights = oracle.windowed_sum(weight[target[counted]].tolist())
    mean, grad = results(x, target, **options)
    assert same_bits(mean, torch.tensor(total) / torch.tensor(weights))
    k = torch.randn((), generator=torch.Generator().manual_seed(0)) / torch.tensor(weights)
    expected = torch.zeros(40, 9)
    expected[rows, target[counted]] = 0.0 - weight[target[counted]] * k
    assert same_bits(grad, expected)


def test_verify_a_float_sum_would_be_caught():
    x, target, options = arguments((5000, 9), weighted=True)
    losses = nll_loss(x, target, reduction="none", **options)
    assert not same_bits(nll_loss(x, target, reduction="sum", **options), reduce(torch.add, losses))


def test_verify_non_contiguous_arguments_and_batches():
    x, target, options = arguments((6, 4, 5), weighted=True)
    whole = results(x, target, reduction="none", **options)
    strided = x.transpose(0, 2).contiguous().transpose(0, 2), target.flip(0).contiguous().flip(0)
    for other in on_both_engines(results, *strided, reduction="none", **options):
        assert all(same_bits(a, b) for a, b in zip(whole, other, strict=True))
    for i in range(6):
        assert same_bits(nll_loss(x[i : i + 1], target[i : i + 1], reduction="none", **options), whole[0][i : i + 1])


def test_validate_ignored_samples_count_nothing():
    x, target, options = arguments((6, 5), weighted=True, ignored=False)
    target[2], x[2] = 3, torch.tensor([NAN, INF, -INF, 0.0, 1.0])
    ignored = target == 3
    options["ignore_index"] = 3
    for loss, grad in on_both_engines(results, x, target, reduction="none", **options):
        assert bool((loss[ignored] == 0).all()) and bool((grad[ignored] == 0).all())
    for mean, grad in on_both_engines(results, x, torch.full_like(target, 3), **options):
        assert mean.view(torch.int32).item() == CANONICAL_NAN_BITS
        assert same_bits(grad, torch.zeros(6, 5))


def test_validate_an_index_that_is_no_class_gives_nan_where_it_is_not_looked_at():
    x, _, _ = arguments((3, 5))
    x.requires_grad_()
    loss = NLLLoss.apply(x, torch.tensor([1, 7, -3]), None, -100, "none")
    loss.sum().backward()
    assert loss.isnan().tolist() == [False, True, True]
    assert same_bits(x.grad[1:], torch.zeros(2, 5)) and x.grad[0].tolist() == [0.0, -1.0, 0.0, 0.0, 0.0]


def test_double_backward_names_the_op():
    x = torch.zeros(3, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(nll_loss(x, torch.ones(3).long()).square(), x, create_graph=True)
    with pytest.raises(InputError, match="nll_loss has no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": torch.zeros(2, 3).double()}, r"input must be torch\.float32"),
        ({"input": torch.zeros(())}, r"input must be \(C,\)"),
        ({"target": torch.zeros(2)}, r"class indices must be torch\.int64"),
        ({"target": torch.zeros(3).long()}, r"of shape \(2,\)"),
        ({"target": torch.tensor([0, 3])}, "target 3 is not a class"),
        ({"target": torch.tensor([0, -1])}, "target -1 is not a class"),
        ({"weight": torch.zeros(2)}, "one factor per class"),
        ({"weight": torch.zeros(3).requires_grad_()}, "no gradient with respect to weight"),
        ({"reduction": "batchmean"}, "reduction must be one of"),
        ({"size_average": True}, "deprecated"),
    ],
)
def test_bad_arguments_are_refused(changes, message):
    with pytest.raises(InputError, match=f"nll_loss: .*{message}"):
        nll_loss(**{"input": torch.zeros(2, 3), "target": torch.tensor([0, 1]), **changes})
