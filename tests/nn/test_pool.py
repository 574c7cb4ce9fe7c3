"""The pooling, upsampling and padding modules beside torch's, which they subclass."""

import inspect

import pytest
import torch
from bits import same_bits

from dettriton.nn import padding, pool, upsample
from dettriton.ops.fractional_max_pool import fractional_max_pool2d, fractional_max_pool3d

SIGNAL, MAP, VOLUME = (2, 3, 10), (2, 3, 6, 8), (2, 3, 4, 6, 5)
CASES = [
    ("MaxPool1d", (3,), {"stride": 2, "padding": 1}, SIGNAL),
    ("MaxPool2d", (2,), {"ceil_mode": True, "dilation": 2}, MAP),
    ("MaxPool3d", (2,), {"stride": (1, 2, 3), "padding": 1}, VOLUME),
    ("AvgPool1d", (3,), {"count_include_pad": False, "padding": 1}, SIGNAL),
    ("AvgPool2d", (2,), {"divisor_override": 3}, MAP),
    ("AvgPool3d", (2,), {"stride": 1, "padding": 1, "count_include_pad": False}, VOLUME),
    ("AdaptiveAvgPool1d", (4,), {}, SIGNAL),
    ("AdaptiveAvgPool2d", ((1, 4),), {}, MAP),
    ("AdaptiveAvgPool3d", ((2, None, 3),), {}, VOLUME),
    ("AdaptiveMaxPool1d", (4,), {}, SIGNAL),
    ("AdaptiveMaxPool2d", ((4, None),), {}, MAP),
    ("AdaptiveMaxPool3d", (2,), {}, VOLUME),
    ("Upsample", (), {"scale_factor": 2}, MAP),
    ("Upsample", ((9, 5),), {"mode": "bicubic", "align_corners": True}, MAP),
    ("Upsample", (), {"scale_factor": 1.7, "mode": "linear", "recompute_scale_factor": True}, SIGNAL),
    ("Upsample", (7,), {"mode": "trilinear"}, VOLUME),
    ("UpsamplingNearest2d", (), {"scale_factor": 2}, MAP),
    ("UpsamplingBilinear2d", ((4, 9),), {}, MAP),
    *((f"{kind}Pad{d}d", (1,), {}, shape) for kind in ("Reflection", "Replication", "Circular", "Zero")
      for d, shape in ((1, SIGNAL), (2, MAP), (3, VOLUME))),
    *((f"ConstantPad{d}d", (1, 2.5), {}, shape) for d, shape in ((1, SIGNAL), (2, MAP), (3, VOLUME))),
    ("ReflectionPad2d", ((3, 1, 0, 2),), {}, MAP),
]  # fmt: skip
FRACTIONAL = [
    ("FractionalMaxPool2d", fractional_max_pool2d, (2, 3, 19, 17), 3),
    ("FractionalMaxPool3d", fractional_max_pool3d, (2, 3, 9, 11, 8), (3, 4, 2)),
]
UNPOOLS = [
    ("MaxUnpool1d", "MaxPool1d", SIGNAL),
    ("MaxUnpool2d", "MaxPool2d", MAP),
    ("MaxUnpool3d", "MaxPool3d", VOLUME),
]
OURS = {
    name: module
    for file in (pool, upsample, padding)
    for name, module in vars(file).items()
    if inspect.isclass(module) and module.__module__ == file.__name__ and not name.startswith("_")
}


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_every_module_is_tested():
    assert set(OURS) == {name for name, *_ in (*CASES, *UNPOOLS, *FRACTIONAL)}


@pytest.mark.parametrize("name", OURS)
def test_signature_starts_with_torchs(name):
    ours, stock = (inspect.signature(module).parameters for module in (OURS[name], getattr(torch.nn, name)))
    assert issubclass(OURS[name], getattr(torch.nn, name))
    assert [*ours][: len(stock)] == [*stock]
    assert all(ours[n].default == p.default and ours[n].kind == p.kind for n, p in stock.items())
    assert all(p.kind == p.KEYWORD_ONLY for n, p in ours.items() if n not in stock)


@pytest.mark.parametrize(("name", "args", "options", "shape"), CASES)
def test_corroborate_torch(name, args, options, shape):
    outputs = []
    for module in (OURS[name], getattr(torch.nn, name)):
        x = random(*shape).requires_grad_()
        y = module(*args, **options)(x)
        y.square().sum().backward()
        outputs.append((y.detach(), x.grad))
    for ours, theirs in zip(*outputs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["MaxPool3d", "AdaptiveMaxPool2d"])
def test_verify_indices(name):
    x = random(*(VOLUME if name == "MaxPool3d" else MAP))
    ours, theirs = (module(2, return_indices=True)(x) for module in (OURS[name], getattr(torch.nn, name)))
    assert all(map(same_bits, ours, theirs))


@pytest.mark.parametrize(("name", "pooling", "shape"), UNPOOLS)
def test_verify_unpooling(name, pooling, shape):
    y, indices = OURS[pooling](2, return_indices=True)(random(*shape))
    ours, theirs = (module(2)(y, indices, output_size=list(shape)) for module in (OURS[name], getattr(torch.nn, name)))
    assert same_bits(ours, theirs) and ours.shape == shape


@pytest.mark.parametrize(("name", "op", "shape", "out"), FRACTIONAL)
def test_verify_fractional_pooling(name, op, shape, out):
    x = random(*shape)
    drawn = OURS[name](2, output_ratio=0.7, seed=3, stream=1)
    first, second = drawn(x), drawn(x)
    drawn.step = 0
    assert same_bits(drawn(x), first) and not same_bits(first, second) and not drawn.state_dict()
    samples = torch.rand(2, 3, len(shape) - 2, generator=torch.Generator().manual_seed(1))
    given = OURS[name](2, out, _random_samples=samples)
    assert same_bits(given(x), getattr(torch.nn, name)(2, out, _random_samples=samples)(x)) and given.step == 0
    assert same_bits(given(x), op(x, 2, out, _random_samples=samples))
