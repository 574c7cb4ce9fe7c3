"""smooth_l1_loss and huber_loss where they meet each other; test_mse_loss.py holds what all difference losses share."""

import pytest
import torch
from bits import on_both_engines, same_bits, values_and_grads

from dettriton.ops.mse_loss import l1_loss
from dettriton.ops.smooth_l1_loss import huber_loss, smooth_l1_loss


def pair(*shape):
    g = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=g), torch.randn(shape, generator=g)


def results(loss, x, y, **options):
    return values_and_grads(lambda x, y: loss(x, y, **options), x, y)


@pytest.mark.parametrize("limit", [0.25, 1.0, 4.0])
def test_verify_huber_is_smooth_l1_scaled_by_a_power_of_two(limit):
    x, y = pair(33)
    smooth = results(smooth_l1_loss, x, y, beta=limit, reduction="sum")
    huber = results(huber_loss, x, y, delta=limit, reduction="sum")
    assert all(same_bits(a * limit, b) for a, b in zip(smooth, huber, strict=True))


def test_verify_a_beta_of_zero_is_l1():
    x, y = pair(33)
    assert all(
        same_bits(a, b) for a, b in zip(results(smooth_l1_loss, x, y, beta=0.0), results(l1_loss, x, y), strict=True)
    )


@pytest.mark.parametrize(("loss", "option"), [(smooth_l1_loss, "beta"), (huber_loss, "delta")])
def test_validate_both_sides_of_the_limit(loss, option):
    limit = torch.tensor(0.3)
    below, above = (torch.nextafter(limit, torch.tensor(v)) for v in (0.0, 1.0))
    d = torch.stack((below, limit, above, -below, -limit, -above))
    slope = d / limit if loss is smooth_l1_loss else d
    outside = torch.sign(d) if loss is smooth_l1_loss else limit * torch.sign(d)
    for _, grad, opposite in on_both_engines(results, loss, d, torch.zeros(6), reduction="sum", **{option: 0.3}):
        k = torch.randn((), generator=torch.Generator().manual_seed(0))
        assert same_bits(grad, torch.where(d.abs() < limit, slope * k, outside * k))
        assert same_bits(opposite, -grad)


@pytest.mark.parametrize(("loss", "option"), [(smooth_l1_loss, "beta"), (huber_loss, "delta")])
def test_verify_the_limit_is_rounded_to_binary32(loss, option):
    x, y = pair(40)
    rounded = float(torch.tensor(0.3, dtype=torch.float32))
    assert same_bits(loss(x, y, **{option: 0.3}), loss(x, y, **{option: rounded}))
    x = torch.full((1,), rounded)
    assert all(
        same_bits(a, b)
        for a, b in zip(
            *on_both_engines(results, loss, x, torch.zeros(1), reduction="none", **{option: 0.3}), strict=True
        )
    )
