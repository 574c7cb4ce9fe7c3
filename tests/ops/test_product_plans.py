"""The tiles of exact products: what is chosen, and that no choice moves a bit."""

import pytest
import torch
from bits import on_both_engines, same_bits, values_and_grads

from dettriton.ops import _plans, conv1d, conv2d, matmul
from dettriton.ops._plans import LARGE, MOST_TERMS, NARROW, PADDING, SMALL, Plan, choose, for_runs

CPU = torch.device("cpu")
ALL = [*LARGE.values(), *SMALL.values(), *NARROW.values()]
heavy = pytest.mark.heavy
TILES = (LARGE[3], LARGE[2], Plan(16, 16, 32, 4, 1, split_terms=32), Plan(32, 64, 64, 2, 4, split_terms=128))
each_tile = pytest.mark.parametrize("plan", TILES, ids=lambda p: f"{p.block_m}x{p.block_n}x{p.block_k}")


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def agree(fn, *inputs):
    ours, kernels = on_both_engines(values_and_grads, fn, *inputs)
    return all(same_bits(p, q) for p, q in zip(ours, kernels, strict=True))


@heavy
@each_tile
def test_verify_tiles_do_not_matter_to_matmul(plan, monkeypatch):
    monkeypatch.setattr(_plans, "FORCED", plan)
    a, b = gaussian(17, 70, seed=1), gaussian(70, 33, seed=2)
    assert agree(lambda x, y: matmul(x, y, precision="high" if plan.block_n == 64 else "medium"), a, b)


@heavy
@each_tile
def test_verify_tiles_do_not_matter_to_convolutions(plan, monkeypatch):
    monkeypatch.setattr(_plans, "FORCED", plan)
    x, w = gaussian(2, 5, 7, 4, seed=3), gaussian(6, 5, 3, 2, seed=4)
    assert agree(lambda a, b: conv2d(a, b, None, (2, 1), (1, 0), (1, 2)), x, w)


@pytest.mark.parametrize("most_terms", [64, pytest.param(MOST_TERMS, marks=heavy)])
def test_verify_large_tiles_and_terms_that_an_accumulator_cannot_hold(most_terms, monkeypatch):
    monkeypatch.setattr(_plans, "MOST_TERMS", most_terms)
    monkeypatch.setattr(_plans, "FORCED", LARGE[3])
    results = on_both_engines(matmul, gaussian(5, 130, seed=5), gaussian(130, 3, seed=6))
    assert same_bits(*results)


@heavy
def test_verify_convolutions_of_terms_that_an_accumulator_cannot_hold(monkeypatch):
    monkeypatch.setattr(_plans, "MOST_TERMS", 64)
    assert agree(lambda x, w: conv1d(x, w, stride=2), gaussian(2, 17, 19, seed=7), gaussian(18, 17, 5, seed=8))


def test_verify_the_largest_digits_of_one_sign():
    x = torch.full((2, 129), 2.0 - 2.0**-23)
    assert same_bits(*on_both_engines(matmul, x, -x.t()))


GEOMETRIES = {
    "padding beyond the kernel": ((1, 2, 4, 4), (2, 2, 1, 1), {"stride": 2, "padding": 3}),
    "stride and dilation with a common divisor": (
        (1, 2, 12, 13),
        (3, 2, 3, 4),
        {"stride": (4, 6), "padding": (2, 5), "dilation": (2, 4)},
    ),
    "groups wide enough for matrices": ((1, 32, 3, 4), (32, 16, 3, 2), {"groups": 2, "padding": 1, "stride": 2}),
    "groups of few": ((2, 6, 5, 4), (4, 3, 3, 2), {"groups": 2, "padding": 1, "dilation": (1, 2)}),
    "more outputs than inputs of a group": ((1, 2, 6, 5), (34, 1, 3, 3), {"groups": 2, "stride": (2, 1)}),
}


@heavy
@pytest.mark.parametrize("precision", ["high", "medium"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_verify_engines_agree_on_hard_geometries(name, precision):
    x_shape, w_shape, arguments = GEOMETRIES[name]
    x, w = gaussian(*x_shape, seed=9), gaussian(*w_shape, seed=10)
    assert agree(lambda a, b: conv2d(a, b, precision=precision, **arguments), x, w)


@heavy
def test_verify_phases_of_a_strided_gradient():
    x, w = gaussian(1, 2, 5, 6, seed=11), gaussian(3, 2, 2, 3, seed=12)
    assert agree(lambda a, b: conv2d(a, b, None, (4, 3), (2, 4), (2, 3)), x, w)


def test_validate_sums_fit_an_accumulator():
    products, carry = 3 * 64 * 64, 2
    assert products * MOST_TERMS * (1 + carry / 128) < 2**31


@pytest.mark.parametrize("plan", ALL, ids=repr)
def test_tiles_fit_the_padding_and_the_shared_memory_they_are_for(plan):
    digits = next(d for d in (2, 3) for plans in (LARGE, SMALL, NARROW) if plans[d] is plan)
    assert PADDING % plan.block_k == 0
    assert plan.shared_bytes(digits) <= (227 << 10 if plan in LARGE.values() else 99 << 10)


def test_large_tiles_where_they_keep_a_gpu_busy():
    assert choose(3, 4096, 4096, 4096, CPU) == Plan(128, 64, 128, 8, 3, split_terms=4096)
    assert choose(3, 128, 256, 512, CPU).block_m == SMALL[3].block_m
    assert choose(3, 64, 4096, 1 << 20, CPU).block_m == SMALL[3].block_m


def test_few_tiles_share_out_long_sums():
    plan = choose(3, 128, 256, 1 << 17, CPU)
    assert plan.block_m == LARGE[3].block_m and (1 << 17) / plan.split_terms >= 30
    assert plan.split_terms % plan.block_k == 0


def test_no_program_adds_more_terms_than_an_accumulator_holds():
    assert choose(2, 1 << 13, 1 << 13, 1 << 22, CPU).split_terms == MOST_TERMS


def test_less_shared_memory_means_narrow_tiles(monkeypatch):
    monkeypatch.setattr(_plans, "shared_limit", lambda device: 163 << 10)
    assert choose(3, 4096, 4096, 4096, CPU) == Plan(64, 32, 64, 4, 3, split_terms=4096)


@pytest.mark.parametrize(("run", "block_k", "stages"), [(384, 128, 3), (192, 64, 4), (48, 64, 4), (16, 32, 4)])
def test_blocks_pad_runs_least(run, block_k, stages):
    plan = for_runs(LARGE[3], run)
    assert (plan.block_k, plan.num_stages) == (block_k, stages)
