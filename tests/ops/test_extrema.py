import math

import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops import extrema
from dettriton.ops.extrema import amax, amin, argmax, argmin

INF, NAN = math.inf, math.nan
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
VECTORS = {**hard_vectors(41), **non_finite_vectors(41)}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", VECTORS)
def test_corroborate_torch(name, dtype):
    """Values, indices and gradients equal torch's, except that -0 and +0 are not ties and NaNs are."""
    x = VECTORS[name].to(dtype)[:40].reshape(5, 8)
    x = torch.where(x == 0, torch.zeros((), dtype=dtype), x)
    for dim in (None, 0, 1, (0, 1)):
        for op in (amax, amin):
            expected = getattr(torch, op.__name__)(x, () if dim is None else dim)
            for found in on_both_engines(op, x, dim):
                torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
        if isinstance(dim, tuple):
            continue
        for op in (argmax, argmin):
            for found in on_both_engines(op, x, dim):
                assert torch.equal(found, getattr(torch, op.__name__)(x, dim))


@pytest.mark.parametrize("op", ["amax", "amin", "max", "min"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_corroborate_gradients_among_ties(op, dtype):
    x = torch.randint(1, 4, (3, 4, 5), generator=torch.Generator().manual_seed(1)).to(dtype)
    ours = values_and_grads(lambda t: getattr(extrema, op)(t).float(), x)
    theirs = values_and_grads(lambda t: getattr(torch, op)(t).float(), x)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2 if dtype in DTYPES[2:] else 1e-7, atol=0)
    if op.startswith("a"):
        ours = values_and_grads(lambda t: getattr(extrema, op)(t, (0, 2)).float(), x)
        theirs = values_and_grads(lambda t: getattr(torch, op)(t, (0, 2)).float(), x)
    else:
        x = torch.randperm(60, generator=torch.Generator().manual_seed(1)).reshape(3, 4, 5).to(dtype)
        ours = values_and_grads(lambda t: getattr(extrema, op)(t, 1, True)[0].float(), x)
        theirs = values_and_grads(lambda t: getattr(torch, op)(t, 1, True)[0].float(), x)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2 if dtype in DTYPES[2:] else 1e-7, atol=0)


def test_ties_go_to_the_lowest_index_and_minus_zero_is_below_zero():
    x = torch.tensor([[-0.0, 0.0, -0.0, 0.0], [2.0, 1.0, 2.0, 1.0]])
    for largest, smallest in zip(on_both_engines(extrema.max, x, 1), on_both_engines(extrema.min, x, 1), strict=True):
        assert largest.indices.tolist() == [1, 0] and smallest.indices.tolist() == [0, 1]
        assert same_bits(largest.values, torch.tensor([0.0, 2.0]))
        assert same_bits(smallest.values, torch.tensor([-0.0, 1.0]))
    assert argmax(x, 1).tolist() == [1, 0] and argmin(x, 1).tolist() == [0, 1]
    assert same_bits(values_and_grads(amax, x[0])[1].ne(0).float(), torch.tensor([0.0, 1.0, 0.0, 1.0]))


def test_the_first_nan_wins_and_is_canonical():
    payload = torch.tensor([0x7F812345, -0x7EDCBB], dtype=torch.int32).view(torch.float32)
    x = torch.cat((torch.tensor([INF, -INF, 1.0]), payload))
    for op in (extrema.max, extrema.min):
        values, indices = op(x, 0)
        assert indices.item() == 3 and values.view(torch.int32).item() == 0x7FC00000
    assert argmax(x).item() == argmin(x).item() == 3
    for dtype, integer, bits in ((torch.float64, torch.int64, 0x7FF8 << 48), (torch.bfloat16, torch.int16, 0x7FC0)):
        assert amin(torch.tensor([1.0, NAN], dtype=dtype)).view(integer).item() == bits


@pytest.mark.parametrize("op", ["max", "min"])
def test_verify_engines_strides_and_batches_agree(op):
    x = torch.randn(5, 6, 7, generator=torch.Generator().manual_seed(2))
    fn = getattr(extrema, op)
    reference, kernels = on_both_engines(values_and_grads, lambda t: fn(t, 1)[0], x)
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    values, indices = fn(x.permute(2, 0, 1).contiguous().permute(1, 2, 0), 1)
    assert same_bits(values, reference[0]) and torch.equal(indices, fn(x, 1).indices)
    assert same_bits(fn(x[2:3], 1).values, values[2:3])


def test_shapes_are_torchs():
    x = torch.randn(2, 3, 4)
    for keepdim in (False, True):
        assert argmax(x, None, keepdim).shape == torch.argmax(x, None, keepdim).shape
        assert amax(x, (0, -1), keepdim).shape == torch.amax(x, (0, -1), keepdim).shape
        assert extrema.min(x, -1, keepdim)[1].shape == torch.min(x, -1, keepdim)[1].shape
    scalar = torch.tensor(2.0)
    assert extrema.max(scalar, 0).values == amin(scalar) == amax(scalar, 0) == scalar
    assert argmax(scalar).shape == argmin(scalar, 0).shape == ()
    assert isinstance(extrema.max(x, 1), torch.return_types.max)
    assert extrema.max(torch.zeros(0, 3), 1).values.shape == (0,) and amax(torch.zeros(0, 3), 1).shape == (0,)


@pytest.mark.parametrize("op", ["amax", "amin", "max", "min", "argmax", "argmin"])
def test_bad_arguments_are_refused(op):
    fn = getattr(extrema, op)
    for empty in (lambda: fn(torch.zeros(0)), lambda: fn(torch.zeros(2, 0), 1)):
        with pytest.raises(InputError, match="no elements"):
            empty()
    with pytest.raises(InputError, match="out of range"):
        fn(torch.zeros(3), 1)
    with pytest.raises(InputError, match="float32"):
        fn(torch.zeros(3, dtype=torch.int64))


def test_two_tensors_are_refused():
    with pytest.raises(InputError, match="maximum"):
        extrema.max(torch.zeros(3), torch.zeros(3))
    with pytest.raises(InputError, match="keepdim"):
        extrema.min(torch.zeros(3), keepdim=True)
