"""The compiled loops of elementary functions against their torch operations, bit for bit."""

import importlib
import re
from itertools import product

import pytest
import torch
from bits import hard_vectors, non_finite_vectors, same_bits

from dettriton.exact import _elementary_loops, _jit, _loops, elementary
from dettriton.exact.compiled_elementwise import mapped, softmax_of
from dettriton.ops import _elementwise

softmax, cross_entropy, logsumexp, bce = (
    importlib.import_module(f"dettriton.ops.{name}") for name in ("softmax", "cross_entropy", "logsumexp", "bce")
)

pytestmark = pytest.mark.skipif(not _jit.compiles(), reason="numba is absent or switched off")

COMPILED = {name: f for name, f in _elementwise.FORMULAS.items() if f.loop is not None}
VECTORS = {**hard_vectors(130), **non_finite_vectors(130)}
# the fused instructions of these loops are looked for with arguments of these types
TYPES = {
    "bce": "b b x x x x x i i",
    "bce_gradient": "b b x x x x x x i i",
    "softmax_rows": "x x i i i",
    "softmax_totals": "x x x i i i",
    "class_losses": "x l x b i i x x x x i i",
    "class_loss_gradient": "x x l x b i f f i x x x x i i",
}


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


def loss_and_gradient(factor, *arguments):
    return bce.bce_torch(*arguments), bce.bce_grad_torch(factor, *arguments)


def assert_bce_agrees(monkeypatch, *arguments):
    got = loss_and_gradient(*arguments)
    with monkeypatch.context() as without:
        without.setattr(bce, "compiles", lambda: False)
        expected = loss_and_gradient(*arguments)
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("pulled", [False, True])
@pytest.mark.parametrize("name", VECTORS)
def test_verify_bce_of_hard_inputs(name, pulled, weighted, monkeypatch):
    given = [VECTORS["ones"] * 0.3, VECTORS["normal"], VECTORS["integers"] * 0.2, VECTORS["normal"].abs()]
    given = [*given[:3], given[3] if weighted else None, given[3].flip(0) if pulled else None]
    for place in range(5):
        if given[place] is not None:
            assert_bce_agrees(monkeypatch, *given[:place], VECTORS[name], *given[place + 1 :])


@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
def test_verify_bce_of_ordinary_numbers(spread, monkeypatch):
    r = torch.Generator().manual_seed(5)
    x, y, weight, pos_weight = torch.randn(4, 1 << 16, generator=r)
    assert_bce_agrees(monkeypatch, torch.tensor(0.7), x * spread, y.abs(), weight, pos_weight)
    assert_bce_agrees(monkeypatch, torch.tensor(0.7), x * spread, (y > 0).float(), None, None)


@pytest.mark.parametrize("shape", [(), (5,), (1, 5), (4, 1), (3, 1, 5), (1, 4, 1), (3, 4, 5)], ids=str)
def test_verify_bce_factors_of_any_shape_and_order_in_memory(shape, monkeypatch):
    r = torch.Generator().manual_seed(6)
    x, y, whole = torch.randn(3, 3, 4, 5, generator=r)
    factor, other = torch.rand(shape, generator=r), torch.rand(5, generator=r)
    turned = x.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    for logits, target in product((x, turned, torch.cat([x, x], 2)[..., ::2], x[:1].expand(3, 4, 5)), (y, y.flip(1))):
        assert_bce_agrees(monkeypatch, whole, logits, target, factor, other)
        assert_bce_agrees(monkeypatch, torch.tensor(0.3), logits, target, other, factor)
    assert bce.bce_torch(turned, y, factor, None).stride() == turned.stride()


def test_verify_bce_of_nothing(monkeypatch):
    nothing = torch.zeros(0, 5)
    assert_bce_agrees(monkeypatch, torch.tensor(0.3), nothing, nothing, torch.ones(5), torch.ones(1))
    assert_bce_agrees(monkeypatch, torch.tensor(0.3), torch.zeros(()), torch.ones(()), None, torch.ones(()))


@pytest.mark.heavy
def test_verify_log1p_of_every_fraction():
    import numba

    assert _elementary_loops.bce.dispatcher  # what it calls is compiled, too
    log1p = _elementary_loops._log1p

    @numba.njit(**_jit._OPTIONS)
    def loop(x, y):
        for i in range(x.size):
            y[i] = log1p(x[i])

    top = int(torch.ones(()).view(torch.int32))
    for start in range(0, top + 1, 1 << 26):
        (x,) = of_bits(torch.arange(start, min(start + (1 << 26), top + 1)))
        y = torch.empty_like(x)
        loop(x.numpy(), y.numpy())
        assert same_bits(y, elementary.log1p(x))


def assert_classes_agree(monkeypatch, x, factor, target):
    def found():
        rows = cross_entropy.cross_entropy_torch(x, target)
        grad = cross_entropy.cross_entropy_grad_torch(factor, x, target, *rows[1:4])
        # the sign of a row's largest zero reaches no result
        return *rows._replace(top=rows.top + 0.0), grad

    got = found()
    with monkeypatch.context() as without:
        for module in (softmax, cross_entropy, _elementwise):
            without.setattr(module, "compiles", lambda: False)
        expected = found()
    assert all(map(same_bits, got[:5], expected[:5]))
    assert same_bits(got[5], expected[5], any_nan=True)


