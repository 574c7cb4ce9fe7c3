"""linear_act and conv*_act: the bits of their parts, on both engines."""

import math

import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads
from tiles import Plan, launched_by

from dettriton import ops
from dettriton.engine import use_engine
from dettriton.errors import InputError
from dettriton.ops._epilogue import ACTIVATIONS, grad_before

APART = {
    "relu": ops.relu,
    "relu6": ops.relu6,
    "gelu": ops.gelu,
    "gelu_tanh": lambda x: ops.gelu(x, "tanh"),
    "silu": ops.silu,
    "hardswish": ops.hardswish,
}
each_activation = pytest.mark.parametrize("activation", APART)

# op, its parts, input, weight, arguments
OPS = {
    "linear": (ops.linear_act, ops.linear, (3, 5, 33), (7, 33), {}),
    "conv1d": (ops.conv1d_act, ops.conv1d, (3, 4, 19), (6, 2, 5), {"stride": 2, "padding": 2, "groups": 2}),
    "conv2d": (ops.conv2d_act, ops.conv2d, (2, 3, 7, 6), (5, 3, 3, 3), {"padding": 1}),
    "conv3d": (ops.conv3d_act, ops.conv3d, (2, 2, 3, 4, 3), (3, 2, 2, 3, 2), {"padding": 1}),
    "unbatched": (ops.conv2d_act, ops.conv2d, (3, 7, 6), (5, 3, 3, 3), {"dilation": 2}),
    "depthwise": (ops.conv2d_act, ops.conv2d, (2, 4, 6, 6), (4, 1, 3, 3), {"groups": 4}),
    "one feature": (ops.linear_act, ops.linear, (33,), (1, 33), {}),
    "empty batch": (ops.conv1d_act, ops.conv1d, (0, 2, 9), (3, 2, 3), {}),
    "no rows": (ops.linear_act, ops.linear, (0, 4), (3, 4), {}),
}


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fused_and_parts(name: str, activation: str, precision: str = "high"):
    fused, parts, x, w, arguments = OPS[name]
    how = {**arguments, "precision": precision}
    inputs = randn(*x, seed=1), randn(*w, seed=2), randn(w[0], seed=3)

    def together(x, weight, bias=None):
        return fused(x, weight, bias, activation=activation, **how)

    def apart(x, weight, bias=None):
        return APART[activation](parts(x, weight, bias, **how))

    return together, apart, inputs


def agree(first, second, any_nan=False):
    return all(same_bits(a, b, any_nan=any_nan) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        *(pytest.param(n, "relu", marks=pytest.mark.heavy if n in ("conv3d", "depthwise") else []) for n in OPS),
        *(pytest.param(n, "gelu", marks=[] if n in ("linear", "conv1d") else pytest.mark.heavy) for n in OPS),
        *(("linear", a) for a in APART),
    ],
)
def test_verify_the_bits_of_its_parts(name, activation):
    together, apart, inputs = fused_and_parts(name, activation)
    for given in (inputs, inputs[:2]):
        expected = values_and_grads(apart, *given)
        for found in on_both_engines(values_and_grads, together, *given):
            assert agree(found, expected)


@pytest.mark.parametrize("name", ["linear", "conv2d"])
def test_verify_the_bits_of_its_parts_in_medium_precision(name):
    together, apart, inputs = fused_and_parts(name, "gelu", "medium")
    expected = values_and_grads(apart, *inputs)
    for found in on_both_engines(values_and_grads, together, *inputs):
        assert agree(found, expected)
    assert not same_bits(expected[0], fused_and_parts(name, "gelu")[0](*inputs))


def hard_cases():
    """Of a convolution, which an interpreter computes slowly, some always."""
    for kind in [*hard_vectors(), *non_finite_vectors()]:
        yield pytest.param("linear", "gelu", kind)
        marks = [] if kind in ("subnormal", "cancellation", "nan") else pytest.mark.heavy
        yield pytest.param("conv1d", "relu", kind, marks=marks)


@pytest.mark.parametrize(("name", "activation", "kind"), list(hard_cases()))
@pytest.mark.parametrize("hard", [(0,), (1, 2)], ids=["input", "weight and bias"])
def test_verify_the_bits_of_its_parts_on_hard_inputs(hard, name, activation, kind):
    together, apart, inputs = fused_and_parts(name, activation)
    given = list(inputs)
    for place in hard:
        n = given[place].numel()
        given[place] = {**hard_vectors(n), **non_finite_vectors(n)}[kind].view(given[place].shape)
    expected = values_and_grads(apart, *given)
    for found in on_both_engines(values_and_grads, together, *given):
        assert agree(found, expected, any_nan=True)


@pytest.mark.parametrize(
    "name, activation",
    [
        ("conv1d", "relu"),
        *(
            pytest.param(*case, marks=pytest.mark.heavy)
            for case in [("conv1d", "gelu"), ("linear", "relu"), ("linear", "gelu")]
        ),
    ],
)
def test_verify_more_terms_than_a_program_takes(name, activation):
    together, apart, _ = fused_and_parts(name, activation)
    tiles = {"BLOCK": 64, "TILES": 3}
    small = Plan("small", constants={"_epilogue": tiles})
    rows = math.prod(tiles.values()) + 7
    given = (randn(rows, 33) if name == "linear" else randn(2, 4, rows), *fused_and_parts(name, activation)[2][1:])
    expected = values_and_grads(apart, *given)
    with launched_by(small), use_engine("triton"):
        assert agree(values_and_grads(together, *given), expected)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("wanted", range(3), ids=["input", "weight", "bias"])
