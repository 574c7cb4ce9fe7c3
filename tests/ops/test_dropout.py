import math
from fractions import Fraction

import pytest
import torch
from bits import INF, NAN, hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads
from oracle import to_float32
from philox_oracle import stream_word

from dettriton.errors import InputError
from dettriton.exact.philox import Stream
from dettriton.ops.dropout import dropout, scale_of

VECTORS = {**hard_vectors(), **non_finite_vectors()}
STREAM = Stream(7, 3, 2**32 + 5)
STREAMS = [Stream(0), STREAM, Stream(2**32 - 1, 2**32 - 1, 2**64 - 1)]


def kept(stream: Stream, n: int, p: float) -> list[bool]:
    threshold = math.floor(Fraction(p) * 2**32)
    return [stream_word(stream.seed, stream.stream, stream.step, i) >= threshold for i in range(n)]


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_verify_engines_agree(name, p):
    reference, kernels = on_both_engines(values_and_grads, lambda t: dropout(t, p, rng=STREAM), VECTORS[name])
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))


@pytest.mark.parametrize("stream", STREAMS, ids=str)
@pytest.mark.parametrize("p", [2.0**-32, 0.1, 0.5, 0.9999, 1.0])
def test_validate_mask_and_gradient_against_integers(stream, p):
    n = 203
    x = torch.ones(n, requires_grad=True)
    for y in on_both_engines(dropout, x, p, rng=stream):
        assert (y != 0).tolist() == kept(stream, n, p)
        (grad,) = torch.autograd.grad(y.sum(), x)
        assert same_bits(grad, y.detach())


def test_validate_the_word_at_the_threshold_is_kept():
    words = [stream_word(STREAM.seed, STREAM.stream, STREAM.step, i) for i in range(8)]
    for i, word in enumerate(words):
        for p, expected in ((word / 2**32, True), ((word + 1) / 2**32, False)):
            assert all((y[i] != 0).item() is expected for y in on_both_engines(dropout, torch.ones(8), p, rng=STREAM))


@pytest.mark.parametrize("p", [0.1, 0.25, 1 / 3, 0.5, 0.9, 1 - 2.0**-53])
def test_validate_scale(p):
    denominator = 1 - Fraction(p)
    assert denominator == Fraction(float(denominator)) or p in (0.1, 1 / 3)
    assert scale_of(p) == to_float32(Fraction(float(1 / Fraction(float(denominator)))))


def test_validate_values():
    x = torch.tensor([NAN, INF, -INF, -0.0, -1.0, 3e38, 1e-45] * 8)
    mask = kept(STREAM, len(x), 0.1)
    assert 0 < sum(mask) < len(x)
    scale = torch.tensor(to_float32(Fraction(1 / (1 - 0.1))))
    expected = torch.stack([v * scale if keep else torch.zeros(()) for v, keep in zip(x, mask, strict=True)])
    for y in on_both_engines(dropout, x, 0.1, rng=STREAM):
        assert same_bits(y, expected, any_nan=True)


def test_verify_the_mask_follows_the_logical_order():
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = dropout(x.reshape(-1), rng=STREAM).view(x.shape)
    for strided in (
        x,
        x.contiguous(memory_format=torch.channels_last),
        x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
    ):
        for y in on_both_engines(dropout, strided, rng=STREAM):
            assert same_bits(y, expected)


@pytest.mark.parametrize("n", [0, 1, 3, 1023, 1025, 2047])
def test_verify_a_longer_tensor_starts_with_the_same_mask(n):
    longer = dropout(torch.ones(2048), 0.3, rng=STREAM)
    for y in on_both_engines(dropout, torch.ones(n), 0.3, rng=STREAM):
        assert same_bits(y, longer[:n])


def test_another_layer_or_step_gives_another_mask():
    x = torch.ones(256)
    masks = {tuple(dropout(x, rng=s).tolist()) for s in (*STREAMS, STREAM.at(0), Stream(7, 4, STREAM.step))}
    assert len(masks) == len(STREAMS) + 2


def test_corroborate_rate_and_mean():
    y = dropout(torch.ones(20_000), 0.3, rng=STREAM)
    assert abs((y == 0).double().mean().item() - 0.3) < 0.015
    assert abs(y.double().mean().item() - 1) < 0.02


def test_verify_the_identity():
    x = VECTORS["nan"]
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0) is x


@pytest.mark.parametrize("p", [-0.1, 1.1, NAN])
@pytest.mark.parametrize("training", [True, False])
def test_probabilities_out_of_range_are_refused(p, training):
    with pytest.raises(InputError, match=r"lies in \[0, 1\]"):
        dropout(torch.ones(3), p, training, rng=STREAM)


def test_a_missing_stream_and_a_wrong_dtype_are_refused():
    with pytest.raises(InputError, match=r"pass rng=Stream\(seed, layer, step\)"):
        dropout(torch.ones(3))
    with pytest.raises(InputError, match=r"dropout: input must be torch\.float32"):
        dropout(torch.ones(3, dtype=torch.float64), rng=STREAM)


def test_double_backward_names_the_op():
    x = torch.randn(3, requires_grad=True)
    (grad,) = torch.autograd.grad(dropout(x, rng=STREAM).square().sum(), x, create_graph=True)
    with pytest.raises(InputError, match="Dropout has no second derivative"):
        grad.sum().backward()
