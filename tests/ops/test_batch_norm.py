import pytest
import torch
from binary32 import Binary32, exact_sum, holds, numbers
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.engine import use_engine
from dettriton.errors import InputError
from dettriton.ops.batch_norm import BLOCK, batch_norm

SAMPLES, CHANNELS, POSITIONS = 4, 2, 6
HARD = hard_vectors(SAMPLES * CHANNELS * POSITIONS)
VECTORS = {**HARD, **non_finite_vectors(SAMPLES * CHANNELS * POSITIONS)}
WITHOUT_OVERFLOW = [name for name in HARD if name not in ("huge", "spread")]
MODES = pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def per_channel(channels: int, seed: int = 0) -> list[torch.Tensor]:
    """Running mean, running variance, weight and bias."""
    mean, var, weight, bias = randn(4, channels, seed=seed + 100)
    return [mean, var.abs() + 0.5, weight, bias]


def batch_norm_results(x, weight, bias, training, running=True):
    """Output, gradients of what is given, and the running statistics after the call."""
    mean, var = per_channel(x.shape[1])[:2] if running else (None, None)
    affine = [t for t in (weight, bias) if t is not None]

    def op(x, *given):
        given = list(given)
        w = given.pop(0) if weight is not None else None
        b = given.pop(0) if bias is not None else None
        return batch_norm(x, mean, var, w, b, training, 0.3, 1e-3)

    return values_and_grads(op, x, *affine) + ([mean, var] if running else [])


def agree(first, second, any_nan=True):
    return all(same_bits(a, b, any_nan=any_nan) for a, b in zip(first, second, strict=True))


def oracle_of_a_channel(x, g, mean, var, weight, bias, training, momentum, eps):
    """y, grad_x, grad_weight, grad_bias, running mean and variance of one channel, by the definition."""
    n, unbiased = Binary32(len(x)), Binary32(len(x) - 1)
    m, v, track = mean, var, (mean, var)
    if training:
        m = exact_sum(x) / n
        squares = exact_sum([(a - m) * (a - m) for a in x])
        v = squares / n
        keep, new = Binary32(1 - momentum), Binary32(momentum)
        track = (mean * keep + m * new, var * keep + (squares / unbiased) * new)
    r = Binary32(1) / (v + Binary32(eps)).sqrt()
    h = [(a - m) * r for a in x]
    y = [a * weight + bias for a in h]
    grad_bias, grad_weight = exact_sum(g), exact_sum([a * b for a, b in zip(g, h, strict=True)])
    k = weight * r
    grad_x = [a * k for a in g]
    if training:
        gm, pm = grad_bias / n, grad_weight / n
        grad_x = [((a - gm) - b * pm) * k for a, b in zip(g, h, strict=True)]
    return y, grad_x, grad_weight, grad_bias, *track


@MODES
@pytest.mark.parametrize("name", WITHOUT_OVERFLOW)
def test_validate_against_fractions(name, training):
    x = HARD[name].view(SAMPLES, CHANNELS, POSITIONS)
    mean, var, weight, bias = per_channel(CHANNELS)
    results = batch_norm_results(x, weight, bias, training)
    upstream = randn(*x.shape, seed=0)
    y, grad_x, grad_weight, grad_bias, running_mean, running_var = results
    for c in range(CHANNELS):
        xs, gs = numbers(x[:, c]), numbers(upstream[:, c])
        given = [Binary32(t[c].item()) for t in (mean, var, weight, bias)]
        expected = oracle_of_a_channel(xs, gs, *given, training, 0.3, 1e-3)
        found = y[:, c], grad_x[:, c], grad_weight[c], grad_bias[c], running_mean[c], running_var[c]
        for e, f in zip(expected, found, strict=True):
            assert holds(f, e if isinstance(e, list) else [e])


@MODES
@pytest.mark.parametrize("name", VECTORS)
def test_verify_engines_agree(name, training):
    x = VECTORS[name].view(SAMPLES, CHANNELS, POSITIONS)
    weight, bias = per_channel(CHANNELS)[2:]
    reference, kernels = on_both_engines(batch_norm_results, x, weight, bias, training)
    assert agree(reference, kernels)


@MODES
@pytest.mark.parametrize("affine", [(True, True), (True, False), (False, True), (False, False)], ids=str)
def test_verify_engines_agree_with_any_affine(affine, training):
    x = randn(3, 2, 5)
    weight, bias = (t if used else None for t, used in zip(per_channel(2)[2:], affine, strict=True))
    reference, kernels = on_both_engines(batch_norm_results, x, weight, bias, training)
    assert agree(reference, kernels, any_nan=False)
    neutral = batch_norm_results(
        x, torch.ones(2) if weight is None else weight, torch.zeros(2) if bias is None else bias, training
    )
    assert same_bits(reference[0], neutral[0]) and same_bits(reference[1], neutral[1])


@MODES
@pytest.mark.parametrize(
    "shape", [(2, 1), (5, 7), (2, 3, 1), (1, 2, 2), (3, 5, 2, 4), (2, 2, 3, 2, 2), (2, 3, BLOCK - 1), (1, 2, BLOCK + 1)]
)
def test_verify_engines_agree_on_shapes(shape, training):
    x = randn(*shape)
    weight, bias = per_channel(shape[1])[2:]
    reference, kernels = on_both_engines(batch_norm_results, x, weight, bias, training)
    assert agree(reference, kernels, any_nan=False)
    assert reference[0].shape == x.shape


