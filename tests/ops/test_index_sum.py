import time

import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits

from dettriton.engine import use_engine
from dettriton.errors import InputError
from dettriton.exact import _jit, _loops
from dettriton.exact.ieee import CANONICAL_NAN_BITS
from dettriton.ops import _index_sum
from dettriton.ops._index_sum import SKIP, index_sum
from dettriton.ops.sum import exact_sum

VECTORS = {**hard_vectors(60), **non_finite_vectors(60)}
MILLION = 1_000_000


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_by_one(terms, index, size, initial=None):
    """The definition: for each target exact_sum of exactly its terms."""
    rows = []
    for target in range(size):
        mine = terms[index == target]
        if initial is not None and not len(mine):
            rows.append(initial[target])
            continue
        rows.append(exact_sum(mine if initial is None else torch.cat((mine, initial[target : target + 1])), (0,)))
    return torch.stack(rows)


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("size", [1, 4, 30])
@pytest.mark.parametrize("started", [False, True])
def test_validate_each_target_is_the_exact_sum_of_its_terms(name, size, started):
    terms = VECTORS[name].reshape(20, 3)
    index = torch.randint(0, size, (20,), generator=generator(size))
    initial = terms.repeat(2, 1).flip(0)[:size] if started else None
    expected = one_by_one(terms, index, size, initial)
    for result in on_both_engines(index_sum, terms, index, size, initial):
        assert same_bits(result, expected)


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("size", [7, 600])
def test_verify_compiled_loops_and_torch_operations(name, columns, threads, size, monkeypatch):
    terms = VECTORS[name].reshape(-1, columns)
    index = torch.randint(0, size, (len(terms),), generator=generator(8))
    monkeypatch.setattr(_loops, "SHARED_ELEMENTS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for initial in (None, terms.flip(0).repeat(30, 1)[:size].contiguous()):
        monkeypatch.setattr(_index_sum, "compiles", _jit.compiles)
        result = index_sum(terms, index, size, initial)
        monkeypatch.setattr(_index_sum, "compiles", lambda: False)
        assert same_bits(result, index_sum(terms, index, size, initial))


@pytest.mark.parametrize("columns", [1, 2, 127, 128, 129, 300])
def test_verify_engines_agree_over_columns(columns):
    terms = torch.randn(33, columns, generator=generator(1)) * 1e-3
    index = torch.randint(0, 5, (33,), generator=generator(2))
    reference, kernels = on_both_engines(index_sum, terms, index, 7)
    assert same_bits(reference, kernels) and same_bits(reference, one_by_one(terms, index, 7))


@pytest.mark.parametrize("tile", [64, 4096])
def test_verify_other_tiles(tile, monkeypatch):
    terms = torch.randn(300, 3, generator=generator(1))
    index = torch.randint(0, 9, (300,), generator=generator(2))
    reference = index_sum(terms, index, 9)
    monkeypatch.setattr(_index_sum, "BLOCK", tile)
    monkeypatch.setattr(_index_sum, "CHUNK", tile)
    monkeypatch.setattr(_index_sum, "SLAB", tile // 8)
    for result in on_both_engines(index_sum, terms, index, 9):
        assert same_bits(result, reference)
    monkeypatch.setattr(_index_sum, "compiles", lambda: False)
    assert same_bits(index_sum(terms, index, 9), reference)


@pytest.mark.parametrize("name", VECTORS)
def test_verify_order_does_not_matter(name):
    terms = VECTORS[name].reshape(20, 3)
    index = torch.randint(0, 2, (20,), generator=generator(3))
    order = torch.randperm(20, generator=generator(4))
    results = [*on_both_engines(index_sum, terms, index, 2), *on_both_engines(index_sum, terms[order], index[order], 2)]
    assert all(same_bits(r, results[0]) for r in results)


def test_verify_non_contiguous_terms():
    terms = torch.randn(6, 50, generator=generator(5)).t()[::2]
    index = torch.randint(0, 4, (25,), generator=generator(6))
    spread = torch.ones(1, 1).expand(25, 6)
    for given in (terms, spread):
        for result in on_both_engines(index_sum, given, index, 4):
            assert same_bits(result, one_by_one(given.contiguous(), index, 4))


def test_verify_shared_target_in_a_whole_tile():
    terms = torch.randn(2100, 1, generator=generator(7))
    index = torch.full((2100,), 3)
    index[-1] = 0
    reference, kernels = on_both_engines(index_sum, terms, index, 5)
    assert same_bits(reference, kernels) and same_bits(reference, one_by_one(terms, index, 5))


@pytest.mark.parametrize(("n", "columns", "size"), [(0, 3, 4), (5, 0, 4), (0, 3, 0), (1, 1, 1)])
def test_verify_empty(n, columns, size):
    terms, index = torch.full((n, columns), -0.0), torch.zeros(n, dtype=torch.int64)
    for result in on_both_engines(index_sum, terms, index, size):
        assert same_bits(result, torch.zeros(size, columns))


def test_targets_without_terms_keep_their_initial_bits():
    initial = torch.tensor([-0.0, float("-inf"), float("nan"), 1.0, float("inf")])[:, None]
    index, terms = torch.tensor([3, 4, SKIP]), torch.tensor([[2.0], [1.0], [5.0]])
    for result in on_both_engines(index_sum, terms, index, 5, initial):
        assert same_bits(result[:3], initial[:3])
        assert result[3] == 3.0 and result[4].view(torch.int32) == CANONICAL_NAN_BITS


def test_skipped_rows_count_nowhere_and_bad_ones_are_named():
    terms = torch.tensor([[1.0], [float("nan")], [2.0]])
    for result in on_both_engines(index_sum, terms, torch.tensor([0, SKIP, 0]), 1):
        assert result.tolist() == [[3.0]]
    outside = torch.tensor([0, 7, 0])
    with pytest.raises(InputError, match="target 7 of row 1"):
        index_sum(terms, outside, 1)
    with use_engine("triton"):
        assert index_sum(terms, outside, 1).tolist() == [[3.0]]


@pytest.mark.parametrize("size", [1, MILLION])
def test_verify_a_million_updates(size):
    terms = torch.randn(MILLION, 1, generator=generator(8))
    index = torch.randint(0, size, (MILLION,), generator=generator(9))
    started = time.perf_counter()
    result = index_sum(terms, index, size)
    assert time.perf_counter() - started < 10
    order = torch.randperm(MILLION, generator=generator(10))
    assert same_bits(result, index_sum(terms[order], index[order], size))
    if size == 1:
        assert same_bits(result, exact_sum(terms, (0,), keepdim=True))


def test_a_float_scatter_does_depend_on_order():
    terms = VECTORS["cancellation"][:, None]
    index = torch.zeros(60, dtype=torch.int64)
    orders = [torch.randperm(60, generator=generator(s)) for s in range(20)]
    stock = {torch.zeros(1, 1).index_add(0, index, terms[o]).item() for o in orders}
    ours = {index_sum(terms[o], index, 1).item() for o in orders}
    assert len(stock) > 1 and len(ours) == 1
