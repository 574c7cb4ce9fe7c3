"""Modules that only pass their options on: each agrees with torch's of that name."""

import pytest
import torch
from module_cases import MODULES

from dettriton import nn


@pytest.mark.parametrize(
    ("name", "arguments", "options", "shape"), MODULES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_corroborate_torch(name, arguments, options, shape):
    ours, stock = (getattr(m, name)(*arguments, **options) for m in (nn, torch.nn))
    assert isinstance(ours, type(stock))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3)).requires_grad_()
    wide = x.detach().clone().requires_grad_()
    y, expected = ours(x), stock(wide)
    slope = torch.linspace(0.5, 1.5, y.numel()).view(y.shape)
    y.backward(slope)
    expected.backward(slope)
    torch.testing.assert_close(y, expected, rtol=2e-5, atol=2e-6)
    torch.testing.assert_close(x.grad, wide.grad, rtol=1e-4, atol=2e-5)