@MODES
def test_verify_memory_layout_does_not_matter(training):
    x = randn(3, 4, 5, 6)
    weight, bias = per_channel(4)[2:]
    wide = torch.zeros(3, 4, 5, 12)
    wide[..., ::2] = x
    layouts = [x, x.contiguous(memory_format=torch.channels_last), wide[..., ::2]]
    results = [r for t in layouts for r in on_both_engines(batch_norm_results, t, weight, bias, training)]
    assert all(agree(r, results[0], any_nan=False) for r in results)


def test_verify_order_of_samples_does_not_matter():
    x, order = randn(16, 3, 4), torch.randperm(16, generator=torch.Generator().manual_seed(1))
    running = [t.clone() for t in per_channel(3)[:2]]
    shuffled = [t.clone() for t in running]
    y = batch_norm(x, *running, training=True)
    assert same_bits(batch_norm(x[order], *shuffled, training=True), y[order]) and agree(running, shuffled)


def test_verify_a_sample_does_not_depend_on_its_batch_at_inference():
    x, given = randn(9, 3, 4, 4), per_channel(3)
    whole = batch_norm(x, *given)
    assert all(same_bits(batch_norm(x[i : i + 1], *given), whole[i : i + 1]) for i in range(9))
    assert not same_bits(batch_norm(x[:1], *given, training=True), batch_norm(x, *given, training=True)[:1])


@pytest.mark.parametrize("engines", [("torch", "triton"), ("triton", "torch")], ids=str)
@MODES
def test_verify_backward_on_the_other_engine(engines, training):
    x, (mean, var, weight, bias) = randn(4, 3, 5), per_channel(3)
    gradients = []
    for backward in engines:
        leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
        with use_engine(engines[0]):
            y = batch_norm(leaves[0], mean.clone(), var.clone(), *leaves[1:], training)
        with use_engine(backward):
            gradients.append(torch.autograd.grad(y, leaves, randn(4, 3, 5, seed=2)))
    assert agree(*gradients, any_nan=False)


@pytest.mark.parametrize("engine", ["torch", "triton"])
@MODES
def test_verify_without_gradients_nothing_else_changes(engine, training):
    x, given = randn(4, 3, 5), per_channel(3)
    original, weight = x.clone(), given[2].clone().requires_grad_()
    with use_engine(engine):
        y = batch_norm(x, *given[:2], weight, given[3], training, 0.0)
        with torch.no_grad():
            assert same_bits(batch_norm(x, *given[:2], weight, given[3], training, 0.0), y.detach())
    assert same_bits(x, original)


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)], ids=str)
@MODES
def test_verify_single_gradients(wanted, training):
    given = per_channel(3)

    def gradients(requires):
        leaves = [t.clone().requires_grad_(r) for t, r in zip((randn(4, 3, 5), *given[2:]), requires, strict=True)]
        batch_norm(leaves[0], given[0].clone(), given[1].clone(), *leaves[1:], training).backward(
            randn(4, 3, 5, seed=3)
        )
        return [t.grad for t, w in zip(leaves, wanted, strict=True) if w]

    for alone, together in zip(
        on_both_engines(gradients, wanted), on_both_engines(gradients, (True,) * 3), strict=True
    ):
        assert agree(alone, together, any_nan=False)


@MODES
@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 9), (4, 3, 5, 6)])
def test_corroborate_torch_in_binary64(shape, training):
    x, given = randn(*shape) * 2 + 1, per_channel(3)
    ours = batch_norm_results(x, *given[2:], training)
    stock_running = [t.double() for t in given[:2]]
    stock = values_and_grads(
        lambda x, w, b: torch.nn.functional.batch_norm(x, *stock_running, w, b, training, 0.3, 1e-3),
        *(t.double() for t in (x, *given[2:])),
    )
    for a, b in zip(ours, [*stock, *stock_running], strict=True):
        torch.testing.assert_close(a.double(), b, rtol=2e-5, atol=2e-6)


def test_a_fused_multiply_add_would_be_seen():
    x, (mean, var, weight, bias) = randn(64, 8, 4), per_channel(8)
    y = batch_norm(x, mean, var, weight, bias)
    h = batch_norm(x, mean, var)
    fused = (h.double() * weight.double().view(1, 8, 1) + bias.double().view(1, 8, 1)).float()
    assert not same_bits(y, fused)
    torch.testing.assert_close(y, fused)


def test_bad_input_is_refused():
    x, (mean, var, weight, _) = randn(4, 3), per_channel(3)
    for message, call in {
        "float32": lambda: batch_norm(x.double(), mean, var),
        r"\(N, C, \.\.\.\)": lambda: batch_norm(x[0], mean, var),
        r"weight must have shape \(3,\)": lambda: batch_norm(x, mean, var, weight[:2]),
        "both running_mean": lambda: batch_norm(x, mean, None),
        "inference needs": lambda: batch_norm(x, None, None),
        "more than one value": lambda: batch_norm(x[:1], mean, var, training=True),
    }.items():
        with pytest.raises(InputError, match=message):
            call()


@MODES
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 2)], ids=str)
def test_the_result_can_be_changed_in_place(shape, training):
    mean, var, weight, bias = per_channel(3)
    x = randn(*shape).requires_grad_()
    for y in on_both_engines(lambda: batch_norm(x, mean.clone(), var.clone(), weight, bias, training).relu_()):
        y.sum().backward()
        assert (y.detach() >= 0).all()
