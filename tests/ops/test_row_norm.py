"""What layer_norm, group_norm, instance_norm and rms_norm share; each has a file of its own for the rest."""

from collections.abc import Callable
from dataclasses import dataclass

import mpmath
import pytest
import torch
from binary32 import Binary32, exact_sum, holds, numbers
from bits import NAN, hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.engine import use_engine
from dettriton.errors import InputError
from dettriton.ops import _device_rows
from dettriton.ops.group_norm import group_norm, instance_norm
from dettriton.ops.layer_norm import layer_norm
from dettriton.ops.rms_norm import rms_norm

EPS = 1e-3
F = torch.nn.functional


@dataclass(frozen=True)
class Norm:
    """An op of (x, weight, bias), torch's twin, and its (N, G, D, P) view of 48 elements."""

    ours: Callable
    stock: Callable
    shape: tuple[int, ...]
    view: tuple[int, int, int, int]
    centre: bool = True

    @property
    def parameter(self) -> int:
        return self.view[1] * self.view[2]

    def given(self, seed: int = 0) -> list[torch.Tensor]:
        """Weight and, where there is one, bias."""
        count = 2 if self.centre else 1
        return [*randn(count, self.parameter, seed=seed + 7)]


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def given_as(given, shape):
    return [t.view(shape) for t in given] + [None] * (2 - len(given))


NORMS = {
    "layer_norm": Norm(
        lambda x, *given: layer_norm(x, x.shape[1:], *given_as(given, x.shape[1:]), EPS),
        lambda x, w, b: F.layer_norm(x, x.shape[1:], w.view(x.shape[1:]), b.view(x.shape[1:]), EPS),
        (4, 3, 4),
        (4, 1, 12, 1),
    ),
    "rms_norm": Norm(
        lambda x, w=None: rms_norm(x, x.shape[1], w, EPS),
        lambda x, w: F.rms_norm(x, (x.shape[1],), w, EPS),
        (4, 12),
        (4, 1, 12, 1),
        centre=False,
    ),
    "group_norm": Norm(
        lambda x, w=None, b=None: group_norm(x, 2, w, b, EPS),
        lambda x, w, b: F.group_norm(x, 2, w, b, EPS),
        (2, 4, 3, 2),
        (2, 2, 2, 6),
    ),
    "instance_norm": Norm(
        lambda x, w=None, b=None: instance_norm(x, None, None, w, b, eps=EPS),
        lambda x, w, b: F.instance_norm(x, None, None, w, b, eps=EPS),
        (2, 3, 8),
        (2, 3, 1, 8),
    ),
}  # fmt: skip
COUNT = 48
HARD = hard_vectors(COUNT)
VECTORS = {**HARD, **non_finite_vectors(COUNT)}
WITHOUT_OVERFLOW = [name for name in HARD if name not in ("huge", "spread")]
each_norm = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)


def agree(first, second, any_nan=False):
    return all(same_bits(a, b, any_nan=any_nan) for a, b in zip(first, second, strict=True))


def oracle(norm: Norm, x: torch.Tensor, given: list[torch.Tensor], g: torch.Tensor) -> list[list[Binary32]]:
    """y and the gradients to x, weight and bias, by the definition."""
    count, groups, depth, positions = norm.view
    weight, bias = numbers(given[0]), numbers(given[1]) if norm.centre else None
    y, grad_x, by_parameter = [], [], [[[], []] for _ in range(norm.parameter)]
    for row, (xs, gs) in enumerate(zip(x.view(count * groups, -1), g.view(count * groups, -1), strict=True)):
        xs, gs, n = numbers(xs), numbers(gs), Binary32(depth * positions)
        owners = [row % groups * depth + i // positions for i in range(len(xs))]
        m = exact_sum(xs) / n if norm.centre else Binary32(0)
        squares = exact_sum([(a - m) * (a - m) for a in xs])
        r = Binary32(1) / (squares / n + Binary32(EPS)).sqrt()
        h = [(a - m) * r for a in xs]
        t = [a * weight[c] for a, c in zip(gs, owners, strict=True)]
        for a, b, c in zip(gs, h, owners, strict=True):
            y.append(b * weight[c] + bias[c] if bias else b * weight[c])
            by_parameter[c][0].append(a * b)
            by_parameter[c][1].append(a)
        tm = exact_sum(t) / n if norm.centre else Binary32(0)
        pm = exact_sum([a * b for a, b in zip(t, h, strict=True)]) / n
        grad_x += [((a - tm) - b * pm) * r for a, b in zip(t, h, strict=True)]
    sums = [[exact_sum(terms[i]) for terms in by_parameter] for i in range(len(given))]
    return [y, grad_x, *sums]


@each_norm
@pytest.mark.parametrize("name", WITHOUT_OVERFLOW)
def test_validate_against_fractions(norm, name):
    x, given = HARD[name].view(norm.shape), norm.given()
    results = values_and_grads(norm.ours, x, *given)
    for found, expected in zip(results, oracle(norm, x, given, randn(*norm.shape)), strict=True):
        assert holds(found, expected)


@each_norm
@pytest.mark.parametrize("names", [WITHOUT_OVERFLOW, [*HARD], [*VECTORS]], ids=["finite", "overflowing", "non-finite"])
def test_verify_engines_agree_on_hard_inputs(norm, names):
    hard = torch.cat([VECTORS[name].view(norm.shape) for name in names])
    noise, given = randn(*hard.shape), norm.given()

    def gradients(x, upstream):
        leaves = [t.clone().requires_grad_() for t in (x, *given)]
        y = norm.ours(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, upstream)]

    for x, upstream in ((hard, noise), (noise, hard)):
        assert agree(*on_both_engines(gradients, x, upstream), any_nan=True)


