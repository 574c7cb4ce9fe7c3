import oracle
import oracle64
import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads
from vectors import cases, tensor

from dettriton.errors import InputError
from dettriton.exact.ieee import CANONICAL_NAN_BITS
from dettriton.ops.mean import mean
from dettriton.ops.sum import exact_sum, exact_sum_of_parts, sum
from dettriton.ops.var import var

HARD = hard_vectors(211)
VECTORS = {**HARD, **non_finite_vectors(211)}
REDUCTIONS = {"sum": sum, "mean": mean, "var": var}


@pytest.mark.parametrize("case", cases("sum"), ids=lambda c: c["name"])
@pytest.mark.parametrize("engine", [0, 1], ids=["torch", "triton"])
def test_validate_worked_examples(case, engine):
    result = on_both_engines(sum, tensor(case["x"]))[engine]
    assert same_bits(result, tensor(case["y"])[0])


@pytest.mark.parametrize("name", HARD)
def test_validate_sum_against_integers(name):
    x = HARD[name]
    expected = oracle.windowed_sum(x.tolist())
    assert oracle.word(sum(x).item()) == oracle.word(expected)


@pytest.mark.parametrize("name", HARD)
def test_validate_mean_against_fractions(name):
    x = HARD[name]
    total = torch.tensor(oracle.windowed_sum(x.tolist()), dtype=torch.float64)
    # Two binary32 operands: rounding their binary64 quotient once more cannot differ from rounding the exact one.
    expected = (total / len(x)).float()
    assert same_bits(mean(x), expected)


@pytest.mark.parametrize("op", REDUCTIONS.values(), ids=REDUCTIONS)
@pytest.mark.parametrize("name", VECTORS)
def test_verify_engines_agree(op, name):
    reference, kernels = on_both_engines(values_and_grads, op, VECTORS[name])
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("window", [-4, -1, 0, 2, 3])
@pytest.mark.parametrize(
    "terms",
    [(31, 7, -10), (31, 8, 7, -10), (31, 7, -32), (31, 7), (31, 8, 7), (30, 6, -1), (31, 31, 8, -32), (24, 0, -1)],
    ids=str,
)
def test_validate_ties_that_bits_far_below_break(terms, window, sign):
    """The terms are powers of two around a halfway point; a rounding that loses the last one goes to the even side."""
    x = sign * torch.tensor([2.0 ** (t + 32 * window) for t in terms], dtype=torch.float64)
    x = x[x.abs() < 2.0**128].float()
    for result in on_both_engines(sum, x):
        assert oracle.word(result.item()) == oracle.word(oracle.windowed_sum(x.tolist()))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("window", [-30, -1, 0, 31])
@pytest.mark.parametrize(
    "terms", [(31, -22, -60), (31, -21, -22, -60), (31, -22, -40), (31, -22), (31, -21, -22)], ids=str
)
def test_validate_float64_ties_that_bits_far_below_break(terms, window, sign):
    x = sign * torch.tensor([2.0 ** (t + 32 * window) for t in terms], dtype=torch.float64)
    for result in on_both_engines(sum, x):
        assert result.item() == oracle64.windowed_sum64(x.tolist())


@pytest.mark.parametrize("dims", [(0,), (1,), (2,), (0, 2), (1, 2), (0, 1), (0, 1, 2), None])
@pytest.mark.parametrize("keepdim", [False, True])
def test_verify_engines_agree_over_dims(dims, keepdim):
    x = HARD["spread"][:210].reshape(5, 6, 7) + torch.zeros(5, 6, 7)
    reference, kernels = on_both_engines(sum, x, dims, keepdim)
    assert reference.shape == torch.sum(x, dims, keepdim).shape
    assert same_bits(reference, kernels)
    for op in (mean, var):
        assert op(x, dims, keepdim=keepdim).shape == reference.shape


@pytest.mark.parametrize("name", HARD)
def test_verify_order_of_terms_does_not_matter(name):
    x = HARD[name]
    shuffled = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(5))]
    assert same_bits(sum(x), sum(shuffled)) and same_bits(mean(x), mean(shuffled))


def test_a_float_sum_does_depend_on_order():
    x = HARD["cancellation"]
    orders = [x[torch.randperm(len(x), generator=torch.Generator().manual_seed(s))] for s in range(20)]
    assert len({torch.sum(o).item() for o in orders}) > 1
    assert len({sum(o).item() for o in orders}) == 1


@pytest.mark.parametrize("n", [0, 1, 2, 1023, 1024, 1025, 8191, 8192, 8193])
def test_verify_sizes(n):
    x = torch.randn(n, generator=torch.Generator().manual_seed(n)) * 1e-3
    reference, kernels = on_both_engines(sum, x)
    assert same_bits(reference, kernels)
    assert oracle.word(reference.item()) == oracle.word(oracle.windowed_sum(x.tolist()))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 3)])
