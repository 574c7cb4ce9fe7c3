"""Elementwise operations on the CPU by compiled loops."""

from __future__ import annotations

import numpy as np
import torch

from dettriton.exact._elementwise_loops import relu, relu_gradient
from dettriton.exact._loops import flat, spread
from dettriton.exact._philox_loops import drop


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
