from functools import reduce

import pytest
import torch
from bits import INF, NAN, hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.exact.philox import Stream, random_bits
from dettriton.ops import elementary, power, trigonometric
from dettriton.ops._elementwise import FORMULAS
from dettriton.ops.power import pow
from dettriton.ops.sum import exact_sum

EVERYWHERE = ("exp", "exp2", "expm1", "sigmoid", "tanh", "erf", "sin", "cos", "tan", "atan")
POSITIVE = ("log", "log1p", "log2", "sqrt", "rsqrt")
NAMES = (*EVERYWHERE, *POSITIVE)
OPS = {n: next(getattr(m, n) for m in (elementary, trigonometric, power) if hasattr(m, n)) for n in NAMES}
VECTORS = {**hard_vectors(), **non_finite_vectors()}
each_op = pytest.mark.parametrize("name", NAMES)


def random(*shape, seed=0, scale=2.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def regular(name, *shape):
    x = random(*shape)
    return x.abs() + 0.05 if name in POSITIVE else x


@each_op
def test_verify_engines_agree_on_hard_inputs(name):
    x = torch.cat([*VECTORS.values(), random_bits(Stream(3), 500).to(torch.int32).view(torch.float32)])
    reference, kernels = on_both_engines(values_and_grads, OPS[name], x)
    assert same_bits(reference[0], kernels[0])
    assert same_bits(reference[1], kernels[1], any_nan=True)


@each_op
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (3, 341), (1025,)])
def test_verify_engines_agree_on_any_size(name, shape):
    reference, kernels = on_both_engines(values_and_grads, OPS[name], regular(name, *shape))
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    assert reference[0].shape == shape


@each_op
def test_verify_layout_and_neighbours_do_not_matter(name):
    x = regular(name, 6, 5)
    for whole in on_both_engines(OPS[name], x):
        assert all(same_bits(OPS[name](x[i]), whole[i]) for i in range(6))
    for found in on_both_engines(OPS[name], x.t()):
        assert same_bits(found, OPS[name](x).t())


@each_op
def test_corroborate_torch(name):
    x = regular(name, 400)
    ours = values_and_grads(OPS[name], x)
    theirs = values_and_grads(lambda x: getattr(torch, name)(x.double()).float(), x)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=1e-6)


@each_op
def test_corroborate_torch_at_limits(name):
    x = torch.tensor([0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 3e38, -3e38, 1e-45, -1e-45])
    expected = getattr(torch, name)(x.double()).float()
    torch.testing.assert_close(OPS[name](x), expected, rtol=2e-7, atol=0.0, equal_nan=True)
    zero = expected == 0
    assert same_bits(OPS[name](x)[zero], expected[zero])


GRADIENTS = {
    "exp": lambda g, x: g * elementary.exp(x),
    "exp2": lambda g, x: g * (elementary.exp2(x) * elementary.LN2),
    "expm1": lambda g, x: g * elementary.exp(x),
    "log": lambda g, x: g / x,
    "log1p": lambda g, x: g / (1 + x),
    "log2": lambda g, x: g / (x * elementary.LN2),
    "sigmoid": lambda g, x: g * (elementary.sigmoid(x) * (1 - elementary.sigmoid(x))),
    "tanh": lambda g, x: g * (1 - elementary.tanh(x) * elementary.tanh(x)),
    "erf": lambda g, x: g * (elementary.exp(-(x * x)) * elementary.TWO_OVER_SQRT_PI),
    "sin": lambda g, x: g * trigonometric.cos(x),
    "cos": lambda g, x: -(g * trigonometric.sin(x)),
    "tan": lambda g, x: g * (1 + trigonometric.tan(x) * trigonometric.tan(x)),
    "atan": lambda g, x: g / (1 + x * x),
    "sqrt": lambda g, x: g / (2 * power.sqrt(x)),
    "rsqrt": lambda g, x: g * (((power.rsqrt(x) * power.rsqrt(x)) * power.rsqrt(x)) * -0.5),
}


@each_op
def test_validate_gradient_in_written_order(name):
    x, g = regular(name, 300), random(300, seed=1)
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(OPS[name](leaf), leaf, g)
    assert same_bits(found, GRADIENTS[name](g, x))


