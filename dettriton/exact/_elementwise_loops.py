"""One-pass loops of relu and its gradient over flat binary32 arrays."""

import numpy as np

from dettriton.exact._jit import jit

_NAN = np.float32(np.nan)
_ZERO = np.float32(0)


@jit
def relu(x, y, first, last):
    """``x`` where it is above 0, the canonical NaN for a NaN, else +0."""
    source, target = x[first:last], y[first:last]
    for i in range(source.size):
        value = source[i]
        target[i] = value if value > _ZERO else (_ZERO if value == value else _NAN)


@jit
def relu_gradient(grad, result, grad_x, first, last):
    """``grad`` where the result is above 0, else +0."""
    upstream, gate, target = grad[first:last], result[first:last], grad_x[first:last]
    for i in range(upstream.size):
        value = upstream[i]
        target[i] = value if gate[i] > _ZERO else _ZERO
