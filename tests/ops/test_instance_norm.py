"""instance_norm's running statistics; what all norms of rows share is in test_row_norm.py."""

import pytest
import torch
from binary32 import Binary32, exact_sum, holds, numbers
from bits import on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.batch_norm import batch_norm
from dettriton.ops.group_norm import instance_norm

MOMENTUM = 0.3


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def statistics(channels: int) -> list[torch.Tensor]:
    mean, var = randn(2, channels, seed=3)
    return [mean, var.abs() + 0.5]


def results(x, weight, bias, use_input_stats):
    running = statistics(x.shape[1])
    op = lambda x, w, b: instance_norm(x, *running, w, b, use_input_stats, MOMENTUM)  # noqa: E731 used once, below
    return [*values_and_grads(op, x, weight, bias), *running]


@pytest.mark.parametrize("by_input", [True, False], ids=["input", "running"])
def test_verify_engines_agree_and_corroborate_torch(by_input):
    inputs = randn(3, 2, 5), *randn(2, 2, seed=1)
    running = [t.double() for t in statistics(2)]
    stock = values_and_grads(
        lambda x, w, b: torch.nn.functional.instance_norm(x, *running, w, b, by_input, MOMENTUM),
        *(t.double() for t in inputs),
    )
    reference, kernels = on_both_engines(results, *inputs, by_input)
    for a, b, c in zip(reference, kernels, [*stock, *running], strict=True):
        assert same_bits(a, b)
        torch.testing.assert_close(a.double(), c, rtol=1e-5, atol=4e-6)


def test_validate_running_statistics_against_fractions():
    x, running = randn(3, 2, 5) + 2, statistics(2)
    before = [t.clone() for t in running]
    instance_norm(x, *running, momentum=MOMENTUM)
    keep, new, n = Binary32(1 - MOMENTUM), Binary32(MOMENTUM), Binary32(x.shape[2])
    for c in range(2):
        means, variances = [], []
        for row in x[:, c]:
            values = numbers(row)
            m = exact_sum(values) / n
            means.append(m)
            variances.append(exact_sum([(v - m) * (v - m) for v in values]) / (n - Binary32(1)))
        for old, now, seen in zip(before, running, (means, variances), strict=True):
            expected = numbers(old)[c] * keep + (exact_sum(seen) / Binary32(x.shape[0])) * new
            assert holds(now[c], [expected])


def test_verify_by_running_statistics_it_is_batch_norm():
    x, running = randn(3, 2, 5), statistics(2)
    for y in on_both_engines(instance_norm, x, *running, use_input_stats=False):
        assert same_bits(y, batch_norm(x, *running))


def test_verify_tracking_does_not_move_the_result():
    x = randn(3, 2, 5)
    assert same_bits(instance_norm(x, *statistics(2)), instance_norm(x))


def test_validate_no_sample_leaves_the_running_statistics():
    running = statistics(2)
    instance_norm(torch.zeros(0, 2, 5), *running)
    assert all(same_bits(a, b) for a, b in zip(running, statistics(2), strict=True))


def test_bad_input_is_refused():
    x, (mean, var) = randn(3, 2, 5), statistics(2)
    for message, call in {
        "input must be": lambda: instance_norm(x[..., 0]),
        "both running_mean": lambda: instance_norm(x, mean),
        "inference needs": lambda: instance_norm(x, use_input_stats=False),
        r"running_mean must have shape \(2,\)": lambda: instance_norm(x, mean[:1], var),
        "more than one position": lambda: instance_norm(x[..., :1]),
    }.items():
        with pytest.raises(InputError, match=f"instance_norm: .*{message}"):
            call()
