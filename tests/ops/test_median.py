import math

import pytest
import torch
from bits import NAN, hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.exact.ieee import CANONICAL_NAN_BITS
from dettriton.ops.median import kthvalue, median, nanmedian

VECTORS = {**hard_vectors(37), **non_finite_vectors(37)}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def key(value: float) -> tuple:
    """The order of the contract in Python: NaN last, -0 below +0."""
    return (value != value, 0.0 if value != value else value, math.copysign(1.0, value) if value == 0 else 0.0)


def ranked(values: list[float], rank: int) -> tuple[float, int]:
    chosen = sorted(values, key=key)[rank]
    return chosen, next(i for i, v in enumerate(values) if key(v) == key(chosen))


def agree(result, expected: list[tuple[float, int]]) -> bool:
    values = torch.tensor([v for v, _ in expected])
    return same_bits(result.values, values, any_nan=True) and result.indices.tolist() == [i for _, i in expected]


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("n", [1, 2, 36, 37])
def test_validate_against_sorting_in_python(name, n):
    rows = torch.stack((VECTORS[name][:n], VECTORS[name].flip(0)[:n]))
    lists = rows.tolist()
    for k in {1, (n + 1) // 2, n}:
        for result in on_both_engines(kthvalue, rows, k):
            assert agree(result, [ranked(row, k - 1) for row in lists])
    nans = [sum(v != v for v in row) for row in lists]
    for result in on_both_engines(median, rows, 1):
        assert agree(result, [ranked(row, n - 1 if m else (n - 1) // 2) for row, m in zip(lists, nans, strict=True)])
    for result in on_both_engines(nanmedian, rows, 1):
        assert agree(result, [ranked(row, max(n - m - 1, 0) // 2) for row, m in zip(lists, nans, strict=True)])
    assert same_bits(median(rows[0]), median(rows, 1).values[0])
    assert same_bits(nanmedian(rows[0]), nanmedian(rows, 1).values[0])


OPS = {
    "median": (median, torch.median, ()),
    "nanmedian": (nanmedian, torch.nanmedian, ()),
    "kthvalue": (kthvalue, torch.kthvalue, (2,)),
}


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("op", OPS)
def test_corroborate_torch(op, dim, keepdim):
    ours, stock, arguments = OPS[op]
    x = torch.randn(4, 5, 3, generator=generator(1))
    given = (*arguments, dim, keepdim)
    found = [values_and_grads(lambda t, f=f: f(t, *given).values, x) for f in (ours, stock)]
    assert all(map(same_bits, *found))
    assert same_bits(ours(x, *given).indices, stock(x, *given).indices)


@pytest.mark.parametrize("op", [median, nanmedian])
def test_corroborate_torch_over_everything(op):
    x = torch.randn(4, 5, 3, generator=generator(2)).transpose(0, 2)
    stock = getattr(torch, op.__name__)
    for result in on_both_engines(values_and_grads, op, x):
        assert all(map(same_bits, result, values_and_grads(stock, x)))


def test_the_first_of_equal_elements_has_the_gradient():
    x = torch.tensor([5.0, 1.0, 3.0, 3.0, 3.0, 0.0], requires_grad=True)
    median(x).backward()
    assert x.grad.tolist() == [0, 0, 1, 0, 0, 0]


def test_a_nan_wins_and_is_canonical():
    odd = torch.tensor([0x7FC12345, 0], dtype=torch.int32).view(torch.float32)
    x = torch.stack((torch.ones(2), odd, torch.full((2,), NAN)), 1)
    result = median(x, 1)
    assert result.values.view(torch.int32).tolist() == [CANONICAL_NAN_BITS] * 2 and result.indices.tolist() == [1, 2]
    assert nanmedian(torch.full((3,), NAN), 0).indices.item() == 0
    assert nanmedian(x, 1).values.tolist() == [1.0, 0.0]


def test_verify_batch_does_not_matter():
    x = torch.randn(6, 9, generator=generator(3))
    alone = torch.cat([median(row[None], 1).values for row in x])
    assert same_bits(median(x, 1).values, alone)


def test_scalars_and_empty_batches():
    assert median(torch.tensor(2.0)).item() == 2.0 and kthvalue(torch.tensor(2.0), 1).indices.item() == 0
    assert median(torch.zeros(0, 3), 1).values.shape == (0,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: median(torch.zeros(3).double()), "float32"),
        (lambda: median(torch.zeros(0)), "no value"),
        (lambda: median(torch.zeros(2, 0), 1), "no value"),
        (lambda: median(torch.zeros(3), 1), "dimension 1"),
        (lambda: median(torch.zeros(3), keepdim=True), "keepdim"),
        (lambda: kthvalue(torch.zeros(3), 0), "k must lie"),
        (lambda: kthvalue(torch.zeros(3), 4), "k must lie"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