@each_norm
def test_verify_engines_agree_without_parameters(norm):
    x = randn(*norm.shape)
    reference, kernels = on_both_engines(values_and_grads, norm.ours, x)
    ones, zeros = torch.ones(norm.parameter), torch.zeros(norm.parameter)
    neutral = values_and_grads(norm.ours, x, *((ones, zeros) if norm.centre else (ones,)))
    assert agree(reference, kernels) and agree(reference, neutral[:2])


@pytest.mark.parametrize("length", [1, 2, 31, 1025, 4097])
@pytest.mark.parametrize("op", [layer_norm, rms_norm])
def test_verify_engines_agree_on_any_length(op, length):
    weight = randn(length, seed=1)
    reference, kernels = on_both_engines(values_and_grads, lambda x: op(x, length, weight), randn(3, length))
    assert agree(reference, kernels)


@pytest.mark.parametrize("shape", [(1, 2, 1), (5, 4), (2, 4, 513), (1, 4, 2, 3, 2)])
@pytest.mark.parametrize("groups", [1, 2])
def test_verify_engines_agree_on_groups(shape, groups):
    given = randn(2, shape[1], seed=3)
    op = lambda x, w, b: group_norm(x, groups, w, b)  # noqa: E731 used once, below
    assert agree(*on_both_engines(values_and_grads, op, randn(*shape), *given))


@each_norm
def test_verify_tiles_do_not_matter(norm, monkeypatch):
    x, given = randn(*norm.shape), norm.given()
    whole = on_both_engines(values_and_grads, norm.ours, x, *given)[1]
    monkeypatch.setattr(_device_rows, "LONGEST_BLOCK", 4)
    monkeypatch.setattr(_device_rows, "TILE", 8)
    assert agree(whole, on_both_engines(values_and_grads, norm.ours, x, *given)[1])


@each_norm
def test_verify_memory_layout_does_not_matter(norm):
    x, given = randn(*norm.shape), norm.given()
    wide = torch.zeros(*norm.shape[:-1], 2 * norm.shape[-1])
    wide[..., ::2] = x
    apart = x.movedim(0, -1).contiguous().movedim(-1, 0)
    plain = values_and_grads(norm.ours, x, *given)
    for layout in (wide[..., ::2], apart):
        for results in on_both_engines(values_and_grads, norm.ours, layout, *given):
            assert agree(results, plain)


@each_norm
def test_verify_a_sample_does_not_depend_on_its_batch(norm):
    x, given = randn(*norm.shape), norm.given()
    x.view(-1)[5] = NAN

    def forward_and_grad(x):
        leaf = x.clone().requires_grad_()
        y = norm.ours(leaf, *given)
        return y.detach(), torch.autograd.grad(y, leaf, torch.cos(x.nan_to_num()))[0]

    for whole in on_both_engines(forward_and_grad, x):
        alone = [forward_and_grad(x[i : i + 1]) for i in range(len(x))]
        assert agree([torch.cat(parts) for parts in zip(*alone, strict=True)], whole, any_nan=True)


@each_norm
def test_verify_only_the_row_of_a_nan_is_nan(norm):
    x = randn(*norm.shape)
    x.view(-1)[5] = NAN
    for y in on_both_engines(norm.ours, x, *norm.given()):
        rows = y.view(norm.view[0] * norm.view[1], -1)
        assert rows[0].isnan().all() and not rows[1:].isnan().any()


