import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.engine import use_engine
from dettriton.errors import InputError
from dettriton.ops.batch_norm import batch_norm
from dettriton.ops.batch_norm_relu import batch_norm_relu
from dettriton.ops.relu import relu

VECTORS = {**hard_vectors(12), **non_finite_vectors(12)}
HARD = torch.stack([v.view(4, 3) for v in VECTORS.values()], 1)
"""One hard vector in each channel."""

MODES = pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
RESIDUAL = pytest.mark.parametrize("residual", [True, False], ids=["residual", "plain"])


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def parts(x, mean, var, weight, bias, training, residual):
    y = batch_norm(x, mean, var, weight, bias, training, 0.3, 1e-3)
    return relu(y if residual is None else y + residual)


def fused(x, mean, var, weight, bias, training, residual):
    return batch_norm_relu(x, mean, var, weight, bias, training, 0.3, 1e-3, residual)


def results(op, x, residual, training, affine=(True, True)):
    """Output, gradients of what is given, and the running statistics after the call."""
    mean, var, *given = randn(4, x.shape[1], seed=1)
    var = var.abs() + 0.5
    leaves = [x, *(t for t, used in zip(given, affine, strict=True) if used)]
    if residual is not None:
        leaves.append(residual)

    def call(x, *rest):
        rest = list(rest)
        weight, bias = (rest.pop(0) if used else None for used in affine)
        return op(x, mean, var, weight, bias, training, rest.pop(0) if rest else None)

    return [*values_and_grads(call, *leaves), mean, var]


def agree(first, second, any_nan=False):
    return all(same_bits(a, b, any_nan=any_nan) for a, b in zip(first, second, strict=True))


@MODES
@RESIDUAL
def test_verify_the_bits_of_its_parts_on_hard_channels(residual, training):
    noise = randn(*HARD.shape)
    for x, added in ((HARD, noise), (noise, HARD)) if residual else ((HARD, None),):
        expected = results(parts, x, added, training)
        for found in on_both_engines(results, fused, x, added, training):
            assert agree(found, expected, any_nan=True)


@MODES
@RESIDUAL
@pytest.mark.parametrize("affine", [(True, False), (False, False)], ids=str)
def test_verify_the_bits_of_its_parts_with_any_affine(affine, residual, training):
    x, added = randn(3, 2, 5), randn(3, 2, 5, seed=2) if residual else None
    expected = results(parts, x, added, training, affine)
    for found in on_both_engines(results, fused, x, added, training, affine):
        assert agree(found, expected)


@MODES
@pytest.mark.parametrize("shape", [(2, 1), (1, 2, 1025)])
def test_verify_the_bits_of_its_parts_on_shapes(shape, training):
    x, added = randn(*shape), randn(*shape, seed=2)
    expected = results(parts, x, added, training)
    for found in on_both_engines(results, fused, x, added, training):
        assert agree(found, expected)


@MODES
def test_verify_memory_layout_does_not_matter(training):
    x, added = randn(2, 3, 4, 5), randn(2, 3, 4, 5, seed=2)
    plain = results(fused, x, added, training)
    last = {"memory_format": torch.channels_last}
    for given in ((x.contiguous(**last), added), (x, added.contiguous(**last))):
        assert all(agree(found, plain) for found in on_both_engines(results, fused, *given, training))


@MODES
@pytest.mark.parametrize("wanted", range(4), ids=["x", "weight", "bias", "residual"])
def test_verify_single_gradients(wanted, training):
    mean, var, *given = randn(4, 3, seed=1)
    inputs = [randn(4, 3, 5), *given, randn(4, 3, 5, seed=2)]

    def gradients(chosen):
        x, weight, bias, residual = leaves = [t.clone().requires_grad_(i in chosen) for i, t in enumerate(inputs)]
        y = batch_norm_relu(x, mean.clone(), var.abs(), weight, bias, training, residual=residual)
        y.backward(randn(4, 3, 5, seed=3))
        return [leaf.grad for leaf in leaves]

    together = gradients(range(4))
    for alone in on_both_engines(gradients, [wanted]):
        assert same_bits(alone[wanted], together[wanted]) and alone.count(None) == 3


