"""Elementwise operations on the CPU by compiled loops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from dettriton.exact._elementary_loops import softmax_rows, softmax_totals
from dettriton.exact._elementwise_loops import relu, relu_gradient
from dettriton.exact._loops import flat, spread
from dettriton.exact._philox_loops import drop


def mapped(loop: Callable, *tensors: torch.Tensor) -> torch.Tensor:
    """``loop(*arrays, out, first, last)`` over the elements of tensors of one shape, in their order in memory.

    The result has the order of the first tensor where that fills one run of memory, as torch's own operations have it.
    """
    like = tensors[0]
    out = torch.empty_like(like)
    order = None
    if not like.is_contiguous():
        order = sorted(range(like.dim()), key=like.stride, reverse=True)
        if not like.permute(order).is_contiguous():
            order, out = None, torch.empty(like.shape)
    arrays = [flat(t if order is None else t.permute(order)) for t in (*tensors, out)]
    # An elementary function costs as much as many additions.
    spread(lambda first, last: loop(*arrays, first, last), like.numel(), 8 * like.numel())
    return out


def softmax_of(x: torch.Tensor) -> torch.Tensor:
    """The softmax of the rows of a matrix with at least one column."""
    y = torch.empty(x.shape)
    arrays = flat(x), flat(y)
    rows, length = x.shape
    spread(lambda first, last: softmax_rows(*arrays, length, first, last), rows, 8 * x.numel())
    return y


def softmax_totals_of(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's largest term and sum of exponentials (R, 1) of a matrix with at least one column."""
    rows, length = x.shape
    top, total = torch.empty(rows, 1), torch.empty(rows, 1)
    arrays = flat(x), flat(top), flat(total)
    spread(lambda first, last: softmax_totals(*arrays, length, first, last), rows, 8 * x.numel())
    return top, total


def relu_of(x: torch.Tensor) -> torch.Tensor:
    """relu of a binary32 tensor."""
    y = torch.empty(x.shape)
    arrays = flat(x), flat(y)
    spread(lambda first, last: relu(*arrays, first, last), x.numel(), x.numel())
    return y


def relu_gradient_of(grad: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """``grad`` where relu's result is above 0, else +0."""
    grad_x = torch.empty(grad.shape)
    arrays = flat(grad), flat(result), flat(grad_x)
    spread(lambda first, last: relu_gradient(*arrays, first, last), grad.numel(), grad.numel())
    return grad_x


def dropped(x: torch.Tensor, threshold: int, scale: float, words: tuple[int, int, int, int]) -> torch.Tensor:
    """``x * scale`` where the element's Philox word is at least the threshold, +0 elsewhere.

    Args:
        words: seed, stream, and the low and high words of the step.
    """
    y = torch.empty(x.shape)
    arrays = flat(x), flat(y)
    given = threshold, np.float32(scale), *words
    # Ten rounds cost as much as many elementwise operations.
    spread(lambda first, last: drop(*arrays, first, last, *given), -(-x.numel() // 4), 16 * x.numel())
    return y
