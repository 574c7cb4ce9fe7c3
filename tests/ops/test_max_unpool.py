import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.max_pool import max_pool1d, max_pool2d, max_pool3d
from dettriton.ops.max_unpool import max_unpool1d, max_unpool2d, max_unpool3d

stock = torch.nn.functional
PAIRS = {
    "signal": (max_pool1d, max_unpool1d, (2, 3, 8), (2,), None),
    "channels": (max_pool1d, max_unpool1d, (3, 9), (2,), (9,)),
    "map": (max_pool2d, max_unpool2d, (2, 2, 7, 8), ((3, 2), (2, 2), (1, 0)), None),
    "sized map": (max_pool2d, max_unpool2d, (1, 2, 7, 9), (2,), (1, 2, 7, 9)),
    "volume": (max_pool3d, max_unpool3d, (2, 4, 4, 6), (2,), None),
}
each_pair = pytest.mark.parametrize(("pool", "unpool", "shape", "arguments", "size"), PAIRS.values(), ids=PAIRS)


def restored(places, values, size):
    """One map by assignment in order: the last one stays."""
    out = [0.0] * size
    for place, value in zip(places, values, strict=True):
        out[place] = value
    return out


@each_pair
def test_verify_engines_agree_and_corroborate_torch(pool, unpool, shape, arguments, size):
    x = torch.randperm(torch.Size(shape).numel(), generator=torch.Generator().manual_seed(0)).view(shape).float() + 1
    y, indices = pool(x, *arguments, return_indices=True)
    reference, kernels = on_both_engines(
        values_and_grads, lambda t: unpool(t, indices, *arguments, output_size=size), y
    )
    theirs = getattr(stock, unpool.__name__)
    expected = values_and_grads(lambda t: theirs(t, indices, *arguments, output_size=size), y)
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    assert same_bits(reference[0], expected[0])
    # Overlapping windows name a place twice, with one value; then torch gives both of them its gradient.
    put = reference[1] != 0
    assert same_bits(reference[1][put], expected[1][put])
    assert int(put.sum()) == int((reference[0] != 0).sum())


@pytest.mark.parametrize("name", ["normal", "spread", "zeros", "nan", "inf"])
def test_validate_the_last_of_equal_indices(name):
    x = {**hard_vectors(24), **non_finite_vectors(24)}[name].view(2, 2, 2, 3)
    indices = torch.randint(0, 7, x.shape, generator=torch.Generator().manual_seed(1))
    upstream = torch.randn(2, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    reference, kernels = on_both_engines(
        values_and_grads, lambda t: max_unpool2d(t, indices, (2, 2), output_size=(3, 5)), x
    )
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    for n in range(4):
        values, places, y, grad, up = (t.reshape(4, -1)[n] for t in (x, indices, *reference, upstream))
        assert same_bits(y, torch.tensor(restored(places.tolist(), values.tolist(), 15)))
        owners = restored(places.tolist(), range(6), 15)
        kept = [up[p].item() if owners[p] == i else 0.0 for i, p in enumerate(places.tolist())]
        assert same_bits(grad, torch.tensor(kept))
    assert not same_bits(reference[0], max_unpool2d(x.flip(2, 3), indices.flip(2, 3), 2, output_size=(3, 5)))


@pytest.mark.parametrize("shape", [(0, 2, 3, 3), (2, 0, 3, 3), (1, 1, 1, 1)])
def test_verify_sizes(shape):
    indices = torch.zeros(shape, dtype=torch.int64)
    for y in on_both_engines(max_unpool2d, torch.ones(shape), indices, 2):
        assert y.shape == (*shape[:2], shape[2] * 2, shape[3] * 2)
        assert y.flatten(2)[..., 1:].count_nonzero() == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, i: max_unpool2d(x.double(), i, 2), r"input must be torch\.float32"),
        (lambda x, i: max_unpool2d(x, i.int(), 2), "indices must be int64"),
        (lambda x, i: max_unpool2d(x, i + 16, 2), r"indices must lie in \[0, 16\)"),
        (lambda x, i: max_unpool2d(x, i - 1, 2), r"indices must lie in \[0, 16\)"),
        (lambda x, i: max_unpool2d(x, i, 2, output_size=(6, 4)), "within a stride"),
        (lambda x, i: max_unpool1d(x[None, None], i, 2), r"input must be \(C, L\)"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
