import oracle
import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.bmm import bmm
from dettriton.ops.matmul import matmul


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def oracle_bmm(a, b, precision):
    return torch.tensor(
        [
            [[oracle.dot(r, c, r, c, precision) for c in y.t().tolist()] for r in x.tolist()]
            for x, y in zip(a, b, strict=True)
        ]
    )


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_validate_bits_and_gradients_against_integers(precision):
    a, b = gaussian(2, 3, 5, seed=1), gaussian(2, 5, 4, seed=2)
    upstream = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    expected = (
        oracle_bmm(a, b, precision),
        oracle_bmm(upstream, b.transpose(1, 2), precision),
        oracle_bmm(a.transpose(1, 2), upstream, precision),
    )
    for result in on_both_engines(values_and_grads, lambda x, y: bmm(x, y, precision=precision), a, b):
        assert all(same_bits(p, q) for p, q in zip(result, expected, strict=True))


@pytest.mark.parametrize("shapes", [((3, 2, 9), (3, 9, 4)), ((0, 2, 3), (0, 3, 2)), ((2, 3, 0), (2, 0, 1))])
def test_verify_engines_agree_and_corroborate_torch(shapes):
    a, b = gaussian(*shapes[0], seed=3), gaussian(*shapes[1], seed=4)
    ours, kernels = on_both_engines(values_and_grads, bmm, a, b)
    for p, q, r in zip(ours, kernels, values_and_grads(torch.bmm, a.double(), b.double()), strict=True):
        assert same_bits(p, q)
        torch.testing.assert_close(p.double(), r.double(), rtol=1e-5, atol=3e-5)


@pytest.mark.heavy
@pytest.mark.parametrize("name", [*hard_vectors(), *non_finite_vectors()])
def test_verify_engines_agree_on_hard_inputs(name):
    vector = {**hard_vectors(36), **non_finite_vectors(36)}[name]
    a, b = vector.reshape(2, 3, 6), vector.flip(0).reshape(2, 6, 3)
    results = on_both_engines(values_and_grads, bmm, a, b)
    assert all(same_bits(p, q) for p, q in zip(*results, strict=True))


def test_verify_a_matrix_does_not_depend_on_its_batch_nor_on_its_layout():
    a, b = gaussian(3, 4, 7, seed=5), gaussian(3, 7, 2, seed=6)
    a[0] *= 1e20
    for whole in on_both_engines(bmm, a.transpose(1, 2).contiguous().transpose(1, 2), b):
        assert same_bits(whole[2:], bmm(a[2:], b[2:])) and same_bits(whole[1], matmul(a[1], b[1]))


def test_stock_float_product_fails_the_bit_test():
    a, b = gaussian(2, 8, 200, seed=7), gaussian(2, 200, 8, seed=8)
    assert not same_bits(torch.bmm(a, b), bmm(a, b))


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="to broadcast"):
        bmm(torch.zeros(2, 3, 4), torch.zeros(1, 4, 5))
    with pytest.raises(InputError, match="'high' or 'medium'"):
        bmm(torch.zeros(2, 3, 4), torch.zeros(2, 4, 5), precision="low")
    with pytest.raises(InputError, match=r"torch\.float32"):
        bmm(torch.zeros(2, 3, 4).double(), torch.zeros(2, 4, 5))
