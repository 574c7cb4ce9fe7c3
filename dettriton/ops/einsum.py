"""einsum: contractions of one or more tensors, each pair by exact dot products (rule R2) or by products (R1).

Written order. First a label that only one operand has, and the output has not, is summed there: an exact windowed sum.
Then operands are contracted left to right, the result so far with the next operand. A label both have, and neither the
output nor a later operand has, is contracted: one dot product over all such labels, with one grid for each index of the
other labels of each operand. Two operands without such a label are multiplied, one rounding for each product. At last
the dimensions are put in the output's order. Gradients: those of matmul, of the product (``grad * other``, then an
exact sum over labels that ``other`` alone has) and of the sum. Error as matmul's for each contraction. Batch-invariant
along every label of the output.
"""

from __future__ import annotations

import math
import string
from dataclasses import dataclass
from typing import Any

import torch

from dettriton.errors import InputError
from dettriton.exact.grid import bits_of
from dettriton.ops._broadcast import expand
from dettriton.ops._contract import contract
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops.matmul import ERROR, MatMul
from dettriton.ops.sum import sum as exact_sum_of

Labels = tuple[str, ...]
"""One label a dimension: a letter, or ``.i`` for the i-th dimension from the right of the ellipsis."""


@dataclass(frozen=True)
class _Term:
    tensor: torch.Tensor
    labels: Labels

    def size(self, labels: Labels) -> tuple[int, ...]:
        return tuple(self.tensor.shape[self.labels.index(label)] for label in labels)

    def ordered(self, labels: Labels) -> torch.Tensor:
        """The tensor with its dimensions in another order."""
        return self.tensor.permute([self.labels.index(label) for label in labels])

    def summed(self, kept: set[str]) -> _Term:
        """Without the labels that nobody keeps, which are summed over."""
        gone = tuple(i for i, label in enumerate(self.labels) if label not in kept)
        if not gone:
            return self
        labels = tuple(label for label in self.labels if label in kept)
        return _Term(exact_sum_of(self.tensor, gone), labels)


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = ctx.saved_tensors
        return grad * b, grad * a


def _side_labels(text: str, dots: int) -> Labels:
    """The labels of one operand, or of the output, whose ellipsis stands for ``dots`` dimensions."""
    before, ellipsis, after = text.partition("...")
    if any(letter not in string.ascii_letters for letter in before + after):
        raise InputError(f"einsum: {text!r} is not made of letters and one ellipsis")
    middle = [f".{i}" for i in reversed(range(dots))] if ellipsis else []
    return (*before, *middle, *after)


def _operand_labels(text: str, operand: torch.Tensor) -> Labels:
    letters = len(text.replace("...", "", 1))
    dots = operand.dim() - letters
    if dots < 0 or (dots and "..." not in text):
        raise InputError(f"einsum: {text!r} does not name the {operand.dim()} dimensions of {tuple(operand.shape)}")
    labels = _side_labels(text, dots)
    if len(set(labels)) != len(labels):
        raise InputError(
            f"einsum: {text!r} repeats an index in one operand, which is not supported; take the diagonal first "
            "with torch.diagonal"
        )
    return labels


def _output_labels(sides: list[str], right: str | None, inputs: list[Labels]) -> Labels:
    dots = max(sum(label.startswith(".") for label in labels) for labels in inputs)
    if right is None:
        letters = "".join(sides).replace(".", "")
        once = sorted(letter for letter in set(letters) if letters.count(letter) == 1)
        right = "..." * (dots > 0) + "".join(once)
    output = _side_labels(right, dots)
    known = {label for labels in inputs for label in labels}
    unknown = [label for label in output if label not in known]
    if unknown or len(set(output)) != len(output):
        raise InputError(f"einsum: the output {right!r} must name indices of the operands, each once")
    return output


