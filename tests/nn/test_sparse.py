import pytest
import torch
from bits import on_both_engines, same_bits

from dettriton.errors import InputError
from dettriton.nn.sparse import Embedding, EmbeddingBag

INDEX = torch.tensor([[1, 0, 4], [4, 4, 2]])
EMBEDDINGS = [{}, {"padding_idx": 0}, {"scale_grad_by_freq": True}]
BAGS = [{}, {"mode": "sum"}, {"mode": "max"}, {"padding_idx": 4}]


def trained(module, *inputs):
    module.zero_grad()
    y = module(*inputs)
    y.square().sum().backward()
    return y.detach(), module.weight.grad.clone()


def agree_with_stock(ours, stock, *inputs):
    stock.load_state_dict(ours.state_dict())
    reference, kernels = on_both_engines(trained, ours, *inputs)
    assert all(map(same_bits, reference, kernels))
    for a, b in zip(reference, trained(stock, *inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", EMBEDDINGS)
def test_embedding_agrees_with_torch(options):
    agree_with_stock(Embedding(5, 3, **options), torch.nn.Embedding(5, 3, **options), INDEX)


@pytest.mark.parametrize("options", BAGS)
def test_bag_agrees_with_torch(options):
    agree_with_stock(EmbeddingBag(5, 3, **options), torch.nn.EmbeddingBag(5, 3, **options), INDEX)


def test_bag_takes_offsets_and_weights():
    options = {"mode": "sum", "include_last_offset": True}
    inputs = INDEX.reshape(-1), torch.tensor([0, 2, 6]), torch.linspace(-1, 1, 6)
    agree_with_stock(EmbeddingBag(5, 3, **options), torch.nn.EmbeddingBag(5, 3, **options), *inputs)


@pytest.mark.parametrize("options", [{"max_norm": 1.0}, {"sparse": True}])
@pytest.mark.parametrize("module", [Embedding, EmbeddingBag])
def test_unsupported_options_are_refused(module, options):
    with pytest.raises(InputError, match="not supported"):
        module(5, 3, **options)(INDEX)
