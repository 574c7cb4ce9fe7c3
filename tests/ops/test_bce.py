from functools import reduce

import mpmath
import pytest
import torch
from bits import INF, NAN, hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.exact.elementary import exp, log1p
from dettriton.exact.ieee import CANONICAL_NAN_BITS
from dettriton.ops._elementwise import elementwise
from dettriton.ops.bce import PROBABILITY_BCE, binary_cross_entropy
from dettriton.ops.bce import binary_cross_entropy_with_logits as bce
from dettriton.ops.sum import exact_sum

REDUCTIONS = ("mean", "sum", "none")
FACTORS = [(), ("weight",), ("pos_weight",), ("weight", "pos_weight")]
VECTORS = {**hard_vectors(), **non_finite_vectors()}
each_factors = pytest.mark.parametrize("factors", FACTORS, ids=lambda f: "+".join(f) or "plain")


def arguments(shape, factors=(), seed=0, scale=3.0, hard_targets=False):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=g) * scale
    y = torch.rand(shape, generator=g)
    options = {name: torch.rand(shape[-1:], generator=g) * 4 for name in factors}
    return x, y.round() if hard_targets else y, options


def results(x, y, **options):
    return values_and_grads(lambda x: bce(x, y, **options), x)


def assert_engines_agree(x, y, **options):
    reference, kernels = on_both_engines(results, x, y, **options)
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))
    return reference


@each_factors
@pytest.mark.parametrize("shape", [(1,), (1023,), (3, 341), (2, 3, 5), (0, 4)], ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_verify_engines_agree_on_any_shape(shape, factors, reduction):
    x, y, options = arguments(shape, factors)
    assert_engines_agree(x, y, reduction=reduction, **options)


@each_factors
@pytest.mark.parametrize("where", ["input", "target"])
@pytest.mark.parametrize("name", VECTORS)
def test_verify_engines_agree_on_hard_vectors(name, where, factors):
    x, y, options = arguments((37,), factors)
    x, y = (VECTORS[name], y) if where == "input" else (x, VECTORS[name])
    assert_engines_agree(x, y, reduction="none", **options)


@pytest.mark.parametrize("shape", [(5,), (1, 5), (4, 1), (1, 1), (), (3, 4, 5), (3, 1, 5), (1, 4, 5)], ids=str)
@pytest.mark.parametrize("name", ["weight", "pos_weight"])
def test_verify_broadcasting_is_expansion(shape, name):
    x, y, _ = arguments((3, 4, 5))
    factor = torch.rand(shape, generator=torch.Generator().manual_seed(2)) + 0.5
    broadcast = assert_engines_agree(x, y, **{name: factor})
    expanded = assert_engines_agree(x, y, **{name: factor.expand(3, 4, 5).contiguous()})
    assert all(same_bits(a, b) for a, b in zip(broadcast, expanded, strict=True))


@pytest.mark.parametrize("name", ["weight", "pos_weight"])
def test_verify_a_factor_of_one_is_no_factor(name):
    x, y, _ = arguments((50, 7))
    with_ones, without = results(x, y, **{name: torch.ones(7)}), results(x, y)
    assert all(same_bits(a, b) for a, b in zip(with_ones, without, strict=True))


def test_verify_non_contiguous_arguments():
    x, y, options = arguments((6, 8), ("pos_weight",))
    strided = x.t().contiguous().t(), y.flip(0).contiguous().flip(0)
    contiguous = results(x, y, **options)
    for kernel_or_torch in on_both_engines(results, *strided, **options):
        assert all(same_bits(a, b) for a, b in zip(contiguous, kernel_or_torch, strict=True))


def test_verify_a_loss_does_not_depend_on_its_batch():
    x, y, options = arguments((6, 9), ("weight", "pos_weight"))
    x[2, 3] = NAN
    for whole in on_both_engines(bce, x, y, reduction="none", **options):
        for i in range(6):
            alone = bce(x[i : i + 1], y[i : i + 1], reduction="none", **options)
            assert same_bits(alone, whole[i : i + 1], any_nan=True)


def test_verify_mean_is_the_exact_sum_over_the_count():
    x, y, options = arguments((300, 7), ("pos_weight",))
    losses = bce(x, y, reduction="none", **options)
    assert same_bits(bce(x, y, **options), exact_sum(losses) / torch.tensor(2100.0))
    assert same_bits(bce(x, y, reduction="sum", **options), exact_sum(losses))


def test_verify_the_gradient_of_a_mean_divides_once():
    x, y, options = arguments((30, 7), ("weight", "pos_weight"))
    x.requires_grad_()
    upstream = torch.tensor(0.7)
    (mean,) = torch.autograd.grad(bce(x, y, **options), x, upstream)
    (each,) = torch.autograd.grad(bce(x, y, reduction="sum", **options), x, upstream / torch.tensor(210.0))
    assert same_bits(mean, each)


def test_verify_a_float_sum_or_another_order_would_be_caught():
    x, y, options = arguments((300, 7), ("pos_weight",))
    losses = bce(x, y, reduction="none", **options)
    assert not same_bits(exact_sum(losses, (0,)), reduce(torch.add, losses))
    softplus = log1p(exp(-x.abs())) + (-x).clamp(min=0)
    other = x - x * y + softplus * (1 + (options["pos_weight"] - 1) * y)
    assert not same_bits(losses, other)


@pytest.mark.parametrize("scale", [0.1, 5.0, 40.0, 1e30])
def test_validate_values_and_gradients_for_hard_targets(scale):
    mpmath.mp.prec = 200
    x, y, options = arguments((40, 3), ("pos_weight",), scale=scale, hard_targets=True)
    leaf = x.clone().requires_grad_()
    losses = bce(leaf, y, reduction="none", **options)
    losses.backward(torch.ones_like(x))
    flat = (t.flatten().tolist() for t in (x, y, options["pos_weight"].expand_as(x), losses, leaf.grad))
    for logit, target, v, loss, grad in zip(*flat, strict=True):
        factor, signed = (v, -logit) if target else (1.0, logit)
        exact_loss = factor * mpmath.log1p(mpmath.exp(signed))
        exact_grad = factor / (1 + mpmath.exp(-mpmath.mpf(signed))) * (-1 if target else 1)
        assert abs(grad - exact_grad) <= 6 * 2**-24 * abs(exact_grad) + 2.0**-148
        assert abs(loss - exact_loss) <= 6 * 2**-24 * max(factor * abs(logit), abs(exact_loss)) + 2.0**-148


def test_validate_infinite_logits():
    x = torch.tensor([INF, -INF, INF, -INF])
    y = torch.tensor([0.0, 1.0, 1.0, 0.0])
    for loss, grad in on_both_engines(results, x, y, reduction="sum"):
        assert loss.view(torch.int32).item() == CANONICAL_NAN_BITS
        assert torch.equal(grad, torch.tensor([1.0, -1.0, 0.0, 0.0]) * grad[0])


def test_validate_the_mean_of_nothing_is_the_canonical_nan():
    for mean in on_both_engines(bce, torch.zeros(0, 3), torch.zeros(0, 3)):
        assert mean.view(torch.int32).item() == CANONICAL_NAN_BITS


@each_factors
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(), (9,), (30, 5), (2, 3, 4, 5)], ids=str)
def test_corroborate_torch_in_float64(shape, reduction, factors):
    x, y, options = arguments(shape, factors)

    def stock(x):
        wide = {k: v.double() for k, v in options.items()}
        return torch.nn.functional.binary_cross_entropy_with_logits(x.double(), y.double(), reduction=reduction, **wide)

    for ours, theirs in zip(results(x, y, reduction=reduction, **options), values_and_grads(stock, x), strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-5, atol=1e-6)