@pytest.mark.parametrize("name", ["linear", "conv2d"])
def test_verify_single_gradients(name, wanted, activation):
    together, _, inputs = fused_and_parts(name, activation)

    def gradients(chosen):
        leaves = [t.clone().requires_grad_(i in chosen) for i, t in enumerate(inputs)]
        y = together(*leaves)
        y.backward(randn(*y.shape, seed=4))
        return [leaf.grad for leaf in leaves]

    expected = gradients(range(3))
    for alone in on_both_engines(gradients, [wanted]):
        assert same_bits(alone[wanted], expected[wanted]) and alone.count(None) == 2


@pytest.mark.parametrize("engines", [("torch", "triton"), ("triton", "torch")], ids=str)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("name", ["linear", "conv2d"])
def test_verify_backward_on_the_other_engine(name, activation, engines):
    together, apart, inputs = fused_and_parts(name, activation)
    leaves = [t.clone().requires_grad_() for t in inputs]
    with use_engine(engines[0]):
        y = together(*leaves)
    upstream = randn(*y.shape, seed=4).transpose(0, -1).contiguous().transpose(0, -1)
    with use_engine(engines[1]):
        found = torch.autograd.grad(y, leaves, upstream)
    assert agree(found, torch.autograd.grad(apart(*leaves), leaves, upstream))


@pytest.mark.parametrize(("activation", "kept"), [("relu", 0), ("gelu", 1)])
@pytest.mark.parametrize("engine", ["torch", "triton"])
@pytest.mark.parametrize("name", ["linear", "conv2d"])
def test_verify_what_backward_keeps(name, engine, activation, kept):
    """relu keeps its result and nothing else of its size; without gradients nothing is kept."""
    together, _, inputs = fused_and_parts(name, activation)
    saved = []
    with use_engine(engine), torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = together(*(t.requires_grad_() for t in inputs))
        own = {y.data_ptr(), *(t.data_ptr() for t in inputs)}
        assert len([t for t in saved if t.numel() == y.numel() and t.data_ptr() not in own]) == kept
        saved.clear()
        with torch.no_grad():
            assert same_bits(together(*inputs), y) and not saved


@each_activation
def test_verify_inputs_stay_as_they_were(activation):
    together, _, inputs = fused_and_parts("conv2d", activation)
    kept = [t.clone() for t in inputs]
    on_both_engines(values_and_grads, together, *inputs)
    assert agree(inputs, kept)


@pytest.mark.parametrize("name", ["linear", "conv1d", "conv2d", "conv3d"])
@each_activation
def test_corroborate_torch_in_binary64(name, activation):
    together, _, inputs = fused_and_parts(name, activation)
    functional, arguments = torch.nn.functional, OPS[name][4]
    act = {
        "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
        **{a: getattr(functional, a) for a in APART if a != "gelu_tanh"},
    }[activation]
    stock = getattr(functional, name)
    wide = values_and_grads(lambda *t: act(stock(*t, **arguments)), *(t.double() for t in inputs))
    for ours, theirs in zip(values_and_grads(together, *inputs), wide, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


def test_verify_the_largest_magnitudes_are_the_grids():
    grad, kept = randn(4, 3, 50), randn(4, 3, 50, seed=1)
    with use_engine("triton"):
        before = grad_before(grad, kept, ACTIVATIONS["gelu"], 3, 50, True)
    assert before.top.view(torch.float32).tolist() == before.grad.abs().amax((0, 2)).tolist()


def test_a_bias_added_after_the_activation_would_be_seen():
    together, apart, (x, weight, bias) = fused_and_parts("linear", "gelu")
    assert same_bits(together(x, weight, bias), apart(x, weight, bias))
    assert not same_bits(together(x, weight, bias), apart(x, weight) + bias)


def test_bad_input_is_refused():
    _, _, (x, weight, bias) = fused_and_parts("linear", "relu")
    with pytest.raises(InputError, match=r"linear_act: activation must be one of relu, .*, got 'swish'"):
        ops.linear_act(x, weight, bias, "swish")
    with pytest.raises(InputError, match=r"linear_act: bias must have shape \(7,\), got \(33,\)"):
        ops.linear_act(x, weight, x[0, 0])
    with pytest.raises(InputError, match=r"linear_act: input must be torch\.float32"):
        ops.linear_act(x.double(), weight, bias)
    for op, shape in (("conv1d_act", (1, 2, 9)), ("conv2d_act", (1, 2, 9, 9)), ("conv3d_act", (1, 2, 9, 9, 9))):
        call, w = getattr(ops, op), torch.zeros(3, 2, *[3] * (len(shape) - 2))
        with pytest.raises(InputError, match=f"{op}: activation must be one of"):
            call(torch.zeros(shape), w, activation="tanh")
        with pytest.raises(InputError, match=f"{op}: bias"):
            call(torch.zeros(shape), w, torch.zeros(2))


@pytest.mark.parametrize(("name", "op"), [("linear", "linear_act"), ("conv2d", "conv2d_act")])
def test_double_backward_names_the_op(name, op):
    together, _, inputs = fused_and_parts(name, "silu")
    x = inputs[0].requires_grad_()
    (grad,) = torch.autograd.grad(together(x, *inputs[1:]).square().sum(), x, create_graph=True)
    with pytest.raises(InputError, match=f"{op} has no second derivative"):
        grad.sum().backward()
