"""group_norm alone; what all norms of rows share is in test_row_norm.py."""

import pytest
import torch
from bits import on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.group_norm import group_norm, instance_norm
from dettriton.ops.layer_norm import layer_norm


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "shape, groups",
    [((3, 6), 1), *((s, g) for s in ((2, 6, 5), (2, 6, 3, 2), (1, 6, 2, 1, 3)) for g in (1, 3, 6))],
    ids=str,
)
def test_corroborate_torch(shape, groups):
    inputs = randn(*shape), *randn(2, 6, seed=1)
    stock = values_and_grads(
        lambda x, w, b: torch.nn.functional.group_norm(x, groups, w, b), *(t.double() for t in inputs)
    )
    ours = values_and_grads(lambda x, w, b: group_norm(x, groups, w, b), *inputs)
    for a, b in zip(ours, stock, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=4e-6)


def test_verify_one_group_is_layer_norm_and_single_channels_are_instances():
    x = randn(2, 4, 3, 2)
    assert same_bits(group_norm(x, 1), layer_norm(x, (4, 3, 2)))
    assert same_bits(group_norm(x, 4), instance_norm(x))


def test_verify_a_wrong_channel_of_a_weight_would_be_seen():
    x, weight = randn(2, 4, 3), randn(4, seed=1)
    assert not same_bits(group_norm(x, 2, weight), group_norm(x, 2, weight.roll(1)))
    h = group_norm(x, 2)
    assert all(same_bits(y, h * weight.view(4, 1)) for y in on_both_engines(group_norm, x, 2, weight))


def test_validate_one_value_in_a_group_is_its_own_mean():
    for y, grad_x in on_both_engines(values_and_grads, lambda x: group_norm(x, 3), randn(4, 3)):
        assert (y == 0).all() and (grad_x == 0).all()


def test_bad_input_is_refused():
    x = randn(4, 6, 2)
    for message, call in {
        "input must be": lambda: group_norm(x[0, 0], 1),
        "num_groups must divide the 6 channels, got 4": lambda: group_norm(x, 4),
        "num_groups must divide the 6 channels, got 0": lambda: group_norm(x, 0),
        r"weight must have shape \(6,\), got \(2,\)": lambda: group_norm(x, 2, torch.ones(2)),
    }.items():
        with pytest.raises(InputError, match=f"group_norm: {message}"):
            call()