@each_factors
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients_to_the_targets(reduction, factors):
    x, y, options = arguments((7, 5), factors)

    def loss(x, y):
        return bce(x, y, reduction=reduction, **options)

    def stock(x, y):
        wide = {k: v.double() for k, v in options.items()}
        return torch.nn.functional.binary_cross_entropy_with_logits(x, y, reduction=reduction, **wide)

    ours, kernels = on_both_engines(values_and_grads, loss, x, y)
    assert all(same_bits(a, b) for a, b in zip(ours, kernels, strict=True))
    assert all(same_bits(a, b) for a, b in zip(ours[:2], results(x, y, reduction=reduction, **options), strict=True))
    for a, b in zip(ours, values_and_grads(stock, x.double(), y.double()), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)


def test_double_backward_names_the_op():
    x = torch.zeros(3, requires_grad=True)
    (grad,) = torch.autograd.grad(bce(x, torch.ones(3)).square(), x, create_graph=True)
    with pytest.raises(InputError, match="BCEWithLogits has no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": torch.zeros(2, 3).double()}, r"input must be torch\.float32"),
        ({"target": torch.zeros(2, 3).long()}, r"target must be torch\.float32"),
        ({"target": torch.zeros(3)}, "target must have the input's shape"),
        ({"weight": torch.zeros(2)}, r"weight of shape \(2,\) does not broadcast"),
        ({"pos_weight": torch.zeros(1, 2, 3)}, r"pos_weight of shape \(1, 2, 3\) does not broadcast"),
        ({"weight": torch.zeros(3).requires_grad_()}, "no gradient with respect to weight"),
        ({"pos_weight": torch.zeros(3).requires_grad_()}, "no gradient with respect to pos_weight"),
        ({"reduction": "batchmean"}, "reduction must be one of"),
        ({"size_average": True}, "deprecated"),
        ({"reduce": True}, "deprecated"),
    ],
)
def test_bad_arguments_are_refused(changes, message):
    arguments = {"input": torch.zeros(2, 3), "target": torch.zeros(2, 3), **changes}
    with pytest.raises(InputError, match=f"binary_cross_entropy_with_logits: .*{message}"):
        bce(**arguments)