@MODES
@pytest.mark.parametrize("engines", [("torch", "triton"), ("triton", "torch")], ids=str)
def test_verify_backward_on_the_other_engine(engines, training):
    mean, var, *given = randn(4, 3, seed=1)
    inputs = [randn(4, 3, 5), *given, randn(4, 3, 5, seed=2)]
    inputs[0] = inputs[0].transpose(1, 2).contiguous().transpose(1, 2)
    found = []
    for backward in engines:
        x, weight, bias, residual = leaves = [t.clone().requires_grad_() for t in inputs]
        with use_engine(engines[0]):
            y = batch_norm_relu(x, mean.clone(), var.abs(), weight, bias, training, residual=residual)
        with use_engine(backward):
            found.append(torch.autograd.grad(y, leaves, randn(4, 3, 5, seed=3)))
    assert agree(*found)


@MODES
def test_verify_the_input_may_be_its_own_residual(training):
    mean, var = randn(3, seed=1), randn(3, seed=2).abs()
    gradients = []
    for op in (parts, fused):
        x = randn(4, 3, 5).requires_grad_()
        y = op(x, mean.clone(), var.clone(), None, None, training, x)
        gradients.append(torch.autograd.grad(y, x, randn(4, 3, 5, seed=3))[0])
    assert same_bits(*gradients)


@pytest.mark.parametrize("engine", ["torch", "triton"])
@MODES
def test_verify_inputs_stay_as_they_were(engine, training):
    x, added, (mean, var) = randn(4, 3, 5), randn(4, 3, 5, seed=2), randn(2, 3, seed=1)
    kept = x.clone(), added.clone()
    with use_engine(engine):
        y = batch_norm_relu(x, mean, var.abs(), None, None, training, 0.0, residual=added)
    assert agree((x, added), kept) and y.data_ptr() not in (x.data_ptr(), added.data_ptr())


@MODES
def test_corroborate_torch_in_binary64(training):
    x, added = randn(4, 3, 9) * 2 + 1, randn(4, 3, 9, seed=2)
    mean, var, weight, bias = randn(4, 3, seed=1)
    running = mean.double(), var.abs().double() + 0.5
    stock = values_and_grads(
        lambda x, w, b, r: (torch.nn.functional.batch_norm(x, *running, w, b, training, 0.3, 1e-3) + r).relu(),
        *(t.double() for t in (x, weight, bias, added)),
    )
    ours = results(fused, x, added, training)
    for a, b in zip(ours, [*stock, *running], strict=True):
        torch.testing.assert_close(a.double(), b, rtol=2e-5, atol=2e-6)


def test_a_residual_added_before_the_bias_would_be_seen():
    x, added = randn(16, 3, 9), randn(16, 3, 9, seed=2)
    mean, var, weight, bias = randn(4, 3, seed=1)
    var = var.abs() + 0.5
    y = batch_norm_relu(x, mean, var, weight, bias, residual=added)
    other = relu((batch_norm(x, mean, var, weight) + added) + bias.view(3, 1))
    assert not same_bits(y, other)
    torch.testing.assert_close(y, other)


def test_bad_input_is_refused():
    x, (mean, var) = randn(4, 3), randn(2, 3, seed=1)
    for message, call in {
        r"input must be torch\.float32": lambda: batch_norm_relu(x.double(), mean, var),
        "inference needs": lambda: batch_norm_relu(x, None, None),
        r"residual must be torch\.float32": lambda: batch_norm_relu(x, mean, var, residual=x.double()),
        r"residual must have the input's shape \(4, 3\), got \(3,\)": lambda: batch_norm_relu(
            x, mean, var, residual=mean
        ),
    }.items():
        with pytest.raises(InputError, match=f"batch_norm_relu: {message}"):
            call()


def test_double_backward_names_the_op():
    x, (mean, var) = randn(4, 3).requires_grad_(), randn(2, 3, seed=1)
    (grad,) = torch.autograd.grad(batch_norm_relu(x, mean, var.abs()).square().sum(), x, create_graph=True)
    with pytest.raises(InputError, match="batch_norm_relu has no second derivative"):
        grad.sum().backward()
