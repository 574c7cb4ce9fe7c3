import math

import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.prod import prod

VECTORS = {**hard_vectors(37), **non_finite_vectors(37)}
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.float16: 1e-2, torch.bfloat16: 6e-2}


def tree(x: torch.Tensor) -> torch.Tensor:
    """The definition, one element at a time."""
    values = [x[i] for i in range(len(x))]
    while len(values) & (len(values) - 1):
        values.append(torch.ones((), dtype=x.dtype))
    while len(values) > 1:
        half = len(values) // 2
        values = [values[i] * values[i + half] for i in range(half)]
    return values[0]


@pytest.mark.parametrize("name", VECTORS)
def test_verify_engines_agree_and_follow_the_tree(name):
    reference, kernels = on_both_engines(values_and_grads, prod, VECTORS[name])
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))
    assert same_bits(reference[0], tree(VECTORS[name]), any_nan=True)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 9, 31, 33])
def test_verify_sizes_follow_the_tree(n):
    x = torch.rand(n, generator=torch.Generator().manual_seed(n)) + 0.5
    assert same_bits(prod(x), tree(x))


def test_another_order_has_other_bits():
    x = torch.rand(64, generator=torch.Generator().manual_seed(0)) + 0.5
    running = torch.ones(())
    for term in x:
        running = running * term
    assert not same_bits(prod(x), running)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [None, 0, 1, -1])
@pytest.mark.parametrize("zeros", [0, 1, 2])
def test_corroborate_torch(dim, zeros, dtype):
    x = (torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(7)) + 0.6).to(dtype)
    x[0, 1, :zeros] = 0.0
    x[1, :zeros, 2] = 0.0
    arguments = () if dim is None else (dim,)
    ours = values_and_grads(lambda t: prod(t, *arguments).float(), x)
    theirs = values_and_grads(lambda t: torch.prod(t.double(), *arguments).float(), x)
    assert ours[1].dtype == dtype
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_verify_several_dims_are_one_tree_over_their_terms():
    x = torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(8)) + 0.5
    terms = x.permute(1, 0, 2).reshape(5, 12)
    assert same_bits(prod(x, (0, 2)), prod(terms, 1)) and prod(x, (0, 2), keepdim=True).shape == (1, 5, 1)
    grads = [values_and_grads(lambda t: prod(t, (0, 2)), x)[1], values_and_grads(lambda t: prod(t, 1), terms)[1]]
    assert same_bits(grads[0].permute(1, 0, 2).reshape(5, 12), grads[1])


def test_empty_and_scalar_inputs_are_as_in_torch():
    assert same_bits(prod(torch.zeros(0)), torch.ones(())) and same_bits(prod(torch.zeros(2, 0), 1), torch.ones(2))
    assert prod(torch.zeros(0, 3), 1).shape == (0,) and same_bits(prod(torch.tensor(3.0), 0), torch.tensor(3.0))
    x = torch.zeros(2, 0, requires_grad=True)
    prod(x, 1).sum().backward()
    assert x.grad.shape == (2, 0)


def test_a_nan_is_the_canonical_one():
    assert prod(torch.tensor([math.inf, 0.0])).view(torch.int32).item() == 0x7FC00000


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="out of range"):
        prod(torch.zeros(3), 1)
    with pytest.raises(InputError, match="dtype"):
        prod(torch.zeros(3), dtype=torch.float64)
    with pytest.raises(InputError, match="float32"):
        prod(torch.zeros(3, dtype=torch.int64))
