import pytest
import torch
from bits import hard_vectors, non_finite_vectors, on_both_engines, same_bits, values_and_grads

from dettriton.errors import InputError
from dettriton.ops.bmm import bmm
from dettriton.ops.einsum import einsum
from dettriton.ops.matmul import matmul
from dettriton.ops.sum import sum as exact_sum

EQUATIONS = [
    ("ij,jk->ik", (3, 4), (4, 5)),
    ("bij,bjk", (2, 3, 4), (2, 4, 5)),
    ("...ij,...jk->...ik", (2, 1, 3, 4), (3, 4, 5)),
    ("bqhd,bkhd->bhqk", (2, 3, 2, 4), (2, 5, 2, 4)),
    ("ij,j", (3, 4), (4,)),
    ("i,i->", (5,), (5,)),
    ("ijk,kjl->li", (2, 3, 4), (4, 3, 2)),
    ("i,j->ij", (3,), (4,)),
    ("ij,ji->ij", (3, 4), (4, 3)),
    ("ij,kl->i", (2, 3), (4, 5)),
    ("b i , i o -> b o", (2, 1), (4, 3)),
    ("ab,bc,cd->ad", (2, 3), (3, 4), (4, 5)),
    ("abc,ab,b->c", (2, 3, 4), (2, 3), (3,)),
    ("ij->ji", (2, 3)),
    ("ij->", (2, 3)),
    ("...i->...", (2, 3)),
    ("...i", (2, 3)),
    ("Ab,bA", (2, 3), (3, 2)),
    (",i->i", (), (3,)),
    ("ij,jk->ik", (0, 4), (4, 5)),
    ("ij,jk->ik", (3, 0), (0, 2)),
]


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("equation,shapes", [(e, s) for e, *s in EQUATIONS])
def test_verify_engines_agree_and_corroborate_torch(equation, shapes):
    operands = [gaussian(*shape, seed=i) for i, shape in enumerate(shapes)]
    ours, kernels = on_both_engines(values_and_grads, lambda *t: einsum(equation, *t), *operands)
    reference = values_and_grads(lambda *t: torch.einsum(equation, *t), *(x.double() for x in operands))
    for p, q, r in zip(ours, kernels, reference, strict=True):
        assert same_bits(p, q)
        torch.testing.assert_close(p.double(), r.double(), rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_verify_contractions_are_matmul_bmm_and_sum(precision):
    a, b, c = gaussian(3, 4, 5, seed=1), gaussian(3, 5, 2, seed=2), gaussian(6, 2, 7, seed=3)
    assert same_bits(einsum("bij,bjk->bik", a, b, precision=precision), bmm(a, b, precision=precision))
    over_two = matmul(a.permute(1, 0, 2).reshape(4, 15), b.reshape(15, 2), precision=precision)
    assert same_bits(einsum("bij,bjk->ik", a, b, precision=precision), over_two)
    chained = matmul(over_two, exact_sum(c, 2).t(), precision=precision)
    assert same_bits(einsum("bij,bjk,lkm->il", a, b, c, precision=precision), chained)


def test_verify_what_contracts_nothing_is_one_rounding():
    a, b = gaussian(3, 4, seed=4), gaussian(4, 3, seed=5)
    assert same_bits(einsum("ij,ji->ij", a, b), a * b.t())
    assert same_bits(einsum("ij,kl->ijkl", a, b), a[:, :, None, None] * b)


def test_verify_the_gradient_of_a_broadcast_operand_is_an_exact_sum():
    a, b = gaussian(3, 40, seed=6), gaussian(40, seed=7)
    _, _, grad_b = values_and_grads(lambda x, y: einsum("ij,j->ij", x, y), a, b)
    upstream = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    assert same_bits(grad_b, exact_sum(upstream * a, 0))


@pytest.mark.heavy
@pytest.mark.parametrize("name", [*hard_vectors(), *non_finite_vectors()])
def test_verify_engines_agree_on_hard_inputs(name):
    vector = {**hard_vectors(24), **non_finite_vectors(24)}[name]
    given = (vector.reshape(2, 3, 4), vector.flip(0)[:8].reshape(2, 4))
    results = on_both_engines(values_and_grads, lambda *t: einsum("bij,bj->bi", *t), *given)
    assert all(same_bits(p, q) for p, q in zip(*results, strict=True))


def test_verify_a_sample_does_not_depend_on_its_batch_nor_on_its_layout():
    a, b = gaussian(4, 3, 5, seed=8), gaussian(5, 2, seed=9)
    a[0] *= 1e15
    for whole in on_both_engines(lambda x, y: einsum("nij,jk->nki", x, y), a.mT.contiguous().mT, b):
        assert same_bits(whole[2:3], einsum("nij,jk->nki", a[2:3], b))


def test_stock_float_einsum_fails_the_bit_test():
    a, b = gaussian(8, 200, seed=10), gaussian(200, 8, seed=11)
    assert not same_bits(torch.einsum("ij,jk->ik", a, b), einsum("ij,jk->ik", a, b))


@pytest.mark.parametrize(
    "equation,shapes,message",
    [
        ("ii->i", [(3, 3)], "repeats an index"),
        ("ij,jk->il", [(2, 3), (3, 4)], "each once"),
        ("ij->ii", [(2, 3)], "each once"),
        ("ij,jk", [(2, 3)], "names 2 operands"),
        ("ijk", [(2, 3)], "does not name"),
        ("ij,jk", [(2, 3), (4, 5)], "sizes 3 and 4"),
        ("i.j", [(2, 3, 4)], "letters and one ellipsis"),
        ([0, 1], [(2, 3)], "lists of indices"),
    ],
)
def test_bad_equations_are_refused(equation, shapes, message):
    with pytest.raises(InputError, match=message):
        einsum(equation, *(torch.zeros(s) for s in shapes))


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="'high' or 'medium'"):
        einsum("i->", torch.zeros(2), precision="low")
    with pytest.raises(InputError, match=r"torch\.float32"):
        einsum("i->", torch.zeros(2).double())
    with pytest.raises(InputError, match="at least one operand"):
        einsum("")
