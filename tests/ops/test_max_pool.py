import itertools

import numpy as np
import pool_oracle
import pytest
import torch
from bits import INF, NAN, hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.engine import use_engine
from dettriton.errors import InputError
from dettriton.exact.ieee import CANONICAL_NAN_BITS
from dettriton.ops.max_pool import max_pool1d, max_pool2d, max_pool3d

SHAPE = (2, 3, 4, 5)
N = 120
VECTORS = {name: x.reshape(SHAPE) for name, x in {**hard_vectors(N), **non_finite_vectors(N)}.items()}
VECTORS["mixed"] = torch.tensor([-0.0, 0.0, -INF, NAN, -1.0, 1.0, -NAN])[
    torch.randint(0, 7, (N,), generator=torch.Generator().manual_seed(3))
].reshape(SHAPE)

# kernel_size, stride, padding, dilation, ceil_mode
CONFIGS = {
    "k2": (2, None, 0, 1, False),
    "k3s2p1": (3, 2, 1, 1, False),
    "k3s1p1": (3, 1, 1, 1, False),
    "dilated": ((2, 3), (1, 2), (0, 1), (3, 2), True),
    "gaps": (1, 3, 0, 1, True),
    "whole": ((4, 5), None, 0, 1, False),
}


def pool_and_indices(x, *config):
    return max_pool2d(x, *config, return_indices=True)


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(c, id=name, marks=[] if name in ("k3s2p1", "dilated") else pytest.mark.heavy)
        for name, c in CONFIGS.items()
    ],
)
@pytest.mark.parametrize("name", VECTORS)
def test_verify_engines_agree(name, config):
    reference, kernels = on_both_engines(values_and_grads, lambda t: max_pool2d(t, *config), VECTORS[name])
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    for a, b in zip(*on_both_engines(pool_and_indices, VECTORS[name], *config), strict=True):
        assert same_bits(a, b)
    assert all(same_bits(reference[0], y) for y in on_both_engines(max_pool2d, VECTORS[name], *config))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("name", VECTORS)
def test_validate_against_the_oracle(name, config):
    kernel, stride, padding, dilation, _ = map(pair, config)
    stride = kernel if stride == (None, None) else stride
    x = VECTORS[name][1:2, 2:3].clone().requires_grad_()
    y, indices = pool_and_indices(x, *config)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    y.backward(upstream)
    rows, columns = (
        pool_oracle.axis_windows(x.shape[2 + d], y.shape[2 + d], kernel[d], stride[d], padding[d], dilation[d])
        for d in range(2)
    )
    chosen = pool_oracle.pool(x.detach()[0, 0], rows, columns, pool_oracle.largest)
    assert indices.flatten().tolist() == [place for place, _ in chosen]
    assert same_bits(y.detach().flatten(), torch.from_numpy(np.array([value for _, value in chosen])))
    terms = [([place], g) for (place, _), g in zip(chosen, upstream.flatten().numpy(), strict=True)]
    assert same_bits(x.grad.flatten(), torch.from_numpy(pool_oracle.gathered_gradient(terms, x.numel())))


@pytest.mark.parametrize("kernel", [1, 2, 3, (2, 3), (5, 4)])
@pytest.mark.parametrize("shape", [(2, 2, 7, 9), (3, 5, 5), (1, 1, 2, 2)])
def test_corroborate_torch(kernel, shape):
    generator = torch.Generator().manual_seed(2)
    # Small integers: ties are common and gradients are exact in any order. Adding 0 removes -0, which torch ties.
    x = torch.randn(shape, generator=generator).mul(2).round() + 0.0
    agreed = 0
    for config in itertools.product([None, 1, 2, 3], [0, 1], [1, 2], [False, True]):
        try:
            stock, stock_indices = torch.nn.functional.max_pool2d(x, kernel, *config, return_indices=True)
        except RuntimeError:
            with pytest.raises(InputError):
                max_pool2d(x, kernel, *config)
            continue
        ours, indices = max_pool2d(x, kernel, *config, return_indices=True)
        assert same_bits(ours, stock) and same_bits(indices, stock_indices)
        upstream = torch.randint(-9, 10, stock.shape, generator=generator).float()
        grads = []
        for op in (max_pool2d, torch.nn.functional.max_pool2d):
            leaf = x.clone().requires_grad_()
            op(leaf, kernel, *config).backward(upstream)
            grads.append(leaf.grad)
        assert torch.equal(*grads)
        agreed += 1
    assert agreed or kernel == (5, 4)


