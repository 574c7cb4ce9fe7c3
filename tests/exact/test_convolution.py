import numpy as np
import pytest
import torch

from dettriton.exact import depthwise
from dettriton.exact.convolution import Geometry, integer_conv, integer_conv_input_grad, integer_conv_weight_grad
from dettriton.exact.dot import exact_terms

BITS = 25
GEOMETRY = Geometry(2, 4, 6, 2, (3, 5, 6), (2, 3, 3), (2, 2, 1), (1, 1, 2), (1, 1, 2))
DEPTHWISE = Geometry(3, 4, 8, 4, (2, 5, 6), (2, 3, 3), (1, 2, 3), (1, 1, 2), (1, 1, 2))


def integers(*shape, seed):
    """Odd integers just below 2**25: a few products of one sign pass 53 bits."""
    q = torch.randint(2**BITS - 1000, 2**BITS, shape, generator=torch.Generator().manual_seed(seed))
    return (q | 1).double()


def reference(x, weight, grad, g):
    """Forward, input gradient and weight gradient in int64, one multiplication at a time."""
    x, weight, grad = (t.numpy().astype(np.int64) for t in (x, weight, grad))
    y, grad_x, grad_w = np.zeros_like(grad), np.zeros_like(x), np.zeros_like(weight)
    for n, o, *at in np.ndindex(grad.shape):
        for c, *tap in np.ndindex(weight.shape[1:]):
            steps = zip(at, g.stride, g.padding, tap, g.dilation, strict=True)
            where = [i * s - p + t * d for i, s, p, t, d in steps]
            if all(0 <= i < size for i, size in zip(where, g.size, strict=True)):
                source = (n, o // g.group_out * g.group_in + c, *where)
                y[n, o, *at] += x[source] * weight[o, c, *tap]
                grad_x[source] += grad[n, o, *at] * weight[o, c, *tap]
                grad_w[o, c, *tap] += grad[n, o, *at] * x[source]
    return tuple(torch.from_numpy(t) for t in (y, grad_x, grad_w))


def operands(g):
    x = integers(g.batch, g.in_channels, *g.size, seed=1)
    return (
        x,
        integers(g.out_channels, g.group_in, *g.kernel, seed=2),
        integers(g.batch, g.out_channels, *g.out_size, seed=3),
    )


def check(functions, g, bits, x, weight, grad):
    forward, input_grad, weight_grad = functions
    y, grad_x, grad_w = reference(x, weight, grad, g)
    got_y, got_x = torch.zeros_like(y), torch.zeros_like(grad_x)
    forward(x, weight, g, bits, lambda part, total: got_y[part].copy_(total))
    input_grad(grad, weight, g, bits, lambda part, total: got_x[part].copy_(total))
    assert torch.equal(got_y, y) and torch.equal(got_x, grad_x)
    assert torch.equal(weight_grad(grad, x, g, bits), grad_w)


@pytest.mark.parametrize("bits", [BITS, 26], ids=["8 terms exact", "2 terms exact"])
def test_validate_sums_beyond_53_bits_against_int64(bits):
    assert GEOMETRY.taps > exact_terms(bits)
    check((integer_conv, integer_conv_input_grad, integer_conv_weight_grad), GEOMETRY, bits, *operands(GEOMETRY))


@pytest.mark.parametrize("elements", [1, 400, 1 << 18])
def test_validate_depthwise_against_int64(elements, monkeypatch):
    monkeypatch.setattr(depthwise, "_BLOCK_ELEMENTS", elements)
    # 128 terms fit 53 bits at 23 bits each: all 36 of a gradient to the input.
    small = [(q % (1 << 23)) * 2 - (1 << 23) for q in operands(DEPTHWISE)]
    functions = (depthwise.depthwise_conv, depthwise.depthwise_conv_input_grad, depthwise.depthwise_conv_weight_grad)
    check(functions, DEPTHWISE, 23, *small)


def test_validate_depthwise_weight_gradient_beyond_53_bits_against_int64():
    g = Geometry(1, 2, 4, 2, (1, 5, 9), (1, 2, 2), (1, 1, 1), (0, 0, 0), (1, 1, 1))
    x, weight, grad = operands(g)
    assert g.positions > exact_terms(BITS)
    expected = reference(x, weight, grad, g)[2]
    assert torch.equal(depthwise.depthwise_conv_weight_grad(grad, x, g, BITS), expected)
    # The check is looking: these sums in one binary64 each come out rounded.
    assert not torch.equal(depthwise.depthwise_conv_weight_grad(grad, x, g, 20), expected)


def test_depthwise_needs_one_input_channel_and_sums_that_fit():
    assert depthwise.is_depthwise(DEPTHWISE, 20) and not depthwise.is_depthwise(DEPTHWISE, 25)
    assert not depthwise.is_depthwise(GEOMETRY, 20)


def test_float64_alone_would_round_these_sums():
    x, weight, grad = operands(GEOMETRY)
    y, *_ = reference(x, weight, grad, GEOMETRY)
    stock = torch.nn.functional.conv3d(x, weight, None, GEOMETRY.stride, GEOMETRY.padding, GEOMETRY.dilation, 2)
    assert not torch.equal(stock.long(), y)
