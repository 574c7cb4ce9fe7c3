"""The compiled loops of max pooling against the torch operations, bit for bit."""

import importlib

import pytest
import torch
from bits import hard_vectors, non_finite_vectors, same_bits

from dettriton.exact import _jit, _loops
from dettriton.ops._pool import Axis

max_pool = importlib.import_module("dettriton.ops.max_pool")

pytestmark = pytest.mark.skipif(not _jit.compiles(), reason="numba is absent or switched off")

VECTORS = {**hard_vectors(120), **non_finite_vectors(120)}
WINDOWS = {
    "map": ((2, 3, 4, 5), (Axis(4, 2, 2, 2), Axis(5, 3, 3, 2, 1))),
    "dilated": ((2, 3, 4, 5), (Axis(4, 2, 2, 2, 1, 3), Axis(5, 3, 2, 1, 0, 2))),
    "signal": ((6, 1, 20), (Axis(1, 1, 1, 1), Axis(20, 20, 3, 1, 1))),
    "whole": ((4, 5, 6), (Axis(5, 1, 5, 5), Axis(6, 1, 6, 6))),
    "many taps": ((1, 10, 12), (Axis(10, 3, 16, 5, 8), Axis(12, 4, 17, 3, 8))),
    "volume": ((2, 3, 4, 5), (Axis(3, 2, 2, 1), Axis(4, 2, 3, 2, 1), Axis(5, 3, 3, 1))),
}


def results(x, axes):
    y, taps = max_pool.max_pool_torch(x, axes, True)
    (alone, nothing) = max_pool.max_pool_torch(x, axes, False)
    assert nothing is None and same_bits(alone, y)
    upstream = torch.linspace(-3, 4, y.numel()).view(y.shape)
    return y, taps, max_pool.max_pool_grad_torch(upstream, taps, axes)


@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.parametrize("name", VECTORS)
def test_verify_loops_have_the_bits_of_torch_operations(name, windows, monkeypatch):
    monkeypatch.setattr(_loops, "SHARED_ELEMENTS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    shape, axes = WINDOWS[windows]
    x = VECTORS[name].reshape(shape)
    in_loops = [results(x, axes), results(x[1:], axes), results(x[:0], axes)]
    monkeypatch.setattr(max_pool, "compiles", lambda: False)
    in_torch = [results(x, axes), results(x[1:], axes), results(x[:0], axes)]
    for ours, stock in zip(in_loops, in_torch, strict=True):
        assert all(map(same_bits, ours, stock))
