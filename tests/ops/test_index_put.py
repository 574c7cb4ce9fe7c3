import oracle
import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.index_put import index_copy, index_put

HARD = hard_vectors(24)
VECTORS = {**HARD, **non_finite_vectors(24)}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def integers(size: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(-size, size, shape, generator=generator(seed))


def distinct(size: int, count: int) -> torch.Tensor:
    return torch.randperm(size, generator=generator(1))[:count]


MASK = torch.arange(20).view(4, 5) % 3 == 0
INDICES = {
    "rows": ((6, 5), (integers(6, 9),), (9, 5)),
    "distinct rows": ((6, 5), (distinct(6, 4).to(torch.int32),), (4, 5)),
    "points": ((4, 5), (integers(4, 30), integers(5, 30)), (30,)),
    "broadcast indices": ((4, 5, 3), (integers(4, 6, 1), integers(5, 2)), (6, 2, 3)),
    "columns": ((4, 5), (None, integers(5, 7)), (4, 7)),
    "apart": ((4, 5, 3), (integers(4, 6), None, integers(3, 6)), (6, 5)),
    "mask": ((4, 5), (MASK,), (int(MASK.sum()),)),
    "mask of rows": ((4, 5), (torch.tensor([True, False, True, True]),), (3, 5)),
    "broadcast values": ((6, 5), (integers(6, 9),), (5,)),
    "one value": ((6, 5), (integers(6, 9), integers(5, 9)), ()),
    "nothing": ((6, 5), (integers(6, 0),), (0, 5)),
}


def as_stock(indices):
    return tuple(slice(None) if i is None else i for i in indices)


@pytest.mark.parametrize("name", INDICES)
def test_corroborate_and_verify_accumulate(name):
    shape, indices, values_shape = INDICES[name]
    x, values = torch.randn(shape, generator=generator(2)), torch.randn(values_shape, generator=generator(3))
    reference, kernels = on_both_engines(
        values_and_grads, lambda a, b: index_put(a, indices, b, accumulate=True), x, values
    )
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    long = tuple(i.long() if i is not None and i.dtype == torch.int32 else i for i in indices)
    stock = values_and_grads(
        lambda a, b: torch.ops.aten.index_put(a.double(), long, b.double(), accumulate=True).float(), x, values
    )
    for a, b in zip(reference, stock, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", INDICES)
def test_verify_the_last_value_wins(name):
    shape, indices, values_shape = INDICES[name]
    x, values = torch.randn(shape, generator=generator(2)), torch.randn(values_shape, generator=generator(3))
    reference, kernels = on_both_engines(values_and_grads, lambda a, b: index_put(a, indices, b), x, values)
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    places = torch.arange(x.numel()).view(shape)[as_stock(indices)]
    spread = values.expand(places.shape).reshape(-1).tolist()
    expected = x.reshape(-1).tolist()
    for place, value in zip(places.reshape(-1).tolist(), spread, strict=True):
        expected[place] = value
    assert same_bits(reference[0], torch.tensor(expected).view(shape))


def test_gradient_of_overwritten_elements_and_losing_values_is_zero():
    x, values = torch.zeros(4, requires_grad=True), torch.zeros(3, requires_grad=True)
    index_put(x, (torch.tensor([1, 3, 1]),), values).backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert x.grad.tolist() == [1, 0, 3, 0] and values.grad.tolist() == [0, 4, 2]


@pytest.mark.parametrize("dim", [0, -1])
def test_verify_the_last_slice_is_written(dim):
    x, source = torch.randn(4, 5, generator=generator(8)), torch.randn(9, 9, generator=generator(9))
    source = source[:, :5].contiguous() if dim == 0 else source[:4].contiguous()
    index = integers(4, 9) % 4
    reference, kernels = on_both_engines(values_and_grads, lambda a, b: index_copy(a, dim, index, b), x, source)
    assert all(map(same_bits, reference, kernels))
    last = [max(n for n in range(9) if index[n] == t) for t in sorted(set(index.tolist()))]
    stock = values_and_grads(
        lambda a, b: torch.index_copy(a, dim, index[last], b.index_select(dim, torch.tensor(last))), x, source
    )
    assert all(map(same_bits, reference, stock))


@pytest.mark.parametrize("name", VECTORS)
def test_verify_order_does_not_matter(name):
    values = VECTORS[name]
    x, index = values[:4].flip(0), integers(3, 24, seed=4) % 3
    order = torch.randperm(24, generator=generator(5))
    results = [
        *on_both_engines(index_put, x, (index,), values, True),
        *on_both_engines(index_put, x, (index[order],), values[order], True),
    ]
    assert all(same_bits(r, results[0]) for r in results) and same_bits(results[0][3], x[3])


@pytest.mark.parametrize("name", HARD)
def test_validate_against_integers(name):
    x, values = HARD[name][:1], HARD[name][1:]
    result = index_put(x, (torch.zeros(23, dtype=torch.int64),), values, accumulate=True)
    assert oracle.word(result.item()) == oracle.word(oracle.windowed_sum(HARD[name].tolist()))


def test_verify_non_contiguous():
    x, values = torch.randn(5, 8, generator=generator(6)).t()[::2], torch.randn(5, 9, generator=generator(7)).t()
    indices = (integers(4, 9),)
    for accumulate in (True, False):
        reference = index_put(x.contiguous(), indices, values.contiguous(), accumulate)
        for result in on_both_engines(index_put, x, indices, values, accumulate):
            assert same_bits(result, reference)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z, i: index_put(z, (i + 3,), z[:1]), "do not fit"),
        (lambda z, i: index_put(z, (i, i), z[:1]), "reach 2 dimensions"),
        (lambda z, i: index_put(z, (None,), z), "at least one"),
        (lambda z, i: index_put(z, (i.float(),), z[:1]), "int64"),
        (lambda z, i: index_put(z, (i,), z), "broadcast"),
        (lambda z, i: index_copy(z, 0, i + 5, z[:1]), "index 5"),
        (lambda z, i: index_copy(z, 0, i, z), "shape"),
        (lambda z, i: index_put(z, (i,), z.double()[:1]), "float32"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(torch.zeros(3), torch.zeros(1, dtype=torch.int64))
