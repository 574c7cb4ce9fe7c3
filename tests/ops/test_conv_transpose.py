import conv_oracle
import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, raw, same_bits, values_and_grads

import dettriton.exact.convolution as exact_convolution
import dettriton.exact.depthwise as exact_depthwise
from dettriton.errors import InputError
from dettriton.exact.ieee import CANONICAL_NAN_BITS
from dettriton.ops.conv import conv1d
from dettriton.ops.conv_transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d

OPS = {1: conv_transpose1d, 2: conv_transpose2d, 3: conv_transpose3d}
STOCK = {r: getattr(torch.nn.functional, f"conv_transpose{r}d") for r in OPS}
CONFIGS = {
    "signal": ((2, 3, 9), (3, 4, 5), {}),
    "upsampling": ((2, 4, 5), (4, 3, 4), {"stride": 2, "padding": 1}),
    "uneven": ((1, 2, 4), (2, 3, 3), {"stride": 3, "padding": 1, "output_padding": 2, "dilation": 2}),
    "output padding beyond the stride": ((1, 2, 4), (2, 3, 3), {"stride": 2, "output_padding": 3, "dilation": 4}),
    "gaps": ((1, 2, 4), (2, 2, 1), {"stride": 3}),
    "padding beyond the kernel": ((1, 2, 8), (2, 2, 2), {"padding": 3}),
    "map": ((2, 3, 4, 5), (3, 2, 3, 2), {"stride": (2, 1), "padding": (1, 0), "output_padding": (1, 0)}),
    "grouped": ((2, 4, 3, 4), (4, 3, 2, 2), {"groups": 2, "stride": 2, "dilation": (1, 2)}),
    "depthwise": ((2, 3, 4, 4), (3, 1, 3, 3), {"groups": 3, "stride": 2, "padding": 1, "output_padding": 1}),
    "volume": ((1, 2, 2, 3, 3), (2, 2, 2, 3, 2), {"stride": (1, 2, 2), "padding": (0, 1, 1)}),
    "empty batch": ((0, 2, 3, 3), (2, 3, 2, 2), {}),
}