@each_norm
@pytest.mark.parametrize("engines", [("torch", "triton"), ("triton", "torch")], ids=str)
def test_verify_backward_on_the_other_engine(norm, engines):
    gradients = []
    for backward in engines:
        leaves = [t.requires_grad_() for t in (randn(*norm.shape), *norm.given())]
        with use_engine(engines[0]):
            y = norm.ours(*leaves)
        with use_engine(backward):
            gradients.append(torch.autograd.grad(y, leaves, randn(*norm.shape, seed=2)))
    assert agree(*gradients)


@each_norm
def test_verify_single_gradients(norm):
    inputs = [randn(*norm.shape), *norm.given()]

    def gradients(chosen):
        leaves = [t.clone().requires_grad_(i in chosen) for i, t in enumerate(inputs)]
        norm.ours(*leaves).backward(randn(*norm.shape, seed=3))
        return [leaf.grad for leaf in leaves]

    together = gradients(range(len(inputs)))
    for i in range(len(inputs)):
        for alone in on_both_engines(gradients, [i]):
            assert same_bits(alone[i], together[i]) and [g is None for g in alone].count(True) == len(inputs) - 1


@each_norm
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_corroborate_torch_in_binary64(norm, offset):
    inputs = [randn(*norm.shape) * 2 + offset, *norm.given()]
    ours = values_and_grads(norm.ours, *inputs)
    stock = values_and_grads(norm.stock, *(t.double() for t in inputs))
    for a, b in zip(ours, stock, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=4e-6)


@pytest.mark.parametrize("offset", [0.0, 10.0, -3000.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_validate_error_bounds(offset, scale):
    mpmath.mp.prec = 100
    x = (randn(3, 200, seed=5) + offset) * scale
    n, eps = x.shape[1], mpmath.mpf(torch.tensor(EPS).item())
    for row, layer, rms in zip(
        x.tolist(), layer_norm(x, n, eps=EPS).tolist(), rms_norm(x, n, eps=EPS).tolist(), strict=True
    ):
        largest = max(map(abs, row))
        for found, centre in ((layer, True), (rms, False)):
            m = mpmath.fsum(row) / n if centre else mpmath.mpf(0)
            r = 1 / mpmath.sqrt(mpmath.fsum((v - m) ** 2 for v in row) / n + eps)
            shift = (2**-23 * abs(m) + 2**-32 * largest) * r if centre else 0
            for v, h in zip(row, found, strict=True):
                assert abs(h - (v - m) * r) <= (2**-21 + n * 2**-32) * abs((v - m) * r) + shift


@each_norm
def test_verify_a_float_sum_would_be_caught(norm):
    x = randn(64, *norm.shape[1:]) * 3 + 1
    rows = x.view(64 * norm.view[1], -1)
    m = rows.sum(1, keepdim=True) / rows.shape[1] if norm.centre else torch.zeros(1)
    v = ((rows - m) * (rows - m)).sum(1, keepdim=True) / rows.shape[1]
    y = ((rows - m) * (1 / (v + EPS).double().sqrt().float())).view(x.shape)
    assert not same_bits(norm.ours(x), y)
    torch.testing.assert_close(norm.ours(x), y)


@each_norm
@pytest.mark.parametrize("value", [0.0, -2.5, 2.0**120, 2.0**-140])
def test_validate_constant_rows_whose_sum_is_exact_give_the_bias(norm, value):
    x, (weight, *rest) = torch.full(norm.shape, value), norm.given()
    for y in on_both_engines(norm.ours, x, weight, *rest):
        if norm.centre:
            expected = rest[0].view(1, -1, 1).expand(norm.view[0], -1, norm.view[3]).reshape(norm.shape)
            assert same_bits(y, expected.contiguous())
        elif value == 0.0:
            assert (y == 0).all()


@each_norm
def test_validate_no_sample_gives_no_result_and_zero_gradients(norm):
    empty = torch.zeros(0, *norm.shape[1:])
    for y, grad_x, *gradients in on_both_engines(values_and_grads, norm.ours, empty, *norm.given()):
        assert y.shape == grad_x.shape == empty.shape
        assert all(same_bits(g, torch.zeros(norm.parameter)) for g in gradients)


@each_norm
def test_double_backward_names_the_op(norm):
    x = randn(*norm.shape).requires_grad_()
    (grad,) = torch.autograd.grad(norm.ours(x).square().sum(), x, create_graph=True)
    name = next(name for name, n in NORMS.items() if n is norm)
    with pytest.raises(InputError, match=f"{name} has no second derivative"):
        grad.sum().backward()


@each_norm
def test_bad_input_is_refused(norm):
    x, given = randn(*norm.shape), norm.given()
    with pytest.raises(InputError, match=r"input must be torch\.float32"):
        norm.ours(x.double(), *given)
    with pytest.raises(InputError, match=r"weight must be torch\.float32"):
        norm.ours(x, given[0].double(), *given[1:])
