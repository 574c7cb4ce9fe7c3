from fractions import Fraction
from functools import reduce

import mpmath
import oracle
import pytest
import torch
from bits import INF, hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.exact.ieee import CANONICAL_NAN_BITS
from dettriton.ops.kl_div import kl_div
from dettriton.ops.sum import exact_sum

VECTORS = {**hard_vectors(), **non_finite_vectors()}
each_kind = pytest.mark.parametrize("log_target", [False, True])


def arguments(shape, log_target, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.log_softmax(torch.randn(shape, generator=g, dtype=torch.float64) * 2, -1) for _ in range(2))
    return x.float(), (y if log_target else y.exp()).float()


def results(x, y, **options):
    return values_and_grads(lambda x, y: kl_div(x, y, **options), x, y)


def assert_engines_agree(x, y, **options):
    reference, kernels = on_both_engines(results, x, y, **options)
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))
    return reference


@each_kind
@pytest.mark.parametrize(
    ("shape", "reduction"), [((1,), "mean"), ((0, 4), "sum"), ((3, 341), "batchmean"), ((2, 3, 5), "none")], ids=str
)
def test_verify_engines_agree_on_any_shape(shape, reduction, log_target):
    assert_engines_agree(*arguments(shape, log_target), reduction=reduction, log_target=log_target)


@each_kind
def test_verify_engines_agree_on_hard_vectors(log_target):
    hard = torch.stack([*VECTORS.values()])
    x = torch.cat((hard, hard.flip(0)))
    assert_engines_agree(x, torch.cat((hard.flip(1), hard)), reduction="none", log_target=log_target)


@each_kind
def test_verify_broadcasting_is_expansion_and_exact_sums(log_target):
    x, _ = arguments((4, 5), log_target)
    _, y = arguments((5,), log_target)
    value, grad_x, grad_y = results(x, y, reduction="batchmean", log_target=log_target)
    wide = results(x, y.expand(4, 5).contiguous(), reduction="batchmean", log_target=log_target)
    assert same_bits(value, wide[0]) and same_bits(grad_x, wide[1])
    assert same_bits(grad_y, exact_sum(wide[2], (0,)))


@each_kind
def test_verify_non_contiguous_arguments_and_batches(log_target):
    x, y = arguments((6, 8), log_target)
    whole = results(x, y, reduction="none", log_target=log_target)
    strided = results(x.t().contiguous().t(), y.flip(0).contiguous().flip(0), reduction="none", log_target=log_target)
    assert all(same_bits(a, b) for a, b in zip(whole, strided, strict=True))
    assert same_bits(kl_div(x[2:3], y[2:3], reduction="none", log_target=log_target), whole[0][2:3])


@each_kind
def test_verify_reductions_divide_the_exact_sum_once(log_target):
    x, y = arguments((30, 7), log_target)
    total = Fraction(oracle.windowed_sum(kl_div(x, y, reduction="none", log_target=log_target).flatten().tolist()))
    for reduction, count in (("sum", 1), ("mean", 210), ("batchmean", 30)):
        assert float(kl_div(x, y, reduction=reduction, log_target=log_target)) == oracle.to_float32(total / count)


def test_verify_a_float_sum_or_another_order_would_be_caught():
    x, y = arguments((300, 70), False)
    each = kl_div(x, y, reduction="none")
    assert not same_bits(kl_div(x, y, reduction="sum"), reduce(torch.add, each.flatten()))
    assert not same_bits(each, y * (torch.log(y) - x))


@each_kind
def test_validate_values_and_gradients(log_target):
    mpmath.mp.prec = 120
    x, y = arguments((4, 30), log_target, seed=2)
    value, grad_x, grad_y = results(x, y, reduction="none", log_target=log_target)
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    columns = (t.flatten().tolist() for t in (x, y, value, grad_x, grad_y, upstream))
    for a, b, loss, slope, pull, k in zip(*columns, strict=True):
        a, b, k = mpmath.mpf(a), mpmath.mpf(b), mpmath.mpf(k)
        q = mpmath.exp(b) if log_target else b
        log_q = b if log_target else mpmath.log(b)
        terms = q * (log_q - a) if log_target else abs(q * log_q) + abs(q * a)
        assert abs(loss - q * (log_q - a)) <= 4 * 2.0**-24 * abs(terms)
        assert abs(slope + q * k) <= 4 * 2.0**-24 * abs(q * k)
        exact = q * ((b - a) + 1) * k if log_target else (log_q + 1 - a) * k
        size = abs(k) * (q * (abs(b - a) + 1) if log_target else abs(log_q) + 1 + abs(a))
        assert abs(pull - exact) <= 6 * 2.0**-24 * size


@each_kind
@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "batchmean"])
def test_corroborate_torch_in_float64(reduction, log_target):
    x, y = arguments((6, 5), log_target)
    options = {"reduction": "sum" if reduction == "mean" else reduction, "log_target": log_target}
    wide = values_and_grads(lambda x, y: torch.nn.functional.kl_div(x, y, **options), x.double(), y.double())
    scale = 1 / 30 if reduction == "mean" else 1.0
    for a, b in zip(results(x, y, reduction=reduction, log_target=log_target), wide, strict=True):
        torch.testing.assert_close(a.double(), b * scale, rtol=1e-5, atol=1e-6)


def test_validate_targets_of_zero_and_below():
    x, y = torch.tensor([-1.0, -INF, -1.0]), torch.tensor([0.0, 0.5, -0.5])
    for value, _, grad_y in on_both_engines(results, x, y, reduction="none"):
        assert value[0] == 0 and value[1] == INF and bool(value[2].isnan())
        assert grad_y[0].abs() == INF
    for mean in on_both_engines(kl_div, torch.zeros(0, 3), torch.zeros(0, 3)):
        assert mean.view(torch.int32).item() == CANONICAL_NAN_BITS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": torch.zeros(2, 3).double()}, r"input must be torch\.float32"),
        ({"target": torch.zeros(2, 3).long()}, r"target must be torch\.float32"),
        ({"target": torch.zeros(2)}, "do not broadcast"),
        ({"reduction": "max"}, "reduction must be one of mean, sum, none, batchmean"),
        ({"reduction": "batchmean", "reduce": True}, "deprecated"),
        ({"input": torch.zeros(()), "target": torch.zeros(()), "reduction": "batchmean"}, "needs a first dimension"),
    ],
)
def test_bad_arguments_are_refused(changes, message):
    with pytest.raises(InputError, match=f"kl_div: .*{message}"):
        kl_div(**{"input": torch.zeros(2, 3), "target": torch.zeros(2, 3), **changes})