def gaussian(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def operands(config):
    x_shape, w_shape, arguments = CONFIGS[config]
    bias = gaussian((w_shape[1] * arguments.get("groups", 1),), 3)
    return len(x_shape) - 2, gaussian(x_shape, 1), gaussian(w_shape, 2), bias, arguments


@pytest.mark.parametrize("precision", ["high", "medium"])
@pytest.mark.parametrize(
    "rank,groups,geometry,end",
    [(1, 1, {"stride": 2, "padding": 1}, 1), (2, 2, {"stride": 2, "dilation": 2}, 0), (2, 1, {"padding": 1}, 0)],
)
def test_validate_forward_and_gradients_against_integers(rank, groups, geometry, end, precision):
    x, w = gaussian((2, 4, *(3, 4)[:rank]), 4), gaussian((4, 2, *(3, 2)[:rank]), 5)
    fn = lambda a, b: OPS[rank](a, b, output_padding=end, groups=groups, precision=precision, **geometry)  # noqa: E731
    results = on_both_engines(values_and_grads, fn, x, w)
    upstream = torch.randn(results[0][0].shape, generator=torch.Generator().manual_seed(0))
    shared = {"groups": groups, "precision": precision, **geometry}
    expected = (
        conv_oracle.input_grad(x, w, upstream.shape[2:], **shared),
        conv_oracle.forward(upstream, w, x.shape[2:], **shared),
        conv_oracle.weight_grad(x, upstream, w.shape, **shared),
    )
    for result in results:
        assert all(same_bits(p, q) for p, q in zip(result, expected, strict=True))


@pytest.mark.parametrize("config", CONFIGS)
def test_verify_engines_agree_and_corroborate_torch(config):
    rank, x, w, b, arguments = operands(config)
    ours, kernels = on_both_engines(values_and_grads, lambda *t: OPS[rank](*t, **arguments), x, w, b)
    stock = values_and_grads(lambda *t: STOCK[rank](*t, **arguments), x, w, b)
    for p, q, r in zip(ours, kernels, stock, strict=True):
        assert same_bits(p, q)
        torch.testing.assert_close(p, r, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("config", CONFIGS)
def test_verify_block_sizes_do_not_matter(config, monkeypatch):
    rank, x, w, b, arguments = operands(config)
    whole = values_and_grads(lambda *t: OPS[rank](*t, **arguments), x, w, b)
    for module in (exact_convolution, exact_depthwise):
        monkeypatch.setattr(module, "_BLOCK_ELEMENTS", 1)
    blocked = values_and_grads(lambda *t: OPS[rank](*t, **arguments), x, w, b)
    assert all(same_bits(p, q) for p, q in zip(whole, blocked, strict=True))


@pytest.mark.parametrize("name", [*hard_vectors(), *non_finite_vectors()])
def test_verify_engines_agree_on_hard_inputs(name):
    vector = {**hard_vectors(36), **non_finite_vectors(36)}[name]
    x, w = vector.reshape(2, 2, 9), vector.flip(0)[:12].reshape(2, 2, 3)
    results = on_both_engines(values_and_grads, lambda a, b: conv_transpose1d(a, b, stride=2), x, w)
    assert all(same_bits(p, q) for p, q in zip(*results, strict=True))
    if name in non_finite_vectors():
        broken = results[0][0][~torch.isfinite(x).flatten(1).all(1)]
        assert broken.numel() and bool((raw(broken) == CANONICAL_NAN_BITS).all())


def test_verify_it_is_the_gradient_of_the_convolution():
    x, w = gaussian((2, 3, 11), 6), gaussian((4, 3, 3), 7)
    leaf = x.clone().requires_grad_()
    y = conv1d(leaf, w, stride=2, padding=1)
    upstream = gaussian(y.shape, 8)
    y.backward(upstream)
    assert same_bits(conv_transpose1d(upstream, w, stride=2, padding=1), leaf.grad)


def test_verify_a_sample_does_not_depend_on_its_batch():
    x, w = gaussian((4, 3, 4, 4), 9), gaussian((3, 2, 3, 3), 10)
    x[1] *= 1e15
    pairs = zip(on_both_engines(conv_transpose2d, x, w), on_both_engines(conv_transpose2d, x[2], w), strict=True)
    assert all(same_bits(whole[2], alone) for whole, alone in pairs)


def test_verify_layouts_do_not_matter():
    x, w = gaussian((2, 3, 4, 4), 11), gaussian((3, 2, 3, 3), 12)
    reference = values_and_grads(conv_transpose2d, x, w)
    last = (x.to(memory_format=torch.channels_last), w.transpose(2, 3).contiguous().transpose(2, 3))
    for result in on_both_engines(values_and_grads, conv_transpose2d, *last):
        assert all(same_bits(p, q) for p, q in zip(result, reference, strict=True))


def test_stock_float_transposed_convolution_fails_the_bit_test():
    x, w = gaussian((2, 16, 6, 6), 13), gaussian((16, 4, 3, 3), 14)
    assert not same_bits(torch.nn.functional.conv_transpose2d(x, w), conv_transpose2d(x, w))


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"groups": 2}, "groups"),
        ({"stride": 0}, "stride"),
        ({"output_padding": 1}, "smaller than the stride"),
        ({"padding": 4}, "no output"),
        ({"precision": "exact"}, "'high' or 'medium'"),
        ({"bias": torch.zeros(3)}, "bias"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        conv_transpose2d(torch.zeros(1, 3, 4, 4), torch.zeros(3, 2, 3, 3), **arguments)


def test_wrong_shapes_are_refused():
    with pytest.raises(InputError, match="needs an input of 4 channels"):
        conv_transpose2d(torch.zeros(1, 3, 4, 4), torch.zeros(4, 2, 3, 3))
    with pytest.raises(InputError, match=r"torch\.float32"):
        conv_transpose1d(torch.zeros(1, 3, 4).double(), torch.zeros(3, 2, 3))
