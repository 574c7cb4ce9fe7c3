from fractions import Fraction
from functools import reduce

import oracle
import pytest
import torch
import torch.nn.functional as stock
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.exact.ieee import CANONICAL_NAN_BITS
from dettriton.ops.mse_loss import l1_loss, mse_loss
from dettriton.ops.smooth_l1_loss import huber_loss, smooth_l1_loss
from dettriton.ops.sum import exact_sum

LOSSES = {
    "mse": (mse_loss, stock.mse_loss, {}),
    "l1": (l1_loss, stock.l1_loss, {}),
    "smooth_l1": (smooth_l1_loss, stock.smooth_l1_loss, {}),
    "smooth_l1 0.3": (smooth_l1_loss, stock.smooth_l1_loss, {"beta": 0.3}),
    "smooth_l1 0": (smooth_l1_loss, stock.smooth_l1_loss, {"beta": 0.0}),
    "huber": (huber_loss, stock.huber_loss, {}),
    "huber 0.3": (huber_loss, stock.huber_loss, {"delta": 0.3}),
}
WEIGHTED = ("mse", "l1", "huber 0.3")
VECTORS = {**hard_vectors(), **non_finite_vectors()}
each_loss = pytest.mark.parametrize("name", LOSSES)
each_weighted = pytest.mark.parametrize("name", WEIGHTED)
each_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def pair(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g), torch.randn(shape, generator=g)


def results(name, x, y, **options):
    loss, _, own = LOSSES[name]
    return values_and_grads(lambda x, y: loss(x, y, **own, **options), x, y)


def assert_engines_agree(name, x, y, **options):
    reference, kernels = on_both_engines(results, name, x, y, **options)
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))
    return reference


@each_loss
@pytest.mark.parametrize(("shape", "reduction"), [((), "mean"), ((0, 3), "sum"), ((1025,), "mean"), ((3, 5), "none")])
def test_verify_engines_agree_on_any_shape(name, shape, reduction):
    assert_engines_agree(name, *pair(*shape), reduction=reduction)


@each_loss
def test_verify_engines_agree_on_hard_vectors(name):
    hard = torch.stack([*VECTORS.values()])
    x = torch.cat((hard, hard, hard.flip(0)))
    y = torch.cat((torch.zeros_like(hard), hard, hard))
    assert_engines_agree(name, x, y, reduction="none")


@each_weighted
@each_reduction
def test_verify_weights_on_both_engines(name, reduction):
    x, y = pair(4, 7)
    weight = torch.rand(4, 7, generator=torch.Generator().manual_seed(3)) + 0.5
    assert_engines_agree(name, x, y, weight=weight, reduction=reduction)


@each_loss
def test_verify_non_contiguous_arguments_and_batches(name):
    x, y = pair(6, 8)
    whole = results(name, x, y, reduction="none")
    strided = results(name, x.t().contiguous().t(), y.flip(0).contiguous().flip(0), reduction="none")
    assert all(same_bits(a, b) for a, b in zip(whole, strided, strict=True))
    loss, _, own = LOSSES[name]
    assert same_bits(loss(x[2:3], y[2:3], reduction="none", **own), whole[0][2:3])


@each_loss
def test_verify_broadcasting_is_expansion_and_exact_sums(name):
    x, _ = pair(4, 5)
    _, y = pair(1, 5)
    with pytest.warns(UserWarning, match="seldom meant"):
        value, grad_x, grad_y = results(name, x, y, reduction="sum")
    wide = results(name, x, y.expand(4, 5).contiguous(), reduction="sum")
    assert same_bits(value, wide[0]) and same_bits(grad_x, wide[1])
    assert same_bits(grad_y, exact_sum(wide[2], (0,), keepdim=True))


@each_loss
def test_verify_the_mean_is_an_exact_sum_and_one_division(name):
    x, y = pair(40, 7)
    loss, _, own = LOSSES[name]
    each = loss(x, y, reduction="none", **own)
    total = oracle.windowed_sum(each.flatten().tolist())
    assert float(loss(x, y, reduction="sum", **own)) == total
    assert float(loss(x, y, **own)) == oracle.to_float32(Fraction(total) / 280)


def test_verify_a_float_sum_or_another_order_would_be_caught():
    x, y = pair(300, 70)
    each = mse_loss(x, y, reduction="none")
    assert not same_bits(mse_loss(x, y, reduction="sum"), reduce(torch.add, each.flatten()))
    assert not same_bits(each, x * x - 2 * x * y + y * y)


