from fractions import Fraction

import oracle
import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.scatter import REDUCTIONS, scatter, scatter_add, scatter_reduce

HARD = hard_vectors(24)
VECTORS = {**HARD, **non_finite_vectors(24)}
ORDER_FREE = [r for r in REDUCTIONS if r != "prod"]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SHAPES = {
    "rows": ((5, 4), 0, (9, 4), (9, 4)),
    "columns": ((3, 6), -1, (3, 20), (3, 20)),
    "smaller index": ((5, 4, 3), 1, (2, 6, 2), (4, 7, 3)),
    "vector": ((6,), 0, (40,), (40,)),
    "scalar": ((), 0, (), ()),
    "nothing": ((5, 4), 0, (0, 4), (2, 4)),
}


def made(name: str, positive: bool = False):
    shape, dim, index_shape, src_shape = SHAPES[name]
    index = torch.randint(0, shape[dim] if shape else 1, index_shape, generator=generator(1))
    x, src = (torch.randn(s, generator=generator(i)) for i, s in ((2, shape), (3, src_shape)))
    return (x.abs() + 0.5, src.abs() + 0.5, dim, index) if positive else (x, src, dim, index)


def check_against_torch(ours, stock, x, src, index):
    reference, kernels = on_both_engines(values_and_grads, ours, x, src)
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    # torch has no gradient for a source larger than the index.
    reached = src[tuple(slice(s) for s in index.shape)].contiguous()
    for a, b in zip(reference, values_and_grads(stock, x, reached), strict=True):
        part = a[tuple(slice(s) for s in b.shape)] if a.shape != b.shape else a
        torch.testing.assert_close(part, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_corroborate_and_verify_scatter_add(name):
    x, src, dim, index = made(name)
    check_against_torch(
        lambda a, b: scatter_add(a, dim, index, b),
        lambda a, b: torch.scatter_add(a.double(), dim, index, b.double()).float(),
        x, src, index,
    )  # fmt: skip


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("name", ["rows", "smaller index", "vector"])
def test_corroborate_and_verify_scatter_reduce(name, reduce, include_self):
    x, src, dim, index = made(name, positive=reduce == "prod")
    check_against_torch(
        lambda a, b: scatter_reduce(a, dim, index, b, reduce, include_self=include_self),
        lambda a, b: torch.scatter_reduce(
            a.double(), dim, index, b.double(), reduce, include_self=include_self
        ).float(),
        x, src, index,
    )  # fmt: skip


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("reduce", ORDER_FREE)
def test_verify_order_does_not_matter(name, reduce):
    src = VECTORS[name]
    x = src[:4].flip(0)
    index = torch.randint(0, 3, (24,), generator=generator(4))
    order = torch.randperm(24, generator=generator(5))
    reference, kernels = on_both_engines(scatter_reduce, x, 0, index, src, reduce)
    assert same_bits(reference, kernels, any_nan=reduce == "mean")
    shuffled = scatter_reduce(x, 0, index[order], src[order], reduce)
    assert same_bits(reference, shuffled, any_nan=reduce == "mean") and same_bits(reference[3], x[3])


@pytest.mark.parametrize("name", HARD)
def test_validate_sum_against_integers(name):
    x, src = HARD[name][:2], HARD[name][2:]
    index = torch.arange(22) % 2
    added, reduced = scatter_add(x, 0, index, src), scatter_reduce(x, 0, index, src, "sum", include_self=False)
    for t in range(2):
        terms = src[index == t].tolist()
        assert oracle.word(added[t].item()) == oracle.word(oracle.windowed_sum([x[t].item(), *terms]))
        assert oracle.word(reduced[t].item()) == oracle.word(oracle.windowed_sum(terms))


def tree_product(factors: list[float]) -> float:
    while len(factors) > 1:
        pairs = [factors[i : i + 2] for i in range(0, len(factors), 2)]
        factors = [oracle.to_float32(Fraction(p[0]) * Fraction(p[1])) if len(p) == 2 else p[0] for p in pairs]
    return factors[0]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 21])
def test_validate_product_tree(count):
    src = torch.randn(count + 5, generator=generator(count))
    index = torch.cat((torch.ones(count, dtype=torch.int64), torch.full((5,), 2)))
    order = torch.randperm(count + 5, generator=generator(6))
    src, index = src[order], index[order]
    x = torch.tensor([7.0, 3.0, 2.0])
    for result in on_both_engines(scatter_reduce, x, 0, index, src, "prod"):
        expected = oracle.to_float32(Fraction(3) * Fraction(tree_product(src[index == 1].tolist())))
        assert oracle.word(result[1].item()) == oracle.word(expected) and result[0] == 7.0


