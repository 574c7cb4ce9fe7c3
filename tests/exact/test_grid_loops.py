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


@pytest.fixture(params=["tiles", "matrix products"])
def way(request, monkeypatch):
    """How all dot products are made that can be made either way."""
    most = 0 if request.param == "matrix products" else 1 << 40
    monkeypatch.setattr(compiled_dot, "_MOST_PACKED", most)
    monkeypatch.setattr(compiled_dot, "_MOST_PACKED_OF_A_ROW", most)
    return request.param


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
    rows = compiled_dot._Rows.of(x)
    assert rows.turned is turned
    q, unit = rows.integers(bits)
    assert torch.equal(q, quantize(x, exponents, bits).double())
    expected = 2.0 ** (exponents - bits).double()
    expected[exponents == NON_FINITE_EXPONENT] = float("nan")
    scale, same_unit = rows.grids(bits)
    for found in (unit, same_unit):
        torch.testing.assert_close(torch.from_numpy(found), expected.view(-1), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(torch.from_numpy(scale), (1 / expected).view(-1).nan_to_num(0.0))


@pytest.mark.parametrize("precision", ["high", "medium"])
@pytest.mark.parametrize("name", VECTORS)
def test_verify_dot_products_of_hard_inputs(name, precision, way, monkeypatch):
    a, b = VECTORS[name].reshape(2, 5, 6), torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1))
    for left, right in ((a, b), (b, a), (a, a.flip(2))):
        assert same_bits(*by_torch_and_by_loops(monkeypatch, left, right, precision))


@pytest.mark.parametrize("shape", [(0, 3, 2, 4), (2, 0, 3, 4), (2, 3, 0, 4), (2, 3, 4, 0), (3, 1, 1, 1), (1, 7, 9, 33)])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_verify_sizes_and_layouts(shape, turned, threads, way, monkeypatch):
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
def test_verify_bias(value, way, monkeypatch):
    a, b = VECTORS["huge"].reshape(1, 10, 6), torch.ones(1, 4, 6)
    a[0, 0] = 0.0
    assert same_bits(*by_torch_and_by_loops(monkeypatch, a, b, bias=torch.full((4,), value)))


def test_verify_sums_beyond_53_bits(monkeypatch):
    r = torch.Generator().manual_seed(3)
    a, b = torch.rand(1, 2, 20000, generator=r) + 1, torch.rand(1, 3, 20000, generator=r) + 1
    assert same_bits(*by_torch_and_by_loops(monkeypatch, a, b))


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_verify_random_sizes_and_grids(way, precision, monkeypatch):
    r = torch.Generator().manual_seed(4)
    for _ in range(30):
        batch, m, n, k = (int(torch.randint(1, most, (), generator=r)) for most in (4, 12, 20, 40))
        a, b = (torch.randn(batch, size, k, generator=r) for size in (m, n))
        a *= torch.exp2(torch.randint(-60, 60, (batch, m, 1), generator=r).float())
        assert same_bits(*by_torch_and_by_loops(monkeypatch, a, b, precision, torch.randn(n, generator=r)))


def test_ways_are_chosen_by_what_they_have_to_lay_out(monkeypatch):
    taken = []
    for name in ("_in_tiles", "_by_matrix_products"):
        monkeypatch.setattr(compiled_dot, name, lambda *_, name=name: taken.append(name))
    for m, n, k, bits in (
        (128, 12, 64, 20),
        (1, 1000, 512, 20),
        (2048, 1024, 512, 20),
        (1, 1, 8193, 20),
        (4, 4, 0, 20),
    ):
        compiled_dot.dot_rows(torch.ones(1, m, k), torch.ones(1, n, k), bits)
    assert taken == ["_in_tiles", *["_by_matrix_products"] * 4]


def test_the_comparison_sees_one_wrong_unit(way, monkeypatch):
    name = "grids" if way == "tiles" else "integers"
    right = getattr(compiled_dot._Rows, name)

    def wrong(*arguments):
        numbers, unit = right(*arguments)
        unit[0] *= 2
        return numbers, unit

    monkeypatch.setattr(compiled_dot._Rows, name, wrong)
    assert not same_bits(*by_torch_and_by_loops(monkeypatch, torch.ones(1, 2, 3), torch.ones(1, 2, 3)))
