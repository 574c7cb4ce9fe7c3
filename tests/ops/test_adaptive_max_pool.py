import pool_oracle
import pytest
import torch
from bits import INF, NAN, hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.exact.ieee import CANONICAL_NAN_BITS
from dettriton.ops import adaptive_max_pool as module
from dettriton.ops._pool import adaptive_runs
from dettriton.ops.adaptive_max_pool import adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d
from dettriton.ops.max_pool import max_pool2d

stock = torch.nn.functional
VECTORS = {**hard_vectors(60), **non_finite_vectors(60)}
VECTORS["mixed"] = torch.tensor([-0.0, 0.0, -INF, NAN, -1.0, 1.0, -NAN])[
    torch.randint(0, 7, (60,), generator=torch.Generator().manual_seed(3))
]
# the op, the input's shape, output_size
CASES = {
    "signal": (adaptive_max_pool1d, (2, 3, 10), 4),
    "longer": (adaptive_max_pool1d, (2, 5, 6), 13),
    "even": (adaptive_max_pool2d, (1, 2, 6, 5), (3, 1)),
    "uneven": (adaptive_max_pool2d, (1, 2, 6, 5), 4),
    "kept": (adaptive_max_pool2d, (2, 5, 6), (None, 4)),
    "volume": (adaptive_max_pool3d, (1, 1, 3, 4, 5), (2, 3, 2)),
    "volume of one": (adaptive_max_pool3d, (5, 3, 2, 2), 1),
}
each_case = pytest.mark.parametrize(("op", "shape", "size"), CASES.values(), ids=CASES)


@each_case
@pytest.mark.parametrize("name", VECTORS)
def test_verify_engines_agree_and_validate(op, shape, size, name):
    x = VECTORS[name].reshape(shape)
    reference, kernels = on_both_engines(values_and_grads, lambda t: op(t, size), x)
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    (y, indices), (_, from_kernels) = on_both_engines(op, x, size, return_indices=True)
    assert same_bits(y, reference[0]) and same_bits(indices, from_kernels)
    dims = {adaptive_max_pool1d: 1, adaptive_max_pool2d: 2, adaptive_max_pool3d: 3}[op]
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    maps = [t.reshape(-1, *t.shape[-dims:]) for t in (x, y, indices, reference[1], upstream)]
    for values, out, places, grad, up in zip(*maps, strict=True):
        axes = [pool_oracle.adaptive_windows(*sizes) for sizes in zip(values.shape, out.shape, strict=True)]
        chosen = pool_oracle.pool_axes(values, axes, pool_oracle.largest)
        assert places.flatten().tolist() == [place for place, _ in chosen]
        assert same_bits(out.flatten(), torch.tensor([float(v) for _, v in chosen], dtype=torch.float32))
        terms = [([place], g) for (place, _), g in zip(chosen, up.flatten().numpy(), strict=True)]
        assert same_bits(grad.flatten(), torch.from_numpy(pool_oracle.gathered_gradient(terms, values.numel())))


@each_case
def test_corroborate_torch(op, shape, size):
    x = torch.randperm(60, generator=torch.Generator().manual_seed(1)).view(shape).float()
    theirs = getattr(stock, op.__name__)
    assert all(map(same_bits, op(x, size, True), theirs(x, size, True)))
    ours, expected = values_and_grads(lambda t: op(t, size), x), values_and_grads(lambda t: theirs(t.double(), size), x)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-6, atol=1e-6)


def test_verify_packed_maxima_equal_the_kernels_of_even_windows():
    x = torch.randn(2, 3, 6, 9, generator=torch.Generator().manual_seed(2)).round()
    packed = module.largest_of_runs("", x, (adaptive_runs(6, 2), adaptive_runs(9, 3)))
    assert all(map(same_bits, packed, max_pool2d(x, 3, return_indices=True)))


def test_verify_strides_and_batches_do_not_matter():
    x = torch.randn(3, 2, 7, 5, generator=torch.Generator().manual_seed(3))
    together = adaptive_max_pool2d(x, 3)
    assert same_bits(adaptive_max_pool2d(x.transpose(2, 3).contiguous().transpose(2, 3), 3), together)
    assert all(same_bits(adaptive_max_pool2d(x[i : i + 1], 3), together[i : i + 1]) for i in range(3))


@pytest.mark.parametrize("shape", [(0, 2, 4, 5), (2, 0, 4, 5), (1, 1, 1, 1)])
def test_verify_sizes(shape):
    reference, kernels = on_both_engines(values_and_grads, lambda t: adaptive_max_pool2d(t, 3), torch.ones(shape))
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    assert reference[0].shape == (*shape[:2], 3, 3)


def test_validate_the_chosen_bits():
    x = torch.tensor([[[-0.0, 0.0, -NAN, 1.0, -INF]]])
    y, indices = adaptive_max_pool1d(x, 3, True)
    assert indices.flatten().tolist() == [1, 2, 3]
    assert y.view(torch.int32).flatten().tolist() == [0, CANONICAL_NAN_BITS, 0x3F800000]


def test_the_order_of_a_gradient_sum_shows_in_its_bits():
    x = torch.zeros(1, 1, 4, 4)
    x[..., 1:3, 1:3] = 1.0
    upstream = torch.randn(1, 1, 7, 7, generator=torch.Generator().manual_seed(4))
    grads = []
    for g in (upstream, upstream.flip(2, 3)):
        leaf = x.clone().requires_grad_()
        adaptive_max_pool2d(leaf, 7)[0].backward(g[0])
        grads.append(leaf.grad)
    assert not same_bits(grads[0], grads[1].flip(2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: adaptive_max_pool2d(x.double(), 2), r"adaptive_max_pool2d: input must be torch\.float32"),
        (lambda x: adaptive_max_pool3d(x, 2), r"input must be \(C, D, H, W\)"),
        (lambda x: adaptive_max_pool2d(x, 0), "output_size must be positive"),
        (lambda x: adaptive_max_pool2d(x, (1, 1, 1)), "an integer or 2 of them"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(torch.zeros(1, 4, 4))
