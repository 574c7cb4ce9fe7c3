import pytest
import torch
from bits import same_bits

from dettriton.ops._fork import fork


def slopes(order: list[int]) -> torch.Tensor:
    """The gradient of three readers that are used in that order."""
    x = torch.ones(1, requires_grad=True)
    parts = fork(x, 3)
    factors = [torch.tensor(v) for v in (1e8, 3.0, -1e8)]
    y = sum((parts[i] * factors[i] for i in order), torch.zeros(1))
    return torch.autograd.grad(y, x)[0]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]], ids=str)
def test_verify_gradients_are_added_in_written_order(order):
    written = (torch.tensor([1e8]) + torch.tensor([3.0])) + torch.tensor([-1e8])
    assert same_bits(slopes(order), written)
    assert not same_bits(written, (torch.tensor([1e8]) + torch.tensor([-1e8])) + torch.tensor([3.0]))


def test_verify_values_are_the_tensors_own():
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert all(same_bits(part, x) for part in fork(x, 4))
    assert fork(x, 1)[0].data_ptr() == x.data_ptr()


def test_verify_a_reader_without_a_gradient_counts_as_zero():
    x = torch.ones(2, requires_grad=True)
    first, _, third = fork(x, 3)
    assert torch.autograd.grad((first * 2.0 + third * 3.0).sum(), x)[0].tolist() == [5.0, 5.0]
