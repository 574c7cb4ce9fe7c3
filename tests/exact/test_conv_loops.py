import importlib
import re

import numpy as np
import pytest
import torch
from bits import hard_vectors, non_finite_vectors, same_bits

from dettriton.exact import _conv_loops, _grid_loops, _jit, _loops, _map_loops, compiled_conv
from dettriton.exact.convolution import Geometry

conv = importlib.import_module("dettriton.ops.conv")
needs_numba = pytest.mark.skipif(not _jit.compiles(), reason="numba is not installed, or switched off")
pytestmark = needs_numba

WAYS = {"columns": (False, False), "runs": (True, False), "positions": (True, True)}

GEOMETRIES = [
    Geometry(2, 4, 6, 2, (3, 5, 6), (2, 3, 3), (2, 2, 1), (1, 1, 2), (1, 1, 2)),
    Geometry(3, 5, 7, 1, (1, 1, 29), (1, 1, 5), (1, 1, 1), (0, 0, 2), (1, 1, 1)),
    Geometry(3, 5, 4, 1, (1, 1, 30), (1, 1, 5), (1, 1, 3), (0, 0, 6), (1, 1, 2)),
    Geometry(2, 3, 3, 1, (1, 6, 7), (1, 1, 1), (1, 2, 2), (0, 0, 0), (1, 1, 1)),
    Geometry(2, 3, 5, 1, (1, 6, 7), (1, 1, 1), (1, 1, 1), (0, 2, 1), (1, 1, 1)),
    Geometry(2, 6, 6, 6, (1, 1, 40), (1, 1, 9), (1, 1, 1), (0, 0, 4), (1, 1, 1)),
    Geometry(2, 4, 12, 4, (1, 9, 8), (1, 3, 2), (1, 3, 2), (0, 2, 3), (1, 2, 3)),
    Geometry(1, 2, 2, 1, (1, 4, 4), (1, 3, 3), (1, 4, 4), (0, 1, 1), (1, 1, 1)),
    Geometry(0, 3, 2, 1, (1, 1, 9), (1, 1, 3), (1, 1, 1), (0, 0, 1), (1, 1, 1)),
    Geometry(2, 3, 0, 1, (1, 1, 9), (1, 1, 3), (1, 1, 1), (0, 0, 1), (1, 1, 1)),
]


