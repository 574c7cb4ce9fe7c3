"""What a dot product keeps for its backward pass: no operand whose gradient's other operand is not wanted."""

import pytest
import torch

from dettriton import ops

OPS = {
    "linear": (ops.linear, (7, 5), (3, 5)),
    "matmul": (ops.matmul, (7, 5), (5, 3)),
    "batched matmul": (ops.matmul, (2, 7, 5), (2, 5, 3)),
    "conv1d": (ops.conv1d, (2, 3, 9), (4, 3, 3)),
    "conv2d": (ops.conv2d, (2, 3, 6, 7), (4, 3, 3, 3)),
    "conv_transpose1d": (ops.conv_transpose1d, (2, 3, 9), (3, 4, 3)),
}


def kept_and_gradients(name, wants):
    fn, *shapes = OPS[name]
    r = torch.Generator().manual_seed(0)
    operands = [torch.randn(s, generator=r).requires_grad_(w) for s, w in zip(shapes, wants, strict=True)]
    pointers = {x.untyped_storage().data_ptr(): i for i, x in enumerate(operands)}
    kept = set()

    def pack(saved):
        kept.add(pointers.get(saved.untyped_storage().data_ptr(), "another"))
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        y = fn(*operands)
    y.backward(torch.linspace(-1, 2, y.numel()).view(y.shape))
    return kept, [x.grad for x in operands]


@pytest.mark.parametrize("name", OPS)
def test_only_what_a_wanted_gradient_reads_is_kept(name):
    both, (grad_a, grad_b) = kept_and_gradients(name, (True, True))
    first, (only_a, none_b) = kept_and_gradients(name, (True, False))
    second, (none_a, only_b) = kept_and_gradients(name, (False, True))
    assert (both, first, second) == ({0, 1}, {1}, {0})
    assert none_a is None and none_b is None
    assert torch.equal(grad_a, only_a) and torch.equal(grad_b, only_b)
