"""Convolutions of any rank and their gradients in Python integers, from one list of which element meets which."""

import itertools
from collections import defaultdict
from collections.abc import Iterator

import oracle
import torch

Index = tuple[int, ...]


def meetings(
    size: Index, out_size: Index, kernel: Index, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Iterator[tuple[Index, Index, Index]]:
    """Every output position, tap and input position that meet in a convolution."""
    for at in itertools.product(*map(range, out_size)):
        for tap in itertools.product(*map(range, kernel)):
            source = tuple(i * stride - padding + t * dilation for i, t in zip(at, tap, strict=True))
            if all(0 <= s < n for s, n in zip(source, size, strict=True)):
                yield at, tap, source


def _channels(weight: torch.Tensor, groups: int) -> Iterator[tuple[int, int, int]]:
    """Output channels, the weight's own input channels, and the input channels of the map."""
    each = weight.shape[0] // groups
    for o, c in itertools.product(range(weight.shape[0]), range(weight.shape[1])):
        yield o, c, o // each * weight.shape[1] + c


def _dots(shape: Index, terms: dict, grids, precision: str) -> torch.Tensor:
    result = torch.zeros(shape)
    for index, pairs in terms.items():
        a, b = zip(*pairs, strict=True)
        result[index] = oracle.dot(a, b, *(g.flatten().tolist() for g in grids(index)), precision)
    return result


def forward(x, weight, out_size, groups=1, precision="high", **geometry) -> torch.Tensor:
    """One grid per sample, one per output channel."""
    terms = defaultdict(list)
    for at, tap, source in meetings(x.shape[2:], out_size, weight.shape[2:], **geometry):
        for n, (o, c, source_channel) in itertools.product(range(len(x)), _channels(weight, groups)):
            terms[n, o, *at].append((x[n, source_channel, *source].item(), weight[o, c, *tap].item()))
    shape = (len(x), weight.shape[0], *out_size)
    return _dots(shape, terms, lambda i: (x[i[0]], weight[i[1]]), precision)


def input_grad(grad, weight, size, groups=1, precision="high", **geometry) -> torch.Tensor:
    """One grid per sample of the gradient, one per input channel of the weight. Also a transposed convolution."""
    terms = defaultdict(list)
    for at, tap, source in meetings(size, grad.shape[2:], weight.shape[2:], **geometry):
        for n, (o, c, source_channel) in itertools.product(range(len(grad)), _channels(weight, groups)):
            terms[n, source_channel, *source].append((grad[n, o, *at].item(), weight[o, c, *tap].item()))
    each_out, each_in = weight.shape[0] // groups, weight.shape[1]

    def grids(index):
        group, c = divmod(index[1], each_in)
        return grad[index[0]], weight[group * each_out : (group + 1) * each_out, c]

    return _dots((len(grad), each_in * groups, *size), terms, grids, precision)


def weight_grad(grad, x, shape, groups=1, precision="high", **geometry) -> torch.Tensor:
    """One grid per output channel of the gradient and one per input channel, both over batch and positions."""
    terms = defaultdict(list)
    each_out = shape[0] // groups
    for at, tap, source in meetings(x.shape[2:], grad.shape[2:], shape[2:], **geometry):
        for o, c in itertools.product(range(shape[0]), range(shape[1])):
            channel = o // each_out * shape[1] + c
            terms[o, c, *tap] += zip(grad[:, o, *at].tolist(), x[:, channel, *source].tolist(), strict=True)
    return _dots(shape, terms, lambda i: (grad[:, i[0]], x[:, i[0] // each_out * shape[1] + i[1]]), precision)
