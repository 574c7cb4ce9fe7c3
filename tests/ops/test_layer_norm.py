"""layer_norm alone; what all norms of rows share is in test_row_norm.py."""

import pytest
import torch
from bits import on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.layer_norm import layer_norm


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [6, (6,), [5, 6], (3, 5, 6)], ids=str)
def test_corroborate_torch_with_any_normalized_shape(shape):
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    inputs = randn(3, 5, 6), randn(*sizes, seed=1), randn(*sizes, seed=2)
    stock = values_and_grads(
        lambda x, w, b: torch.nn.functional.layer_norm(x, sizes, w, b), *(t.double() for t in inputs)
    )
    for ours in on_both_engines(values_and_grads, lambda x, w, b: layer_norm(x, shape, w, b), *inputs):
        for a, b in zip(ours, stock, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=2e-6)


def test_verify_trailing_dimensions_are_one_row():
    x = randn(4, 3, 5)
    assert same_bits(layer_norm(x, (3, 5)), layer_norm(x.view(4, 15), 15).view(4, 3, 5))
    assert not same_bits(layer_norm(x, (3, 5)), layer_norm(x, 5))


def test_validate_one_element_is_its_own_mean():
    x, bias = randn(5, 1), torch.tensor([0.75])
    for y, grad_x in on_both_engines(values_and_grads, lambda x: layer_norm(x, 1, None, bias), x):
        assert (y == 0.75).all() and (grad_x == 0).all()


def test_validate_without_epsilon():
    rows = torch.tensor([[1.0, -1.0, 1.0, -1.0], [2.0, 2.0, 2.0, 2.0]])
    for y in on_both_engines(layer_norm, rows, 4, eps=0.0):
        assert torch.equal(y[0], rows[0]) and y[1].isnan().all()


def test_validate_nothing_to_normalise():
    for y in on_both_engines(layer_norm, torch.zeros(3, 0), 0):
        assert y.shape == (3, 0)


def test_bad_shapes_are_refused():
    x = randn(4, 3)
    for message, call in {
        "must be the end": lambda: layer_norm(x, 4),
        r"normalized_shape \(\) must": lambda: layer_norm(x, ()),
        r"normalized_shape \(2, 4, 3\) must": lambda: layer_norm(x, (2, 4, 3)),
        r"weight must have shape \(3,\), got \(4,\)": lambda: layer_norm(x, 3, torch.ones(4)),
        r"bias must have shape \(4, 3\), got \(3,\)": lambda: layer_norm(x, (4, 3), None, torch.ones(3)),
    }.items():
        with pytest.raises(InputError, match=f"layer_norm: .*{message}"):
            call()