@pytest.mark.parametrize("shape", [(2, 3, 11), (3, 11), (1, 1, 1), (0, 2, 5)])
@pytest.mark.parametrize("config", [(3, 2, 1, 1, False), (2, 1, 1, 1, True), (1,)])
def test_corroborate_torch_on_signals(shape, config):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    if shape[0] == 0:
        assert max_pool1d(x, *config).shape == torch.nn.functional.max_pool1d(torch.ones(1, 2, 5), *config)[:0].shape
        return
    stock, stock_indices = torch.nn.functional.max_pool1d(x, *config, return_indices=True)
    for ours, indices in on_both_engines(max_pool1d, x, *config, return_indices=True):
        assert same_bits(ours, stock) and same_bits(indices, stock_indices)


VOLUME = (1, 2, 3, 4, 5)
VOLUME_CONFIGS = {
    "k2": (2, 1, 0, 1, False),
    "k3s2p1": (3, 2, 1, 1, False),
    "mixed": ((2, 1, 3), (1, 2, 3), (1, 0, 1), (2, 3, 1), True),
    "whole": ((3, 4, 5), None, 0, 1, False),
}


@pytest.mark.parametrize("config", VOLUME_CONFIGS.values(), ids=VOLUME_CONFIGS)
@pytest.mark.parametrize(
    "name",
    [n if n in ("normal", "zeros", "nan", "-inf") else pytest.param(n, marks=pytest.mark.heavy) for n in VECTORS],
)
def test_verify_and_validate_volumes(name, config):
    x = VECTORS[name].reshape(VOLUME)
    reference, kernels = on_both_engines(values_and_grads, lambda t: max_pool3d(t, *config), x)
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    (_, indices), (_, from_kernels) = on_both_engines(max_pool3d, x, *config, return_indices=True)
    assert same_bits(indices, from_kernels)
    kernel, stride, padding, dilation = (v if isinstance(v, tuple) else (v,) * 3 for v in config[:4])
    stride = kernel if stride == (None,) * 3 else stride
    out = reference[0].shape[2:]
    axes = [pool_oracle.axis_windows(*a) for a in zip(VOLUME[2:], out, kernel, stride, padding, dilation, strict=True)]
    upstream = torch.randn(reference[0].shape, generator=torch.Generator().manual_seed(0))
    for channel in range(2):
        chosen = pool_oracle.pool_axes(x[0, channel], axes, pool_oracle.largest)
        assert indices[0, channel].flatten().tolist() == [place for place, _ in chosen]
        values = torch.from_numpy(np.array([value for _, value in chosen]))
        assert same_bits(reference[0][0, channel].flatten(), values)
        terms = [([place], g) for (place, _), g in zip(chosen, upstream[0, channel].flatten().numpy(), strict=True)]
        grad = torch.from_numpy(pool_oracle.gathered_gradient(terms, 60))
        assert same_bits(reference[1][0, channel].flatten(), grad)


@pytest.mark.parametrize("kernel", [1, 2, (1, 2, 3), 3])
@pytest.mark.parametrize("shape", [(2, 2, 4, 5, 3), (2, 3, 3, 4), (1, 1, 1, 1, 1)])
def test_corroborate_torch_on_volumes(kernel, shape):
    # Distinct values, so that torch, whose ties may differ, has none.
    x = torch.randperm(torch.Size(shape).numel(), generator=torch.Generator().manual_seed(4)).view(shape).float()
    for config in itertools.product([None, 1, 2], [0, 1], [1, 2], [False, True]):
        try:
            stock = torch.nn.functional.max_pool3d(x, kernel, *config, return_indices=True)
        except RuntimeError:
            with pytest.raises(InputError):
                max_pool3d(x, kernel, *config)
            continue
        if torch.isinf(stock[0]).any():
            with pytest.raises(InputError, match="nothing but padding"):
                max_pool3d(x, kernel, *config)
            continue
        ours = max_pool3d(x, kernel, *config, return_indices=True)
        assert all(same_bits(a, b) for a, b in zip(ours, stock, strict=True))
        grads = []
        for op in (max_pool3d, torch.nn.functional.max_pool3d):
            leaf = x.clone().requires_grad_()
            op(leaf, kernel, *config).square().sum().backward()
            grads.append(leaf.grad)
        assert torch.equal(*grads)


@pytest.mark.parametrize("shape", [(0, 3, 6, 7), (1, 1, 1, 1), (2, 0, 4, 4), (3, 6, 7)])
def test_verify_sizes(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    reference, kernels = on_both_engines(values_and_grads, lambda t: max_pool2d(t, 3, 2, 1), x)
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    assert reference[0].shape == (*shape[:-2], (shape[-2] + 1) // 2, (shape[-1] + 1) // 2)


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "sliced"])
def test_verify_strides_do_not_matter(layout):
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(6))
    strided = {
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
        "sliced": torch.cat([x, x], 3)[..., :8],
    }[layout]
    assert not strided.is_contiguous()
    for config in CONFIGS.values():
        expected = pool_and_indices(x, *config)
        for result in on_both_engines(pool_and_indices, strided, *config):
            assert all(same_bits(a, b) for a, b in zip(result, expected, strict=True))


