"""The compiled loops against the torch operations, bit for bit; both are called in one process."""

import re
from importlib import import_module

import pytest
import tiny_training
import torch
from bits import hard_vectors, non_finite_vectors, same_bits

from dettriton.exact import (
    _elementwise_loops,
    _jit,
    _norm_loops,
    _philox_loops,
    _window_loops,
)
from dettriton.exact.philox import Stream, random_bits
from dettriton.exact.window import accumulate, windowed_sum
from dettriton.ops._index_sum import index_sum
from dettriton.train.trainer import train

_row_norm, batch_norm, dropout, relu = (
    import_module(f"dettriton.ops.{name}") for name in ("_row_norm", "batch_norm", "dropout", "relu")
)

LOOPS = (_window_loops, _norm_loops, _philox_loops, _elementwise_loops)
VECTORS = {**hard_vectors(120), **non_finite_vectors(120)}
FUSED = re.compile(r"\bv?fn?m(?:add|sub)")

pytestmark = pytest.mark.skipif(not _jit.compiles(), reason="numba is absent or switched off")


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def both(monkeypatch):
    """Calls a function with the loops and with torch's operations alone."""

    def call(fn, *args):
        results = []
        for switch in ("1", "0"):
            monkeypatch.setenv(_jit.SWITCH, switch)
            _jit.compiles.cache_clear()
            assert _jit.compiles() == (switch == "1")
            results.append(fn(*args))
        monkeypatch.undo()
        _jit.compiles.cache_clear()
        return results

    return call


def agree(results) -> bool:
    first, second = (r if isinstance(r, (tuple, list)) else [r] for r in results)
    return all(a is b is None or same_bits(a, b, any_nan=True) for a, b in zip(first, second, strict=True))


def fields(x: torch.Tensor, dims: tuple[int, ...]) -> list[torch.Tensor]:
    total = accumulate(x, dims)
    return [total.window, total.hi, total.lo, total.finite]