def _parsed(equation: str, operands: tuple[torch.Tensor, ...]) -> tuple[list[_Term], Labels]:
    """The operands with their labels, sizes made equal, and the output's labels."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    sides = left.split(",")
    if len(sides) != len(operands):
        raise InputError(f"einsum: {equation!r} names {len(sides)} operands, got {len(operands)}")
    inputs = [_operand_labels(side, operand) for side, operand in zip(sides, operands, strict=True)]
    output = _output_labels(sides, right if arrow else None, inputs)
    sizes: dict[str, int] = {}
    for labels, operand in zip(inputs, operands, strict=True):
        for label, size in zip(labels, operand.shape, strict=True):
            known = sizes.setdefault(label, size)
            if 1 not in (known, size) and known != size:
                raise InputError(f"einsum: {equation!r}: one index has sizes {known} and {size} in two operands")
            sizes[label] = size if known == 1 else known
    pairs = zip(operands, inputs, strict=True)
    return [_Term(expand(x, tuple(sizes[label] for label in labels)), labels) for x, labels in pairs], output


def _multiplied(a: _Term, b: _Term) -> _Term:
    """The products of all pairs of elements whose common labels agree."""
    new = tuple(label for label in b.labels if label not in a.labels)
    labels = (*a.labels, *new)
    size = (*a.tensor.shape, *b.size(new))
    wide = a.tensor.reshape(*a.tensor.shape, *(1,) * len(new))
    ordered = b.ordered(tuple(label for label in labels if label in b.labels))
    other = ordered.reshape([s if label in b.labels else 1 for label, s in zip(labels, size, strict=True)])
    return _Term(Product.apply(expand(wide, size), expand(other, size)), labels)


def _contracted(a: _Term, b: _Term, kept: set[str], precision: str) -> _Term:
    common = tuple(label for label in a.labels if label in b.labels)
    over = tuple(label for label in common if label not in kept)
    if not over:
        return _multiplied(a, b)
    batch = tuple(label for label in common if label in kept)
    rows = tuple(label for label in a.labels if label not in common)
    columns = tuple(label for label in b.labels if label not in common)
    sizes = a.size(batch), a.size(rows), a.size(over), b.size(columns)
    count, m, k, n = map(math.prod, sizes)
    left = a.ordered(batch + rows + over).reshape(count, m, k)
    right = b.ordered(batch + over + columns).reshape(count, k, n)
    product = MatMul.apply(left, right, precision)
    return _Term(product.view(sizes[0] + sizes[1] + sizes[3]), batch + rows + columns)


@contract(
    "Dot products",
    definition="labels of one operand only: exact sums; then left to right: dot products over the labels contracted, "
    "one grid for each index of an operand's other labels; products where none is contracted",
    error=f"for each contraction: {ERROR}",
    batch_invariant=True,
    kernels=True,
    mirrors="einsum",
)
def einsum(equation: str, *operands: torch.Tensor, precision: str = "high") -> torch.Tensor:
    """Sum of products over named indices, as :func:`torch.einsum`.

    Args:
        equation: as torch's: letters, ``...``, and ``->`` with the output's indices; without an arrow the indices that
            occur once, in alphabetical order after the ellipsis.
        operands: binary32, at least one; dimensions of size 1 broadcast. More than two are contracted left to right.
        precision: ``"high"`` (20-bit grids) or ``"medium"`` (13-bit grids) of the dot products.

    Returns:
        The contraction; error bound as :func:`dettriton.ops.matmul` for each dot product, half an ulp for a product of
        two operands that contracts nothing, and that of :func:`dettriton.ops.sum` for a sum.

    Raises:
        InputError: an operand is not binary32, the equation does not fit the operands, an index is repeated within one
            operand (take ``torch.diagonal`` first), a dot product has more than 2**22 terms, or the precision is
            unknown.
    """
    if not isinstance(equation, str):
        raise InputError("einsum: the equation must be a string; lists of indices are not supported")
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    if not operands:
        raise InputError("einsum: needs at least one operand")
    require_float32("einsum", **{f"operand {i}": x for i, x in enumerate(operands)})
    bits_of(precision)
    terms, output = _parsed(equation, operands)
    own = [set(output).union(*(t.labels for j, t in enumerate(terms) if j != i)) for i in range(len(terms))]
    first, *others = (term.summed(kept) for term, kept in zip(terms, own, strict=True))
    for i, term in enumerate(others):
        kept = set(output).union(*(later.labels for later in others[i + 1 :]))
        first = _contracted(first, term, kept, precision)
    return first.ordered(output)
