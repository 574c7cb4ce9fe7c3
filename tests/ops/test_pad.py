import numpy as np
import pool_oracle
import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.pad import pad

VECTORS = {name: x.reshape(2, 3, 4, 5) for name, x in {**hard_vectors(120), **non_finite_vectors(120)}.items()}
AMOUNTS = {
    "one": (1, 2),
    "left": (2, 0),
    "two": (3, 1, 1, 2),
    "cut": (-1, 2, 2, -1),
    "none": (0, 0),
    "three": (1, 1, 0, 2, 1, 0),
}
SHAPES = {2: [(2, 3, 5), (3, 5)], 4: [(2, 3, 5, 4), (3, 5, 4)], 6: [(1, 2, 4, 5, 3), (2, 4, 5, 3)]}


def reads(mode, size, before, after):
    """Where each output of one axis comes from, walking one step at a time."""
    if mode == "circular":
        kept = list(range(max(-before, 0), size - max(-after, 0)))
        around = kept * 3
        return around[len(kept) - max(before, 0) : 2 * len(kept) + max(after, 0)]
    inner = list(range(size))
    left = [size and inner[0]] * max(before, 0) if mode == "replicate" else inner[1 : max(before, 0) + 1][::-1]
    right = [inner[-1]] * max(after, 0) if mode == "replicate" else inner[::-1][1 : max(after, 0) + 1]
    whole = left + inner + right
    return whole[max(-before, 0) : len(whole) - max(-after, 0)]


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("name", VECTORS)
def test_verify_engines_agree_and_validate(name, mode):
    x = VECTORS[name]
    amounts = (3, 2, -1, 2)
    reference, kernels = on_both_engines(values_and_grads, lambda t: pad(t, amounts, mode), x)
    assert all(same_bits(a, b, any_nan=True) for a, b in zip(reference, kernels, strict=True))
    rows, columns = reads(mode, 4, *amounts[2:]), reads(mode, 5, *amounts[:2])
    assert same_bits(reference[0], x[:, :, rows][..., columns])
    upstream = torch.randn(reference[0].shape, generator=torch.Generator().manual_seed(0)).numpy()
    over_columns = pool_oracle.resampled_gradient(upstream, 3, [[(i, None)] for i in columns], 5)
    expected = pool_oracle.resampled_gradient(over_columns, 2, [[(i, None)] for i in rows], 4)
    assert same_bits(reference[1], torch.from_numpy(expected))


def test_validate_many_repetitions_are_summed_exactly():
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    for amounts in ((62, 0), (63, 0), (64, 1), (200, 0)):
        reference, kernels = on_both_engines(values_and_grads, lambda t, a=amounts: pad(t[None], a, "replicate"), x)
        upstream = torch.randn(reference[0].shape, generator=torch.Generator().manual_seed(0)).numpy()
        outputs = [[(i, None)] for i in reads("replicate", 3, *amounts)]
        expected = pool_oracle.resampled_gradient(upstream, 2, outputs, 3)[0]
        assert same_bits(reference[1], kernels[1]) and same_bits(reference[1], torch.from_numpy(expected))
        in_order = [np.float32(0), *upstream[0, 0, : amounts[0] + 1]]
        assert (pool_oracle.sum_in_order(in_order) == expected[0, 0]) == (amounts[0] < 64)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("amounts", AMOUNTS.values(), ids=AMOUNTS)
def test_corroborate_torch(mode, amounts):
    for shape in SHAPES[len(amounts)]:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
        ours = values_and_grads(lambda t: pad(t, amounts, mode), x)
        theirs = values_and_grads(lambda t: torch.nn.functional.pad(t.double(), amounts, mode), x)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a.double(), b.double(), rtol=1e-6, atol=1e-6)


def test_verify_constants():
    x = VECTORS["spread"]
    for y in on_both_engines(pad, x, (1, 0, 0, 0, 2, -1, 0, 1), value=-0.1):
        assert same_bits(y, torch.nn.functional.pad(x, (1, 0, 0, 0, 2, -1, 0, 1), value=-0.1))
    assert pad(torch.zeros(0), (1, 1)).tolist() == [0.0, 0.0]
    assert pad(torch.tensor(1.0), ()).item() == 1.0


def test_verify_strides_and_batches_do_not_matter():
    x = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(3))
    together = pad(x, (2, 2, 1, 1), "reflect")
    assert same_bits(pad(x.transpose(2, 3).contiguous().transpose(2, 3), (2, 2, 1, 1), "reflect"), together)
    assert all(same_bits(pad(x[i : i + 1], (2, 2, 1, 1), "reflect"), together[i : i + 1]) for i in range(3))


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((1, 4), ((1, 1), "mirror"), "mode must be one of constant, reflect"),
        ((1, 4), ((1,), "constant"), "pairs of integers"),
        ((4,), ((1, 1, 1, 1), "constant"), "2 axes to pad, but the input has 1"),
        ((1, 4), ((4, 0), "reflect"), "needs a padding of at most 3 on an axis of 4"),
        ((1, 4), ((5, 0), "circular"), "at most 4 on an axis of 4"),
        ((1, 4), ((-2, 3), "circular"), "at most 2 on an axis of 4"),
        ((4,), ((1, 1), "reflect"), "got 1 of 1"),
        ((1, 4), ((-3, -1), "replicate"), "cannot be cut"),
        ((1, 4), ((-5, 0), "constant"), "cannot be cut"),
        ((1, 0), ((1, 1), "replicate"), "an axis of 0"),
        ((1, 4), ((1, 1), "reflect", 2.0), "value is for mode 'constant'"),
    ],
)
def test_bad_arguments_are_refused(shape, arguments, message):
    with pytest.raises(InputError, match=message):
        pad(torch.zeros(shape), *arguments)


def test_other_types_are_refused():
    with pytest.raises(InputError, match=r"input must be torch\.float32"):
        pad(torch.zeros(2, dtype=torch.float64), (1, 1))
