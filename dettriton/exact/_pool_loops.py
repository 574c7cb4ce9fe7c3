"""The loops of max pooling over flat arrays of maps (planes, depth, height, width).

Values are compared as integers in the order that :mod:`dettriton.ops.max_pool` describes. ``geometry`` holds the sizes,
numbers of outputs, kernels, strides, paddings and dilations, each by depth, height and width.
"""

import numpy as np

from dettriton.exact._jit import jit

_MAGNITUDE = np.int32(0x7FFFFFFF)
_NAN_BITS = np.int32(0x7FC00000)
_LOWEST = np.int32(-0x80000000)


@jit
def _mirror(bits):
    return np.int32(bits ^ ((bits >> 31) & _MAGNITUDE))


@jit
def _key(value):
    return _mirror(np.float32(value).view(np.int32) if value == value else _NAN_BITS)


@jit
def _inside(output, size, kernel, stride, padding, dilation):
    """Where the first tap lies, the first tap that is inside, and that after the last."""
    start = output * stride - padding
    low = max(-(start // dilation), 0)
    return start, low, max(min((size - 1 - start) // dilation + 1, kernel), low)


@jit
def max_pool(x, y, taps, track, geometry, first, last):
    """The largest element of each window, and where ``track`` the first tap that holds it; planes from first to last."""
    depth, height, width = geometry[0:3]
    outs_d, outs_h, outs_w = geometry[3:6]
    kernel_d, kernel_h, kernel_w = geometry[6:9]
    stride_d, stride_h, stride_w = geometry[9:12]
    pad_d, pad_h, pad_w = geometry[12:15]
    step_d, step_h, step_w = geometry[15:18]
    # divisions by a dilation take longer than windows
    across = np.empty((outs_w, 3), np.int64)
    for w in range(outs_w):
        across[w, 0], across[w, 1], across[w, 2] = _inside(w, width, kernel_w, stride_w, pad_w, step_w)
    at = np.uint64(first * outs_d * outs_h * outs_w)
    for plane in range(first, last):
        for d in range(outs_d):
            start_d, low_d, high_d = _inside(d, depth, kernel_d, stride_d, pad_d, step_d)
            for h in range(outs_h):
                start_h, low_h, high_h = _inside(h, height, kernel_h, stride_h, pad_h, step_h)
                for w in range(outs_w):
                    start_w, low_w, high_w = across[w, 0], across[w, 1], across[w, 2]
                    best, chosen = _LOWEST, 0
                    for td in range(low_d, high_d):
                        for th in range(low_h, high_h):
                            row = ((plane * depth + start_d + td * step_d) * height + start_h + th * step_h) * width
                            tap = (td * kernel_h + th) * kernel_w
                            for tw in range(low_w, high_w):
                                key = _key(x[np.uint64(row + start_w + tw * step_w)])
                                larger = key > best
                                chosen = tap + tw if larger else chosen
                                best = key if larger else best
                    y[at] = np.int32(_mirror(best)).view(np.float32)
                    if track:
                        taps[at] = chosen
                    at += np.uint64(1)


@jit
def max_pool_gradient(grad, taps, grad_x, geometry, first, last):
    """Each output's gradient added where its chosen element lies, in ascending order of the outputs, from +0."""
    depth, height, width = geometry[0:3]
    outs_d, outs_h, outs_w = geometry[3:6]
    kernel_d, kernel_h, kernel_w = geometry[6:9]
    stride_d, stride_h, stride_w = geometry[9:12]
    pad_d, pad_h, pad_w = geometry[12:15]
    step_d, step_h, step_w = geometry[15:18]
    shifts = np.empty(kernel_d * kernel_h * kernel_w, np.int64)
    for tap in range(shifts.size):
        slice_, row = tap // (kernel_h * kernel_w) * step_d, tap // kernel_w % kernel_h * step_h
        shifts[tap] = (slice_ * height + row) * width + tap % kernel_w * step_w
    volume = depth * height * width
    grad_x[first * volume : last * volume] = np.float32(0)
    at = first * outs_d * outs_h * outs_w
    for plane in range(first, last):
        for d in range(outs_d):
            for h in range(outs_h):
                start = ((d * stride_d - pad_d) * height + h * stride_h - pad_h) * width - pad_w + plane * volume
                for w in range(outs_w):
                    grad_x[start + w * stride_w + shifts[taps[at]]] += grad[at]
                    at += 1