def test_validate_sqrt_is_correctly_rounded():
    x = torch.cat([random(20_000).abs(), hard_vectors(1000)["subnormal"].abs()])
    y = power.sqrt(x).double()
    below = torch.nextafter(y.float(), torch.zeros(())).double()
    above = torch.nextafter(y.float(), torch.tensor(INF)).double()
    # midpoints have 25 bits, so their squares are exact in binary64
    assert bool((((y + below) / 2).square() <= x).all()) and bool((((y + above) / 2).square() >= x).all())


@pytest.mark.parametrize("name", ["exp", "sin", "erf", "log", "tanh"])
def test_verify_the_functions_of_torch_would_be_caught(name):
    x = regular(name, 20_000)
    assert not same_bits(OPS[name](x), getattr(torch, name)(x))


@each_op
def test_bad_input_is_refused(name):
    with pytest.raises(InputError, match=rf"{name}: input must be torch\.float32"):
        OPS[name](torch.zeros(3, dtype=torch.float64))


@each_op
def test_double_backward_names_the_op(name):
    x = regular(name, 3).requires_grad_()
    (grad,) = torch.autograd.grad(OPS[name](x).square().sum(), x, create_graph=True)
    with pytest.raises(InputError, match=f"{name} has no second derivative"):
        grad.sum().backward()


def test_verify_every_formula_is_named_after_its_op():
    assert {*NAMES, "pow"} <= set(FORMULAS)


@pytest.mark.parametrize("shapes", [((7,), (7,)), ((3, 1, 5), (4, 1)), ((), (3, 2)), ((0, 2), (1, 2)), ((1,), (33,))])
def test_verify_pow_engines_agree(shapes):
    x, y = regular("sqrt", *shapes[0]), random(*shapes[1], seed=4)
    reference, kernels = on_both_engines(values_and_grads, pow, x, y)
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    assert [t.shape for t in reference[1:]] == [x.shape, y.shape]


def test_verify_pow_engines_agree_on_hard_inputs():
    x = torch.cat(list(VECTORS.values()))
    y = torch.cat([v.flip(0) for v in VECTORS.values()][::-1])
    reference, kernels = on_both_engines(values_and_grads, pow, x, y)
    assert same_bits(reference[0], kernels[0])
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))


def test_verify_pow_broadcast_gradients_are_exact_sums():
    x, y, g = regular("sqrt", 3, 1), random(500, seed=5), random(3, 500, seed=6)
    whole = [x.expand(3, 500).clone(), y.expand(3, 500).clone()]
    leaves = [t.requires_grad_() for t in (x, y, *whole)]
    broadcast = torch.autograd.grad(pow(*leaves[:2]), leaves[:2], g)
    terms = torch.autograd.grad(pow(*leaves[2:]), leaves[2:], g)
    assert same_bits(broadcast[0], exact_sum(terms[0], (1,), keepdim=True))
    assert same_bits(broadcast[1], exact_sum(terms[1], (0,)))
    in_order = reduce(torch.add, terms[0].unbind(1))[:, None]
    assert not same_bits(broadcast[0], in_order)


@pytest.mark.parametrize("number", [2, 0.5, -1.0, 1 / 3, 0, 3.0])
@pytest.mark.parametrize("numbered", ["base", "exponent"])
def test_corroborate_pow_with_a_number(number, numbered):
    def fn(x, pow, wide=False):
        x = x.double() if wide else x
        return (pow(x, number) if numbered == "exponent" else pow(number, x)).float()

    x = regular("sqrt", 200) if numbered == "exponent" or number >= 0 else torch.randint(-9, 9, (20,)).float()
    ours = values_and_grads(lambda x: fn(x, pow), x)
    theirs = values_and_grads(lambda x: fn(x, torch.pow, wide=True), x)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_corroborate_pow_gradients_at_limits():
    x = torch.tensor([0.0, 0.0, 0.0, -2.0, 2.0, -3.0, 0.0])
    y = torch.tensor([0.0, 2.0, 1.0, 0.0, 0.0, 2.0, 0.5])
    ours = values_and_grads(pow, x, y)
    theirs = values_and_grads(lambda x, y: torch.pow(x.double(), y.double()).float(), x, y)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0.0, equal_nan=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2.0, 3.0), "input or exponent must be a tensor"),
        ((torch.zeros(3), torch.zeros(2)), "do not broadcast"),
        ((torch.zeros(3, dtype=torch.int64), 2), r"input must be torch\.float32"),
        ((2, torch.zeros(3, dtype=torch.float64)), r"exponent must be torch\.float32"),
    ],
)
def test_pow_refuses_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=f"pow: .*{message}"):
        pow(*arguments)
