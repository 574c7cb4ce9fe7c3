import math

import mpmath
import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.logsumexp import logsumexp
from dettriton.ops.softmax import log_softmax, softmax

INF, NAN = math.inf, math.nan
VECTORS = {**hard_vectors(35), **non_finite_vectors(35)}


@pytest.mark.parametrize("name", VECTORS)
def test_verify_engines_agree(name):
    x = VECTORS[name].reshape(5, 7)
    reference, kernels = on_both_engines(values_and_grads, lambda t: logsumexp(t, 1), x)
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))
    assert same_bits(reference[0], kernels[0])


@pytest.mark.parametrize("scale", [0.1, 3.0, 50.0])
def test_validate_against_mpmath(scale):
    x = torch.randn(40, 9, generator=torch.Generator().manual_seed(3)) * scale
    for row, found in zip(x.tolist(), logsumexp(x, 1).tolist(), strict=True):
        with mpmath.workprec(200):
            m = max(row)
            # The definition's exp(x - m) takes the rounded difference.
            steps = [mpmath.mpf((torch.tensor(v) - torch.tensor(m)).item()) for v in row]
            log_z = mpmath.log(mpmath.fsum(mpmath.exp(s) for s in steps))
            exact = m + log_z
        ulp = lambda v: 2.0 ** (math.frexp(max(abs(float(v)), 2.0**-126))[1] - 24)  # noqa: E731 used below
        bound = 1.5 * 2.0**-23 + 9 * 2.0**-32 + 0.91 * ulp(log_z) + 0.5 * ulp(exact)
        assert abs(found - exact) <= bound * 1.0001


@pytest.mark.parametrize("dim", [0, 1, -1, (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("keepdim", [False, True])
def test_corroborate_torch(dim, keepdim):
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(2)) * 4
    ours = values_and_grads(lambda t: logsumexp(t, dim, keepdim), x)
    theirs = values_and_grads(lambda t: torch.logsumexp(t.double(), dim, keepdim).float(), x)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_verify_it_is_softmaxs_own_denominator():
    x = torch.randn(6, 11, generator=torch.Generator().manual_seed(4))
    assert same_bits(values_and_grads(lambda t: logsumexp(t, 1) * 0.0, x)[1].abs(), torch.zeros(6, 11))
    top = torch.tensor([0.0, *[-3.0] * 10])
    assert same_bits(logsumexp(top, 0), -log_softmax(top, 0)[0])
    leaf = x.clone().requires_grad_()
    logsumexp(leaf, 1).sum().backward()
    assert same_bits(leaf.grad, softmax(x, 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_verify_half_precision_is_float32_rounded_once_more(dtype):
    x = torch.randn(4, 9, generator=torch.Generator().manual_seed(5)).to(dtype)
    assert torch.equal(logsumexp(x, 1), logsumexp(x.float(), 1).to(dtype))


def test_infinite_rows_are_as_in_torch():
    x = torch.tensor([[-INF, -INF], [1.0, INF], [INF, -INF], [-INF, 2.0], [NAN, INF]])
    for result in on_both_engines(logsumexp, x, 1):
        torch.testing.assert_close(result, torch.logsumexp(x, 1), rtol=0, atol=0, equal_nan=True)
        assert result[4].view(torch.int32).item() == 0x7FC00000


def test_empty_and_scalar_inputs_are_as_in_torch():
    assert same_bits(logsumexp(torch.zeros(2, 0), 1), torch.full((2,), -INF))
    assert logsumexp(torch.zeros(0, 3), 1).shape == (0,) and logsumexp(torch.tensor(2.5), 0).item() == 2.5
    x = torch.zeros(2, 0, requires_grad=True)
    logsumexp(x, 1).sum().backward()
    assert x.grad.shape == (2, 0)


def test_verify_batch_invariance_and_strides():
    x = torch.randn(70, 13, generator=torch.Generator().manual_seed(6))
    rows = logsumexp(x, 1)
    assert all(same_bits(alone, rows[9:10]) for alone in on_both_engines(logsumexp, x[9:10], 1))
    assert all(same_bits(transposed, rows) for transposed in on_both_engines(logsumexp, x.t(), 0))


def test_float64_is_refused():
    with pytest.raises(InputError, match="float64"):
        logsumexp(torch.zeros(3, dtype=torch.float64), 0)