def test_verify_empty_dims(shape):
    x = torch.zeros(shape)
    for dim in range(len(shape)):
        reference, kernels = on_both_engines(sum, x, dim)
        assert same_bits(reference, torch.sum(x, dim)) and same_bits(kernels, reference)


def test_verify_non_contiguous_rows():
    x = torch.randn(40, 30, generator=torch.Generator().manual_seed(3))
    results = [*on_both_engines(exact_sum, x.t(), (0,)), *on_both_engines(exact_sum, x, (1,))]
    assert all(same_bits(r, results[0]) for r in results)


def test_non_finite_terms_give_the_canonical_nan():
    for x in non_finite_vectors().values():
        for result in on_both_engines(sum, torch.stack([x, torch.ones_like(x)]), 1):
            assert result.view(torch.int32).tolist() == [CANONICAL_NAN_BITS, oracle.word(float(len(x)))]


@pytest.mark.parametrize("op", REDUCTIONS)
def test_corroborate_torch(op):
    x = torch.randn(4, 50, generator=torch.Generator().manual_seed(4))
    ours = values_and_grads(lambda t: REDUCTIONS[op](t, 1), x)
    stock = values_and_grads(lambda t: getattr(torch, op)(t.double(), 1).float(), x)
    for a, b in zip(ours, stock, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="out of range"):
        sum(torch.zeros(3), 1)
    with pytest.raises(InputError, match="twice"):
        mean(torch.zeros(3, 3), (0, -2))
    with pytest.raises(InputError, match="float32"):
        var(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(InputError, match="dtype"):
        mean(torch.zeros(3), dtype=torch.float64)


HARD64 = oracle64.hard_vectors64(61)


@pytest.mark.parametrize("name", [*HARD64, *oracle64.non_finite_vectors64()])
def test_validate_float64_sums_on_both_engines(name):
    x = {**HARD64, **oracle64.non_finite_vectors64()}[name]
    expected = torch.tensor(oracle64.windowed_sum64(x.tolist()), dtype=torch.float64)
    for result in on_both_engines(sum, x):
        assert torch.equal(result.view(torch.int64), expected.view(torch.int64))


@pytest.mark.parametrize("dims", [(0,), (1,), (0, 2), None])
@pytest.mark.parametrize("op", REDUCTIONS.values(), ids=REDUCTIONS)
def test_verify_float64_engines_agree_over_dims(op, dims):
    x = HARD64["spread"][:60].reshape(3, 5, 4)
    reference, kernels = on_both_engines(op, x, dims)
    assert torch.equal(reference.view(torch.int64), kernels.view(torch.int64))


@pytest.mark.parametrize("n", [0, 1, 1024, 1025])
def test_verify_float64_sizes(n):
    x = torch.randn(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    for result in on_both_engines(sum, x):
        assert result.item() == oracle64.windowed_sum64(x.tolist())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("op", REDUCTIONS.values(), ids=REDUCTIONS)
def test_verify_half_precision_is_float32_rounded_once_more(op, dtype):
    x = torch.randn(6, 50, generator=torch.Generator().manual_seed(1)).to(dtype)
    for results in on_both_engines(values_and_grads, lambda t: op(t, 1).float(), x):
        wide = values_and_grads(lambda t: op(t, 1).to(dtype).float(), x.float())
        assert results[1].dtype == dtype
        assert same_bits(results[0], wide[0]) and same_bits(results[1].float(), wide[1].to(dtype).float())


def test_a_half_precision_accumulator_would_not_do():
    x = torch.full((4096,), 1.0, dtype=torch.bfloat16)
    running = torch.zeros((), dtype=torch.bfloat16)
    for term in x:
        running = running + term
    assert running.item() == 256.0 and sum(x).item() == 4096.0


def test_half_precision_gives_its_own_canonical_nan():
    for dtype, bits in ((torch.float16, 0x7E00), (torch.bfloat16, 0x7FC0)):
        for result in on_both_engines(sum, torch.tensor([1.0, float("-inf")], dtype=dtype)):
            assert result.view(torch.int16).item() == bits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", HARD)
def test_verify_parts_sum_as_one_tensor(name, dtype):
    x = HARD[name].to(dtype)
    parts = [p.reshape(1, -1) for p in x.split([1, 100, 0, 110])]
    for result in on_both_engines(lambda: exact_sum_of_parts(iter(parts), like=x)):
        assert torch.equal(result, exact_sum(x))


def test_a_kept_dimensions_sum_can_be_changed_in_place():
    x = torch.ones(3, 4, requires_grad=True)
    for y in on_both_engines(lambda: sum(x, (1,), True).mul_(2)):
        y.sum().backward()
    assert (x.grad == 4).all()
