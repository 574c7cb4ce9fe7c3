import itertools
import math

import numpy as np
import oracle
import pytest
import torch
from bits import INF, NAN, hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.grid_sample import grid_sample

f32 = np.float32
MODES = ("bilinear", "nearest", "bicubic")
PADDINGS = ("zeros", "border", "reflection")
SETTINGS = list(itertools.product(MODES, PADDINGS, (False, True)))
each_setting = pytest.mark.parametrize(("mode", "padding", "align"), SETTINGS)
MAP, PLACES = (2, 2, 3, 4), (2, 2, 3, 2)


def random(*shape, seed=0, scale=1.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def moved(u, size, padding, align):
    """A coordinate moved into the map, and its derivative, in binary32 scalars."""
    if padding == "zeros":
        return u, f32(1)
    sign = f32(1)
    if padding == "reflection":
        low, span = (f32(0), f32(size - 1)) if align else (f32(-0.5), f32(size))
        if span == 0:
            return f32(0), f32(0)
        away = f32(u - low)
        distance = abs(away)
        turns = np.floor(f32(distance / span))
        rest = f32(distance - f32(turns * span))
        odd = turns % 2 == 1
        u = f32((f32(span - rest) if odd else rest) + low)
        sign = f32(-1) if odd != (away < 0) else f32(1)
    if not u > 0:
        return f32(0), f32(0)
    return (u, sign) if u < size - 1 else (f32(size - 1), f32(0))


def horner(x, *coefficients):
    total = f32(coefficients[0])
    for c in coefficients[1:]:
        total = f32(f32(total * x) + f32(c))
    return total


def axis_taps(g, size, mode, padding, align):
    """(element or None, weight, slope) of each tap, and the derivative of the coordinate."""
    if align:
        u = f32(f32(f32(g + f32(1)) * f32(0.5)) * f32(size - 1))
    else:
        u = f32(f32(f32(f32(g + f32(1)) * f32(size)) - f32(1)) * f32(0.5))
    half, sign = f32((size - 1 if align else size) / 2), f32(1)
    if mode != "bicubic":
        u, sign = moved(u, size, padding, align)
    first = np.floor(u)
    if mode == "nearest":
        taps = [(np.rint(u), f32(1), f32(0))]
    elif mode == "bilinear":
        taps = [(first, f32(f32(first + 1) - u), f32(-1)), (f32(first + 1), f32(u - first), f32(1))]
    else:
        t = f32(u - first)
        after, before, beyond = f32(t + f32(1)), f32(f32(1) - t), f32(f32(2) - t)
        far = lambda d: horner(d, -0.75, 3.75, -6.0, 3.0)  # noqa: E731 Keys' kernel for a = -3/4
        near = lambda d: f32(f32(f32(horner(d, 1.25, -2.25)) * d) * d) + f32(1)  # noqa: E731
        far_slope = lambda d: horner(d, -2.25, 7.5, -6.0)  # noqa: E731 its derivatives
        near_slope = lambda d: f32(horner(d, 3.75, -4.5) * d)  # noqa: E731
        weights = [far(after), near(t), near(before), far(beyond)]
        slopes = [far_slope(after), near_slope(t), -near_slope(before), -far_slope(beyond)]
        places = [moved(f32(first + f32(k)), size, padding, align)[0] for k in (-1, 0, 1, 2)]
        taps = list(zip(places, weights, slopes, strict=True))
    named = [(int(p) if p >= 0 and p <= size - 1 else None, w, s) for p, w, s in taps]
    return named, f32(sign * half)


def read_in_order(values, axes, sloped=None):
    """The sum over the taps of all axes; the terms of one channel."""
    total = None
    for taps in itertools.product(*axes):
        weight = None
        for k, (_, w, s) in enumerate(taps):
            factor = s if k == sloped else w
            weight = factor if weight is None else f32(weight * factor)
        place = tuple(p for p, _, _ in taps)
        term = f32(0) if None in place else f32(values[place] * weight)
        total = term if total is None else f32(total + term)
    return total


def expected_results(x, grid, upstream, mode, padding, align):
    """Output and both gradients, one place at a time."""
    x, grid, upstream = x.numpy(), grid.numpy(), upstream.numpy()
    y, grid_gradient = np.zeros(upstream.shape, f32), np.zeros(grid.shape, f32)
    terms = {place: [] for place in np.ndindex(x.shape)}
    for n, *place in np.ndindex(grid.shape[:-1]):
        found = [
            axis_taps(g, size, mode, padding, align)
            for g, size in zip(grid[(n, *place)][::-1], x.shape[2:], strict=True)
        ]
        axes = [taps for taps, _ in found]
        for c in range(x.shape[1]):
            y[(n, c, *place)] = read_in_order(x[n, c], axes)
            for taps in itertools.product(*axes):
                weight = taps[0][1]
                for _, w, _ in taps[1:]:
                    weight = f32(weight * w)
                element = tuple(p for p, _, _ in taps)
                if None not in element:
                    terms[(n, c, *element)].append(float(f32(upstream[(n, c, *place)] * weight)))
        for k, (_, factor) in enumerate(found):
            parts = [f32(upstream[(n, c, *place)] * read_in_order(x[n, c], axes, k)) for c in range(x.shape[1])]
            slope = f32(f32(oracle.windowed_sum([float(p) for p in parts])) * factor)
            grid_gradient[(n, *place, -1 - k)] = slope if mode != "nearest" else 0.0
    input_gradient = np.array([oracle.windowed_sum(terms[p]) for p in np.ndindex(x.shape)], f32).reshape(x.shape)
    return [torch.from_numpy(t) for t in (y, input_gradient, grid_gradient)]


@each_setting
@pytest.mark.parametrize("shapes", [(MAP, PLACES), ((1, 2, 2, 3, 2), (1, 1, 2, 3, 3)), ((1, 1, 1, 1), (1, 2, 2, 2))])
def test_verify_engines_agree_and_validate(shapes, mode, padding, align):
    if mode == "bicubic" and len(shapes[0]) == 5:
        return
    x, grid = random(*shapes[0]), random(*shapes[1], seed=1, scale=1.5)
    sample = lambda a, b: grid_sample(a, b, mode, padding, align)  # noqa: E731 used once, below
    reference, kernels = on_both_engines(values_and_grads, sample, x, grid)
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    upstream = torch.randn(reference[0].shape, generator=torch.Generator().manual_seed(0))
    for ours, expected in zip(reference, expected_results(x, grid, upstream, mode, padding, align), strict=True):
        assert torch.equal(ours, expected) and same_bits(ours + 0.0, expected + 0.0)


@pytest.mark.parametrize("name", ["spread", "huge", "nan", "inf"])
@pytest.mark.parametrize(("mode", "padding"), list(itertools.product(MODES, PADDINGS)))
def test_verify_engines_agree_on_hard_inputs(name, mode, padding):
    hard = {**hard_vectors(24), **non_finite_vectors(24)}[name]
    # The first sample is a hard map at plain places, the second a plain map at hard places.
    x = torch.stack((hard.view(MAP[1:]), random(*MAP[1:])))
    grid = torch.stack((random(*PLACES[1:], seed=2), hard[:12].view(PLACES[1:])))
    sample = lambda a, b: grid_sample(a, b, mode, padding, False)  # noqa: E731 used once, below
    reference, kernels = on_both_engines(values_and_grads, sample, x, grid)
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))