def seeded(seed, count=16):
    """Random geometries whose kernel fits."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        groups = int(rng.choice([1, 1, 2, 3]))
        channels = (groups * int(rng.integers(1, 4)), groups * int(rng.integers(1, 4)))
        highs = ((1, 10), (1, 5), (1, 4), (0, 5), (1, 4))
        triples = [tuple(int(v) for v in rng.integers(*high, 3)) for high in highs]
        g = Geometry(int(rng.integers(1, 4)), *channels, groups, *triples)
        if all(
            s + 2 * p >= d * (k - 1) + 1 for s, p, d, k in zip(g.size, g.padding, g.dilation, g.kernel, strict=True)
        ):
            found.append(g)
    return found


def operands(g, seed=0):
    r = torch.Generator().manual_seed(seed)
    x = torch.randn(g.batch, g.in_channels, *g.size, generator=r)
    weight = torch.randn(g.out_channels, g.group_in, *g.kernel, generator=r)
    return x, weight, torch.randn(g.batch, g.out_channels, *g.out_size, generator=r)


def results(x, weight, grad, g, precision):
    return (
        conv.conv_torch(x, weight, g, precision),
        conv.conv_input_grad_torch(grad, weight, g, precision),
        conv.conv_weight_grad_torch(grad, x, g, precision),
    )


def choose(monkeypatch, way):
    """Each way has a form for the gradient to the weight."""
    maps, positions = WAYS[way]
    monkeypatch.setattr(compiled_conv, "adds_maps", lambda *_: maps)
    monkeypatch.setattr(compiled_conv, "by_position", lambda *_: positions)
    monkeypatch.setattr(compiled_conv, "_LEAST_OUTPUTS_BY_POSITION", 1 if positions else 1 << 30)


def by_torch_and_by_loops(monkeypatch, x, weight, grad, g, precision="high", way="columns"):
    monkeypatch.setattr(conv, "compiles", lambda: False)
    expected = results(x, weight, grad, g, precision)
    monkeypatch.setattr(conv, "compiles", lambda: True)
    choose(monkeypatch, way)
    return expected, results(x, weight, grad, g, precision)


def agree(pair):
    return all(same_bits(p, q) for p, q in zip(*pair, strict=True))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("g", [*GEOMETRIES, *seeded(5)], ids=str)
def test_verify_loops_have_the_bits_of_torch_operations(g, way, monkeypatch):
    assert agree(by_torch_and_by_loops(monkeypatch, *operands(g), g, way=way))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("precision", ["high", "medium"])
@pytest.mark.parametrize("name", [*hard_vectors(), *non_finite_vectors()])
def test_verify_hard_inputs(name, precision, way, monkeypatch):
    g = Geometry(3, 4, 5, 1, (1, 1, 15), (1, 1, 3), (1, 1, 2), (0, 0, 1), (1, 1, 1))
    x, weight, grad = operands(g)
    vector = {**hard_vectors(180), **non_finite_vectors(180)}[name]
    for hard in ((vector.reshape(x.shape), weight, grad), (x, vector[:60].reshape(weight.shape), grad),
                 (x, weight, vector[:120].reshape(grad.shape))):  # fmt: skip
        assert agree(by_torch_and_by_loops(monkeypatch, *hard, g, precision, way))


@pytest.mark.parametrize("elements", [1, 100])
def test_verify_blocks_and_layouts_do_not_matter(elements, monkeypatch):
    g = Geometry(2, 4, 6, 2, (3, 5, 6), (2, 3, 3), (2, 2, 1), (1, 1, 2), (1, 1, 2))
    monkeypatch.setattr(compiled_conv, "_BLOCK_ELEMENTS", elements)
    strided = [t.transpose(1, 3).contiguous().transpose(1, 3) for t in operands(g)]
    assert not strided[0].is_contiguous()
    assert agree(by_torch_and_by_loops(monkeypatch, *strided, g))


@pytest.mark.parametrize("way", WAYS)
def test_verify_threads_do_not_matter(way, monkeypatch):
    monkeypatch.setattr(_loops, "SHARED_ELEMENTS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for g in GEOMETRIES:
        assert agree(by_torch_and_by_loops(monkeypatch, *operands(g), g, way=way))


@pytest.mark.parametrize("way", WAYS)
def test_verify_sums_beyond_53_bits(way, monkeypatch):
    g = Geometry(2, 2, 3, 1, (1, 1, 6000), (1, 1, 3), (1, 1, 1), (0, 0, 1), (1, 1, 1))
    x, weight, grad = (t.abs() + 1 for t in operands(g))
    assert agree(by_torch_and_by_loops(monkeypatch, x, weight, grad, g, way=way))
    monkeypatch.setattr(compiled_conv, "exact_terms", lambda bits: 5)
    assert agree(by_torch_and_by_loops(monkeypatch, x, weight, grad, g, way=way))


@pytest.mark.parametrize("exact", [4, 5, 11])
def test_verify_sums_of_positions_are_emptied_before_they_are_full(exact, monkeypatch):
    g = Geometry(9, 3, 10, 1, (1, 2, 2), (1, 3, 3), (1, 1, 1), (0, 1, 1), (1, 1, 1))
    taken = []
    loop = compiled_conv.weight_grad_of_positions
    monkeypatch.setattr(compiled_conv, "exact_terms", lambda bits: exact)
    monkeypatch.setattr(compiled_conv, "weight_grad_of_positions", lambda *a: (taken.append(True), loop(*a)))
    assert agree(by_torch_and_by_loops(monkeypatch, *operands(g), g, way="positions")) and taken == [True]


def test_each_way_is_taken_where_it_is_quicker():
    few_rows = compiled_conv.forward_gather(
        Geometry(2, 64, 64, 1, (1, 4, 4), (1, 3, 3), (1, 1, 1), (0, 1, 1), (1, 1, 1))
    )
    long = compiled_conv.forward_gather(Geometry(2, 16, 16, 1, (1, 1, 500), (1, 1, 7), (1, 1, 1), (0, 0, 3), (1, 1, 1)))
    large = compiled_conv.forward_gather(
        Geometry(2, 64, 64, 1, (1, 90, 90), (1, 3, 3), (1, 1, 1), (0, 1, 1), (1, 1, 1))
    )
    assert compiled_conv.by_position(few_rows, 64) and not compiled_conv.by_position(few_rows, 1)
    assert not compiled_conv.by_position(long, 16)
    assert [compiled_conv.adds_maps(m, 1) for m in (few_rows, long, large)] == [True, True, False]
    assert compiled_conv.adds_maps(large, 1, uses=9)


@pytest.mark.parametrize("way", WAYS)
def test_verify_bias_is_added_as_the_epilogue_adds_it(way, monkeypatch):
    g = Geometry(3, 4, 5, 1, (1, 3, 15), (1, 1, 3), (1, 1, 2), (0, 0, 1), (1, 1, 1))
    x, weight, _ = operands(g)
    weight[0] = 3e38
    x[1] = 3e38
    for value in (0.5, float("inf"), float("-inf"), float("nan"), -0.0):
        bias = torch.full((5,), value)
        monkeypatch.setattr(conv, "compiles", lambda: False)
        expected = conv.conv_finished_torch(x, weight, g, "high", conv.Epilogue(bias))[0]
        monkeypatch.setattr(conv, "compiles", lambda: True)
        choose(monkeypatch, way)
        assert same_bits(expected, conv.conv_finished_torch(x, weight, g, "high", conv.Epilogue(bias))[0])


@pytest.mark.parametrize("broken", ["scale", "unit"])
def test_the_comparison_sees_one_wrong_grid(broken, monkeypatch):
    g = GEOMETRIES[1]
    right = compiled_conv._scales

    def wrong(*arguments):
        scale, unit = right(*arguments)
        (scale if broken == "scale" else unit)[0] *= 2
        return scale, unit

    monkeypatch.setattr(compiled_conv, "_scales", wrong)
    assert not agree(by_torch_and_by_loops(monkeypatch, *operands(g), g))


def source_and_options(loop):
    """Of a loop; what other loops call has become what numba made of it."""
    return (loop.fn, loop.options) if isinstance(loop, _jit.Jitted) else (loop.py_func, loop.targetoptions)


def test_no_multiplication_is_fused_into_an_addition():
    import numba

    f32, f64, i64 = (numba.types.Array(t, 1, "C") for t in (numba.float32, numba.float64, numba.int64))
    number = numba.int64
    rounding = {
        _conv_loops.round_maps: (f64, f64, f64, f32, i64, i64, i64, number, number, f32),
        _map_loops._round_map: (f64, number, numba.float64, f32, i64, number, number, i64, number, f32),
        _map_loops.round_matrices: (f64, f64, f64, number, number, number, f32, f32),
    }
    assert _map_loops.round_matrices.dispatcher  # what it calls is compiled, too
    for loop, signature in rounding.items():
        function, options = source_and_options(loop)
        assert options["fastmath"] is False
        compiled = numba.njit(function, **_jit._OPTIONS)
        compiled.compile(signature)
        (assembly,) = compiled.inspect_asm().values()
        assert re.search(r"cvtsd2ss|cvtpd2ps|fcvt", assembly) and not re.search(r"\bv?fn?madd|\bfmla|\bfmadd", assembly)


def test_only_sums_of_integers_may_be_reordered():
    loops = {
        n: f for m in (_conv_loops, _map_loops, _grid_loops) for n, f in vars(m).items() if hasattr(f, "__wrapped__")
    }
    loops |= {n: f for n, f in vars(_map_loops).items() if hasattr(f, "py_func")}
    del loops["_sum_tile"]
    assert "direct" in loops
    free = {name for name, loop in loops.items() if source_and_options(loop)[1]["fastmath"]}
    assert free == {"_add_dots"}
