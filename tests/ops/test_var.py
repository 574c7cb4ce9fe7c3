import oracle64
import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.mean import mean
from dettriton.ops.var import std, std_mean, var, var_mean

VECTORS = {**hard_vectors(33), **non_finite_vectors(33)}
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.float16: 2e-2, torch.bfloat16: 6e-2}


@pytest.mark.parametrize("name", VECTORS)
def test_verify_engines_agree(name):
    for op in (std, lambda x: torch.stack(std_mean(x)), lambda x: torch.stack(var_mean(x))):
        reference, kernels = on_both_engines(values_and_grads, op, VECTORS[name])
        assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", [var, std], ids=["var", "std"])
@pytest.mark.parametrize("correction", [0, 1, 2.5])
def test_corroborate_torch(op, dtype, correction):
    x = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(4)).to(dtype)
    ours = values_and_grads(lambda t: op(t, (0, 2), correction=correction, keepdim=True).float(), x)
    stock = getattr(torch, op.__name__)
    theirs = values_and_grads(lambda t: stock(t.double(), (0, 2), correction=correction, keepdim=True).float(), x)
    assert ours[1].dtype == dtype
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_verify_pairs_are_their_parts(dtype):
    x = torch.randn(3, 7, generator=torch.Generator().manual_seed(5)).to(dtype)
    for pair, op in ((var_mean, var), (std_mean, std)):
        spread, average = pair(x, 1, keepdim=True)
        assert torch.equal(spread, op(x, 1, keepdim=True)) and torch.equal(average, mean(x, 1, keepdim=True))


def test_validate_std_is_the_rounded_root_of_var():
    x = torch.randn(50, 9, generator=torch.Generator().manual_seed(6))
    assert same_bits(std(x, 1), var(x, 1).double().sqrt().float())
    wide = var(x.double(), 1)
    assert std(x.double(), 1).tolist() == [oracle64.sqrt64(v) for v in wide.tolist()]


def test_constant_rows_have_a_zero_gradient():
    x = torch.full((2, 5), 3.0, requires_grad=True)
    for results in on_both_engines(torch.autograd.grad, std(x, 1).sum(), x, retain_graph=True):
        assert same_bits(results[0], torch.zeros(2, 5))


def test_both_of_torchs_ways_to_correct():
    x = torch.arange(6.0).reshape(2, 3)
    population = var(x, 1, correction=0)
    assert same_bits(var(x, 1, False), population) and same_bits(var(x, 1, unbiased=False), population)
    assert same_bits(std(x, False), std(x, correction=0)) and same_bits(std(x, True), std(x))
    assert var(x, 1, True, True).shape == (2, 1) and var(x, correction=None) == var(x)
    assert var_mean(x, False)[0] == var(x, correction=0)


@pytest.mark.parametrize("arguments", [{"correction": "1"}, {"unbiased": True, "correction": 1}, {"unbiased": 1}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(InputError, match=r"correction|unbiased"):
        std_mean(torch.zeros(3), 0, **arguments)


def test_other_types_are_refused():
    with pytest.raises(InputError, match="float64"):
        std(torch.zeros(3, dtype=torch.int32))
