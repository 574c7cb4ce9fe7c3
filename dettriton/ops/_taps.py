"""Linear maps along one axis whose taps and weights are known before any value is: what padding and resampling share.

Forward, output ``o`` is the sum of ``weight * input`` over its taps in ascending order of the taps, R1: each product and
each addition rounded once, starting from the first product. Without weights there is one tap, and it is moved.

Gradient: an input's is the sum of ``grad * weight`` over the outputs and taps that read it. With at most 64 of them for
every input it starts at +0 and adds the products one by one in ascending order of (output, tap), R1; otherwise it is
the exact windowed sum of the products (R2). Which one depends on the sizes alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dettriton.ops._pool import IN_ORDER_LIMIT
from dettriton.ops._tables import device_tables
from dettriton.ops.sum import exact_sum


@dataclass(frozen=True, eq=False)
class Taps:
    """The taps of every output of one axis; equal only to itself, so that its tables are kept.

    Attributes:
        size: how many inputs the axis has.
        index: for each output, the inputs it reads.
        weights: for each output, their factors, rounded to binary32 where they are used; None to move one input.
    """

    size: int
    index: tuple[Sequence[int], ...]
    weights: tuple[Sequence[float], ...] | None = None

    @property
    def outputs(self) -> int:
        return len(self.index)


@device_tables(most=256)
def _forward_tables(taps: Taps) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Inputs and weights, (taps, outputs)."""
    index = torch.tensor(taps.index, dtype=torch.int64).t().contiguous()
    if taps.weights is None:
        return index, None
    return index, torch.tensor(taps.weights, dtype=torch.float32).t().contiguous()


@device_tables(most=256)
def _gradient_tables(taps: Taps) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Outputs, weights, and where there is none, (longest list of an input's readers, inputs)."""
    readers = [[] for _ in range(taps.size)]
    for o, inputs in enumerate(taps.index):
        for t, i in enumerate(inputs):
            readers[i].append((o, t))
    longest = max(map(len, readers), default=0)
    missing = torch.tensor([[k >= len(r) for r in readers] for k in range(longest)], dtype=torch.bool)
    filled = [r + [(0, 0)] * (longest - len(r)) for r in readers]
    outputs = torch.tensor([[r[k][0] for r in filled] for k in range(longest)], dtype=torch.int64)
    if taps.weights is None:
        return outputs, None, missing
    weights = [[taps.weights[o][t] for o, t in (r[k] for r in filled)] for k in range(longest)]
    return outputs, torch.tensor(weights, dtype=torch.float32), missing


def resampled(x: torch.Tensor, dim: int, taps: Taps) -> torch.Tensor:
    """The map along ``dim``, a negative dimension."""
    index, weights = _forward_tables(taps, x.device)
    beside = (-1, *(1,) * (-1 - dim))
    total = None
    for t in range(len(index)):
        term = x.index_select(dim, index[t])
        term = term if weights is None else term * weights[t].view(beside)
        total = term if total is None else total + term
    return total


def resampled_gradient(grad: torch.Tensor, dim: int, taps: Taps) -> torch.Tensor:
    """The gradient of :func:`resampled` to its input."""
    outputs, weights, missing = _gradient_tables(taps, grad.device)
    beside = (-1, *(1,) * (-1 - dim))
    if len(outputs) > IN_ORDER_LIMIT:
        terms = grad.index_select(dim, outputs.reshape(-1)).unflatten(dim, outputs.shape)
        terms = terms if weights is None else terms * weights.view(*outputs.shape, *beside[1:])
        terms = terms.masked_fill(missing.view(*outputs.shape, *beside[1:]), 0.0)
        return exact_sum(terms, (grad.dim() + dim,))
    shape = [*grad.shape]
    shape[dim] = taps.size
    total = grad.new_zeros(shape)
    for k in range(len(outputs)):
        term = grad.index_select(dim, outputs[k])
        term = term if weights is None else term * weights[k].view(beside)
        # -0 is the sum of nothing: adding it changes no value.
        total = total + term.masked_fill(missing[k].view(beside), -0.0)
    return total
