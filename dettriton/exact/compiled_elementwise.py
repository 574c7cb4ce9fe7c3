"""Elementwise operations on the CPU by compiled loops."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from dettriton.exact._elementary_loops import (
    bce,
    bce_gradient,
    class_loss_gradient,
    class_losses,
    softmax_rows,
    softmax_totals,
)
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


def bce_of(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None, pos_weight: torch.Tensor | None
) -> torch.Tensor:
    """The binary cross entropies of logits ``x`` and targets ``y``, with factors that broadcast to their shape."""
    loop = partial(bce, weight is not None, pos_weight is not None)
    return mapped(loop, x, y, _like(x, weight), _like(x, pos_weight))


def bce_gradient_of(
    factor: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor | None,
    pos_weight: torch.Tensor | None,
) -> torch.Tensor:
    """The gradients of :func:`bce_of` to the logits, each times the ``factor``, which broadcasts as well."""
    loop = partial(bce_gradient, weight is not None, pos_weight is not None)
    return mapped(loop, x, y, _like(x, weight), _like(x, pos_weight), _like(x, factor))


def _like(x: torch.Tensor, factor: torch.Tensor | None) -> torch.Tensor:
    return x if factor is None else factor.expand_as(x)


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


def class_losses_of(
    x: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None, ignored: int
) -> tuple[torch.Tensor, ...]:
    """Each (rows,): the cross entropies of rows and classes, the rows' tops and totals, the weights of the classes.

    Args:
        labels: int64, (rows,): classes, or the ignored label.
        weight: (classes,).
    """
    rows, length = x.shape
    found = tuple(torch.empty(rows) for _ in range(4))
    given = flat(x), flat(labels), flat(x if weight is None else weight), weight is not None, ignored, length
    arrays = [flat(t) for t in found]
    spread(lambda first, last: class_losses(*given, *arrays, first, last), rows, 8 * x.numel())
    return found


def class_loss_gradient_of(
    factor: torch.Tensor,
    x: torch.Tensor,
    labels: torch.Tensor,
    weight: torch.Tensor | None,
    ignored: int,
    shares: tuple[float, float],
    of_rows: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """The gradients of cross entropies to the logits, each row's times its factor.

    Args:
        shares: binary32 numbers, what of a target is at its class alone and what at every class.
        of_rows: each (rows,): tops, totals, and the sums of the targets.
    """
    rows, length = x.shape
    slope = torch.empty(x.shape)
    given = flat(factor), flat(x), flat(labels), flat(x if weight is None else weight), weight is not None, ignored
    arrays = *map(np.float32, shares), length, *map(flat, of_rows), flat(slope)
    spread(lambda first, last: class_loss_gradient(*given, *arrays, first, last), rows, 8 * x.numel())
    return slope


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
