import oracle
import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.index_add import index_add

HARD = hard_vectors(24)
VECTORS = {**HARD, **non_finite_vectors(24)}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CASES = {
    "rows": ((4, 5), 0, 9, {}),
    "columns": ((4, 5), -1, 9, {}),
    "middle": ((2, 3, 4), 1, 5, {}),
    "vector": ((6,), 0, 40, {}),
    "alpha": ((4, 5), 0, 9, {"alpha": -0.3}),
    "integer alpha": ((4, 5), 1, 9, {"alpha": 3}),
    "nothing": ((4, 5), 0, 0, {}),
    "no columns": ((4, 0), 0, 3, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_corroborate_and_verify(name):
    shape, dim, n, options = CASES[name]
    x = torch.randn(shape, generator=generator(1))
    index = torch.randint(0, shape[dim], (n,), generator=generator(2))
    source = torch.randn([n if d == dim % len(shape) else s for d, s in enumerate(shape)], generator=generator(3))
    reference, kernels = on_both_engines(
        values_and_grads, lambda a, b: index_add(a, dim, index, b, **options), x, source
    )
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    stock = values_and_grads(
        lambda a, b: torch.index_add(a.double(), dim, index, b.double(), **options).float(), x, source
    )
    for a, b in zip(reference, stock, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", HARD)
def test_validate_against_integers(name):
    x, source = HARD[name][:2], HARD[name][2:]
    index = torch.arange(22) % 2
    result = index_add(x, 0, index, source)
    for t in range(2):
        expected = oracle.windowed_sum([x[t].item(), *source[index == t].tolist()])
        assert oracle.word(result[t].item()) == oracle.word(expected)


@pytest.mark.parametrize("name", VECTORS)
def test_verify_order_does_not_matter(name):
    source = VECTORS[name].view(12, 2)
    x = source[:3].flip(0)
    index = torch.randint(0, 2, (12,), generator=generator(4))
    order = torch.randperm(12, generator=generator(5))
    results = [
        *on_both_engines(index_add, x, 0, index, source),
        *on_both_engines(index_add, x, 0, index[order], source[order]),
    ]
    assert all(same_bits(r, results[0]) for r in results)
    assert same_bits(results[0][2], x[2])


def test_verify_non_contiguous():
    x, source = torch.randn(5, 4, generator=generator(6)), torch.randn(5, 18, generator=generator(7))
    index = torch.randint(0, 4, (9,), generator=generator(8))
    reference = index_add(x.t().contiguous(), 0, index, source[:, ::2].t().contiguous())
    for result in on_both_engines(index_add, x.t(), 0, index, source[:, ::2].t()):
        assert same_bits(result, reference)


def test_the_element_is_one_of_the_terms():
    """Rounding the sum of the added terms before adding the element gives other bits."""
    x, source = torch.tensor([2.0**31]), torch.tensor([2.0**7, 2.0**-18])
    index = torch.zeros(2, dtype=torch.int64)
    for result in on_both_engines(index_add, x, 0, index, source):
        assert result.item() == 2.0**31 + 2.0**8
    assert (x + index_add(torch.zeros(1), 0, index, source)).item() == 2.0**31


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: index_add(torch.zeros(3), 0, torch.tensor([3]), torch.zeros(1)), "index 3 at position 0"),
        (lambda: index_add(torch.zeros(3), 0, torch.tensor([0]), torch.zeros(2)), "shape"),
        (lambda: index_add(torch.tensor(0.0), 0, torch.tensor([0]), torch.zeros(1)), "dimension"),
        (lambda: index_add(torch.zeros(3), 1, torch.tensor([0]), torch.zeros(1)), "out of range"),
        (lambda: index_add(torch.zeros(3), 0, torch.tensor([0]), torch.zeros(1).double()), "float32"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
