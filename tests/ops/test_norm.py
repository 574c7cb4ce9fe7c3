import math

import mpmath
import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads
from oracle64 import hard_vectors64

from dettriton.errors import InputError
from dettriton.ops.norm import norm, total_norm

INF = math.inf
ORDERS = (2, 1, 0, INF, -INF)
VECTORS = {**hard_vectors(29), **non_finite_vectors(29)}
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.float16: 1e-2, torch.bfloat16: 4e-2}


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("name", VECTORS)
def test_verify_engines_agree(name, p):
    reference, kernels = on_both_engines(values_and_grads, lambda x: norm(x, p), VECTORS[name])
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("p", [*ORDERS, "fro"])
def test_corroborate_torch(p, dtype):
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(2)).to(dtype)
    x[0, 0] = 0.0
    ours = values_and_grads(lambda t: norm(t, p, (0, 2), keepdim=True).float(), x)
    order = 2 if p == "fro" else p
    stock = torch.linalg.vector_norm
    theirs = values_and_grads(lambda t: (stock(t.double(), order, (0, 2), keepdim=True) + t.sum() * 0).float(), x)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_validate_order_two_against_mpmath(dtype):
    ulp = 2.0 ** (-52 if dtype == torch.float64 else -23)
    for name, x in (hard_vectors64(41) if dtype == torch.float64 else hard_vectors(41)).items():
        with mpmath.workprec(400):
            exact = mpmath.sqrt(mpmath.fsum(mpmath.mpf(v) ** 2 for v in x.tolist()))
            bound = exact * ulp * (1 + 41 * 2.0**-9) + mpmath.mpf(2) ** (-1074 if dtype == torch.float64 else -149)
            overflows = exact >= mpmath.mpf(2) ** (1024 if dtype == torch.float64 else 128)
        found = norm(x).item()
        assert (found == INF) if overflows else abs(found - exact) <= bound, (name, found, exact)


def test_a_sum_of_squares_without_scaling_would_fail():
    for x in (hard_vectors()["huge"] * 2.0**-20, hard_vectors()["tiny"]):
        naive = (x * x).sum().sqrt().item()
        assert naive in (0.0, INF) and 0 < norm(x).item() < INF


def test_non_finite_terms_are_as_in_torch():
    x = torch.tensor([[1.0, INF, 2.0], [1.0, math.nan, -INF], [-INF, -INF, -INF]])
    for p in ORDERS:
        for result in on_both_engines(norm, x, p, 1):
            torch.testing.assert_close(result, torch.linalg.vector_norm(x, p, 1), rtol=0, atol=0, equal_nan=True)
            nan = result[torch.isnan(result)].view(torch.int32)
            assert (nan == 0x7FC00000).all()


def test_a_zero_norm_has_a_zero_gradient():
    for p in ORDERS:
        for _, grad in on_both_engines(values_and_grads, lambda x, p=p: norm(x, p), torch.zeros(4)):
            assert same_bits(grad, torch.zeros(4))


def test_ties_share_the_gradient_of_the_largest_magnitude():
    x = torch.tensor([1.0, -3.0, 3.0, 2.0, 3.0], requires_grad=True)
    norm(x, INF).backward()
    assert same_bits(x.grad, torch.tensor([0.0, -1 / 3, 1 / 3, 0.0, 1 / 3]))


def test_verify_batch_invariance_and_strides():
    x = torch.randn(6, 40, generator=torch.Generator().manual_seed(1)) * torch.logspace(-30, 30, 6)[:, None]
    rows = norm(x, dim=1)
    assert all(same_bits(rows[i], norm(x[i])) for i in range(6))
    assert same_bits(norm(x.t(), dim=0), rows)
    assert same_bits(norm(x.flip(1), dim=1), rows)


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_verify_the_total_norm_is_that_of_the_concatenation(p, dtype):
    scale = 1e3 if dtype == torch.float16 else 1e30
    parts = [torch.randn(3, 5), torch.randn(7) * scale, torch.zeros(2, 2), torch.zeros(0), torch.randn(()) / scale]
    parts = [part.to(dtype) for part in parts]
    for result in on_both_engines(total_norm, parts, p):
        expected = norm(torch.cat([part.reshape(-1) for part in parts]), p)
        assert result.dtype == dtype and result.shape == () and torch.equal(result, expected)
    infinite = torch.tensor([1, 1, 1, INF])
    assert total_norm([infinite[:3], infinite[3:]], p) == torch.linalg.vector_norm(infinite, p)


def test_total_norm_of_mixed_types_and_of_nothing():
    mixed = [torch.ones(3, dtype=torch.bfloat16), torch.full((2,), 2.0)]
    assert same_bits(total_norm(mixed), norm(torch.tensor([1.0, 1, 1, 2, 2])))
    assert same_bits(total_norm([]), torch.zeros(())) and same_bits(total_norm([torch.zeros(0)]), torch.zeros(()))


@pytest.mark.parametrize("shape,dim", [((0,), None), ((2, 0), 1), ((0, 3), 0), ((0, 3), 1)])
def test_empty_inputs_are_as_in_torch(shape, dim):
    x = torch.zeros(shape)
    for p in (2, 1, 0):
        assert same_bits(norm(x, p, dim), torch.linalg.vector_norm(x, p, dim))
    if dim != 1 or shape == (2, 0):
        with pytest.raises(InputError, match="no elements"):
            norm(x, INF, dim)


@pytest.mark.parametrize("p", [3, "nuc", True, None])
def test_other_orders_are_refused(p):
    with pytest.raises(InputError, match="p must be"):
        norm(torch.ones(3), p)
