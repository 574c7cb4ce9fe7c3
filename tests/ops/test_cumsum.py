import importlib

import oracle
import oracle64
import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops._launch import KERNELS
from dettriton.ops.cumsum import cumsum
from dettriton.ops.sum import sum

HARD, HARD64 = hard_vectors(21), oracle64.hard_vectors64(21)
NON_FINITE = non_finite_vectors(21)


@pytest.mark.parametrize("name", [*HARD, *NON_FINITE])
def test_validate_every_prefix_against_integers(name):
    x = {**HARD, **NON_FINITE}[name]
    for result in on_both_engines(cumsum, x, 0):
        found = result.view(torch.int32).tolist()
        assert [f & 0xFFFFFFFF for f in found] == [
            oracle.word(oracle.windowed_sum(x[: i + 1].tolist())) for i in range(len(x))
        ]


@pytest.mark.parametrize("name", [*HARD64, *oracle64.non_finite_vectors64()])
def test_validate_every_float64_prefix_against_integers(name):
    x = {**HARD64, **oracle64.non_finite_vectors64()}[name][:21]
    expected = [oracle64.windowed_sum64(x[: i + 1].tolist()) for i in range(len(x))]
    for result in on_both_engines(cumsum, x, 0):
        assert torch.equal(result.view(torch.int64), torch.tensor(expected, dtype=torch.float64).view(torch.int64))


def rising() -> torch.Tensor:
    """Magnitudes that climb through all windows and come down again, with signs that cancel."""
    g = torch.Generator().manual_seed(3)
    exponents = torch.cat((torch.arange(-140, 120, 23), torch.arange(120, -140, -31)))
    return torch.randn(len(exponents), generator=g) * torch.exp2(exponents.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("block", [2, 4, 8])
def test_verify_blocks_do_not_matter(block, dtype, monkeypatch):
    x = rising().to(dtype)
    expected = cumsum(x, 0)
    assert torch.equal(expected, torch.stack([sum(x[: i + 1]) for i in range(len(x))]))
    monkeypatch.setattr(importlib.import_module("dettriton.ops.cumsum"), "LONGEST_BLOCK", block)
    reference, kernels = on_both_engines(values_and_grads, lambda t: cumsum(t, 0).float(), x)
    assert torch.equal(reference[0], expected.float())
    assert all(torch.equal(a, b) for a, b in zip(reference, kernels, strict=True))


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_verify_engines_agree_over_dims(dim):
    x = hard_vectors(60)["spread"].reshape(3, 4, 5)
    reference, kernels = on_both_engines(values_and_grads, lambda t: cumsum(t, dim), x)
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    last = reference[0].select(dim, -1)
    assert same_bits(last, sum(x, dim))
    assert same_bits(cumsum(x.permute(2, 0, 1).contiguous().permute(1, 2, 0), dim), reference[0])


def test_verify_the_gradient_is_the_sum_from_the_other_end():
    x, upstream = torch.zeros(17, requires_grad=True), rising()[:17]
    for results in on_both_engines(torch.autograd.grad, cumsum(x, 0), x, upstream, retain_graph=True):
        assert same_bits(results[0], torch.stack([sum(upstream[i:]) for i in range(17)]))


def test_a_rounded_running_sum_is_not_the_same():
    x = hard_vectors(64)["normal"]
    running, found = torch.zeros(()), []
    for term in x:
        running = running + term
        found.append(running)
    assert not same_bits(torch.stack(found), cumsum(x, 0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_verify_half_precision_is_float32_rounded_once_more(dtype):
    x = torch.randn(3, 9, generator=torch.Generator().manual_seed(5)).to(dtype)
    for result in on_both_engines(cumsum, x, 1):
        assert torch.equal(result, cumsum(x.float(), 1).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_corroborate_torch(dtype):
    x = torch.randn(4, 33, 2, generator=torch.Generator().manual_seed(4)).to(dtype)
    ours = values_and_grads(lambda t: cumsum(t, 1).float(), x)
    theirs = values_and_grads(lambda t: torch.cumsum(t.double(), 1).float(), x)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_empty_and_scalar_inputs_are_as_in_torch():
    assert cumsum(torch.zeros(2, 0), 1).shape == (2, 0) and cumsum(torch.zeros(0, 3), 1).shape == (0, 3)
    assert same_bits(cumsum(torch.tensor(3.5), 0), torch.tensor(3.5))
    assert cumsum(torch.tensor(float("inf")), -1).isnan()


def test_bad_arguments_are_refused():
    for bad, message in ((((torch.zeros(3), 1)), "out of range"), ((torch.zeros(3), None), "one integer"),
                         ((torch.zeros(3, dtype=torch.int64), 0), "float32")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            cumsum(*bad)
    with pytest.raises(InputError, match="dtype"):
        cumsum(torch.zeros(3), 0, dtype=torch.float64)


def test_kernels_are_declared():
    assert {"_cumsum_kernel", "_cumsum64_kernel"} <= set(KERNELS)
