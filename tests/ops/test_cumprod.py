import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.cumprod import cumprod

VECTORS = {**hard_vectors(19), **non_finite_vectors(19)}
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.float16: 1e-2, torch.bfloat16: 6e-2}


@pytest.mark.parametrize("name", VECTORS)
def test_verify_engines_agree_and_follow_the_order(name):
    x = VECTORS[name]
    reference, kernels = on_both_engines(values_and_grads, lambda t: cumprod(t, 0), x)
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))
    running = [x[0]]
    for term in x[1:]:
        running.append(running[-1] * term)
    assert same_bits(reference[0], torch.stack(running), any_nan=True)


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_verify_engines_agree_over_dims_and_strides(dim, dtype):
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1)).to(dtype)
    reference, kernels = on_both_engines(values_and_grads, lambda t: cumprod(t, dim).float(), x)
    assert all(torch.equal(a, b) for a, b in zip(reference, kernels, strict=True))
    assert torch.equal(cumprod(x.permute(2, 0, 1).contiguous().permute(1, 2, 0), dim).float(), reference[0])


@pytest.mark.parametrize("zeros", [0, 1, 2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_corroborate_torch(dtype, zeros):
    x = (torch.rand(4, 7, generator=torch.Generator().manual_seed(2)) + 0.5).to(dtype)
    x[1, 2 : 2 + zeros] = 0.0
    x[2, :zeros] = 0.0
    ours = values_and_grads(lambda t: cumprod(t, 1).float(), x)
    theirs = values_and_grads(lambda t: torch.cumprod(t.double(), 1).float(), x)
    assert ours[1].dtype == dtype
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_the_other_direction_has_other_bits():
    x = torch.rand(30, generator=torch.Generator().manual_seed(3)) + 0.5
    assert not same_bits(cumprod(x, 0)[-1], cumprod(x.flip(0), 0)[-1])


def test_empty_and_scalar_inputs_are_as_in_torch():
    assert cumprod(torch.zeros(2, 0), 1).shape == (2, 0) and cumprod(torch.zeros(0, 3), 1).shape == (0, 3)
    assert same_bits(cumprod(torch.tensor(3.5), 0), torch.tensor(3.5))
    for results in on_both_engines(values_and_grads, lambda t: cumprod(t, 1), torch.ones(3, 1)):
        assert results[1].shape == (3, 1)


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="out of range"):
        cumprod(torch.zeros(3), 2)
    with pytest.raises(InputError, match="one integer"):
        cumprod(torch.zeros(3), (0,))
    with pytest.raises(InputError, match="dtype"):
        cumprod(torch.zeros(3), 0, dtype=torch.float64)
