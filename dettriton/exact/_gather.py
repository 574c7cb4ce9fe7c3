"""Which inputs the dot products of a convolution read, forward and in its gradients, as compiled loops take it.

The gradient to the input is gathered too: inputs whose index has one residue modulo the stride form a map of their own,
each of whose elements is a dot product of the taps that reach it, so nothing is scattered.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from dettriton.exact.convolution import Geometry, Size
from dettriton.exact.dot import slices


@dataclass(frozen=True)
class Gather:
    """Where the columns of one product come from: output ``i`` and tap ``t`` read input ``i * stride + offset[t]``.

    Attributes:
        channels: of the input.
        size: depth, height, width of the input.
        out_size: the same of what the columns stand for.
        stride: by dimension.
        offsets: of the taps, by dimension.
    """

    channels: int
    size: Size
    out_size: Size
    stride: Size
    offsets: tuple[tuple[int, ...], ...]

    @property
    def rows(self) -> int:
        """Of the columns: one a channel and tap."""
        return self.channels * math.prod(map(len, self.offsets))

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What :func:`dettriton.exact._conv_loops.gather_columns` takes as geometry, offsets and reach."""
        dims = zip(self.offsets, self.size, self.out_size, self.stride, strict=True)
        reach = [[_reach(offset, *sizes) for offset in offsets] for offsets, *sizes in dims]
        pads = any(r != (0, n) for rs, n in zip(reach, self.out_size, strict=True) for r in rs)
        numbers = (self.channels, *self.size, *self.stride, *map(len, self.offsets), self.out_size[2], pads)
        parts = (numbers, itertools.chain(*self.offsets), itertools.chain(*reach[2]))
        return tuple(np.array([*part], np.int64) for part in parts)

    @cached_property
    def shifted(self) -> ShiftedMaps:
        """The same as shifts of the maps of one channel, for :mod:`dettriton.exact._map_loops`."""
        bases = tuple(min(offsets, default=0) for offsets in self.offsets)
        taps = list(itertools.product(*self.offsets))
        parts = [[divmod(o - b, s) for o, b, s in zip(tap, bases, self.stride, strict=True)] for tap in taps]
        residues = sorted({tuple(r for _, r in part) for part in parts})
        size = tuple(n + max((part[d][0] for part in parts), default=0) for d, n in enumerate(self.out_size))
        phases = []
        for residue in residues:
            starts = [b + r for b, r in zip(bases, residue, strict=True)]
            phases.append((*starts, *_reach(starts[2], self.size[2], size[2], self.stride[2])))
        terms = []
        for part in parts:
            (d, rd), (h, rh), (w, rw) = part
            terms.append(((residues.index((rd, rh, rw)) * size[0] + d) * size[1] + h) * size[2] + w)
        (_, height, width), (outs_d, outs_h, outs_w) = size, self.out_size
        run = ((outs_d - 1) * height + outs_h - 1) * width + outs_w if min(self.out_size) else 0
        elements = len(phases) * math.prod(size)
        return ShiftedMaps(size, np.array(phases, np.int64).reshape(-1), tuple(terms), run, elements)

    def maps_of(self, groups: int) -> GroupMaps:
        """What the loops of shifted maps are given."""
        if groups not in self._group_maps:
            maps, channels = self.shifted, self.channels // groups
            terms = [c * maps.elements + term for c in range(channels) for term in maps.terms]
            geometry = channels, *self.size, *self.stride, *maps.size
            depth, height, width = (np.arange(n) for n in self.out_size)
            places = ((depth[:, None, None] * maps.size[1] + height[:, None]) * maps.size[2] + width).reshape(-1)
            self._group_maps[groups] = GroupMaps(
                np.array(geometry, np.int64),
                maps.phases,
                _fours(np.array(terms, np.int64)),
                np.array(self.out_size, np.int64),
                maps.run,
                places,
                _fours(places),
            )
        return self._group_maps[groups]

    @cached_property
    def _group_maps(self) -> dict[int, GroupMaps]:
        return {}

    def blocks(self, batch: int, elements: int) -> tuple[Block, ...]:
        """Parts of the output whose columns are at most so many elements, or a row's."""
        key = batch, elements
        if key not in self._blocks:
            self._blocks[key] = tuple(self._cut(batch, elements))
        return self._blocks[key]

    @cached_property
    def _blocks(self) -> dict[tuple[int, int], tuple[Block, ...]]:
        return {}

    def _cut(self, batch: int, elements: int) -> Iterator[Block]:
        depth, height, width = self.out_size
        room = max(elements // max(self.rows * width, 1), 1)
        rows = min(room, height)
        depths = min(room // height, depth) if rows == height else 1
        samples = max(room // (height * depth), 1) if depths == depth and rows == height else 1
        parts = (slices(batch, samples), slices(depth, depths), slices(height, rows))
        for part in itertools.product(*parts):
            (sample, end), (d, d_end), (h, h_end) = ((s.start, s.stop) for s in part)
            first, last = np.array((sample, d, h), np.int64), np.array((end, d_end, h_end), np.int64)
            run = (d_end - d) * (h_end - h) * width
            start = (d * height + h) * width
            yield Block(first, last, (end - sample) * run, (run, sample, start, end - sample))


def _reach(offset: int, size: int, out_size: int, stride: int) -> tuple[int, int]:
    """The first output index whose read is inside, and that after the last."""
    low = min(max(-(offset // stride), 0), out_size)
    return low, min(max(-((offset - size) // stride), low), out_size)


@dataclass(frozen=True)
class ShiftedMaps:
    """Maps of one channel, padded, one for each residue modulo the stride that a tap reads.

    Attributes:
        size: of each map.
        phases: what :mod:`dettriton.exact._map_loops` takes.
        terms: where in the maps each tap's shifted map starts.
        run: elements from the first output to the last, where outputs lie as in a map.
        elements: of all maps.
    """

    size: Size
    phases: np.ndarray
    terms: tuple[int, ...]
    run: int
    elements: int


class GroupMaps(NamedTuple):
    """The arguments of :mod:`dettriton.exact._map_loops` that depend on sizes alone; ``terms`` are a multiple of four."""

    geometry: np.ndarray
    phases: np.ndarray
    terms: np.ndarray
    out_size: np.ndarray
    run: int
    places: np.ndarray
    fours_of_places: np.ndarray


def _fours(indices: np.ndarray) -> np.ndarray:
    """Filled up with 0 to a multiple of four."""
    return np.pad(indices, (0, -indices.size % 4))


@dataclass(frozen=True)
class Block:
    """From which sample, depth and row of the output to before which, and how many positions that is.

    Attributes:
        run: how many elements of a map are in the block, from which sample, from which element, how many samples.
    """

    first: np.ndarray
    last: np.ndarray
    positions: int
    run: tuple[int, int, int, int]


@dataclass(frozen=True)
class Phase:
    """A part of a gradient to the input: one residue of the input's index by dimension.

    Attributes:
        gather: from the upstream gradient.
        taps: slices of the kernel, by dimension.
        placing: the residues.
    """

    gather: Gather
    taps: tuple[slice, slice, slice]
    starts: Size


@lru_cache(maxsize=512)
def forward_gather(g: Geometry) -> Gather:
    """Of a convolution, and of its gradient to the weight."""
    taps = zip(g.kernel, g.dilation, g.padding, strict=True)
    offsets = tuple(tuple(t * d - p for t in range(k)) for k, d, p in taps)
    return Gather(g.in_channels, g.size, g.out_size, g.stride, offsets)


@lru_cache(maxsize=512)
def input_grad_phases(g: Geometry) -> tuple[Phase, ...]:
    """What the gradient to the input is made of."""
    found = []
    for starts in itertools.product(*map(range, g.stride)):
        dims = [_phase_taps(*a) for a in zip(starts, g.kernel, g.stride, g.padding, g.dilation, strict=True)]
        out_size = tuple(len(range(r, n, s)) for r, n, s in zip(starts, g.size, g.stride, strict=True))
        if min(out_size):
            gather = Gather(g.out_channels, g.out_size, out_size, (1, 1, 1), tuple(offsets for _, offsets in dims))
            found.append(Phase(gather, tuple(taps for taps, _ in dims), starts))
    return tuple(found)


def _phase_taps(start: int, kernel: int, stride: int, padding: int, dilation: int) -> tuple[slice, tuple[int, ...]]:
    """The taps that reach inputs ``i * stride + start``, and from which output minus ``i``."""
    reach = [t for t in range(kernel) if (start + padding - t * dilation) % stride == 0]
    step = stride // math.gcd(stride, dilation)
    taps = slice(reach[0], kernel, step) if reach else slice(0, 0, step)
    return taps, tuple((start + padding - t * dilation) // stride for t in reach)
