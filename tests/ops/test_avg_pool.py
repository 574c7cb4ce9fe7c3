import itertools
from functools import partial

import numpy as np
import pool_oracle
import pytest
import torch
from bits import INF, hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.engine import use_engine
from dettriton.errors import InputError
from dettriton.exact.ieee import CANONICAL_NAN_BITS
from dettriton.ops._pool import adaptive_runs, strided_axes, strided_runs
from dettriton.ops.avg_pool import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
)

stock = torch.nn.functional

SHAPE = (2, 3, 7, 10)
HARD = {name: x.reshape(SHAPE) for name, x in hard_vectors(420).items()}
VECTORS = {**HARD, **{name: x.reshape(SHAPE) for name, x in non_finite_vectors(420).items()}}

# kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override; then whether the sums are exact
STRIDED = {
    "k2": ((2, None, 0, False, True, None), False),
    "k3s2p1": ((3, 2, 1, False, True, None), False),
    "excluding": (((3, 2), 1, 1, True, False, None), False),
    "ceil": ((3, 2, 1, True, True, None), False),
    "gaps": ((1, 3, 0, True, True, None), False),
    "override": ((2, 1, 1, False, True, 7), False),
    "taps63": (((7, 9), 1, 0, False, True, None), False),
    "taps66": (((6, 11), 1, (1, 5), False, True, None), True),
    "whole": (((7, 10), None, 0, False, True, None), True),
    "wholepadded": (((8, 12), 1, (1, 2), False, False, None), True),
}
ADAPTIVE = {
    "one": (1, True),
    "even": ((7, 5), False),
    "uneven": ((3, 4), False),
    "larger": ((9, 11), False),
    "kept": ((None, 4), False),
    "columns": ((2, 1), False),
}


def op_of(family, config):
    return (
        partial(avg_pool2d, **dict(zip(STRIDED_NAMES, config, strict=True)))
        if family == "strided"
        else (partial(adaptive_avg_pool2d, output_size=config))
    )


STRIDED_NAMES = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
CASES = {
    **{name: ("strided", *case) for name, case in STRIDED.items()},
    **{f"adaptive-{name}": ("adaptive", *case) for name, case in ADAPTIVE.items()},
}


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def oracle_windows(family, config, out):
    """Rows and columns of every window, and each window's divisor."""
    if family == "adaptive":
        axes = [pool_oracle.adaptive_windows(size, o) for size, o in zip(SHAPE[2:], out, strict=True)]
        return *axes, [len(r) * len(c) for r in axes[0] for c in axes[1]]
    kernel, stride, padding, _, include, override = config
    kernel, padding = pair(kernel), pair(padding)
    stride = kernel if stride is None else pair(stride)
    axes, counts = [], []
    for size, o, k, s, p in zip(SHAPE[2:], out, kernel, stride, padding, strict=True):
        axes.append(pool_oracle.axis_windows(size, o, k, s, p, 1))
        starts = range(-p, o * s - p, s)
        counts.append([sum(-p <= start + t < size + p for t in range(k)) for start in starts])
    inside = [[len(window) for window in axis] for axis in axes]
    divisors = [r * c for r in (counts if include else inside)[0] for c in (counts if include else inside)[1]]
    return *axes, [override or d for d in divisors]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("name", HARD)
def test_validate_against_the_oracle(name, case):
    family, config, exact = case
    x = HARD[name][1:2, 2:3].clone().requires_grad_()
    y = op_of(family, config)(x)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    y.backward(upstream)
    rows, columns, divisors = oracle_windows(family, config, y.shape[2:])
    add = pool_oracle.sum_exact if exact else pool_oracle.sum_in_order
    windows = pool_oracle.pool(x.detach()[0, 0], rows, columns, lambda w: ([p for p, _ in w], [v for _, v in w]))
    with np.errstate(all="ignore"):
        expected = [add(values) / np.float32(d) for (_, values), d in zip(windows, divisors, strict=True)]
        shares = [g / np.float32(d) for g, d in zip(upstream.flatten().numpy(), divisors, strict=True)]
    assert same_bits(y.detach().flatten(), torch.from_numpy(np.array(expected)), any_nan=True)
    terms = [(places, share) for (places, _), share in zip(windows, shares, strict=True)]
    assert same_bits(x.grad.flatten(), torch.from_numpy(pool_oracle.gathered_gradient(terms, x.numel())))


