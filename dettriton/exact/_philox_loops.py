"""Philox4x32-10 words by compiled loops: what :mod:`dettriton.exact.philox` does in torch operations.

Words are int64 in [0, 2**32). A product's low 64 bits are the same with and without a sign, so it may wrap.
"""

import numpy as np

from dettriton.exact._jit import jit

_MULTIPLIER_0 = 0xD2511F53
_MULTIPLIER_1 = 0xCD9E8D57
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85
_MASK = 0xFFFFFFFF
_ZERO = np.float32(0)


@jit
def _block(number, seed, stream, step_low, step_high):
    """The four words of a block."""
    c0, c1, c2, c3 = number & _MASK, number >> 32, step_low, step_high
    k0, k1 = seed, stream
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
        c0, c1, c2, c3 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK, ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL_0) & _MASK, (k1 + _WEYL_1) & _MASK
    return c0, c1, c2, c3


@jit
def blocks_of_words(start, first, last, seed, stream, step_low, step_high, words):
    """The words of blocks ``start + first`` to ``start + last``, at their place in ``words``."""
    for i in range(first, last):
        words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3] = _block(
            start + i, seed, stream, step_low, step_high
        )


@jit
def _kept(x, word, threshold, scale):
    scaled = x * scale
    return scaled if word >= threshold else _ZERO


@jit
def drop(x, y, first, last, threshold, scale, seed, stream, step_low, step_high):
    """``y = x * scale`` where the element's word is at least the threshold, +0 elsewhere; for blocks first to last."""
    for i in range(first, min(last, x.size // 4)):
        a, b, c, d = _block(i, seed, stream, step_low, step_high)
        at = 4 * i
        y[at] = _kept(x[at], a, threshold, scale)
        y[at + 1] = _kept(x[at + 1], b, threshold, scale)
        y[at + 2] = _kept(x[at + 2], c, threshold, scale)
        y[at + 3] = _kept(x[at + 3], d, threshold, scale)
    if first < last and 4 * last > x.size:
        words = _block(last - 1, seed, stream, step_low, step_high)
        for at in range(4 * (last - 1), x.size):
            y[at] = _kept(x[at], words[at % 4], threshold, scale)
