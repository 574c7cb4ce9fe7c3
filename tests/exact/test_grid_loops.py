import importlib

import pytest
import torch
from bits import hard_vectors, non_finite_vectors, same_bits

from dettriton.exact import _jit, _loops, compiled_dot
from dettriton.exact.grid import NON_FINITE_EXPONENT, grid_exponents, quantize
from dettriton.ops._epilogue import Epilogue

matmul = importlib.import_module("dettriton.ops.matmul")
pytestmark = pytest.mark.skipif(not _jit.compiles(), reason="numba is not installed, or switched off")

VECTORS = {**hard_vectors(60), **non_finite_vectors(60)}


def by_torch_and_by_loops(monkeypatch, a, b, precision="high", bias=None):
    found = []
    for compiled in (False, True):
        monkeypatch.setattr(matmul, "compiles", lambda compiled=compiled: compiled)
        found.append(matmul.dot_rows_torch(a, b, precision, Epilogue(bias), None)[0])
    return found


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("bits", [20, 13])
@pytest.mark.parametrize("name", VECTORS)
def test_verify_grid_integers_and_units(name, bits, turned):
    x = VECTORS[name].reshape(3, 4, 5)
    x = x.transpose(1, 2).contiguous().transpose(1, 2) if turned else x
    exponents = grid_exponents(x, (2,))
    q, unit = compiled_dot._integer_rows(x, bits)
    assert torch.equal(q, quantize(x, exponents, bits).double())
    expected = 2.0 ** (exponents - bits).double()
    expected[exponents == NON_FINITE_EXPONENT] = float("nan")
    torch.testing.assert_close(torch.from_numpy(unit), expected.view(-1), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("precision", ["high", "medium"])
@pytest.mark.parametrize("name", VECTORS)
def test_verify_dot_products_of_hard_inputs(name, precision, monkeypatch):
    a, b = VECTORS[name].reshape(2, 5, 6), torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1))
    for left, right in ((a, b), (b, a), (a, a.flip(2))):
        assert same_bits(*by_torch_and_by_loops(monkeypatch, left, right, precision))


@pytest.mark.parametrize("shape", [(0, 3, 2, 4), (2, 0, 3, 4), (2, 3, 0, 4), (2, 3, 4, 0), (3, 1, 1, 1), (1, 7, 9, 33)])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_verify_sizes_and_layouts(shape, turned, threads, monkeypatch):
    monkeypatch.setattr(_loops, "SHARED_ELEMENTS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    batch, m, n, k = shape
    r = torch.Generator().manual_seed(2)
    a, b = torch.randn(batch, m, k, generator=r), torch.randn(batch, n, k, generator=r)
    if turned:
        a, b = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (a, b))
    assert same_bits(*by_torch_and_by_loops(monkeypatch, a, b))
    wide, bias = torch.randn(batch, m, 2 * k, generator=r)[:, :, ::2], torch.randn(n, generator=r)
    assert same_bits(*by_torch_and_by_loops(monkeypatch, wide, b, bias=bias))


@pytest.mark.parametrize("value", [0.5, float("inf"), float("-inf"), float("nan"), -0.0])
def test_verify_bias(value, monkeypatch):
    a, b = VECTORS["huge"].reshape(1, 10, 6), torch.ones(1, 4, 6)
    a[0, 0] = 0.0
    assert same_bits(*by_torch_and_by_loops(monkeypatch, a, b, bias=torch.full((4,), value)))


def test_verify_sums_beyond_53_bits(monkeypatch):
    r = torch.Generator().manual_seed(3)
    a, b = torch.rand(1, 2, 20000, generator=r) + 1, torch.rand(1, 3, 20000, generator=r) + 1
    assert same_bits(*by_torch_and_by_loops(monkeypatch, a, b))


def test_the_comparison_sees_one_wrong_unit(monkeypatch):
    right = compiled_dot._integer_rows

    def wrong(*arguments):
        q, unit = right(*arguments)
        unit[0] *= 2
        return q, unit

    monkeypatch.setattr(compiled_dot, "_integer_rows", wrong)
    assert not same_bits(*by_torch_and_by_loops(monkeypatch, torch.ones(1, 2, 3), torch.ones(1, 2, 3)))