SOME = ("normal", "subnormal", "spread", "zeros", "nan", "inf")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("name", SOME)
def test_verify_engines_agree(name, case):
    family, config, _ = case
    reference, kernels = on_both_engines(values_and_grads, op_of(family, config), VECTORS[name][:1, :2])
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))


@pytest.mark.parametrize("name", SOME)
def test_verify_engines_agree_on_hard_gradients(name):
    for family, config, _ in (CASES["k3s2p1"], CASES["excluding"], CASES["whole"], CASES["adaptive-uneven"]):
        grads = []
        for engine in ("torch", "triton"):
            x = torch.zeros(SHAPE, requires_grad=True)
            with use_engine(engine):
                y = op_of(family, config)(x)
                upstream = VECTORS[name].flatten()[torch.arange(y.numel()) % 420].reshape(y.shape)
                y.backward(upstream)
            grads.append(x.grad)
        assert same_bits(*grads, any_nan=True)


@pytest.mark.parametrize("kernel", [1, 2, (3, 2), 4])
@pytest.mark.parametrize("shape", [(2, 2, 7, 9), (3, 5, 5), (1, 1, 2, 2)])
def test_corroborate_torch(kernel, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    for config in itertools.product([None, 1, 3], [0, 1, 2], [False, True], [True, False], [None, 5]):
        try:
            expected = values_and_grads(lambda t, c=config: stock.avg_pool2d(t, kernel, *c), x)
        except RuntimeError:
            with pytest.raises(InputError):
                avg_pool2d(x, kernel, *config)
            continue
        ours = values_and_grads(lambda t, c=config: avg_pool2d(t, kernel, *c), x)
        for a, b in zip(ours, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("shape", [(2, 3, 11), (3, 11), (1, 1, 1)])
def test_corroborate_torch_on_signals(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    pairs = [
        (lambda t: avg_pool1d(t, 3, 2, 1, True, False), lambda t: stock.avg_pool1d(t, 3, 2, 1, True, False)),
        (lambda t: avg_pool1d(t, 1), lambda t: stock.avg_pool1d(t, 1)),
        (lambda t: adaptive_avg_pool1d(t, 1), lambda t: stock.adaptive_avg_pool1d(t, 1)),
        (lambda t: adaptive_avg_pool1d(t, (4,)), lambda t: stock.adaptive_avg_pool1d(t, (4,))),
    ]
    for ours, reference in pairs:
        for mine in on_both_engines(values_and_grads, ours, x):
            for a, b in zip(mine, values_and_grads(reference, x), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, (3, 4), (None, 2), (9, None), 5])
def test_corroborate_torch_on_adaptive_pools(size):
    x = torch.randn(2, 3, 7, 10, generator=torch.Generator().manual_seed(4))
    ours = values_and_grads(lambda t: adaptive_avg_pool2d(t, size), x)
    expected = values_and_grads(lambda t: stock.adaptive_avg_pool2d(t, size), x)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


VOLUME = (1, 2, 5, 7, 6)
# the op, its arguments by name, and whether the sums are exact
VOLUMES = {
    "k2": (avg_pool3d, {"kernel_size": 2}, False),
    "overlapping": (avg_pool3d, {"kernel_size": 3, "stride": 2, "padding": 1}, False),
    "mixed": (avg_pool3d, {"kernel_size": (2, 3, 1), "stride": (1, 2, 3), "padding": (1, 0, 0)}, False),
    "taps75": (avg_pool3d, {"kernel_size": (3, 5, 5), "stride": 2}, True),
    "whole": (avg_pool3d, {"kernel_size": (5, 7, 6)}, True),
    "one": (adaptive_avg_pool3d, {"output_size": 1}, True),
    "uneven": (adaptive_avg_pool3d, {"output_size": (2, 3, 4)}, False),
    "kept": (adaptive_avg_pool3d, {"output_size": (None, 9, 2)}, False),
}


@pytest.mark.parametrize("case", VOLUMES.values(), ids=VOLUMES)
@pytest.mark.parametrize("name", ["normal", "cancellation", "subnormal", "spread", "zeros", "nan", "inf"])
def test_verify_and_validate_volumes(name, case):
    op, arguments, exact = case
    x = VECTORS[name].flatten()[:420].reshape(VOLUME)
    reference, kernels = on_both_engines(values_and_grads, lambda t: op(t, **arguments), x)
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))
    if name not in HARD:
        return
    y = reference[0]
    if op is adaptive_avg_pool3d:
        axes = [pool_oracle.adaptive_windows(*sizes) for sizes in zip(VOLUME[2:], y.shape[2:], strict=True)]
        divisors = [len(a) * len(b) * len(c) for a, b, c in itertools.product(*axes)]
    else:
        kernel, stride, padding = (
            arguments.get(k, d) for k, d in (("kernel_size", 0), ("stride", None), ("padding", 0))
        )
        kernel, stride, padding = (v if isinstance(v, tuple) else (v,) * 3 for v in (kernel, stride or kernel, padding))
        geometry = list(zip(VOLUME[2:], y.shape[2:], kernel, stride, padding, (1, 1, 1), strict=True))
        axes = [pool_oracle.axis_windows(*axis) for axis in geometry]
        counts = [[min(o * s + k, size + 2 * p) - o * s for o in range(out)] for size, out, k, s, p, _ in geometry]
        divisors = [a * b * c for a, b, c in itertools.product(*counts)]
    add = pool_oracle.sum_exact if exact else pool_oracle.sum_in_order
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    for channel in range(2):
        windows = pool_oracle.pool_axes(x[0, channel], axes, lambda w: ([p for p, _ in w], [v for _, v in w]))
        with np.errstate(all="ignore"):
            expected = [add(values) / np.float32(d) for (_, values), d in zip(windows, divisors, strict=True)]
            grads = upstream[0, channel].flatten().numpy()
            shares = [g / np.float32(d) for g, d in zip(grads, divisors, strict=True)]
        assert same_bits(y[0, channel].flatten(), torch.from_numpy(np.array(expected)), any_nan=True)
        terms = [(places, share) for (places, _), share in zip(windows, shares, strict=True)]
        expected = torch.from_numpy(pool_oracle.gathered_gradient(terms, 210))
        assert same_bits(reference[1][0, channel].flatten(), expected)


