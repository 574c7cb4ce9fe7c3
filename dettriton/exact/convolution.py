"""Exact convolutions of integer tensors on the CPU: im2col in cache-sized blocks and binary64 matrix products.

Operands are grid integers held in binary32 or binary64; every product and sum is exact, so block sizes, threads and
the order of sums cannot change a result. Torch's own binary64 convolution would give the same integers, at about
half the speed on cached blocks and a tenth on whole batches. Depthwise convolutions have nothing to multiply as
matrices: :mod:`dettriton.exact.depthwise` adds their taps one by one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from dettriton.exact.dot import exact_terms, integer_bmm, slices

_BLOCK_ELEMENTS = 1 << 19

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Geometry:
    """Sizes of a 3-D convolution; a 2-D one has depth 1, a 1-D one height 1 too. Triples are (depth, height, width)."""

    batch: int
    in_channels: int
    out_channels: int
    groups: int
    size: Size
    kernel: Size
    stride: Size
    padding: Size
    dilation: Size

    @cached_property
    def out_size(self) -> Size:
        """Depth, height and width of the output."""
        return tuple(
            (s + 2 * p - d * (k - 1) - 1) // t + 1
            for s, k, t, p, d in zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        )

    @property
    def padded_size(self) -> Size:
        return tuple(s + 2 * p for s, p in zip(self.size, self.padding, strict=True))

    @property
    def group_in(self) -> int:
        return self.in_channels // self.groups

    @property
    def group_out(self) -> int:
        return self.out_channels // self.groups

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def positions(self) -> int:
        """Elements of one output channel of one sample."""
        return math.prod(self.out_size)

    @property
    def terms_forward(self) -> int:
        """Terms of the dot product behind one output element."""
        return self.group_in * self.taps

    @property
    def terms_input_grad(self) -> int:
        return self.group_out * self.taps

    @property
    def terms_weight_grad(self) -> int:
        return self.batch * self.positions


@dataclass(frozen=True)
class _Block:
    """Some samples, output depths and output rows whose im2col columns fit the cache."""

    samples: slice
    depths: slice
    rows: slice

    @property
    def first_of_samples(self) -> bool:
        return self.depths.start == 0 and self.rows.start == 0


def _blocks(g: Geometry) -> Iterator[_Block]:
    depth, height, width = g.out_size
    room = max(_BLOCK_ELEMENTS // max(g.in_channels * g.taps * width, 1), 1)
    rows = min(room, height)
    depths = min(room // height, depth) if rows == height else 1
    samples = max(room // (height * depth), 1) if depths == depth and rows == height else 1
    parts = (slices(g.batch, samples), slices(depth, depths), slices(height, rows))
    return itertools.starmap(_Block, itertools.product(*parts))


def _count(part: slice) -> int:
    return part.stop - part.start


class _Columns:
    """The im2col buffers of one convolution, reused from block to block."""

    def __init__(self, g: Geometry):
        self.g = g
        biggest = next(_blocks(g), _Block(slice(0, 1), slice(0, 1), slice(0, 1)))
        self.padded = torch.zeros(_count(biggest.samples), g.in_channels, *g.padded_size, dtype=torch.float64)
        self.columns = torch.zeros(g.in_channels * g.taps * self._positions(biggest), dtype=torch.float64)

    def _positions(self, block: _Block) -> int:
        return _count(block.samples) * _count(block.depths) * _count(block.rows) * self.g.out_size[2]

    def windows(self, block: _Block, padded: torch.Tensor | None = None) -> torch.Tensor:
        """A strided view of a padded input: ``(channels, kd, kh, kw, samples, depths, rows, width)``."""
        g = self.g
        padded = self.padded if padded is None else padded
        sample, channel, *steps = padded.stride()
        taps = [s * d for s, d in zip(steps, g.dilation, strict=True)]
        moves = [s * t for s, t in zip(steps, g.stride, strict=True)]
        shape = (*g.kernel, _count(block.samples), _count(block.depths), _count(block.rows), g.out_size[2])
        first = block.depths.start * moves[0] + block.rows.start * moves[1]
        return padded.as_strided((g.in_channels, *shape), (channel, *taps, sample, *moves), first)

    def interior(self, padded: torch.Tensor, samples: slice) -> torch.Tensor:
        """A padded map without its padding, for the first of its samples."""
        inside = (slice(p, p + s) for p, s in zip(self.g.padding, self.g.size, strict=True))
        return padded[(slice(_count(samples)), slice(None), *inside)]

    def buffer(self, block: _Block) -> torch.Tensor:
        """Room for the block's columns: ``(groups, terms, samples*positions)``."""
        g, positions = self.g, self._positions(block)
        return self.columns[: g.in_channels * g.taps * positions].view(g.groups, g.terms_forward, positions)

    def load(self, q: torch.Tensor, block: _Block) -> torch.Tensor:
        """The im2col columns of the block's samples, from grid integers ``q`` of the whole batch."""
        if block.first_of_samples:
            self.interior(self.padded, block.samples).copy_(q[block.samples])
        columns = self.buffer(block)
        windows = self.windows(block)
        columns.view(windows.shape).copy_(windows)
        return columns