def test_product_gradient_is_right_with_zeros():
    x, src = torch.tensor([2.0, 0.0, 3.0]), torch.tensor([0.0, 5.0, 0.0, 0.0, 4.0, 6.0])
    index = torch.tensor([0, 0, 1, 2, 1, 2])
    reference, kernels = on_both_engines(values_and_grads, lambda a, b: scatter_reduce(a, 0, index, b, "prod"), x, src)
    stock = values_and_grads(lambda a, b: torch.scatter_reduce(a, 0, index, b, "prod"), x, src)
    for a, b, c in zip(reference, kernels, stock, strict=True):
        assert same_bits(a, b) and torch.equal(a, c)


@pytest.mark.parametrize("reduce", ["amax", "amin"])
def test_ties_share_the_gradient(reduce):
    x, src = torch.tensor([1.0, 9.0]), torch.ones(2)
    reference, kernels = on_both_engines(
        values_and_grads, lambda a, b: scatter_reduce(a, 0, torch.tensor([0, 0]), b, reduce), x, src
    )
    upstream = torch.randn(2, generator=generator(0))
    third = (upstream[0] / torch.tensor(3.0)).item()
    assert reference[1].tolist() == [third, upstream[1].item()] and reference[2].tolist() == [third] * 2
    assert all(map(same_bits, reference, kernels))


@pytest.mark.parametrize("name", SHAPES)
def test_verify_the_last_element_is_written(name):
    x, src, dim, index = made(name)
    reference, kernels = on_both_engines(values_and_grads, lambda a, b: scatter(a, dim, index, b), x, src)
    assert all(map(same_bits, reference, kernels))
    # One element at a time, in row-major order of the index: torch has no duplicates to choose from.
    expected, writers = x.clone().reshape(x.shape or (1,)), {}
    for place in (
        torch.cartesian_prod(*(torch.arange(s) for s in index.shape or (1,))).view(-1, max(x.dim(), 1)).tolist()
    ):
        target = list(place)
        target[dim] = index.reshape(index.shape or (1,))[tuple(place)].item()
        expected[tuple(target)] = src.reshape(src.shape or (1,))[tuple(place)]
        writers[tuple(target)] = tuple(place)
    assert same_bits(reference[0], expected.view(x.shape))
    upstream = torch.randn(x.shape, generator=generator(0)).reshape(expected.shape)
    grad_x, grad_src = upstream.clone(), torch.zeros(src.shape or (1,))
    for target, place in writers.items():
        grad_x[target] = 0.0
        grad_src[place] = upstream[target]
    assert same_bits(reference[1], grad_x.view(x.shape)) and same_bits(reference[2], grad_src.view(src.shape))


def test_scatter_writes_a_number():
    x, index = torch.arange(6.0).view(2, 3), torch.tensor([[0, 2], [1, 1]])
    for result in on_both_engines(scatter, x, 1, index, 9.5):
        assert same_bits(result, torch.scatter(x, 1, index, 9.5))


def test_verify_non_contiguous():
    x, src = torch.randn(4, 5, generator=generator(7)), torch.randn(4, 18, generator=generator(8))
    index = torch.randint(0, 5, (9, 4), generator=generator(9))
    for reduce in REDUCTIONS:
        reference = scatter_reduce(x.t().contiguous(), 0, index, src[:, ::2].t().contiguous(), reduce)
        for result in on_both_engines(scatter_reduce, x.t(), 0, index.t().contiguous().t(), src[:, ::2].t(), reduce):
            assert same_bits(result, reference)


def test_a_million_updates_to_one_slot():
    src = torch.randn(1_000_000, generator=generator(10)) * 1e3
    index = torch.zeros(1_000_000, dtype=torch.int64)
    order = torch.randperm(1_000_000, generator=generator(11))
    x = torch.tensor([1.0])
    assert same_bits(scatter_add(x, 0, index, src), scatter_add(x, 0, index, src[order]))
    assert torch.scatter_add(x, 0, index, src).item() != torch.scatter_add(x, 0, index, src[order]).item()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z, i: scatter_add(z, 0, i + 3, z), "index 3 at position 0"),
        (lambda z, i: scatter_add(z, 0, i, z[:0]), "larger than src"),
        (lambda z, i: scatter_add(z, 0, i[None], z), "dimensions"),
        (lambda z, i: scatter_add(z, 0, i.float(), z), "int64"),
        (lambda z, i: scatter_add(z, 2, i, z), "dimension 2"),
        (lambda z, i: scatter_add(z, 0, i, z.double()), "float32"),
        (lambda z, i: scatter_reduce(z, 0, i, z, "median"), "reduce"),
        (lambda z, i: scatter(z, 0, i + 3, 1.0), "index 3"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(torch.zeros(3), torch.zeros(1, dtype=torch.int64))