def test_verify_a_strided_upstream_gradient():
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(7))
    upstream = torch.randn(3, 3, 3, 2, generator=torch.Generator().manual_seed(8)).permute(3, 0, 2, 1)
    grads = []
    for engine, g in itertools.product(("torch", "triton"), (upstream, upstream.contiguous())):
        leaf = x.clone().requires_grad_()
        with use_engine(engine):
            max_pool2d(leaf, 3, 2, 1).backward(g)
        grads.append(leaf.grad)
    assert all(same_bits(g, grads[0]) for g in grads)


def test_verify_a_sample_does_not_depend_on_its_batch():
    x = torch.stack([VECTORS["normal"][0], VECTORS["nan"][0], VECTORS["mixed"][0], VECTORS["spread"][0]])
    for engine in ("torch", "triton"):
        with use_engine(engine):
            together = max_pool2d(x, 3, 2, 1)
            assert all(same_bits(max_pool2d(x[i : i + 1], 3, 2, 1), together[i : i + 1]) for i in range(len(x)))


def test_validate_zeros_nans_and_infinities():
    x = torch.tensor([[[-0.0, 0.0, 0.0], [-0.0, -0.0, -1.0], [1.0, NAN, -NAN], [INF, INF, -INF], [-INF, -INF, -INF]]])
    for y, indices in on_both_engines(max_pool1d, x, 3, return_indices=True):
        assert indices.flatten().tolist() == [1, 0, 1, 0, 0]
        words = y.view(torch.int32).flatten().tolist()
        assert words == [0, -(2**31), CANONICAL_NAN_BITS, 0x7F800000, 0x7F800000 - 2**31]


def test_validate_padding_is_never_chosen():
    x = torch.full((1, 1, 2, 2), -INF)
    for y, indices in on_both_engines(pool_and_indices, x, 3, 2, 1, 1, False):
        assert y.item() == -INF and indices.item() == 0


def test_validate_a_gradient_starts_at_positive_zero():
    for engine in ("torch", "triton"):
        x = torch.tensor([[[3.0, 1.0, 2.0]]], requires_grad=True)
        with use_engine(engine):
            max_pool1d(x, 3).backward(torch.full((1, 1, 1), -0.0))
        assert x.grad.view(torch.int32).flatten().tolist() == [0, 0, 0]


def test_the_order_of_a_gradient_sum_shows_in_its_bits():
    generator = torch.Generator().manual_seed(9)
    x = torch.randn(1, 4, 9, 9, generator=generator)
    upstream = torch.randn(1, 4, 9, 9, generator=generator)
    forward, backward = x.clone().requires_grad_(), x.flip(2, 3).clone().requires_grad_()
    max_pool2d(forward, 3, 1, 1).backward(upstream)
    max_pool2d(backward, 3, 1, 1).backward(upstream.flip(2, 3))
    torch.testing.assert_close(forward.grad, backward.grad.flip(2, 3))
    assert not same_bits(forward.grad, backward.grad.flip(2, 3))


def test_verify_windows_of_more_taps_than_a_byte_counts():
    x = torch.randn(1, 2, 17, 18, generator=torch.Generator().manual_seed(10))
    config = (16, 8, 8, 1, False)
    reference, kernels = on_both_engines(values_and_grads, lambda t: max_pool2d(t, *config), x)
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    stock = torch.nn.functional.max_pool2d(x, *config, return_indices=True)
    assert all(same_bits(a, b) for a, b in zip(pool_and_indices(x, *config), stock, strict=True))


def test_double_backward_names_the_op():
    x = torch.randn(1, 1, 4, requires_grad=True)
    (grad,) = torch.autograd.grad(max_pool1d(x, 2).square().sum(), x, create_graph=True)
    with pytest.raises(InputError, match="MaxPool has no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(1, 4, 4, dtype=torch.float64), 2), r"max_pool2d: input must be torch\.float32"),
        ((torch.zeros(4, 4), 2), r"input must be \(C, H, W\) or \(N, C, H, W\)"),
        ((torch.zeros(1, 1, 0, 4), 2), "only the batch may be empty"),
        ((torch.zeros(1, 4, 4), (2, 2, 2)), "kernel_size must be an integer or 2 of them"),
        ((torch.zeros(1, 4, 4), 2.0), "kernel_size must be an integer"),
        ((torch.zeros(1, 4, 4), 0), "must be positive"),
        ((torch.zeros(1, 4, 4), 2, 2, 2), r"padding must lie in \[0, 1\]"),
        ((torch.zeros(1, 4, 4), 5), "a window of 5 does not fit a map of 4"),
        ((torch.zeros(1, 1, 1), 2, 1, 1, 2), "holds nothing but padding"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        max_pool2d(*arguments)
