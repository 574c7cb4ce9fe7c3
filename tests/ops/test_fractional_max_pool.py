import numpy as np
import oracle
import pool_oracle
import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.exact.philox import Stream, uniform
from dettriton.ops.fractional_max_pool import fractional_max_pool2d, fractional_max_pool3d, window_starts

RNG = Stream(5, 2, 9)
SHAPES = {2: (2, 2, 6, 7), 3: (1, 2, 5, 4, 6)}
OURS = {2: fractional_max_pool2d, 3: fractional_max_pool3d}
STOCK = {2: torch.nn.functional.fractional_max_pool2d, 3: torch.nn.functional.fractional_max_pool3d}
SAMPLE_OF_AXIS = {2: (1, 0), 3: (0, 1, 2)}
NAMES = (*hard_vectors(), *non_finite_vectors())
# dims, kernel_size, output_size
CASES = {
    "k2": (2, 2, (2, 3)),
    "mixed": (2, (3, 2), (2, 5)),
    "one": (2, 2, 1),
    "dense": (2, 2, (5, 6)),
    "volume k2": (3, 2, (3, 2, 4)),
    "volume mixed": (3, (1, 3, 2), (4, 2, 3)),
    "volume one": (3, (2, 3, 1), 1),
    "volume dense": (3, 2, (4, 3, 5)),
}
each_case = pytest.mark.parametrize(("dims", "kernel", "out"), CASES.values(), ids=CASES)
each_dims = pytest.mark.parametrize("dims", [2, 3])


def made(name, dims):
    n = torch.Size(SHAPES[dims]).numel()
    return {**hard_vectors(n), **non_finite_vectors(n)}[name].view(SHAPES[dims])


def starts(sample, size, out, kernel):
    """The starts of one axis's windows in binary32 scalars."""
    if out == 1:
        return [size - kernel]
    alpha = np.float32(size - kernel) / np.float32(out - 1)
    u = np.float32(sample)
    places = [
        int(np.float32(np.float32(np.float32(o) + u) * alpha)) - int(np.float32(u * alpha)) for o in range(out - 1)
    ]
    return [*places, size - kernel]


def for_each_axis(value, dims):
    return value if isinstance(value, tuple) else (value,) * dims


@each_case
@pytest.mark.parametrize("name", NAMES)
def test_verify_engines_agree_and_validate(name, dims, kernel, out):
    op, x = OURS[dims], made(name, dims)
    reference, kernels = on_both_engines(values_and_grads, lambda t: op(t, kernel, out, rng=RNG), x)
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    y, indices = op(x, kernel, out, return_indices=True, rng=RNG)
    maps = x.shape[:2]
    samples = uniform(RNG, maps.numel() * dims).view(*maps, dims)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    geometry = [*zip(x.shape[2:], for_each_axis(out, dims), for_each_axis(kernel, dims), strict=True)]
    for n, c in np.ndindex(*maps):
        windows = []
        for axis, (size, o, k) in enumerate(geometry):
            sample = samples[n, c, SAMPLE_OF_AXIS[dims][axis]].item()
            windows.append([list(range(s, s + k)) for s in starts(sample, size, o, k)])
        chosen = pool_oracle.pool_axes(x[n, c], windows, pool_oracle.largest)
        assert indices[n, c].flatten().tolist() == [place for place, _ in chosen]
        assert same_bits(y[n, c].flatten(), torch.tensor([float(v) for _, v in chosen], dtype=torch.float32))
        terms = [[] for _ in range(x[n, c].numel())]
        for (place, _), g in zip(chosen, upstream[n, c].flatten().tolist(), strict=True):
            terms[place].append(g)
        assert same_bits(reference[1][n, c].flatten(), torch.tensor([oracle.windowed_sum(t) for t in terms]))


def results_and_gradient(op, x, *arguments):
    leaf = x.clone().requires_grad_()
    y, indices = op(leaf, *arguments)
    y.square().sum().backward()
    return y.detach(), indices, leaf.grad


# Stock torch wants an element to spare on each axis of a volume.
WITH_STOCK = {
    **{name: (SHAPES[2], *case) for name, case in CASES.items() if case[0] == 2},
    "volume k2": ((2, 2, 5, 7, 6), 3, 2, (2, 4, 3)),
    "volume mixed": ((2, 2, 5, 7, 6), 3, (1, 3, 2), (4, 2, 3)),
    "volume one": ((2, 2, 5, 7, 6), 3, (3, 2, 4), 1),
    "volume apart": ((2, 2, 41, 23, 31), 3, (2, 1, 3), (17, 19, 11)),
}