@pytest.mark.parametrize("shape", [(2, 2, 4, 5, 3), (2, 3, 3, 4), (1, 1, 1, 1, 1)])
def test_corroborate_torch_on_volumes(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(6))
    configs = itertools.product([2, (1, 2, 3)], [None, 1], [0, 1], [False, True], [True, False], [None, 5])
    calls = [(avg_pool3d, stock.avg_pool3d, config) for config in configs]
    calls += [(adaptive_avg_pool3d, stock.adaptive_avg_pool3d, (size,)) for size in (1, 2, (3, 1, 2), (None, 2, None))]
    for ours, theirs, config in calls:
        try:
            expected = values_and_grads(lambda t, op=theirs, c=config: op(t.double(), *c), x)
        except RuntimeError as refused:
            # Stock refuses a window that reaches beyond a volume, its padding included, but not one beyond a map.
            if "smaller than kernel" not in str(refused):
                with pytest.raises(InputError):
                    ours(x, *config)
            continue
        for a, b in zip(values_and_grads(lambda t, op=ours, c=config: op(t, *c), x), expected, strict=True):
            torch.testing.assert_close(a.double(), b.double(), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("shape", [(0, 3, 6, 7), (2, 0, 4, 4), (1, 1, 1, 1), (3, 6, 7)])
@pytest.mark.parametrize("op", [lambda t: avg_pool2d(t, 3, 2, 1), lambda t: adaptive_avg_pool2d(t, 1)])
def test_verify_sizes(shape, op):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    reference, kernels = on_both_engines(values_and_grads, op, x)
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    assert reference[0].shape[:-2] == shape[:-2] and reference[1].shape == shape


@pytest.mark.parametrize(
    "layout", ["channels_last", *(pytest.param(n, marks=pytest.mark.heavy) for n in ("transposed", "sliced"))]
)
def test_verify_strides_do_not_matter(layout):
    x = HARD["normal"][:1]
    strided = {
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
        "sliced": torch.cat([x, x], 3)[..., :10],
    }[layout]
    assert not strided.is_contiguous()
    for family, config, _ in CASES.values():
        expected = op_of(family, config)(x)
        assert all(same_bits(y, expected) for y in on_both_engines(op_of(family, config), strided))


def test_verify_a_sample_does_not_depend_on_its_batch():
    x = torch.cat([VECTORS[name] for name in SOME])
    for family, config, _ in CASES.values():
        together = op_of(family, config)(x)
        alone = torch.cat([op_of(family, config)(x[i : i + 1]) for i in range(len(x))])
        assert same_bits(alone, together)


def test_validate_signed_zeros():
    zeros = torch.full((1, 2, 6), -0.0)
    in_order, whole = avg_pool1d(zeros, 2), avg_pool1d(zeros, 6)
    assert set(in_order.view(torch.int32).flatten().tolist()) == {-(2**31)}
    assert set(whole.view(torch.int32).flatten().tolist()) == {0}
    for engine in ("torch", "triton"):
        for op in (lambda t: avg_pool1d(t, 2), lambda t: avg_pool1d(t, 6), lambda t: adaptive_avg_pool1d(t, 4)):
            x = zeros.clone().requires_grad_()
            with use_engine(engine):
                y = op(x)
                y.backward(torch.full_like(y, -0.0))
            assert set(x.grad.view(torch.int32).flatten().tolist()) == {0}


def test_validate_an_infinity_in_order_and_exact():
    x = torch.tensor([[[1.0, INF, 2.0, 3.0]]])
    for y in on_both_engines(avg_pool1d, x, 2):
        assert y.flatten().tolist() == [INF, 2.5]
    for y in on_both_engines(adaptive_avg_pool1d, x, 1):
        assert y.view(torch.int32).item() == CANONICAL_NAN_BITS


@pytest.mark.parametrize(
    ("length", "kernel", "exact"), [(130, 64, False), (130, 65, True), (64, 64, True), (2, 2, True)]
)
def test_validate_where_sums_become_exact(length, kernel, exact):
    x = torch.randn(1, 8, length, generator=torch.Generator().manual_seed(6))
    rows = [row[: length // kernel * kernel].reshape(-1, kernel) for row in x[0].numpy()]
    add = pool_oracle.sum_exact if exact else pool_oracle.sum_in_order
    expected = torch.tensor([[float(add(list(w)) / np.float32(kernel)) for w in row] for row in rows])
    assert all(same_bits(y[0], expected) for y in on_both_engines(avg_pool1d, x, kernel))


def test_reversed_order_and_reciprocals_show_in_the_bits():
    x = HARD["normal"]
    y = avg_pool2d(x, 3, 2)
    reversed_taps = avg_pool2d(x.flip(2, 3)[..., 1:], 3, 2).flip(2, 3)
    overlap = avg_pool2d(x[..., :-1], 3, 2)
    torch.testing.assert_close(reversed_taps, overlap)
    assert not same_bits(reversed_taps, overlap)
    by_reciprocal = avg_pool2d(x, 3, 2, divisor_override=1) * torch.tensor(1 / 9)
    torch.testing.assert_close(by_reciprocal, y)
    assert not same_bits(by_reciprocal, y)


def test_validate_the_runs_that_hold_a_source():
    runs = [adaptive_runs(size, out) for size in range(1, 12) for out in range(1, 14)]
    for size, kernel, stride, ceil in itertools.product([5, 8], [2, 3, 5], [1, 2, 3, 7], [False, True]):
        for padding in range(kernel // 2 + 1):
            x = torch.zeros(1, size, size)
            runs += [strided_runs(axis) for axis in strided_axes("", x, 2, kernel, stride, padding, 1, ceil)]
    for forward in runs:
        held_by = [
            [o for o, (first, end) in enumerate(forward.all_bounds()) if first <= i < end]
            for i in range(forward.sources)
        ]
        inverse = forward.inverse()
        assert [list(range(*bounds)) for bounds in inverse.all_bounds()] == held_by
        assert max(map(len, held_by)) <= inverse.longest


def test_double_backward_names_the_op():
    x = torch.randn(1, 1, 4, requires_grad=True)
    (grad,) = torch.autograd.grad(avg_pool1d(x, 2).square().sum(), x, create_graph=True)
    with pytest.raises(InputError, match="AvgPool has no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: avg_pool2d(x.double(), 2), r"avg_pool2d: input must be torch\.float32"),
        (lambda x: avg_pool1d(x[None, None], 2), r"input must be \(C, L\) or \(N, C, L\)"),
        (lambda x: avg_pool2d(x, 2, 0), "must be positive"),
        (lambda x: avg_pool2d(x, 3, 1, 2), r"padding must lie in \[0, 1\]"),
        (lambda x: avg_pool2d(x, 2, divisor_override=0), "divisor_override must not be 0"),
        (lambda x: adaptive_avg_pool2d(x, (0, 1)), "output_size must be positive"),
        (lambda x: adaptive_avg_pool2d(x, (1, 1, 1)), "output_size must be an integer or 2 of them"),
        (lambda x: adaptive_avg_pool1d(x, None), "output_size must be an integer or 1 of them"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(torch.zeros(1, 4, 4))
