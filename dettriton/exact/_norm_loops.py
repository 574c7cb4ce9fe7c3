"""Loops of normalisation, one pass each; the order of operations is that of the ops that call them.

Arrays are flat. A run of ``inner`` elements shares the index of its statistics; ``first`` and ``last`` are runs.
"""

import numpy as np

from dettriton.exact._jit import jit

_NAN = np.float32(np.nan)
_ZERO, _ONE = np.float32(0), np.float32(1)


@jit
def _normalise(x, y, mean, scale, weight, bias):
    for i in range(x.size):
        y[i] = (((x[i] - mean) * scale) * weight) + bias


@jit
def _normalise_relu(x, residual, added, y, mean, scale, weight, bias):
    for i in range(x.size):
        value = (((x[i] - mean) * scale) * weight) + bias
        value = value + residual[i] if added else value
        y[i] = value if value > _ZERO else (_ZERO if value == value else _NAN)


@jit
def normalise_runs(x, residual, added, relu, y, kept, inner, first, last, means, scales, weights, biases):
    """``y = (h * weight) + bias``, ``h = (x - m) * r``; then ``relu(y + residual)`` where asked."""
    for run in range(first, last):
        k = run % kept
        at, end = run * inner, (run + 1) * inner
        if relu:
            _normalise_relu(x[at:end], residual[at:end], added, y[at:end], means[k], scales[k], weights[k], biases[k])
        else:
            _normalise(x[at:end], y[at:end], means[k], scales[k], weights[k], biases[k])


@jit
def _track(running, statistic, kept, momentum):
    for k in range(running.size):
        running[k] = (running[k] * kept) + (statistic[k] * momentum)


@jit
def finish_statistics(means, squares, running_means, running_variances, numbers, scales):
    """``r = 1 / sqrt(S((x - m)^2) / n + eps)``; running statistics follow, unless they are empty.

    ``numbers`` are ``n``, ``n - 1``, ``1 - momentum``, ``momentum`` and ``eps`` in binary32.
    """
    terms, fewer, kept, momentum, eps = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    for k in range(scales.size):
        scales[k] = _ONE / np.sqrt((squares[k] / terms) + eps)
    _track(running_means, means, kept, momentum)
    _track(running_variances, squares / fewer, kept, momentum)


@jit
def _gradient(grad, x, gate, gated, grad_x, mean, scale, grad_mean, product_mean, slope):
    for i in range(grad.size):
        g = grad[i] if (gate[i] > _ZERO) | (not gated) else _ZERO
        h = (x[i] - mean) * scale
        grad_x[i] = ((g - grad_mean) - (h * product_mean)) * slope


@jit
def gradient_runs(
    grad, x, gate, gated, grad_x, kept, inner, first, last, means, scales, grad_means, product_means, slopes
):
    """``((g - S(g) / n) - (h * (S(g * h) / n))) * k``, ``g`` the gradient where the gate is above 0."""
    for run in range(first, last):
        k = run % kept
        at, end = run * inner, (run + 1) * inner
        _gradient(
            grad[at:end],
            x[at:end],
            gate[at:end],
            gated,
            grad_x[at:end],
            means[k],
            scales[k],
            grad_means[k],
            product_means[k],
            slopes[k],
        )