@each_setting
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_corroborate_torch(mode, padding, align, scale):
    shapes = [((2, 3, 5, 4), (2, 4, 6, 2)), ((1, 1, 1, 3), (1, 2, 3, 2)), ((2, 2, 3, 4, 2), (2, 2, 3, 2, 3))]
    for shape, places in shapes:
        if mode == "bicubic" and len(shape) == 5:
            continue
        inputs = random(*shape, seed=3), random(*places, seed=4, scale=scale)
        ours = values_and_grads(lambda a, b: grid_sample(a, b, mode, padding, align), *inputs)
        stock = torch.nn.functional.grid_sample
        double = [t.double() for t in inputs]
        upstream = torch.randn(ours[0].shape, generator=torch.Generator().manual_seed(0)).double()
        leaves = [t.requires_grad_() for t in double]
        y = stock(*leaves, mode, padding, align)
        y.backward(upstream)
        for a, b in zip(ours, (y.detach(), *(t.grad for t in leaves)), strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


def test_validate_places_outside_and_without_number():
    x = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    grid = torch.tensor([NAN, INF, -INF, 1e30, -1e30])[:, None].expand(5, 2).reshape(1, 1, 5, 2)
    expected = {"zeros": [0.0] * 5, "border": [1.0, 9.0, 1.0, 9.0, 1.0]}
    for mode, (padding, values) in itertools.product(("bilinear", "nearest"), expected.items()):
        for y in on_both_engines(grid_sample, x, grid, mode, padding, True):
            assert y.flatten().tolist() == values
    for y in on_both_engines(grid_sample, x, grid, "bilinear", "reflection", True):
        assert y.isfinite().all() and y.min() >= 1 and y.max() <= 9


def test_validate_the_elements_themselves():
    x = random(1, 2, 3, 5)
    rows, columns = torch.linspace(-1, 1, 3), torch.linspace(-1, 1, 5)
    grid = torch.stack((columns.expand(3, 5), rows[:, None].expand(3, 5)), -1)[None]
    for mode in MODES:
        assert torch.equal(grid_sample(x, grid, mode, "border", True), x)


def test_verify_strides_and_batches_do_not_matter():
    x, grid = random(3, 2, 4, 5), random(3, 3, 2, 2, seed=5)
    together = values_and_grads(lambda a, b: grid_sample(a, b, "bicubic"), x, grid)
    strided = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (x, grid)]
    again = values_and_grads(lambda a, b: grid_sample(a, b, "bicubic"), *strided)
    assert all(same_bits(a, b) for a, b in zip(together, again, strict=True))
    assert all(
        same_bits(grid_sample(x[i : i + 1], grid[i : i + 1], "bicubic"), together[0][i : i + 1]) for i in range(3)
    )
    assert grid_sample(x[:0], grid[:0]).shape == (0, 2, 3, 2)