@each_loss
def test_validate_losses_and_gradients_within_a_few_roundings(name):
    x, y = pair(200, seed=5)
    loss, grad_x, grad_y = (t.tolist() for t in results(name, x, y, reduction="sum")[0:3])
    own = LOSSES[name][2]
    limit = Fraction(*torch.tensor(next(iter(own.values()), 1.0), dtype=torch.float32).item().as_integer_ratio())
    k = Fraction(torch.randn((), generator=torch.Generator().manual_seed(0)).item())
    losses = LOSSES[name][0](x, y, reduction="none", **own).tolist()
    assert loss == oracle.windowed_sum(losses)
    for a, b, value, slope, opposite in zip(x.tolist(), y.tolist(), losses, grad_x, grad_y, strict=True):
        d = Fraction(oracle.to_float32(Fraction(a) - Fraction(b)))
        sign = (d > 0) - (d < 0)
        expected = {
            "mse": lambda d=d: (d * d, 2 * d),
            "l1": lambda d=d, sign=sign: (abs(d), sign),
            "smooth": lambda d=d, s=sign: (d * d / limit / 2, d / limit) if abs(d) < limit else (abs(d) - limit / 2, s),
            "huber": lambda d=d, s=sign: (
                (d * d / 2, d) if abs(d) <= limit else (limit * (abs(d) - limit / 2), limit * s)
            ),
        }["smooth" if name.startswith("smooth") else name.split()[0]]
        exact, exact_slope = expected()
        assert abs(Fraction(value) - exact) <= abs(exact) * Fraction(5, 2**24)
        assert abs(Fraction(slope) - k * exact_slope) <= abs(k * exact_slope) * Fraction(3, 2**24)
        assert opposite == -slope


@each_loss
@each_reduction
@pytest.mark.parametrize("shape", [(), (3, 4, 5)], ids=str)
def test_corroborate_torch_in_float64(name, reduction, shape):
    x, y = pair(*shape)
    _, theirs, own = LOSSES[name]
    wide = values_and_grads(lambda x, y: theirs(x, y, reduction=reduction, **own), x.double(), y.double())
    for a, b in zip(results(name, x, y, reduction=reduction), wide, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)


@each_weighted
@each_reduction
def test_corroborate_weights_in_float64(name, reduction):
    x, y = pair(6, 5)
    weight = torch.rand(6, 5, generator=torch.Generator().manual_seed(3)) + 0.5
    _, theirs, own = LOSSES[name]
    wide = values_and_grads(
        lambda x, y: theirs(x, y, reduction=reduction, weight=weight.double(), **own), x.double(), y.double()
    )
    for a, b in zip(results(name, x, y, reduction=reduction, weight=weight), wide, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)


@each_loss
def test_validate_equal_values_have_no_loss_and_no_slope(name):
    x = torch.stack([*hard_vectors().values()])
    value, grad_x, grad_y = results(name, x, x, reduction="none")
    assert all(bool((t == 0).all()) for t in (value, grad_x, grad_y))


@each_loss
def test_validate_the_mean_of_nothing_is_the_canonical_nan(name):
    loss, _, own = LOSSES[name]
    for mean in on_both_engines(loss, torch.zeros(0, 3), torch.zeros(0, 3), **own):
        assert mean.view(torch.int32).item() == CANONICAL_NAN_BITS


@each_loss
def test_double_backward_names_the_op(name):
    x = torch.ones(3, requires_grad=True)
    loss, _, own = LOSSES[name]
    (grad,) = torch.autograd.grad(loss(x, torch.zeros(3), **own).square(), x, create_graph=True)
    with pytest.raises(InputError, match="_loss has no second derivative"):
        grad.sum().backward()


BAD = [
    (mse_loss, {"input": torch.zeros(2, 3).double()}, r"mse_loss: input must be torch\.float32"),
    (l1_loss, {"target": torch.zeros(2, 3).long()}, r"l1_loss: target must be torch\.float32"),
    (mse_loss, {"target": torch.zeros(2)}, "do not broadcast"),
    (mse_loss, {"reduction": "batchmean"}, "reduction must be one of"),
    (l1_loss, {"size_average": True}, "deprecated"),
    (smooth_l1_loss, {"reduce": True}, "deprecated"),
    (smooth_l1_loss, {"beta": -1.0}, "beta must be at least 0"),
    (huber_loss, {"delta": 0.0}, "delta must be above 0"),
    (huber_loss, {"weight": torch.zeros(3)}, "weight must have the input's shape"),
    (mse_loss, {"weight": torch.zeros(2, 3).requires_grad_()}, "no gradient with respect to weight"),
]


@pytest.mark.parametrize(("loss", "changes", "message"), BAD, ids=lambda v: v if isinstance(v, str) else "")
def test_bad_arguments_are_refused(loss, changes, message):
    with pytest.raises(InputError, match=message):
        loss(**{"input": torch.zeros(2, 3), "target": torch.zeros(2, 3), **changes})
