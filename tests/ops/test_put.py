import oracle
import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, raw, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.index_put import put

SHAPE, PLACES = (2, 5), 10
N = 37
HARD = hard_vectors(N)
VECTORS = {**HARD, **non_finite_vectors(N)}
both_ways = pytest.mark.parametrize("accumulate", [False, True])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def places(*shape: int, seed: int = 0) -> torch.Tensor:
    """Several for most elements, some counted from the end."""
    return torch.randint(-PLACES, PLACES, shape, generator=generator(seed))


def named(index: torch.Tensor, size: int = PLACES) -> list[int]:
    return [i % size for i in index.flatten().tolist()]


def exact_sums(x: torch.Tensor, index: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    terms = [[value] for value in x.flatten().tolist()]
    for place, value in zip(named(index, x.numel()), source.flatten().tolist(), strict=True):
        terms[place].append(value)
    sums = [oracle.windowed_sum(t) if len(t) > 1 else t[0] for t in terms]
    return torch.tensor(sums, dtype=torch.float32).view(x.shape)


def last_values(x: torch.Tensor, index: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    bits = raw(x).flatten().tolist()
    for place, value in zip(named(index, x.numel()), raw(source).flatten().tolist(), strict=True):
        bits[place] = value
    return torch.tensor(bits, dtype=torch.int32).view(torch.float32).view(x.shape)


EXPECTED = {False: last_values, True: exact_sums}


@both_ways
@pytest.mark.parametrize("name", VECTORS)
def test_verify_engines_agree_and_validate(name, accumulate):
    source = VECTORS[name]
    x, index = source[-PLACES:].flip(0).view(SHAPE), places(N)
    reference, kernels = on_both_engines(values_and_grads, lambda a, b: put(a, index, b, accumulate), x, source)
    assert all(same_bits(a, b) for a, b in zip(reference, kernels, strict=True))
    assert same_bits(reference[0], EXPECTED[accumulate](x, index, source))


def test_verify_writing_moves_any_bits():
    words = torch.randint(-(2**31), 2**31, (2, N), generator=generator(1), dtype=torch.int64).to(torch.int32)
    words[0, :2] = words[1, :2] = torch.tensor([0x7FC00001, -1], dtype=torch.int32)
    x, source = words.view(torch.float32)
    index = torch.cat((torch.arange(N - 9), places(9)))
    for result in on_both_engines(put, x, index, source):
        assert same_bits(result, last_values(x, index, source))


@pytest.mark.parametrize("name", VECTORS)
def test_verify_the_order_of_sums_does_not_matter(name):
    source, index = VECTORS[name], places(N)
    order = torch.randperm(N, generator=generator(2))
    results = [
        *on_both_engines(put, source[:PLACES], index, source, True),
        *on_both_engines(put, source[:PLACES], index[order], source[order], True),
    ]
    assert all(same_bits(r, results[0]) for r in results)


def test_the_order_of_writes_matters():
    source, index = HARD["normal"], places(N)
    forward, backward = put(source[:PLACES], index, source), put(source[:PLACES], index.flip(0), source.flip(0))
    assert not same_bits(forward, backward)


@both_ways
def test_an_element_without_values_keeps_its_bits(accumulate):
    x = torch.tensor([-(2**31), 0x7FC00001, 0], dtype=torch.int32).view(torch.float32)
    for result in on_both_engines(put, x, torch.tensor([2, -1]), torch.tensor([-0.0, -0.0]), accumulate):
        assert raw(result)[:2].tolist() == [-(2**31), 0x7FC00001]
        assert raw(result)[2].item() == (0 if accumulate else -(2**31))


def test_validate_gradients_of_sums():
    x, source, index = HARD["normal"][:PLACES].view(SHAPE), HARD["normal"].view(1, N), places(N)
    y, grad_x, grad_source = values_and_grads(lambda a, b: put(a, index, b, True), x, source)
    upstream = torch.randn(y.shape, generator=generator(0))
    assert same_bits(grad_x, upstream)
    assert same_bits(grad_source, upstream.flatten()[named(index)].view(1, N))


def test_validate_gradients_of_writes():
    x, source = torch.zeros(2, 2, requires_grad=True), torch.zeros(3, requires_grad=True)
    put(x, torch.tensor([1, -1, 1]), source).backward(torch.tensor([[1.0, 2.0], [3.0, float("inf")]]))
    assert x.grad.tolist() == [[1, 0], [3, 0]] and source.grad.tolist() == [0, float("inf"), 2]


SHAPES = {
    "map": ((4, 5), (3, 7), (21,)),
    "volume": ((2, 3, 4), (5,), (5,)),
    "scalar": ((), (1,), (1,)),
    "scalars": ((), (), ()),
    "other shape": ((3,), (2, 2), (4, 1)),
    "nothing": ((3, 4), (0,), (0, 2)),
    "nothing into nothing": ((0,), (0,), (0,)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_corroborate_torch(name):
    shape, index_shape, source_shape = SHAPES[name]
    size = torch.Size(shape).numel()
    x, source = torch.randn(shape, generator=generator(3)), torch.randn(source_shape, generator=generator(4))
    index = torch.randint(-size, max(size, 1), index_shape, generator=generator(5))
    # Where nothing is put, ours has no gradient for it.
    compared = 3 if source.numel() else 2
    ours, stock = (values_and_grads(lambda a, b, f=f: f(a, index, b, True), x, source) for f in (put, torch.put))
    for a, b in zip(ours[:compared], stock[:compared], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    once = torch.randperm(size, generator=generator(6))[: source.numel()]
    values = source.flatten()[: len(once)]
    ours, stock = (values_and_grads(lambda a, b, f=f: f(a, once, b), x, values) for f in (put, torch.put))
    assert all(same_bits(a, b) for a, b in zip(ours[:compared], stock[:compared], strict=True))


@both_ways
def test_verify_32_bit_indices(accumulate):
    x, source, index = HARD["normal"][:PLACES], HARD["normal"], places(N)
    assert same_bits(put(x, index.int(), source, accumulate), put(x, index, source, accumulate))


@both_ways
def test_verify_strides_do_not_matter(accumulate):
    x = torch.randn(5, 8, generator=generator(6)).t()[::2]
    source = torch.randn(5, 18, generator=generator(7)).t()[::2]
    index = places(5, 9).t()
    assert not any(t.is_contiguous() for t in (x, source, index))
    expected = EXPECTED[accumulate](x, index, source)
    before = x.clone()
    for result in on_both_engines(put, x, index, source, accumulate):
        assert same_bits(result, expected) and same_bits(x, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3), torch.tensor([3]), torch.ones(1)), "index 3 is out of bounds"),
        ((torch.zeros(3), torch.tensor([-4]), torch.ones(1)), "index -4 is out of bounds"),
        ((torch.zeros(0), torch.tensor([0]), torch.ones(1)), "out of bounds"),
        ((torch.zeros(3), torch.tensor([0, 1]), torch.ones(1)), "index has 2 elements and source has 1"),
        ((torch.zeros(3), torch.tensor([0.0]), torch.ones(1)), r"index must be torch\.int64"),
        ((torch.zeros(3), torch.tensor([True]), torch.ones(1)), r"index must be torch\.int64"),
        ((torch.zeros(3), torch.zeros(0), torch.ones(0)), r"index must be torch\.int64"),
        ((torch.zeros(3).double(), torch.tensor([0]), torch.ones(1)), r"input must be torch\.float32"),
        ((torch.zeros(3), torch.tensor([0]), torch.ones(1).double()), r"source must be torch\.float32"),
    ],
)
@both_ways
def test_bad_arguments_are_refused(arguments, message, accumulate):
    with pytest.raises(InputError, match=f"put: .*{message}"):
        put(*arguments, accumulate)


@both_ways
def test_verify_no_places_give_gradients_all_the_same(accumulate):
    x, source = torch.ones(3, requires_grad=True), torch.ones(0, requires_grad=True)
    for y in on_both_engines(put, x, torch.zeros(0, dtype=torch.int64), source, accumulate):
        grads = torch.autograd.grad(y.sum(), (x, source))
        assert y.tolist() == [1.0] * 3 and grads[0].tolist() == [1.0] * 3 and grads[1].shape == (0,)


def test_a_second_derivative_is_refused():
    x, source = torch.zeros(3, requires_grad=True), torch.ones(2, requires_grad=True)
    y = put(x, torch.tensor([0, 0]), source)
    (grad,) = torch.autograd.grad(y.square().sum(), source, create_graph=True)
    with pytest.raises(InputError, match="no second derivative"):
        grad.sum().backward()