def target_of(rows, classes, weight, smoothing, seed=0):
    """Class indices, a quarter of which is ignored."""
    labels = torch.randint(0, classes, (rows,), generator=torch.Generator().manual_seed(seed))
    a, b = torch.tensor([1 - smoothing, smoothing / classes]).tolist()
    labels[1::4] = -7
    return cross_entropy.Target(labels, weight, -7, a, b)


each_smoothing = pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])


@each_smoothing
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("columns", [1, 2, 13, 65, 130])
@pytest.mark.parametrize("name", VECTORS)
def test_verify_class_losses_of_hard_logits(name, columns, weighted, smoothing, monkeypatch):
    x = VECTORS[name].repeat(10)[: 130 // columns * columns * 10].view(-1, columns)
    x = torch.cat([x, torch.full((1, columns), -torch.inf), x.flip(0), x * 1e-3])
    weight = VECTORS["normal"][:columns].abs() if weighted else None
    factor = torch.linspace(-1.0, 1.0, len(x))
    for seed in range(3):
        assert_classes_agree(monkeypatch, x, factor, target_of(len(x), columns, weight, smoothing, seed))


@each_smoothing
@pytest.mark.parametrize("name", VECTORS)
def test_verify_class_losses_of_hard_weights_and_factors(name, smoothing, monkeypatch):
    r = torch.Generator().manual_seed(7)
    x, weight = torch.randn(130, 13, generator=r) * 3, VECTORS[name][36:49]
    x[3, 5], x[7], x[11, 2] = -torch.inf, torch.inf, torch.nan
    x[5:60:5, 1] = -torch.inf
    target = target_of(130, 13, weight, smoothing)
    assert_classes_agree(monkeypatch, x, VECTORS["normal"], target)
    assert_classes_agree(monkeypatch, x, VECTORS[name], target)
    assert_classes_agree(monkeypatch, x, VECTORS[name], target._replace(weight=None))
    assert_classes_agree(monkeypatch, x, VECTORS["normal"], target._replace(a=0.0, b=0.0))


@each_smoothing
@pytest.mark.parametrize("weighted", [False, True])
def test_verify_class_losses_of_nothing_and_of_ignored_rows(weighted, smoothing, monkeypatch):
    weight = torch.tensor([0.0, 0.5, -0.0]) if weighted else None
    assert_classes_agree(monkeypatch, torch.zeros(0, 3), torch.zeros(0), target_of(0, 3, weight, smoothing))
    target = target_of(4, 3, weight, smoothing)
    x = torch.tensor([torch.nan, torch.inf, -torch.inf]).repeat(4, 1)
    assert_classes_agree(monkeypatch, x, torch.ones(4), target._replace(of_rows=torch.full((4,), -7)))
    assert_classes_agree(monkeypatch, x * 0, torch.ones(4), target)


def test_verify_threads_do_not_matter_to_losses(monkeypatch):
    r = torch.Generator().manual_seed(8)
    x, y, factor = torch.randn(1001, 7, generator=r), torch.rand(1001, 7, generator=r), torch.rand(1001, generator=r)
    target = target_of(1001, 7, torch.rand(7, generator=r), 0.0)

    def found():
        rows = cross_entropy.cross_entropy_torch(x, target)
        grad = cross_entropy.cross_entropy_grad_torch(factor, x, target, *rows[1:4])
        return *loss_and_gradient(factor[:, None], x, y, target.weight, None), *rows, grad

    alone = found()
    monkeypatch.setattr(_loops, "SHARED_ELEMENTS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert all(map(same_bits, alone, found()))


def test_one_ulp_would_be_seen():
    chosen, x = COMPILED["gelu"], torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert agree(chosen, x) and not same_bits(chosen.host(x), mapped(chosen.loop, torch.nextafter(x, x + 1)))


@pytest.mark.heavy
def test_no_loop_holds_a_fused_instruction():
    import numba

    types = {"b": numba.boolean, "f": numba.float32, "i": numba.int64}
    types |= {c: numba.types.Array(t, 1, "C") for c, t in {"x": numba.float32, "l": numba.int64}.items()}
    for name, loop in vars(_elementary_loops).items():
        if not isinstance(loop, _jit.Jitted) or name.startswith("_"):
            continue
        assert loop.dispatcher  # what it calls is compiled, too
        usual = "x " * (loop.fn.__code__.co_argcount - 2) + "i i"
        fresh = numba.njit(**_jit._OPTIONS)(loop.fn)
        fresh.compile(tuple(types[c] for c in TYPES.get(name, usual).split()))
        (assembly,) = fresh.inspect_asm().values()
        assert "mulps" in assembly or "fmul" in assembly
        assert not re.search(r"\bv?fn?m(?:add|sub)|\bfmla", assembly), name
