import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.gather import gather, index_select

VECTORS = {**hard_vectors(24), **non_finite_vectors(24)}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def indices(size: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, size, shape, generator=generator(seed))


CASES = {
    "gather rows": (lambda f, x: f.gather(x, 0, indices(4, 9, 3)), (4, 6)),
    "gather columns": (lambda f, x: f.gather(x, -1, indices(6, 2, 30)), (4, 6)),
    "gather middle": (lambda f, x: f.gather(x, 1, indices(3, 2, 5, 4)), (2, 3, 4)),
    "gather transposed": (lambda f, x: f.gather(x.t(), 1, indices(4, 5, 7)), (4, 6)),
    "gather strided": (lambda f, x: f.gather(x[:, ::2], 1, indices(3, 4, 7)), (4, 6)),
    "gather scalar": (lambda f, x: f.gather(x, 0, torch.tensor(0)), ()),
    "gather nothing": (lambda f, x: f.gather(x, 0, indices(4, 0, 3)), (4, 6)),
    "select rows": (lambda f, x: f.index_select(x, 0, indices(4, 11)), (4, 6)),
    "select middle": (lambda f, x: f.index_select(x, -2, indices(3, 11)), (2, 3, 4)),
    "select one": (lambda f, x: f.index_select(x, 1, torch.tensor(2)), (4, 6)),
    "select strided": (lambda f, x: f.index_select(x.t()[::2], 0, indices(3, 5)), (4, 6)),
    "select scalar": (lambda f, x: f.index_select(x, 0, torch.tensor([0])), ()),
    "select nothing": (lambda f, x: f.index_select(x, 0, indices(4, 0)), (4, 6)),
}


class Ours:
    gather = staticmethod(gather)
    index_select = staticmethod(index_select)


@pytest.mark.parametrize("name", CASES)
def test_corroborate_and_verify(name):
    fn, shape = CASES[name]
    x = torch.randn(shape, generator=generator(1))
    reference, kernels = on_both_engines(values_and_grads, lambda t: fn(Ours, t), x)
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    assert same_bits(reference[0], fn(torch, x))
    wide = x.double().requires_grad_()
    out = fn(torch, wide)
    out.backward(torch.randn(out.shape, generator=generator(0)).double())
    torch.testing.assert_close(reference[1].double(), wide.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", VECTORS)
def test_verify_gradient_does_not_depend_on_the_order_of_outputs(name):
    upstream = VECTORS[name]
    index = indices(3, 24, seed=2)
    order = torch.randperm(24, generator=generator(3))
    grads = []
    for engine in (0, 1):
        for g, i in ((upstream, index), (upstream[order], index[order])):
            for op in (gather, index_select):
                x = torch.zeros(4, requires_grad=True)

                def backward(x=x, op=op, g=g, i=i):
                    x.grad = None
                    op(x, 0, i).backward(g)
                    return x.grad

                grads.append(on_both_engines(backward)[engine])
    assert all(same_bits(g, grads[0]) for g in grads) and grads[0][3].item() == 0.0


def test_verify_batch_does_not_matter():
    x = torch.randn(5, 7, generator=generator(4))
    index = indices(7, 5, 3)
    alone = torch.cat([gather(x[i : i + 1], 1, index[i : i + 1]) for i in range(5)])
    assert same_bits(gather(x, 1, index), alone)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gather(torch.zeros(3, dtype=torch.float64), 0, torch.tensor([0])), "float32"),
        (lambda: gather(torch.zeros(3), 1, torch.tensor([0])), "dimension 1"),
        (lambda: gather(torch.zeros(3), 0, torch.tensor([0, 3])), "index 3 at position 1"),
        (lambda: gather(torch.zeros(3), 0, torch.tensor([-1])), "index -1 at position 0"),
        (lambda: gather(torch.zeros(3), 0, torch.tensor([0.0])), "int64"),
        (lambda: gather(torch.zeros(3), 0, torch.tensor([[0]])), "dimensions"),
        (lambda: gather(torch.zeros(3, 2), 0, torch.zeros(3, 5, dtype=torch.int64)), "larger"),
        (lambda: gather(torch.zeros(3), 0, torch.tensor([0]), sparse_grad=True), "sparse"),
        (lambda: index_select(torch.zeros(3, 2), 0, torch.zeros(1, 1, dtype=torch.int64)), "one dimension"),
        (lambda: index_select(torch.zeros(0, 2), 0, torch.tensor([0])), "absent"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