@pytest.mark.parametrize(("shape", "dims", "kernel", "out"), WITH_STOCK.values(), ids=WITH_STOCK)
@pytest.mark.parametrize("batched", [True, False])
def test_corroborate_torch(shape, dims, kernel, out, batched):
    distinct = torch.randperm(torch.Size(shape).numel(), generator=torch.Generator().manual_seed(1))
    x = distinct.view(shape).float()[slice(None) if batched else 0]
    samples = torch.rand(2 if batched else 1, 2, dims, generator=torch.Generator().manual_seed(2))
    ours, stock = (results_and_gradient(op[dims], x, kernel, out, None, True, samples) for op in (OURS, STOCK))
    assert all(map(same_bits, ours[:2], stock[:2]))
    torch.testing.assert_close(ours[2], stock[2], rtol=1e-6, atol=0)


def test_validate_windows_stay_inside_for_any_sample():
    samples = torch.tensor([0.0, 2.0**-24, 0.5, 1.0 - 2.0**-24])
    for size, out, kernel in [(17, 8, 2), (100, 99, 2), (100, 3, 40), (9, 9, 1), (1000, 333, 7), (5, 5, 1)]:
        found = window_starts(samples, size, out, kernel)
        assert found.shape == (4, out) and found.min() >= 0 and found.max() == size - kernel
        assert [starts(u, size, out, kernel) for u in samples.tolist()] == found.tolist()


@pytest.mark.parametrize(
    ("dims", "kernel", "ratio", "out"), [(2, 2, (0.5, 0.75), (3, 5)), (3, 2, (0.7, 0.5, 0.7), (3, 2, 4))]
)
def test_verify_the_ratio_and_the_stream(dims, kernel, ratio, out):
    op, x = OURS[dims], made("normal", dims)
    by_ratio = op(x, kernel, output_ratio=ratio, rng=RNG)
    assert same_bits(by_ratio, op(x, kernel, out, rng=RNG))
    assert not same_bits(by_ratio, op(x, kernel, out, rng=RNG.at(10)))


@each_dims
def test_verify_a_map_depends_on_itself_and_its_samples_alone(dims):
    op, x = OURS[dims], made("nan", dims)
    samples = torch.rand(*x.shape[:2], dims, generator=torch.Generator().manual_seed(3))
    whole = op(x, 1, 3, _random_samples=samples)
    for n, c in np.ndindex(*x.shape[:2]):
        alone = op(x[n, c, None], 1, 3, _random_samples=samples[n, c, None])
        assert same_bits(whole[n, c, None], alone)


@each_dims
def test_verify_strides_do_not_matter(dims):
    op, x = OURS[dims], made("normal", dims)
    strided = x.transpose(1, -1).contiguous().transpose(1, -1)
    expected = op(x, 1, 2, rng=RNG, return_indices=True)
    assert all(map(same_bits, op(strided, 1, 2, rng=RNG, return_indices=True), expected))


@each_dims
def test_an_empty_batch_has_an_empty_result(dims):
    x = torch.zeros((0, *SHAPES[dims][1:]), requires_grad=True)
    y = OURS[dims](x, 1, 2, rng=RNG)
    y.sum().backward()
    assert y.shape == (0, 2, *(2,) * dims) and x.grad.shape == x.shape


@each_dims
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_size": 2}, r"rng must be a dettriton\.exact\.philox\.Stream"),
        ({"rng": RNG}, "either output_size or output_ratio"),
        ({"output_size": 2, "output_ratio": 0.5, "rng": RNG}, "either output_size or output_ratio"),
        ({"output_size": 7, "rng": RNG}, "7 windows of 1 need a map of at least 7, got [65]"),
        ({"output_size": 0, "rng": RNG}, "0 windows of 1"),
        ({"output_size": (1, 1, 1, 1), "rng": RNG}, "output_size must be an integer or [23] of them"),
        ({"output_ratio": 1.0, "rng": RNG}, r"output_ratio must lie in \(0, 1\)"),
        ({"output_ratio": (0.5,) * 4, "rng": RNG}, r"one number or [23], got \(0\.5, 0\.5"),
        ({"output_size": 2, "_random_samples": torch.zeros(2, 2)}, r"_random_samples must be \([12], 2, [23]\)"),
        ({"output_size": 2, "_random_samples": torch.zeros(2, 2, 3).double()}, r"_random_samples must be torch\.float"),
    ],
)
def test_bad_arguments_are_refused(dims, options, message):
    op = OURS[dims]
    with pytest.raises(InputError, match=f"{op.__name__}: .*{message}"):
        op(made("normal", dims), 1, **options)
