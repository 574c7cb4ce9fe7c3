import conv_oracle
import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, raw, same_bits, values_and_grads

import dettriton.exact.convolution as exact_convolution
import dettriton.exact.depthwise as exact_depthwise
from dettriton.errors import InputError
from dettriton.exact.ieee import CANONICAL_NAN_BITS
from dettriton.ops import _plans
from dettriton.ops.conv import conv1d, conv2d, conv3d

CONFIGS = {
    "plain": ((2, 2, 3, 4, 3), (3, 2, 2, 3, 2), {"padding": 1}),
    "strided": ((1, 2, 5, 6, 7), (2, 2, 3, 2, 3), {"stride": (2, 1, 3), "padding": (1, 0, 2), "dilation": (1, 2, 1)}),
    "grouped": ((2, 4, 3, 3, 4), (4, 2, 2, 2, 2), {"groups": 2}),
    "depthwise": ((2, 3, 4, 4, 5), (6, 1, 3, 2, 3), {"groups": 3, "stride": (1, 2, 2), "padding": (1, 1, 0)}),
    "flat kernel": ((1, 2, 3, 4, 4), (2, 2, 1, 3, 3), {"stride": (2, 1, 1)}),
    "same": ((1, 2, 3, 4, 4), (2, 2, 2, 3, 4), {"padding": "same"}),
    "depth one": ((2, 2, 1, 4, 4), (3, 2, 1, 3, 3), {"padding": "valid"}),
    "empty batch": ((0, 2, 3, 3, 3), (3, 2, 2, 2, 2), {}),
}


