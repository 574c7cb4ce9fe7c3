"""Modules that only pass their options on: each agrees with torch's of that name."""

import pytest
import torch

from dettriton import nn

SIGNAL, MAP, VOLUME = (2, 4, 9), (2, 4, 6, 7), (2, 2, 4, 5, 6)
MODULES = [
    *((name, (), {}, SIGNAL) for name in ("ReLU6", "SiLU", "Mish", "Hardswish", "Hardsigmoid", "Sigmoid", "Tanh")),
    ("LeakyReLU", (0.2,), {}, SIGNAL),
    ("ELU", (0.7,), {}, SIGNAL),
    ("GELU", (), {"approximate": "tanh"}, SIGNAL),
    ("GELU", (), {}, SIGNAL),
    ("Softplus", (2.0, 3.0), {}, SIGNAL),
    ("GLU", (1,), {}, SIGNAL),
    *((f"{kind}Pad1d", ((2, 1),), {}, SIGNAL) for kind in ("Reflection", "Replication", "Circular", "Zero")),
    *((f"{kind}Pad2d", ((2, 1, 0, 3),), {}, MAP) for kind in ("Reflection", "Replication", "Circular", "Zero")),
    *(
        (f"{kind}Pad3d", ((2, 1, 0, 3, 1, 1),), {}, VOLUME)
        for kind in ("Reflection", "Replication", "Circular", "Zero")
    ),
    ("ConstantPad1d", (2, 1.5), {}, SIGNAL),
    ("ConstantPad2d", (2, 1.5), {}, MAP),
    ("ConstantPad3d", (2, 1.5), {}, VOLUME),
    ("Upsample", (), {"scale_factor": 1.5, "mode": "bilinear", "align_corners": False}, MAP),
    ("UpsamplingNearest2d", (), {"scale_factor": 2}, MAP),
    ("UpsamplingBilinear2d", (), {"size": (9, 8)}, MAP),
    ("AvgPool3d", (2,), {}, VOLUME),
    ("AdaptiveAvgPool3d", ((2, 3, 4),), {}, VOLUME),
    ("AdaptiveMaxPool1d", (4,), {}, SIGNAL),
    ("AdaptiveMaxPool2d", ((3, 4),), {}, MAP),
    ("AdaptiveMaxPool3d", ((2, 3, 4),), {}, VOLUME),
    ("MaxPool3d", (2,), {}, VOLUME),
    ("BatchNorm3d", (2,), {}, VOLUME),
    ("InstanceNorm1d", (4,), {"affine": True}, SIGNAL),
    ("InstanceNorm2d", (4,), {"affine": True}, MAP),
    ("InstanceNorm3d", (2,), {}, VOLUME),
    ("LayerNorm", (9,), {}, SIGNAL),
    ("GroupNorm", (2, 4), {}, MAP),
    ("RMSNorm", (9,), {}, SIGNAL),
]


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
