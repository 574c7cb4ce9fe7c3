import oracle
import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads
from torch.nn.functional import embedding as stock_embedding
from torch.nn.functional import embedding_bag as stock_bag

from dettriton.errors import InputError
from dettriton.ops.embedding import embedding, embedding_bag

VECTORS = {**hard_vectors(24), **non_finite_vectors(24)}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(count: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, count, shape, generator=generator(seed))


EMBEDDINGS = {
    "matrix": (rows(7, 4, 5), {}),
    "vector": (rows(7, 30).to(torch.int32), {}),
    "one": (torch.tensor(3), {}),
    "nothing": (rows(7, 0), {}),
    "padding": (rows(7, 4, 5), {"padding_idx": 2}),
    "last is padding": (rows(7, 4, 5), {"padding_idx": -1}),
    "by frequency": (rows(7, 4, 5), {"scale_grad_by_freq": True}),
}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_corroborate_and_verify_embedding(name):
    index, options = EMBEDDINGS[name]
    weight = torch.randn(7, 3, generator=generator(1))
    reference, kernels = on_both_engines(values_and_grads, lambda w: embedding(index, w, **options), weight)
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    stock = values_and_grads(lambda w: stock_embedding(index, w.double(), **options).float(), weight)
    assert same_bits(reference[0], stock[0])
    torch.testing.assert_close(reference[1], stock[1], rtol=1e-6, atol=1e-6)


OFFSETS = torch.tensor([0, 4, 4, 5, 12])
BAGS = {
    "rows": (rows(7, 4, 5), {}),
    "padding": (rows(7, 4, 5), {"padding_idx": 3}),
    "all padding": (torch.full((2, 3), 3), {"padding_idx": -4}),
    "offsets": (rows(7, 15), {"offsets": OFFSETS}),
    "offsets with an end": (rows(7, 12), {"offsets": OFFSETS.to(torch.int32), "include_last_offset": True}),
    "empty rows": (rows(7, 3, 0), {}),
    "nothing": (rows(7, 0), {"offsets": torch.tensor([0, 0])}),
}


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("name", BAGS)
def test_corroborate_and_verify_bags(name, mode):
    index, options = BAGS[name]
    weight = torch.randn(7, 3, generator=generator(2))
    reference, kernels = on_both_engines(
        values_and_grads, lambda w: embedding_bag(index, w, mode=mode, **options), weight
    )
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    if "offsets" in options:
        options = {**options, "offsets": options["offsets"].to(index.dtype)}
    # torch's max has no double precision for padding, and no empty input.
    if index.numel() == 0:
        assert not any(r.any() for r in reference)
        return
    stock = values_and_grads(lambda w: stock_bag(index, w, mode=mode, **options), weight)
    for a, b in zip(reference, stock, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"padding_idx": 3}], ids=["plain", "padding"])
def test_corroborate_and_verify_weighted_bags(options):
    index, weight = rows(7, 4, 5), torch.randn(7, 3, generator=generator(3))
    factors = torch.randn(4, 5, generator=generator(4))

    def ours(w, f):
        return embedding_bag(index, w, mode="sum", per_sample_weights=f, **options)

    reference, kernels = on_both_engines(values_and_grads, ours, weight, factors)
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    stock = values_and_grads(
        lambda w, f: stock_bag(index, w, mode="sum", per_sample_weights=f, **options), weight, factors
    )
    for a, b in zip(reference, stock, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", hard_vectors(24))
def test_validate_bag_and_gradient_against_integers(name):
    column = VECTORS[name]
    index = torch.arange(24)[None]
    result = embedding_bag(index, column[:, None], mode="sum")
    assert oracle.word(result.item()) == oracle.word(oracle.windowed_sum(column.tolist()))
    weight = torch.zeros(2, 1, requires_grad=True)
    embedding(torch.ones(24, dtype=torch.int64), weight).backward(column[:, None])
    assert oracle.word(weight.grad[1].item()) == oracle.word(oracle.windowed_sum(column.tolist()))
    assert weight.grad[0].item() == 0.0


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_verify_order_within_a_bag_and_batch_do_not_matter(name, mode):
    table = VECTORS[name].view(12, 2)
    index = rows(12, 3, 6, seed=5)
    shuffled = index[:, torch.randperm(6, generator=generator(6))]
    reference, kernels = on_both_engines(embedding_bag, index, table, mode=mode)
    assert same_bits(reference, kernels, any_nan=True)
    assert same_bits(embedding_bag(shuffled, table, mode=mode), reference, any_nan=True)
    alone = torch.cat([embedding_bag(i[None], table, mode=mode) for i in index])
    assert same_bits(alone, reference, any_nan=True)


def test_verify_non_contiguous():
    wide = torch.randn(6, 14, generator=generator(7))
    index = rows(7, 5, 4).t()
    for op in (embedding, embedding_bag):
        reference, kernels = on_both_engines(values_and_grads, lambda w, op=op: op(index, w.t()[::2]), wide)
        packed = op(index.contiguous(), wide.t()[::2].contiguous())
        assert same_bits(reference[0], packed) and all(map(same_bits, reference, kernels))


def test_ties_in_a_maximum_go_to_the_first_entry():
    weight = torch.tensor([[-0.0], [0.0], [0.0], [-1.0]], requires_grad=True)
    y = embedding_bag(torch.tensor([[0, 2, 1, 3]]), weight, mode="max")
    y.backward(torch.ones(1, 1))
    assert y.item() == 0.0 and not y.signbit().item()
    assert weight.grad.flatten().tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: embedding(torch.tensor([0, 7]), w), "input 7 at position 1"),
        (lambda w: embedding(torch.tensor([0]), w, 7), "padding_idx"),
        (lambda w: embedding(torch.tensor([0]), w, max_norm=1.0), "max_norm"),
        (lambda w: embedding(torch.tensor([0]), w, sparse=True), "sparse"),
        (lambda w: embedding(torch.tensor([0]), w[0]), "rows, columns"),
        (lambda w: embedding(torch.tensor([0]), w.double()), "float32"),
        (lambda w: embedding_bag(torch.tensor([0]), w), "offsets"),
        (lambda w: embedding_bag(torch.tensor([0, 1]), w, torch.tensor([1])), "start at 0"),
        (lambda w: embedding_bag(torch.tensor([0, 1]), w, torch.tensor([0, 2, 1])), "ascend"),
        (lambda w: embedding_bag(torch.tensor([0, 1]), w, torch.tensor([0, 1]), include_last_offset=True), "length 2"),
        (lambda w: embedding_bag(torch.tensor([[0]]), w, mode="prod"), "mode"),
        (lambda w: embedding_bag(torch.tensor([[0]]), w, scale_grad_by_freq=True), "scale_grad_by_freq"),
        (lambda w: embedding_bag(torch.tensor([[0]]), w, per_sample_weights=torch.ones(1, 1)), "mode 'sum'"),
        (lambda w: embedding_bag(torch.tensor([[9]]), w), "input 9"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(torch.zeros(7, 3))
