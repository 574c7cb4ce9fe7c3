"""Normalisation by runs on the CPU, in compiled loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from dettriton.exact._loops import flat, spread
from dettriton.exact._norm_loops import finish_statistics, gradient_runs, normalise_runs
from dettriton.exact._window_loops import normalise_rows, row_gradients
from dettriton.exact.compiled_window import by_runs, from_runs, mean_and_squares

MaybeTensor = torch.Tensor | None
_NONE = np.empty(0, np.float32)


def batch_statistics(
    x: torch.Tensor, running: Sequence[torch.Tensor], momentum: float, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and ``1 / sqrt(variance + eps)`` of each channel of ``x`` (outer, C, inner).

    Args:
        running: mean and variance (C,), which follow the statistics; or none.
    """
    mean, squares = mean_and_squares(x)
    scale, terms = torch.empty(mean.shape), x.numel() // max(x.shape[1], 1)
    numbers = np.array((terms, terms - 1, 1 - momentum, momentum, eps), np.float32)
    changed = [flat(t) for t in running] or [_NONE, _NONE]
    finish_statistics(flat(mean), flat(squares), *changed, numbers, flat(scale))
    for tensor, values in zip(running, changed, strict=False):
        if not tensor.is_contiguous():
            tensor.copy_(torch.from_numpy(values))
    return mean, scale


def normalised(
    x: torch.Tensor,
    mean: torch.Tensor,
    scale: torch.Tensor,
    weight: MaybeTensor,
    bias: MaybeTensor,
    residual: MaybeTensor,
    relu: bool,
    out: torch.Tensor,
) -> None:
    """``((x - mean) * scale) * weight + bias``, then with ``relu`` that of the sum with ``residual``, if there is one.

    Args:
        x: (outer, C, inner).
        mean, scale: (C,).
        weight, bias: (C,), or None to leave out that operation.
        residual: of the input's shape, or None.
        relu: False only without a residual.
        out: contiguous, of the input's shape; filled.
    """
    x, y = by_runs(x), by_runs(out)
    outer, kept, inner = x.shape
    # One and minus zero change nothing, not even a sign.
    weight = torch.ones(kept) if weight is None else weight
    bias = torch.full((kept,), -0.0) if bias is None else bias
    source = flat(x)
    added = source if residual is None else flat(by_runs(residual))
    arrays = source, added, residual is not None, relu, flat(y)
    per_channel = [flat(t) for t in (mean, scale, weight, bias)]

    def of_runs(first: int, last: int) -> None:
        normalise_runs(*arrays, kept, inner, first, last, *per_channel)

    spread(of_runs, outer * kept, x.numel())
    if y.data_ptr() != out.data_ptr():
        out.copy_(from_runs(y, out.shape))


def centred_gradient(
    grad: torch.Tensor,
    x: torch.Tensor,
    gate: MaybeTensor,
    mean: torch.Tensor,
    scale: torch.Tensor,
    grad_mean: torch.Tensor,
    product_mean: torch.Tensor,
    slope: torch.Tensor,
) -> torch.Tensor:
    """``((g - grad_mean) - (h * product_mean)) * slope``, ``h = (x - mean) * scale``, by channel.

    Args:
        grad, x, gate: (outer, C, inner); with a gate, ``g`` is the gradient where the gate is above 0, else +0.
        mean, scale, grad_mean, product_mean, slope: (C,).
    """
    shape = grad.shape
    grad = by_runs(grad)
    outer, kept, inner = grad.shape
    grad_x, upstream = torch.empty(grad.shape), flat(grad)
    gates = upstream if gate is None else flat(by_runs(gate))
    arrays = upstream, flat(by_runs(x)), gates, gate is not None, flat(grad_x)
    per_channel = [flat(t) for t in (mean, scale, grad_mean, product_mean, slope)]

    def of_runs(first: int, last: int) -> None:
        gradient_runs(*arrays, kept, inner, first, last, *per_channel)

    spread(of_runs, outer * kept, grad.numel())
    return from_runs(grad_x, shape)


def normalised_rows(
    x: torch.Tensor, weight: MaybeTensor, bias: MaybeTensor, eps: float, centre: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``((x - mean) * scale) * weight + bias`` of (N, G, D, P) by rows of D * P; and each row's mean and scale.

    Args:
        weight, bias: (G * D,), or None to leave out that operation.
        eps: added to the variance, binary32.
        centre: whether there is a mean; it is 0 otherwise.
    """
    y, rows, length = torch.empty(x.shape), x.shape[0] * x.shape[1], math.prod(x.shape[2:])
    mean, scale = torch.empty(rows), torch.empty(rows)
    # One and minus zero change nothing, not even a sign.
    arrays = flat(x), _along_rows(weight, 1.0, x), _along_rows(bias, -0.0, x), flat(y)
    statistics = centre, np.float32(eps), flat(mean), flat(scale)

    def of_rows(first: int, last: int) -> None:
        normalise_rows(*arrays, length, first, last, *statistics)

    spread(of_rows, rows, x.numel())
    return y, mean, scale


def gradients_of_rows(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: MaybeTensor,
    mean: torch.Tensor,
    scale: torch.Tensor,
    centre: bool,
    wanted: Sequence[bool],
) -> tuple[MaybeTensor, MaybeTensor]:
    """The gradient of :func:`normalised_rows` to ``x``, and ``grad * ((x - mean) * scale)``, where wanted."""
    results = [torch.empty(x.shape) if w else None for w in wanted]
    length = math.prod(x.shape[2:])
    arrays = flat(grad), flat(x), _along_rows(weight, 1.0, x), *(_NONE if t is None else flat(t) for t in results)
    statistics = centre, flat(mean), flat(scale)

    def of_rows(first: int, last: int) -> None:
        row_gradients(*arrays, length, first, last, *statistics)

    spread(of_rows, scale.numel(), x.numel())
    return results[0], results[1]


def _along_rows(parameter: MaybeTensor, neutral: float, x: torch.Tensor) -> np.ndarray:
    """A value for each element of the rows of one sample of (N, G, D, P), or of one row where there is no parameter."""
    if parameter is None:
        return np.full(math.prod(x.shape[2:]), neutral, np.float32)
    return flat(parameter.reshape(-1, 1).expand(-1, x.shape[3]))
