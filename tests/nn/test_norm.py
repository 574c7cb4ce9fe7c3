"""The normalisation modules beside torch's, which they subclass."""

import inspect

import pytest
import torch
from bits import same_bits

from dettriton.errors import InputError
from dettriton.nn import norm

ROWS, SIGNAL, MAP, VOLUME = (4, 3), (2, 3, 10), (2, 3, 4, 5), (2, 3, 2, 3, 4)
CASES = [
    ("BatchNorm1d", (3,), {}, ROWS),
    ("BatchNorm2d", (3,), {"momentum": 0.3}, MAP),
    ("BatchNorm3d", (3,), {}, VOLUME),
    ("BatchNorm3d", (3,), {"affine": False, "track_running_stats": False}, VOLUME),
    ("InstanceNorm1d", (3,), {"affine": True}, SIGNAL),
    ("InstanceNorm1d", (3,), {"track_running_stats": True}, SIGNAL),
    ("InstanceNorm1d", (3,), {}, SIGNAL[1:]),
    ("InstanceNorm2d", (3,), {"affine": True, "track_running_stats": True, "momentum": 0.3}, MAP),
    ("InstanceNorm3d", (3,), {"eps": 1e-2}, VOLUME),
    ("InstanceNorm3d", (3,), {"affine": True}, VOLUME[1:]),
    ("LayerNorm", (3,), {}, ROWS),
    ("LayerNorm", ((4, 5),), {"bias": False, "eps": 1e-3}, MAP),
    ("LayerNorm", (10,), {"elementwise_affine": False}, SIGNAL),
    ("GroupNorm", (3, 3), {}, MAP),
    ("GroupNorm", (1, 3), {"affine": False}, SIGNAL),
    ("RMSNorm", (10,), {}, SIGNAL),
    ("RMSNorm", ((4, 5),), {"eps": 1e-3, "elementwise_affine": False}, MAP),
]
OURS = {n: m for n, m in vars(norm).items() if inspect.isclass(m) and m.__module__ == norm.__name__ and n[0] != "_"}


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_every_module_is_tested():
    assert set(OURS) == {name for name, *_ in CASES}


@pytest.mark.parametrize("name", OURS)
def test_signature_is_torchs(name):
    stock = getattr(torch.nn, name)
    assert issubclass(OURS[name], stock) and inspect.signature(OURS[name]) == inspect.signature(stock)


@pytest.mark.parametrize("name, args, options, shape", CASES, ids=str)
def test_corroborate_torch(name, args, options, shape):
    ours, stock = OURS[name](*args, **options), getattr(torch.nn, name)(*args, **options)
    with torch.no_grad():
        for i, parameter in enumerate(stock.parameters()):
            parameter.copy_(randn(*parameter.shape, seed=i + 10))
    ours.load_state_dict(stock.state_dict())
    for training in (True, True, False):
        inputs = [randn(*shape).requires_grad_() for _ in range(2)]
        results = [m.train(training)(x) for m, x in zip((ours, stock), inputs, strict=True)]
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)
        for module, result in zip((ours, stock), results, strict=True):
            module.zero_grad()
            result.backward(randn(*shape, seed=7))
        torch.testing.assert_close(*(x.grad for x in inputs), rtol=1e-5, atol=1e-5)
    for p, q in zip(ours.parameters(), stock.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-5)
    for key, value in stock.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-5, atol=1e-6)


def test_verify_a_sample_without_a_batch_axis():
    module, x = norm.InstanceNorm2d(3), randn(*MAP)
    assert same_bits(module(x)[0], module(x[0]))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="expected 4D or 5D"):
        norm.InstanceNorm3d(3)(randn(*SIGNAL))
    with pytest.raises(InputError, match="weight must have shape"):
        norm.InstanceNorm1d(4, affine=True)(randn(*SIGNAL))
    with pytest.raises(InputError, match="normalized_shape"):
        norm.LayerNorm(4)(randn(*ROWS))
