"""Max pooling on the CPU by compiled loops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from dettriton.exact._loops import flat, spread
from dettriton.exact._pool_loops import max_pool, max_pool_gradient


class Axis(Protocol):
    """Strided windows along one axis."""

    size: int
    out: int
    kernel: int
    stride: int
    padding: int
    dilation: int


def max_pooled(
    x: torch.Tensor, axes: Sequence[Axis], taps: torch.dtype | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The largest element of each window of binary32 maps, and the first tap that holds it as that type.

    Args:
        x: ``(..., *sizes)``.
        axes: two or three.
        taps: None where the taps are not wanted.
    """
    y = torch.empty(*x.shape[: -len(axes)], *(axis.out for axis in axes))
    chosen = torch.empty(0 if taps is None else y.shape, dtype=taps or torch.uint8)
    geometry, planes, windows = _geometry(axes), math.prod(x.shape[: -len(axes)]), _elements(y, axes)
    arrays = flat(x), flat(y), flat(chosen), taps is not None, geometry
    spread(lambda first, last: max_pool(*arrays, first, last), planes, windows)
    return y, None if taps is None else chosen


def max_pooled_gradient(grad: torch.Tensor, taps: torch.Tensor, axes: Sequence[Axis]) -> torch.Tensor:
    """The gradient of :func:`max_pooled` to its input."""
    grad_x = torch.empty(*grad.shape[: -len(axes)], *(axis.size for axis in axes))
    arrays = flat(grad), flat(taps), flat(grad_x), _geometry(axes)
    planes = math.prod(grad.shape[: -len(axes)])
    spread(lambda first, last: max_pool_gradient(*arrays, first, last), planes, 2 * grad_x.numel())
    return grad_x


def _geometry(axes: Sequence[Axis]) -> np.ndarray:
    names = ("size", "out", "kernel", "stride", "padding", "dilation")
    neutral = (1, 1, 1, 1, 0, 1)
    missing = 3 - len(axes)
    rows = [
        [alone] * missing + [getattr(axis, name) for axis in axes] for name, alone in zip(names, neutral, strict=True)
    ]
    return np.array(rows, np.int64).reshape(-1)


def _elements(y: torch.Tensor, axes: Sequence[Axis]) -> int:
    return y.numel() * math.prod(axis.kernel for axis in axes)
