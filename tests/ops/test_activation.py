from functools import partial

import mpmath
import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.activation import elu, hardsigmoid, hardswish, leaky_relu, relu6
from dettriton.ops.smooth_activation import gelu, glu, mish, silu, softplus

F = torch.nn.functional
OPS = {
    "relu6": (relu6, F.relu6),
    "leaky_relu": (partial(leaky_relu, negative_slope=0.2), partial(F.leaky_relu, negative_slope=0.2)),
    "elu": (partial(elu, alpha=0.7), partial(F.elu, alpha=0.7)),
    "hardsigmoid": (hardsigmoid, F.hardsigmoid),
    "hardswish": (hardswish, F.hardswish),
    "gelu": (gelu, F.gelu),
    "gelu tanh": (partial(gelu, approximate="tanh"), partial(F.gelu, approximate="tanh")),
    "silu": (silu, F.silu),
    "mish": (mish, F.mish),
    "softplus": (softplus, F.softplus),
    "softplus, steep": (partial(softplus, beta=3.0, threshold=5.0), partial(F.softplus, beta=3.0, threshold=5.0)),
    "glu": (glu, F.glu),
}
VECTORS = {**hard_vectors(38), **non_finite_vectors(38)}
each_op = pytest.mark.parametrize("op", OPS)


@each_op
def test_verify_engines_agree(op):
    for x in (*VECTORS.values(), torch.randn(1030) * 4, torch.zeros(0), torch.ones(2)):
        reference, kernels = on_both_engines(values_and_grads, OPS[op][0], x)
        assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))


@each_op
def test_corroborate_torch(op):
    ours, stock = OPS[op]
    x = torch.linspace(-12, 12, 4096).requires_grad_()
    wide = x.detach().double().requires_grad_()
    y, expected = ours(x), stock(wide)
    slope = torch.linspace(0.5, 1.5, len(y))
    y.backward(slope)
    expected.backward(slope.double())
    torch.testing.assert_close(y.double(), expected, rtol=2e-6, atol=6e-7)
    torch.testing.assert_close(x.grad.double(), wide.grad, rtol=2e-6, atol=3e-6)


@each_op
def test_corroborate_the_ends_of_the_range(op):
    ours, stock = OPS[op]
    x = torch.tensor([-torch.inf, torch.inf, -1e30, 1e30, -0.0, 0.0, 3.0, -3.0])
    values, expected = ours(x), stock(x)
    torch.testing.assert_close(values, expected, equal_nan=True)
    assert bool(torch.isnan(ours(torch.full((2,), torch.nan))).all())


@each_op
def test_verify_non_contiguous_input(op):
    x = torch.randn(6, 8)
    reference, kernels = on_both_engines(OPS[op][0], x.t())
    assert same_bits(reference, OPS[op][0](x.t().contiguous())) and same_bits(reference, kernels)


def cdf(x):
    return (1 + mpmath.erf(x / mpmath.sqrt(2))) / 2


EXACT = {
    "elu": (lambda x: x if x > 0 else mpmath.mpf(0.699999988079071) * mpmath.expm1(x), 2.0),
    "silu": (lambda x: x / (1 + mpmath.exp(-x)), 2.0),
    "mish": (lambda x: x * mpmath.tanh(mpmath.log1p(mpmath.exp(x))), 4.0),
    "softplus": (lambda x: mpmath.log1p(mpmath.exp(x)), 3.0),
}


@pytest.mark.parametrize("op", EXACT)
def test_validate_error_in_ulp(op):
    exact, bound = EXACT[op]
    x = torch.cat((torch.linspace(-80, 19.9, 700), torch.randn(300)))
    for value, y in zip(x.tolist(), OPS[op][0](x).double().tolist(), strict=True):
        expected = exact(mpmath.mpf(value))
        ulp = mpmath.ldexp(1, max(mpmath.frexp(expected)[1], -125) - 24)
        assert abs(y - expected) <= bound * ulp, (value, y)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_validate_gelu_error_is_absolute(approximate):
    c, k = mpmath.mpf("0.044715"), mpmath.sqrt(2 / mpmath.pi)
    x = torch.cat((torch.linspace(-12, 12, 1500), torch.randn(300) * 1e-3))
    for value, y in zip(x.tolist(), gelu(x, approximate).double().tolist(), strict=True):
        v = mpmath.mpf(value)
        expected = v * cdf(v) if approximate == "none" else v / 2 * (1 + mpmath.tanh(k * (v + c * v**3)))
        assert abs(y - expected) <= 4e-7 * max(abs(value), 1e-3)


def test_verify_torchs_own_functions_are_other_bits():
    x = torch.randn(10_000)
    assert not same_bits(silu(x), F.silu(x)) and not same_bits(gelu(x), F.gelu(x))


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="approximate must be"):
        gelu(torch.zeros(2), "fast")
    with pytest.raises(InputError, match="must be even"):
        glu(torch.zeros(3))
    with pytest.raises(InputError, match="dim must be"):
        glu(torch.zeros(2), 1)
    for fn in (relu6, leaky_relu, elu, hardsigmoid, hardswish, gelu, silu, mish, softplus, glu):
        with pytest.raises(InputError, match=r"input must be torch\.float32"):
            fn(torch.zeros(2, dtype=torch.float64))


def test_double_backward_names_the_op():
    x = torch.randn(4, requires_grad=True)
    (grad,) = torch.autograd.grad(silu(x).square().sum(), x, create_graph=True)
    with pytest.raises(InputError, match="silu has no second derivative"):
        grad.sum().backward()
