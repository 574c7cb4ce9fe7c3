"""rms_norm alone; what all norms of rows share is in test_row_norm.py."""

import pytest
import torch
from bits import on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.layer_norm import layer_norm
from dettriton.ops.rms_norm import rms_norm


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("eps", [None, 0.0, 1e-2])
@pytest.mark.parametrize("shape", [(6,), (5, 6)], ids=str)
def test_corroborate_torch(shape, eps):
    inputs, stock_eps = (randn(3, 5, 6), randn(*shape, seed=1)), 2.0**-23 if eps is None else eps
    stock = values_and_grads(
        lambda x, w: torch.nn.functional.rms_norm(x, shape, w, stock_eps), *(t.double() for t in inputs)
    )
    for ours in on_both_engines(values_and_grads, lambda x, w: rms_norm(x, shape, w, eps), *inputs):
        for a, b in zip(ours, stock, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=2e-6)


def test_corroborate_the_default_epsilon():
    x = randn(3, 5) * 1e-4
    torch.testing.assert_close(rms_norm(x, 5), torch.nn.functional.rms_norm(x, (5,)), rtol=1e-6, atol=0.0)
    assert same_bits(rms_norm(x, 5), rms_norm(x, 5, eps=2.0**-23)) and not same_bits(
        rms_norm(x, 5), rms_norm(x, 5, eps=1e-5)
    )


def test_verify_the_mean_is_not_subtracted():
    x = randn(3, 5) + 4
    assert not torch.allclose(rms_norm(x, 5), layer_norm(x, 5), atol=0.1)


def test_validate_without_epsilon():
    rows = torch.tensor([[2.0, -2.0], [0.0, 0.0]])
    for y in on_both_engines(rms_norm, rows, 2, eps=0.0):
        assert y[0].tolist() == [1.0, -1.0] and y[1].isnan().all()


def test_bad_shapes_are_refused():
    x = randn(4, 3)
    with pytest.raises(InputError, match=r"rms_norm: normalized_shape \(4,\) must be the end"):
        rms_norm(x, 4)
    with pytest.raises(InputError, match=r"rms_norm: weight must have shape \(3,\), got \(4,\)"):
        rms_norm(x, 3, torch.ones(4))