def gaussian(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def operands(config):
    x_shape, w_shape, arguments = CONFIGS[config]
    return gaussian(x_shape, 1), gaussian(w_shape, 2), gaussian(w_shape[:1], 3), arguments


@pytest.mark.parametrize("precision", ["high", pytest.param("medium", marks=pytest.mark.heavy)])
@pytest.mark.parametrize("groups,geometry", [(1, {"padding": 1}), (2, {"stride": 2, "dilation": 1}), (2, {})])
def test_validate_forward_and_gradients_against_integers(groups, geometry, precision):
    x, w = gaussian((2, 2, 3, 4, 3), 4), gaussian((2, 2 // groups, 2, 2, 3), 5)
    fn = lambda a, b: conv3d(a, b, groups=groups, precision=precision, **geometry)  # noqa: E731 used twice, below
    results = on_both_engines(values_and_grads, fn, x, w)
    out_size = results[0][0].shape[2:]
    upstream = torch.randn(results[0][0].shape, generator=torch.Generator().manual_seed(0))
    shared = {"groups": groups, "precision": precision, **geometry}
    expected = (
        conv_oracle.forward(x, w, out_size, **shared),
        conv_oracle.input_grad(upstream, w, x.shape[2:], **shared),
        conv_oracle.weight_grad(upstream, x, w.shape, **shared),
    )
    for result in results:
        assert all(same_bits(p, q) for p, q in zip(result, expected, strict=True))


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_verify_engines_agree_and_corroborate_torch(config):
    x, w, b, arguments = operands(config)
    ours, kernels = on_both_engines(values_and_grads, lambda *t: conv3d(*t, **arguments), x, w, b)
    stock = values_and_grads(lambda *t: torch.nn.functional.conv3d(*t, **arguments), x, w, b)
    for p, q, r in zip(ours, kernels, stock, strict=True):
        assert same_bits(p, q)
        torch.testing.assert_close(p, r, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("elements", [1, 300, 1000])
@pytest.mark.parametrize("config", CONFIGS)
def test_verify_block_sizes_do_not_matter(config, elements, monkeypatch):
    x, w, b, arguments = operands(config)
    whole = values_and_grads(lambda *t: conv3d(*t, **arguments), x, w, b)
    for module in (exact_convolution, exact_depthwise):
        monkeypatch.setattr(module, "_BLOCK_ELEMENTS", elements)
    blocked = values_and_grads(lambda *t: conv3d(*t, **arguments), x, w, b)
    assert all(same_bits(p, q) for p, q in zip(whole, blocked, strict=True))


@pytest.mark.heavy
def test_verify_tiles_and_splits_do_not_matter(monkeypatch):
    x, w, _, arguments = operands("plain")
    fn = lambda a, b: conv3d(a, b, **arguments)  # noqa: E731 used twice, below
    reference, default = on_both_engines(values_and_grads, fn, x, w)
    monkeypatch.setattr(_plans, "FORCED", _plans.Plan(16, 16, 32, 4, 2, split_terms=32))
    _, other = on_both_engines(values_and_grads, fn, x, w)
    assert all(same_bits(p, q) and same_bits(p, r) for p, q, r in zip(reference, default, other, strict=True))


def test_verify_lower_ranks_are_extents_of_one():
    x, w = gaussian((2, 3, 6, 7), 6), gaussian((4, 3, 3, 2), 7)
    flat = values_and_grads(lambda a, b: conv2d(a, b, None, (2, 1), 1), x, w)
    for dim, geometry in ((2, ((1, 2, 1), (0, 1, 1))), (3, ((2, 1, 1), (1, 0, 1))), (4, ((2, 1, 1), (1, 1, 0)))):
        deep = on_both_engines(values_and_grads, lambda a, b, g=geometry: conv3d(a, b, None, *g), x.unsqueeze(dim),
                               w.unsqueeze(dim))  # fmt: skip
        assert all(same_bits(p, q.squeeze(dim)) for result in deep for p, q in zip(flat, result, strict=True))
    signal, filters = x[:, :, 0], w[:, :, 0]
    assert same_bits(conv1d(signal, filters), conv3d(signal[:, :, None, None], filters[:, :, None, None])[:, :, 0, 0])


def test_verify_a_sample_does_not_depend_on_its_batch():
    x, w = gaussian((3, 2, 3, 4, 4), 8), gaussian((2, 2, 2, 2, 2), 9)
    x[1] *= 1e15
    for whole, alone in zip(on_both_engines(conv3d, x, w), on_both_engines(conv3d, x[2], w), strict=True):
        assert same_bits(whole[2], alone)


@pytest.mark.parametrize("name", [*hard_vectors(), *non_finite_vectors()])
def test_verify_engines_agree_on_hard_inputs(name):
    vector = {**hard_vectors(48), **non_finite_vectors(48)}[name]
    x, w = vector.reshape(2, 2, 2, 2, 3), vector.flip(0)[:16].reshape(1, 2, 2, 2, 2)
    results = on_both_engines(values_and_grads, lambda a, b: conv3d(a, b, padding=(0, 1, 0)), x, w)
    assert all(same_bits(p, q) for p, q in zip(*results, strict=True))
    if name in non_finite_vectors():
        broken = results[0][0][~torch.isfinite(x).flatten(1).all(1)]
        assert broken.numel() and bool((raw(broken) == CANONICAL_NAN_BITS).all())


def test_verify_layouts_do_not_matter():
    x, w = gaussian((2, 3, 3, 4, 4), 10), gaussian((2, 3, 2, 2, 2), 11)
    reference = values_and_grads(conv3d, x, w)
    last = (x.to(memory_format=torch.channels_last_3d), w.transpose(2, 4).contiguous().transpose(2, 4))
    for result in on_both_engines(values_and_grads, conv3d, *last):
        assert all(same_bits(p, q) for p, q in zip(result, reference, strict=True))


def test_stock_float_convolution_fails_the_bit_test():
    x, w = gaussian((2, 8, 4, 6, 6), 12), gaussian((4, 8, 3, 3, 3), 13)
    assert not same_bits(torch.nn.functional.conv3d(x, w), conv3d(x, w))


def test_bad_arguments_are_refused():
    x, w = torch.zeros(1, 2, 3, 3, 3), torch.zeros(2, 2, 2, 2, 2)
    with pytest.raises(InputError, match="5 dimensions"):
        conv3d(x, w[0])
    with pytest.raises(InputError, match="3 integers"):
        conv3d(x, w, stride=(1, 2))
    with pytest.raises(InputError, match="does not fit"):
        conv3d(x, w, dilation=3)
    with pytest.raises(InputError, match=r"conv3d: groups"):
        conv3d(x, w, groups=3)