def _channels_first(grad: torch.Tensor, g: Geometry, block: _Block) -> torch.Tensor:
    """The block's part of an output-shaped tensor as binary64 ``(groups, group_out, samples*positions)``."""
    part = grad[block.samples, :, block.depths, block.rows].transpose(0, 1)
    part = part.to(torch.float64, memory_format=torch.contiguous_format)
    return part.reshape(g.groups, g.group_out, math.prod(part.shape[1:]))


Consumer = Callable[[tuple[slice, ...], torch.Tensor], None]
"""Takes a part of the result: its first indices, and its exact sums (integer-valued binary64, or int64)."""


def integer_conv(x: torch.Tensor, weight: torch.Tensor, g: Geometry, bits: int, consume: Consumer) -> None:
    """Exact convolution, block by block.

    Args:
        x: grid integers ``(batch, in_channels, *size)``.
        weight: grid integers ``(out_channels, in_channels/groups, *kernel)``.
        consume: takes the parts of ``(batch, out_channels, *out_size)``.
    """
    matrix = weight.to(torch.float64).reshape(g.groups, g.group_out, g.terms_forward)
    columns = _Columns(g)
    for block in _blocks(g):
        total = integer_bmm(matrix, columns.load(x, block), bits)
        parts = (block.samples, block.depths, block.rows)
        shaped = total.view(g.out_channels, *map(_count, parts), g.out_size[2])
        consume((block.samples, slice(None), block.depths, block.rows), shaped.transpose(0, 1))


def integer_conv_input_grad(
    grad: torch.Tensor, weight: torch.Tensor, g: Geometry, bits: int, consume: Consumer
) -> None:
    """Exact gradient of a convolution to its input, in blocks of samples.

    Args:
        grad: grid integers ``(batch, out_channels, *out_size)``.
        weight: grid integers ``(out_channels, in_channels/groups, *kernel)``.
        consume: takes the parts of ``(batch, in_channels, *size)``; the buffer is reused.
    """
    transposed = weight.to(torch.float64).reshape(g.groups, g.group_out, g.terms_forward).transpose(1, 2)
    columns = _Columns(g)
    fits = g.terms_input_grad <= exact_terms(bits)
    padded = columns.padded if fits else torch.zeros_like(columns.padded, dtype=torch.int64)
    for samples, blocks in itertools.groupby(_blocks(g), key=lambda block: block.samples):
        padded.zero_()
        for block in blocks:
            _scatter_columns(_channels_first(grad, g, block), transposed, columns, block, bits, padded)
        consume((samples,), columns.interior(padded, samples))


def _scatter_columns(
    grad: torch.Tensor, transposed: torch.Tensor, columns: _Columns, block: _Block, bits: int, padded: torch.Tensor
) -> None:
    """Add the columns of ``weight^T @ grad`` onto the padded map: exact integers, so in any order."""
    windows = columns.windows(block, padded)
    for channels in slices(grad.shape[1], exact_terms(bits)):
        product = torch.bmm(transposed[:, :, channels], grad[:, channels], out=columns.buffer(block))
        for tap, piece in _taps(windows, product.view(windows.shape)):
            tap.add_(piece.to(padded.dtype))


def _taps(windows: torch.Tensor, values: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs of views, one a kernel tap: within one tap no two windows overlap."""
    for tap in itertools.product(*map(range, windows.shape[1:4])):
        yield windows[:, *tap], values[:, *tap]


def integer_conv_weight_grad(grad: torch.Tensor, x: torch.Tensor, g: Geometry, bits: int) -> torch.Tensor:
    """Exact gradient of a convolution to its weight.

    Args:
        grad: grid integers ``(batch, out_channels, *out_size)``.
        x: grid integers ``(batch, in_channels, *size)``.

    Returns:
        int64 ``(out_channels, in_channels/groups, *kernel)``.
    """
    total = torch.zeros(g.groups, g.group_out, g.terms_forward, dtype=torch.int64)
    running = torch.zeros(g.groups, g.group_out, g.terms_forward, dtype=torch.float64)
    room = step = exact_terms(bits)
    columns = _Columns(g)
    for block in _blocks(g):
        cols = columns.load(x, block)
        part = _channels_first(grad, g, block)
        for positions in slices(cols.shape[2], step):
            if _count(positions) > room:
                total += running.to(torch.int64)
                running.zero_()
                room = step
            room -= _count(positions)
            running.baddbmm_(part[:, :, positions], cols[:, :, positions].transpose(1, 2))
    total += running.to(torch.int64)
    return total.view(g.out_channels, g.group_in, *g.kernel)
