"""Updates of parameters on the CPU by compiled loops, in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from dettriton.exact._loops import flat, spread
from dettriton.exact._optim_loops import adam, sgd

Rows = Sequence[Sequence[torch.Tensor]]
"""A parameter, its gradient and its moments, all contiguous and on the CPU, for each parameter."""


def update_adam(rows: Rows, *constants: float, decay: bool, decoupled: bool) -> None:
    """One step of :class:`dettriton.optim.Adam` for rows (parameter, gradient, first moment, second moment)."""
    numbers = _binary32(constants)
    for row in rows:
        _each(adam, row, decay, decay and decoupled, numbers=numbers)
    tell_autograd(rows, (0, 2, 3))


def update_sgd(
    rows: Rows, lr: float, decay: float, momentum: float, rest: float, *, started: bool, nesterov: bool
) -> None:
    """One step of :class:`dettriton.optim.SGD` for rows (parameter, gradient[, buffer])."""
    numbers = _binary32((lr, decay, momentum, rest))
    buffered = momentum != 0
    for row in rows:
        # Without a buffer its place is never read.
        _each(sgd, (*row, row[0])[:3], decay != 0, buffered, started, nesterov, numbers=numbers)
    tell_autograd(rows, (0, 2) if buffered else (0,))


def _each(loop: Callable, tensors: Sequence[torch.Tensor], *flags: bool, numbers: Sequence[np.float32]) -> None:
    arrays = [flat(t) for t in tensors]
    count = arrays[0].size
    spread(lambda first, last: loop(*arrays, *flags, first, last, *numbers), count, len(arrays) * count)


def _binary32(values: Sequence[float]) -> list[np.float32]:
    return [np.float32(value) for value in values]


def tell_autograd(rows: Rows, columns: Sequence[int]) -> None:
    """Tell autograd of the changes that it could not see."""
    for row in rows:
        torch.autograd.graph.increment_version([row[c] for c in columns])
