"""Pooling one window at a time in binary32 scalars: slow, independent of the package, obviously right."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import oracle
import torch


def axis_windows(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> list[list[int]]:
    """The elements of each strided window of one axis, without padding."""
    taps = [[o * stride - padding + t * dilation for t in range(kernel)] for o in range(out)]
    return [[i for i in window if 0 <= i < size] for window in taps]


def adaptive_windows(size: int, out: int) -> list[list[int]]:
    return [list(range(math.floor(o * size / out), math.ceil((o + 1) * size / out))) for o in range(out)]


def pool(x: torch.Tensor, rows: list[list[int]], columns: list[list[int]], window: Callable) -> list:
    """``window(elements)`` of each window of an (H, W) map in row-major order; elements are (place, value) pairs."""
    return pool_axes(x, (rows, columns), window)


def pool_axes(x: torch.Tensor, axes: tuple[list[list[int]], ...], window: Callable) -> list:
    """:func:`pool` of a map or volume with any number of axes."""
    values = x.numpy()
    cells = [
        [(int(np.ravel_multi_index(place, values.shape)), values[place]) for place in itertools.product(*taps)]
        for taps in itertools.product(*axes)
    ]
    with np.errstate(all="ignore"):
        return [window(elements) for elements in cells]


def gathered_gradient(terms: list[tuple[list[int], np.float32]], size: int) -> np.ndarray:
    """+0 plus, output by output, the output's term at each of the places it belongs to."""
    grad = [np.float32(0)] * size
    with np.errstate(all="ignore"):
        for places, term in terms:
            for place in places:
                grad[place] = np.float32(grad[place] + term)
    return np.array(grad, dtype=np.float32)


def largest(elements: list[tuple[int, np.float32]]) -> tuple[int, np.float32]:
    """First element of the largest value, where -0 < +0 < Inf < NaN."""

    def order(value: np.float32) -> tuple:
        return (1, 0.0, 0.0) if np.isnan(value) else (0, float(value), math.copysign(1.0, value))

    top = max(order(value) for _, value in elements)
    place, value = next((place, value) for place, value in elements if order(value) == top)
    return place, np.float32(math.nan) if np.isnan(value) else value


def sum_in_order(values: list[np.float32]) -> np.float32:
    total = values[0]
    for value in values[1:]:
        total = np.float32(total + value)
    return total


def sum_exact(values: list[np.float32]) -> np.float32:
    return np.float32(oracle.windowed_sum([float(v) for v in values]))


Reads = list[tuple[int, np.float32 | None]]


def resampled(x: np.ndarray, axis: int, outputs: list[Reads]) -> np.ndarray:
    """Along one axis, each output's weight * element added in order; an element alone where the weight is None."""

    def line(values: np.ndarray) -> list[np.float32]:
        found = [[values[i] if w is None else np.float32(values[i] * w) for i, w in reads] for reads in outputs]
        return [sum_in_order(terms) for terms in found]

    return np.apply_along_axis(line, axis, x).astype(np.float32)


def resampled_gradient(grad: np.ndarray, axis: int, outputs: list[Reads], size: int) -> np.ndarray:
    """The gradient of :func:`resampled`: +0 and then the terms in order, or exactly if an element has more than 64."""
    readers = [[(o, w) for o, reads in enumerate(outputs) for i, w in reads if i == place] for place in range(size)]
    exact = max(map(len, readers)) > 64

    def line(values: np.ndarray) -> list[np.float32]:
        found = [[values[o] if w is None else np.float32(values[o] * w) for o, w in reads] for reads in readers]
        return [sum_exact(terms) if exact else sum_in_order([np.float32(0), *terms]) for terms in found]

    return np.apply_along_axis(line, axis, grad).astype(np.float32)
