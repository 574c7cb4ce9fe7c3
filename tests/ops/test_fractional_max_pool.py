import numpy as np
import oracle
import pool_oracle
import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.exact.philox import Stream, uniform
from dettriton.ops.fractional_max_pool import fractional_max_pool2d, window_starts

SHAPE = (2, 2, 6, 7)
N = 168
VECTORS = {name: x.reshape(SHAPE) for name, x in {**hard_vectors(N), **non_finite_vectors(N)}.items()}
RNG = Stream(5, 2, 9)
# kernel_size, output_size
CASES = {"k2": (2, 3), "mixed": ((3, 2), (2, 5)), "one": (2, 1), "dense": (2, (5, 6))}
each_case = pytest.mark.parametrize(("kernel", "out"), CASES.values(), ids=CASES)


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


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


@each_case
@pytest.mark.parametrize("name", VECTORS)
def test_verify_engines_agree_and_validate(name, kernel, out):
    x = VECTORS[name]
    reference, kernels = on_both_engines(values_and_grads, lambda t: fractional_max_pool2d(t, kernel, out, rng=RNG), x)
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    y, indices = fractional_max_pool2d(x, kernel, out, return_indices=True, rng=RNG)
    samples = uniform(RNG, 8).view(2, 2, 2)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    (kh, kw), (oh, ow) = pair(kernel), pair(out)
    for n, c in np.ndindex(2, 2):
        rows = [list(range(s, s + kh)) for s in starts(samples[n, c, 1].item(), 6, oh, kh)]
        columns = [list(range(s, s + kw)) for s in starts(samples[n, c, 0].item(), 7, ow, kw)]
        chosen = pool_oracle.pool(x[n, c], rows, columns, pool_oracle.largest)
        assert indices[n, c].flatten().tolist() == [place for place, _ in chosen]
        assert same_bits(y[n, c].flatten(), torch.tensor([float(v) for _, v in chosen], dtype=torch.float32))
        terms = [[] for _ in range(42)]
        for (place, _), g in zip(chosen, upstream[n, c].flatten().tolist(), strict=True):
            terms[place].append(g)
        assert same_bits(reference[1][n, c].flatten(), torch.tensor([oracle.windowed_sum(t) for t in terms]))


@each_case
@pytest.mark.parametrize("batched", [True, False])
def test_corroborate_torch(kernel, out, batched):
    x = torch.randperm(N, generator=torch.Generator().manual_seed(1)).view(SHAPE).float()[slice(None) if batched else 0]
    samples = torch.rand(2 if batched else 1, 2, 2, generator=torch.Generator().manual_seed(2))
    stock = torch.nn.functional.fractional_max_pool2d
    ours, theirs = (op(x, kernel, out, None, True, samples) for op in (fractional_max_pool2d, stock))
    assert all(map(same_bits, ours, theirs))
    grads = []
    for op in (fractional_max_pool2d, stock):
        leaf = x.clone().requires_grad_()
        op(leaf, kernel, out, None, False, samples).square().sum().backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(*grads, rtol=1e-6, atol=0)


def test_validate_windows_stay_inside_for_any_sample():
    samples = torch.tensor([0.0, 2.0**-24, 0.5, 1.0 - 2.0**-24])
    for size, out, kernel in [(17, 8, 2), (100, 99, 2), (100, 3, 40), (9, 9, 1), (1000, 333, 7), (5, 5, 1)]:
        found = window_starts(samples, size, out, kernel)
        assert found.shape == (4, out) and found.min() >= 0 and found.max() == size - kernel
        assert [starts(u, size, out, kernel) for u in samples.tolist()] == found.tolist()


def test_verify_the_ratio_and_the_stream():
    x = VECTORS["normal"]
    by_ratio = fractional_max_pool2d(x, 2, output_ratio=(0.5, 0.75), rng=RNG)
    assert same_bits(by_ratio, fractional_max_pool2d(x, 2, (3, 5), rng=RNG))
    assert not same_bits(by_ratio, fractional_max_pool2d(x, 2, (3, 5), rng=RNG.at(10)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_size": 3}, r"rng must be a dettriton\.exact\.philox\.Stream"),
        ({"rng": RNG}, "either output_size or output_ratio"),
        ({"output_size": 6, "rng": RNG}, "6 windows of 2 need a map of at least 7, got 6"),
        ({"output_ratio": 1.0, "rng": RNG}, r"output_ratio must lie in \(0, 1\)"),
        ({"output_size": 3, "_random_samples": torch.zeros(2, 2)}, r"_random_samples must be \(2, 2, 2\)"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        fractional_max_pool2d(VECTORS["normal"], 2, **options)
