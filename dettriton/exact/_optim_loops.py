"""The updates of optimizers as one pass over flat binary32 arrays, in the written orders of :mod:`dettriton.optim`."""

import numpy as np

from dettriton.exact._jit import jit


@jit
def adam(p, g, m, v, decay, decoupled, first, last, rate, correction, eps, beta1, rest1, beta2, rest2, decay_, shrink):
    for i in range(first, last):
        value, slope = p[i], g[i]
        if decoupled:
            value = value * shrink
        elif decay:
            slope = slope + value * decay_
        mean = m[i] * beta1 + slope * rest1
        square = v[i] * beta2 + (slope * slope) * rest2
        m[i] = mean
        v[i] = square
        p[i] = value - (mean / (np.sqrt(square) / correction + eps)) * rate


@jit
def sgd(p, g, b, decay, buffered, started, nesterov, first, last, lr, decay_, momentum, rest):
    for i in range(first, last):
        value, slope = p[i], g[i]
        if decay:
            slope = slope + value * decay_
        if buffered:
            buffer = b[i] * momentum + slope * rest if started else slope
            b[i] = buffer
            slope = slope + buffer * momentum if nesterov else buffer
        p[i] = value - slope * lr
