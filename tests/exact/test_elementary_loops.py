"""The compiled loops of elementary functions against their torch operations, bit for bit."""

import importlib
import re

import pytest
import torch
from bits import hard_vectors, non_finite_vectors, same_bits

from dettriton.exact import _elementary_loops, _jit, _loops
from dettriton.exact.compiled_elementwise import mapped, softmax_of
from dettriton.ops import _elementwise

softmax, cross_entropy, logsumexp = (
    importlib.import_module(f"dettriton.ops.{name}") for name in ("softmax", "cross_entropy", "logsumexp")
)

pytestmark = pytest.mark.skipif(not _jit.compiles(), reason="numba is absent or switched off")

COMPILED = {name: f for name, f in _elementwise.FORMULAS.items() if f.loop is not None}
VECTORS = {**hard_vectors(130), **non_finite_vectors(130)}


def agree(chosen, *tensors) -> bool:
    return same_bits(chosen.host(*tensors), mapped(chosen.loop, *tensors), any_nan=True)


def of_bits(*bits: torch.Tensor) -> list[torch.Tensor]:
    return [b.to(torch.int32).view(torch.float32) for b in bits]


@pytest.mark.parametrize("name", COMPILED)
def test_verify_random_bits_and_ordinary_numbers(name):
    r = torch.Generator().manual_seed(3)
    chosen = COMPILED[name]
    any_bits = of_bits(*torch.randint(-(2**31), 2**31, (chosen.tensors, 1 << 16), generator=r))
    assert agree(chosen, *any_bits)
    for spread in (1e-3, 1.0, 30.0):
        assert agree(chosen, *(torch.randn(chosen.tensors, 1 << 14, generator=r) * spread))


@pytest.mark.parametrize("name", COMPILED)
def test_verify_hard_inputs(name):
    chosen = COMPILED[name]
    for vector in VECTORS.values():
        others = [VECTORS["normal"]] * (chosen.tensors - 1)
        for place in range(chosen.tensors):
            assert agree(chosen, *others[:place], vector, *others[place:])


@pytest.mark.heavy
@pytest.mark.parametrize("name", [n for n, f in COMPILED.items() if f.tensors == 1])
def test_verify_every_thirteenth_number(name):
    for start in range(-(2**31), 2**31, 1 << 26):
        (x,) = of_bits(torch.arange(start, start + (1 << 26), 13))
        assert agree(COMPILED[name], x)


def test_verify_order_in_memory_is_kept_and_does_not_matter():
    chosen, x = COMPILED["gelu gradient"], torch.randn(2, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    grad = x.flip(0)
    expected = chosen.host(grad, x)
    turned = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert mapped(chosen.loop, turned, turned).stride() == turned.stride()
    for other in (x, turned, x.expand(2, 6, 5, 4), torch.cat([x, x], 3)[..., :4]):
        assert same_bits(mapped(chosen.loop, grad, other), expected)
        assert same_bits(mapped(chosen.loop, turned, other), chosen.host(x, x))
    assert mapped(chosen.loop, x[:0], x[:0]).shape == (0, 6, 5, 4)
    assert mapped(chosen.loop, x[0, 0, 0, 0], x[0, 0, 0, 0]).shape == ()


def test_verify_threads_do_not_matter(monkeypatch):
    x = torch.randn(1001, 7, generator=torch.Generator().manual_seed(0))
    alone = mapped(COMPILED["gelu"].loop, x), softmax_of(x)
    monkeypatch.setattr(_loops, "SHARED_ELEMENTS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert all(map(same_bits, alone, (mapped(COMPILED["gelu"].loop, x), softmax_of(x))))


@pytest.mark.parametrize("columns", [1, 2, 13, 65, 130])
@pytest.mark.parametrize("name", VECTORS)
def test_verify_softmax(name, columns, monkeypatch):
    x = VECTORS[name].repeat(10)[: 130 // columns * columns * 10].view(-1, columns)
    x = torch.cat([x, torch.full((1, columns), -torch.inf), x.flip(0), x * 1e-3])
    got = softmax.softmax_torch(x)
    monkeypatch.setattr(softmax, "compiles", lambda: False)
    assert same_bits(got, softmax.softmax_torch(x))


@pytest.mark.parametrize("columns", [1, 2, 13, 65, 130])
@pytest.mark.parametrize("name", VECTORS)
def test_verify_cross_entropy_and_its_kin(name, columns, monkeypatch):
    x = VECTORS[name].repeat(10)[: 130 // columns * columns * 10].view(-1, columns)
    x = torch.cat([x, torch.full((1, columns), -torch.inf), x.flip(0), x * 1e-3])
    target = cross_entropy.Target(torch.arange(len(x)) % columns, None, -100, 1.0, 0.0)

    def found():
        rows = cross_entropy.cross_entropy_torch(x, target)
        grad = cross_entropy.cross_entropy_grad_torch(torch.full((len(x),), 0.3), x, target, *rows[1:4])
        # the sign of a row's largest zero reaches no result
        return *rows._replace(top=rows.top + 0.0), grad, softmax.log_softmax_torch(x), logsumexp.logsumexp_torch(x)

    got = found()
    for module in (softmax, cross_entropy, _elementwise):
        monkeypatch.setattr(module, "compiles", lambda: False)
    assert all(map(same_bits, got, found()))


def test_one_ulp_would_be_seen():
    chosen, x = COMPILED["gelu"], torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert agree(chosen, x) and not same_bits(chosen.host(x), mapped(chosen.loop, torch.nextafter(x, x + 1)))


@pytest.mark.heavy
def test_no_loop_holds_a_fused_instruction():
    import numba

    f32 = numba.types.Array(numba.float32, 1, "C")
    for name, loop in vars(_elementary_loops).items():
        if not isinstance(loop, _jit.Jitted) or name.startswith("_"):
            continue
        assert loop.dispatcher  # what it calls is compiled, too
        arrays = loop.fn.__code__.co_argcount - {"softmax_rows": 3, "softmax_totals": 3}.get(name, 2)
        fresh = numba.njit(**_jit._OPTIONS)(loop.fn)
        fresh.compile((f32,) * arrays + (numba.int64,) * (loop.fn.__code__.co_argcount - arrays))
        (assembly,) = fresh.inspect_asm().values()
        assert "mulps" in assembly or "fmul" in assembly
        assert not re.search(r"\bv?fn?m(?:add|sub)|\bfmla", assembly), name