@pytest.mark.parametrize("dims", [(0,), (1,), (2,), (0, 2), (1, 2), (0, 1), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("name", VECTORS)
def test_verify_sums_and_accumulators(name, dims, both):
    x = VECTORS[name].view(4, 5, 6)
    total, stock = both(windowed_sum, x, dims)
    assert same_bits(total, stock)  # a sum's NaN is the canonical one
    assert agree(both(fields, x, dims))


@pytest.mark.parametrize("exponent", range(-150, 128, 9))
def test_verify_every_place_in_a_window(exponent, both):
    x = torch.ldexp(randn(6, 40), torch.randint(-70, 1, (6, 40), generator=torch.Generator().manual_seed(1)))
    x = torch.ldexp(x / 8, torch.tensor(exponent))
    for dims in ((1,), (0,), (0, 1)):
        assert agree(both(windowed_sum, x, dims)) and agree(both(fields, x, dims))


@pytest.mark.parametrize(
    "x",
    [randn(4, 6).t(), randn(1, 5).expand(7, 5), randn(4, 3, 5, 6).contiguous(memory_format=torch.channels_last),
     torch.zeros(0, 3), torch.zeros(3, 0), torch.tensor(-0.0), torch.tensor([-0.0]), randn(3, 2).requires_grad_(),
     torch.complex(randn(5), randn(5)).conj().imag, randn(24)[1::3]],
    ids=["transposed", "expanded", "channels-last", "no rows", "no columns", "scalar", "one", "grad", "negated", "strided"],
)  # fmt: skip
def test_verify_layouts(x, both):
    with torch.no_grad():
        every = tuple(range(x.dim()))
        for dims in {every, every[:1], every[-1:]}:
            assert agree(both(windowed_sum, x, dims))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [((1 << 21) + 5,), (3000, 1, 101), (300, 1000)], ids=str)
def test_verify_long_sums_on_any_number_of_threads(shape, threads, both):
    x = torch.ldexp(randn(*shape), torch.tensor(-3))
    x.view(-1)[7], x.view(-1)[-1] = 1e9, -1e9
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for dims in (tuple(range(x.dim())), (0,)):
            assert agree(both(windowed_sum, x, dims)) and agree(both(fields, x, dims))
    finally:
        torch.set_num_threads(before)


def forward(x, weight, bias, mean, scale, *extra):
    return batch_norm.batch_norm_torch(x, weight, bias, batch_norm.Statistics(mean, scale, None), False, *extra)[:1]


def statistics(x):
    return batch_norm.batch_norm_statistics_torch(x)[:2]


def tracked(x, momentum, stride):
    running = [torch.stack([torch.tensor([0.5, 2.0])] * stride, 1)[:, 0] for _ in range(2)]
    found = batch_norm._statistics(x, "torch", *running, True, momentum, 1e-5)
    alone = batch_norm._statistics(x, "torch", None, None, True, momentum, 1e-5)
    return *found[:2], *running, *alone[:2]


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize(("momentum", "stride"), [(0.1, 1), (0.3, 2), (1.0, 1), (0.0, 1)])
def test_verify_running_statistics_follow(name, momentum, stride, both):
    x = torch.stack([VECTORS[name].view(4, 30), randn(4, 30)], 1)
    assert agree(both(tracked, x, momentum, stride))


@pytest.mark.parametrize("name", VECTORS)
def test_verify_batch_norm_on_hard_channels(name, both):
    x = torch.stack([VECTORS[name].view(4, 30), randn(4, 30)], 1)
    mean, scale, weight, bias = randn(4, 2)
    for a, b in ((x, randn(4, 2, 30, seed=2)), (randn(4, 2, 30, seed=2), x)):
        assert agree(both(statistics, a))
        for extra in ((), (b, True), (None, True)):
            assert agree(both(forward, a, weight, bias, mean, scale, *extra))
            assert agree(both(forward, a, None, None, mean, scale, *extra))
        for training in (True, False):
            for result in (None, b):
                given = a, b, (mean, scale), weight, training, (True,) * 4, result
                assert agree(both(batch_norm.batch_norm_grad_torch, *given))


@pytest.mark.parametrize(
    "shape",
    [(3, 2, 1), (1, 2, 1), (1, 3, 4), (6, 2, 16), (6, 2, 17), (2, 3, 0), (5, 4), (2, 3, 7, 5), (40, 3, 2500)],
    ids=str,
)
def test_verify_batch_norm_on_shapes(shape, both):
    x, grad, gate = (randn(*shape, seed=i) for i in range(3))
    mean, scale, weight, bias = randn(4, shape[1])
    assert agree(both(forward, x, weight, bias, mean, scale, grad, True))
    if x.numel():
        assert agree(both(statistics, x))
        assert agree(both(batch_norm.batch_norm_grad_torch, grad, x, (mean, scale), weight, True, (True,) * 4, gate))
    assert agree(both(batch_norm.batch_norm_grad_torch, grad, x, (mean, scale), weight, False, (True,) * 4, gate))


@pytest.mark.parametrize("view", [(4, 1, 30, 1), (2, 3, 4, 5), (5, 1, 1, 24), (20, 6, 1, 1)], ids=str)
@pytest.mark.parametrize("name", VECTORS)
def test_verify_row_norms(name, view, both):
    x, grad = VECTORS[name].view(view), randn(*view, seed=1)
    weight, bias = randn(2, view[1] * view[2], seed=2)
    for centre in (True, False):
        assert agree(both(_row_norm.row_norm_torch, x, weight, bias, 1e-5, centre))
        _, mean, scale = _row_norm.row_norm_torch(x, None, None, 1e-5, centre)
        for a, b in ((x, grad), (grad, x)):
            for w in (weight, None):
                assert agree(both(_row_norm.row_norm_grad_torch, a, b, w, mean, scale, centre, (True, True)))


def row_norm_and_gradients(x, grad, weight, bias, centre):
    """With every choice of wanted gradients."""
    y, mean, scale = _row_norm.row_norm_torch(x, weight, bias, 1e-5, centre)
    given = grad, x, weight, mean, scale, centre
    wanted = (True, True), (True, False), (False, True)
    return [y, mean, scale, *(g for w in wanted for g in _row_norm.row_norm_grad_torch(*given, w))]


@pytest.mark.parametrize(
    "view",
    [(3, 1, 1, 1), (5, 1, 7, 1), (4, 3, 1, 1), (2, 3, 5, 7), (1, 1, 33, 1), (2, 1, 5000, 1), (2, 2, 3, 1701), (0, 2, 3, 4),
     (3, 1, 0, 1)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("centre", [True, False])
def test_verify_row_norms_on_shapes(view, centre, both):
    x, grad = randn(2, *view)
    weight, bias = randn(2, view[1] * view[2], seed=1)
    for w, b in ((weight, bias), (weight, None), (None, bias), (None, None)):
        assert agree(both(row_norm_and_gradients, x, grad, w, b, centre))


@pytest.mark.parametrize("threads", [1, 3])
def test_verify_row_norms_on_threads_and_in_any_layout(threads, both):
    x, grad = randn(2, 9, 5, 60, 100).transpose(3, 4)[..., 1:, :]
    weight, bias = randn(2 * 5 * 99).view(-1, 2).t()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for centre in (True, False):
            assert agree(both(row_norm_and_gradients, x, grad, weight, bias, centre))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("exponent", range(-150, 128, 9))
def test_verify_row_norms_at_every_place_in_a_window(exponent, centre, both):
    spread = torch.randint(-70, 1, (6, 1, 41, 1), generator=torch.Generator().manual_seed(1))
    varied = torch.ldexp(torch.ldexp(randn(6, 1, 41, 1), spread) / 8, torch.tensor(exponent))
    for x, grad in ((varied, randn(6, 1, 41, 1)), (randn(6, 1, 41, 1), varied)):
        assert agree(both(row_norm_and_gradients, x, grad, randn(41, seed=1), None, centre))


@pytest.mark.parametrize("size", [1, 3, 1 << 11, (1 << 11) + 1, 1 << 13, (1 << 16) + 5])
@pytest.mark.parametrize("exponent", [-149, -126, *range(-96, -61), *range(0, 33), 127])
def test_verify_totals_of_the_largest_terms(exponent, size, both):
    largest = torch.ldexp(torch.tensor(2 - 2.0**-23), torch.tensor(exponent))
    all_largest, noise = largest.repeat(size), randn(size)
    for x in (all_largest, -all_largest, largest * noise.sign(), largest * noise.clamp(-1, 1)):
        values = x.numpy()
        total = torch.tensor(_window_loops._total(values, _window_loops._top(values)))
        _, stock = both(windowed_sum, x)
        assert same_bits(total, stock)


@pytest.mark.parametrize("name", VECTORS)
def test_verify_relu_and_dropout(name, both):
    x = VECTORS[name]
    y, stock = both(relu.relu_torch, x)
    assert same_bits(y, stock)
    assert agree(both(relu.relu_grad_torch, x, randn(120)))
    for n in (120, 119, 118, 117, 1, 0):
        assert agree(both(dropout.dropout_torch, x[:n], 0.25, Stream(1, 2, (3 << 32) + 4)))


@pytest.mark.parametrize("n,offset", [(0, 3), (1, 2), (37, 5), (5, (1 << 62) - 5), (9, (1 << 34) - 4)])
def test_verify_random_words(n, offset, both):
    top = Stream((1 << 32) - 1, (1 << 32) - 1, (1 << 64) - 1)
    assert agree(both(random_bits, top, n, offset)) and agree(both(random_bits, Stream(0), n, offset))


def test_verify_a_training_ends_in_the_same_bits(both, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        tiny_training.install(patch.setattr)

        def trained() -> dict[str, bytes]:
            folder = tmp_path / str(_jit.compiles())
            train(tiny_training.recipe(), folder, progress=False)
            return tiny_training.files(folder)

        with_loops, without = both(trained)
    assert with_loops == without and len(without["weights.safetensors"]) > 1000


def test_a_sum_in_another_order_of_truncation_would_be_seen(both):
    x = torch.tensor([2.0**33, 0.75, 0.75])
    assert agree(both(windowed_sum, x)) and windowed_sum(x).item() == 2.0**33
    loops, stock = both(fields, x, (0,))
    wrong = [loops[0], loops[1], loops[2] + 1, loops[3]]
    assert agree([loops, stock]) and not agree([wrong, stock])


def test_no_multiplication_is_fused_into_an_addition():
    x = randn(64, 3, 33)
    mean, scale, weight, bias = randn(4, 3)
    (y,) = forward(x, weight, bias, mean, scale)
    h = (x - mean.view(1, 3, 1)) * scale.view(1, 3, 1)
    fused = (h.double() * weight.double().view(1, 3, 1) + bias.double().view(1, 3, 1)).float()
    assert same_bits(y, h * weight.view(1, 3, 1) + bias.view(1, 3, 1)) and not same_bits(y, fused)


def call_every_loop() -> None:
    x = randn(2, 3, 4)
    mean, scale, weight, bias = randn(4, 3)
    for dims in ((0, 2), (0, 1)):
        windowed_sum(x.transpose(1, 2), dims)
    windowed_sum(x, (0,))
    batch_norm._statistics(x, "torch", mean.clone(), scale.clone(), True, 0.1, 1e-5)
    batch_norm.batch_norm_torch(x, weight, bias, batch_norm.Statistics(mean, scale, None), False, x, True)
    batch_norm.batch_norm_grad_torch(x, x, (mean, scale), weight, True, (True,) * 4, x)
    _row_norm.row_norm_torch(x.view(2, 1, 12, 1), None, None, 1e-5, True)
    _row_norm.row_norm_grad_torch(*[x.view(2, 1, 12, 1)] * 2, None, mean[:2], scale[:2], True, (True, True))
    dropout.dropout_torch(relu.relu_torch(x), 0.5, Stream(1))
    random_bits(Stream(1), 5)
    for columns in (4, 1):
        index_sum(x.view(24, 1)[:6].expand(6, columns), torch.tensor([0, 2, 1, 0, 0, 2]), 3)


@pytest.mark.heavy
def test_no_loop_holds_a_fused_instruction():
    import numba

    assert FUSED.search("\tvfmadd213ps\t%ymm0") and FUSED.search("\tfmadd d0, d1") and not FUSED.search("vmulps vaddps")
    call_every_loop()
    for module in LOOPS:
        public = {n: f for n, f in vars(module).items() if isinstance(f, _jit.Jitted) and not n.startswith("_")}
        for name, loop in public.items():
            assert loop.dispatcher.signatures, f"{name} was not called"
            # Machine code from the cache cannot be read, so it is made again.
            fresh = numba.njit(**_jit._OPTIONS)(loop.fn)
            for signature in loop.dispatcher.signatures:
                fresh.compile(signature)
            assert not any(FUSED.search(text) for text in fresh.inspect_asm().values()), name
