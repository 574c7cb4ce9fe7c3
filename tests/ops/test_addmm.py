import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.addmm import addmm, baddbmm
from dettriton.ops.matmul import matmul
from dettriton.ops.sum import sum as exact_sum

FACTORS = [(1, 1), (0.3, 1), (1, -1.7), (2.5, 0.1), (0, 3)]
OPERANDS = {
    "addmm": (addmm, torch.addmm, ((3, 4), (3, 5), (5, 4))),
    "addmm row": (addmm, torch.addmm, ((4,), (3, 5), (5, 4))),
    "addmm scalar": (addmm, torch.addmm, ((), (3, 5), (5, 4))),
    "addmm no terms": (addmm, torch.addmm, ((1, 4), (3, 0), (0, 4))),
    "baddbmm": (baddbmm, torch.baddbmm, ((2, 3, 4), (2, 3, 5), (2, 5, 4))),
    "baddbmm column": (baddbmm, torch.baddbmm, ((3, 1), (2, 3, 5), (2, 5, 4))),
}


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("beta,alpha", FACTORS)
@pytest.mark.parametrize("name", OPERANDS)
def test_verify_engines_agree_and_corroborate_torch(name, beta, alpha):
    op, stock, shapes = OPERANDS[name]
    x, a, b = (gaussian(*shape, seed=i) for i, shape in enumerate(shapes))
    ours, kernels = on_both_engines(values_and_grads, lambda *t: op(*t, beta=beta, alpha=alpha), x, a, b)
    reference = values_and_grads(lambda *t: stock(*t, beta=beta, alpha=alpha), x.double(), a.double(), b.double())
    for p, q, r in zip(ours, kernels, reference, strict=True):
        assert same_bits(p, q)
        torch.testing.assert_close(p.double(), r.double(), rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize("beta,alpha", FACTORS)
def test_verify_the_written_order(beta, alpha):
    x, a, b = gaussian(4, seed=1), gaussian(3, 9, seed=2), gaussian(9, 4, seed=3)
    factors = torch.tensor([beta, alpha], dtype=torch.float32)
    product = matmul(a, b) * factors[1]
    y, grad_x, grad_a, grad_b = values_and_grads(lambda *t: addmm(*t, beta=beta, alpha=alpha), x, a, b)
    assert same_bits(y, product.expand(3, 4) if beta == 0 else x * factors[0] + product)
    upstream = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert same_bits(grad_x, exact_sum(upstream * factors[0], 0) if beta else torch.zeros(4))
    assert same_bits(grad_a, matmul(upstream * factors[1], b.t()))
    assert same_bits(grad_b, matmul(a.t(), upstream * factors[1]))


def test_a_fused_order_would_fail_the_bit_test():
    x, a, b = gaussian(8, 8, seed=4), gaussian(8, 9, seed=5), gaussian(9, 8, seed=6)
    fused = (x.double() + matmul(a, b).double() * torch.tensor(0.3).double()).float()
    assert not same_bits(addmm(x, a, b, alpha=0.3), fused)


def test_an_input_that_is_not_read_spreads_no_nan():
    y, grad_x, _, _ = values_and_grads(
        lambda *t: addmm(*t, beta=0), torch.full((2, 2), float("nan")), torch.ones(2, 3), torch.ones(3, 2)
    )
    assert same_bits(y, torch.full((2, 2), 3.0)) and same_bits(grad_x, torch.zeros(2, 2))


@pytest.mark.parametrize("name", [*hard_vectors(), *non_finite_vectors()])
def test_verify_engines_agree_on_hard_inputs(name):
    vector = {**hard_vectors(30), **non_finite_vectors(30)}[name]
    given = (vector[:9].reshape(3, 3), vector.reshape(3, 10), vector.flip(0).reshape(10, 3))
    results = on_both_engines(values_and_grads, lambda *t: addmm(*t, beta=0.7, alpha=1.3), *given)
    assert all(same_bits(p, q, any_nan=True) for p, q in zip(*results, strict=True))


def test_verify_a_row_does_not_depend_on_its_batch_nor_on_its_layout():
    x, a, b = gaussian(4, seed=7), gaussian(5, 9, seed=8), gaussian(9, 4, seed=9)
    a[0] *= 1e15
    for whole in on_both_engines(addmm, x, a.t().contiguous().t(), b):
        assert same_bits(whole[2:3], addmm(x, a[2:3], b))


def test_bad_arguments_are_refused():
    a, b = torch.zeros(3, 5), torch.zeros(5, 4)
    with pytest.raises(InputError, match="does not broadcast"):
        addmm(torch.zeros(3), a, b)
    with pytest.raises(InputError, match="matrices must be"):
        addmm(torch.zeros(3, 4), a, a)
    with pytest.raises(InputError, match="matrices must be"):
        baddbmm(torch.zeros(3, 4), a, b)
    with pytest.raises(InputError, match="'high' or 'medium'"):
        addmm(torch.zeros(3, 4), a, b, precision="low")
    with pytest.raises(InputError, match=r"torch\.float32"):
        addmm(torch.zeros(3, 4).double(), a, b)