def test_verify_a_float_scatter_would_be_caught():
    x, grid = torch.zeros(1, 1, 2, 2), random(1, 40, 40, 2, seed=6, scale=0.1)
    grads = []
    for order in (slice(None), torch.randperm(40, generator=torch.Generator().manual_seed(7))):
        for op in (grid_sample, torch.nn.functional.grid_sample):
            leaf = x.clone().requires_grad_()
            op(leaf, grid[:, order], "bilinear", "zeros", False).backward(random(1, 1, 40, 40, seed=8)[:, :, order])
            grads.append(leaf.grad)
    assert same_bits(grads[0], grads[2]) and not same_bits(grads[1], grads[3])
    assert math.isclose(grads[0].sum().item(), grads[1].sum().item(), rel_tol=1e-3, abs_tol=1e-3)


@pytest.mark.parametrize(
    ("shapes", "arguments", "message"),
    [
        (((1, 1, 2, 2), (1, 2, 2, 3)), (), "takes a grid"),
        (((1, 1, 2, 2), (2, 2, 2, 2)), (), "takes a grid"),
        (((1, 1, 2), (1, 2, 1)), (), "takes a grid"),
        (((1, 1, 2, 2), (1, 2, 2, 2)), ("linear",), "mode must be one of"),
        (((1, 1, 2, 2, 2), (1, 2, 2, 2, 3)), ("bicubic",), "bicubic for maps"),
        (((1, 1, 2, 2), (1, 2, 2, 2)), ("nearest", "zero"), "padding_mode must be one of"),
        (((1, 1, 0, 2), (1, 2, 2, 2)), (), "only the batch and the grid may be empty"),
    ],
)
def test_bad_arguments_are_refused(shapes, arguments, message):
    with pytest.raises(InputError, match=message):
        grid_sample(*map(torch.zeros, shapes), *arguments)


def test_other_types_are_refused():
    with pytest.raises(InputError, match=r"grid must be torch\.float32"):
        grid_sample(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, 2, dtype=torch.float64))