def probabilities(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=g), torch.rand(shape, generator=g)


def probability_results(x, y, **options):
    return values_and_grads(lambda x, y: binary_cross_entropy(x, y, **options), x, y)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("shape", "reduction"), [((), "mean"), ((0, 3), "sum"), ((3, 341), "mean"), ((2, 3), "none")])
def test_verify_probabilities_on_both_engines(shape, reduction, weighted):
    x, y = probabilities(*shape)
    options = {"weight": torch.rand(shape[-1:], generator=torch.Generator().manual_seed(1))} if weighted else {}
    reference, kernels = on_both_engines(probability_results, x, y, reduction=reduction, **options)
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))


def test_verify_hard_probabilities_on_both_engines():
    hard = torch.stack([*VECTORS.values()])
    edges = torch.tensor([0.0, -0.0, 1.0, 2.0**-149, 1 - 2.0**-24]).repeat_interleave(37).view(5, 37)
    x = torch.cat((hard, edges, edges))
    y = torch.cat((hard.flip(0), edges, edges.flip(0)))
    formula_of = lambda x, y: elementwise(PROBABILITY_BCE, x, y)  # noqa: E731 without the check of the range
    reference, kernels = on_both_engines(values_and_grads, formula_of, x, y)
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))


def test_validate_certain_probabilities_are_clamped():
    x, y = torch.tensor([0.0, 1.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0, 1.0])
    k = torch.randn((), generator=torch.Generator().manual_seed(0))
    each = binary_cross_entropy(x, y, reduction="none")
    assert each.tolist() == [100.0, 100.0, 0.0, 0.0]
    _, grad_x, grad_y = probability_results(x, y, reduction="sum")
    assert same_bits(grad_x, (k * (x - y)) / torch.tensor(1e-12))
    assert same_bits(grad_y, torch.tensor([100.0, -100.0, 100.0, -100.0]) * k)


def test_validate_losses_and_gradients_of_probabilities():
    mpmath.mp.prec = 200
    x, y = probabilities(300, seed=3)
    k = torch.randn((), generator=torch.Generator().manual_seed(0)).item()
    each = binary_cross_entropy(x, y, reduction="none")
    _, grad_x, grad_y = probability_results(x, y, reduction="sum")
    for p, t, loss, slope, pull in zip(*(v.tolist() for v in (x, y, each, grad_x, grad_y)), strict=True):
        one, other = mpmath.log(p), mpmath.log1p(-mpmath.mpf(p))
        assert abs(loss + t * one + (1 - t) * other) <= 4 * 2**-24 * abs(t * one + (1 - t) * other)
        exact = (mpmath.mpf(p) - t) / ((1 - mpmath.mpf(p)) * p) * k
        assert abs(slope - exact) <= 6 * 2**-24 * abs(exact)
        assert abs(pull - (other - one) * k) <= 4 * 2**-24 * (abs(other) + abs(one)) * abs(k)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_corroborate_probabilities_in_float64(reduction, weighted):
    x, y = probabilities(5, 6)
    weight = torch.rand(6, generator=torch.Generator().manual_seed(1)) if weighted else None
    ours = probability_results(x, y, reduction=reduction, weight=weight)
    wide = values_and_grads(
        lambda x, y: torch.nn.functional.binary_cross_entropy(
            x, y, reduction=reduction, weight=weight.double() if weighted else None
        ),
        x.double(),
        y.double(),
    )
    for a, b in zip(ours, wide, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)


def test_verify_a_float_sum_of_probabilities_would_be_caught():
    x, y = probabilities(300, 70)
    each = binary_cross_entropy(x, y, reduction="none")
    total = binary_cross_entropy(x, y, reduction="sum")
    assert same_bits(total, exact_sum(each)) and not same_bits(total, reduce(torch.add, each.flatten()))
    assert same_bits(binary_cross_entropy(x[3:4], y[3:4], reduction="none"), each[3:4])
    strided = x.t().contiguous().t(), y.flip(0).contiguous().flip(0)
    assert same_bits(binary_cross_entropy(*strided, reduction="none"), each)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": torch.zeros(2, 3).double()}, r"input must be torch\.float32"),
        ({"input": torch.full((2, 3), 1.5)}, r"input must hold probabilities in \[0, 1\]"),
        ({"target": torch.zeros(3)}, "target must have the input's shape"),
        ({"weight": torch.zeros(2)}, r"weight of shape \(2,\) does not broadcast"),
        ({"weight": torch.zeros(3).requires_grad_()}, "no gradient with respect to weight"),
        ({"reduction": "batchmean"}, "reduction must be one of"),
        ({"reduce": True}, "deprecated"),
    ],
)
def test_bad_probabilities_are_refused(changes, message):
    with pytest.raises(InputError, match=f"binary_cross_entropy: .*{message}"):
        binary_cross_entropy(**{"input": torch.zeros(2, 3), "target": torch.zeros(2, 3), **changes})
