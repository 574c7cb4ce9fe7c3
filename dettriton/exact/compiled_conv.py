"""Exact convolutions on the CPU by compiled loops around binary64 matrix products.

Where few outputs share what they read, shifted maps are added up; else columns are gathered for a matrix product. The
bits are those of :mod:`dettriton.exact.convolution`: sums are exact, so block sizes and orders cannot change them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from dettriton.exact._conv_loops import gather_columns, gather_runs, round_maps
from dettriton.exact._gather import Block, Gather, forward_gather, input_grad_phases
from dettriton.exact._loops import flat, shares, spread
from dettriton.exact._map_loops import direct, direct_of_positions, direct_weight_grad, weight_grad_of_positions
from dettriton.exact.compiled_dot import NO_BIAS, PRODUCTS_OF_AN_ELEMENT, quantized, rounded, scales_and_units, scratch
from dettriton.exact.convolution import Geometry, Size
from dettriton.exact.dot import exact_terms, integer_bmm, slices

_BLOCK_ELEMENTS = 1 << 18
"""Of a block's columns, for each thread."""
_LEAST_OUTPUTS_BY_POSITION = 4
"""Of a group; with fewer, most of what a tile adds up would be padding."""
_KEPT_POSITIONS = 256
"""Of as many samples as have so many, a gradient to a weight is added up at once."""
_MOST_DIRECT_MAPS = 1 << 16
"""Elements of a sample's padded maps, which are read for every output: beyond the cache, columns are quicker."""


@lru_cache(maxsize=512)
def _placing(channels: int, size: Size, stride: Size, starts: Size, width: int) -> np.ndarray:
    return np.array((channels, *size, *stride, *starts, width), np.int64)


def _scales(x: np.ndarray, shape: torch.Size, grid_dim: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The scales and units of flat ``x`` (batch, channels, ...), one grid for each index of ``grid_dim``."""
    count, run = shape[grid_dim], math.prod(shape[2:])
    sizes = (1, 1, count, shape[1] * run) if grid_dim == 0 else (1, shape[0], count, run)
    return scales_and_units(x, *sizes, bits)


def _weight(rows: torch.Tensor, count: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Grid integers (count, ...) and units of a weight, one grid a row."""
    given = flat(rows)
    q, unit = np.empty(given.size), np.empty(count)
    quantized(given, 1, 1, count, given.size // max(count, 1), bits, q, unit)
    return q, unit


class _Result(NamedTuple):
    """Where a product goes: units of the output channels, their bias or none, and places in ``y`` as for ``round_maps``."""

    unit: np.ndarray
    bias: np.ndarray
    placing: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class _Operand:
    """Flat ``(batch, channels, ...)`` with one grid a sample."""

    x: np.ndarray
    batch: int
    groups: int
    bits: int
    scale: np.ndarray
    unit: np.ndarray

    @classmethod
    def of(cls, x: torch.Tensor, groups: int, bits: int) -> _Operand:
        values = flat(x)
        return cls(values, x.shape[0], groups, bits, *_scales(values, x.shape, 0, bits))

    def times(self, matrix: np.ndarray, gather: Gather, into: _Result) -> None:
        """The gathered columns times grid integers ``(groups, rows, terms)``, rounded and put where ``into`` says."""
        fits = matrix.shape[2] <= exact_terms(self.bits)
        # a map is read again for each tap, from nearer memory than the columns that would hold it as often
        directly = fits and adds_maps(gather, self.groups, math.prod(map(len, gather.offsets)))
        (self._directly if directly else self._by_columns)(matrix, gather, into)

    def _directly(self, matrix: np.ndarray, gather: Gather, into: _Result) -> None:
        _, outputs, count = matrix.shape
        maps = gather.maps_of(self.groups)
        loop, rest = (direct_of_positions, maps.fours_of_places) if by_position(gather, outputs) else (direct, maps.run)
        operand = self.x, self.scale, self.unit, np.ascontiguousarray(matrix).reshape(-1), into.unit, into.bias
        places = maps.geometry, maps.phases, maps.terms[:count], into.placing, maps.out_size, rest, self.groups

        def of_samples(first: int, last: int) -> None:
            loop(*operand, *places, np.array((first, last), np.int64), into.y)

        products = self.batch * outputs * count * maps.places.size
        spread(of_samples, self.batch, products // PRODUCTS_OF_AN_ELEMENT)

    def _by_columns(self, matrix: np.ndarray, gather: Gather, into: _Result) -> None:
        groups, rows, terms = matrix.shape
        outputs, factors = groups * rows, torch.from_numpy(matrix)
        for block in gather.blocks(self.batch, block_elements()):
            cols = scratch("columns", gather.rows * block.positions)
            _gather_columns(self.x, self.scale, False, gather, block, flat(cols))
            cols = cols.view(groups, terms, block.positions)
            if terms <= exact_terms(self.bits):
                total = scratch("total", outputs * block.positions).view(groups, rows, block.positions)
                torch.bmm(factors, cols, out=total)
            else:
                total = integer_bmm(factors, cols, self.bits).to(torch.float32).to(torch.float64)
            given = flat(total), self.unit, into.unit, into.bias, into.placing, block.first, block.last
            _spread_channels(round_maps, given, outputs, block.positions, into.y)


def adds_maps(gather: Gather, groups: int, uses: int = 1) -> bool:
    """Whether shifted maps are added up: those of a sample, divided by what they are used for, fit a cache."""
    return gather.channels // groups * gather.shifted.elements <= _MOST_DIRECT_MAPS * max(uses, 1)


def by_position(gather: Gather, outputs: int) -> bool:
    """Whether tiles of positions and outputs are fewer than tiles of outputs and runs, by what rounding them costs more."""
    run, positions = gather.shifted.run, math.prod(gather.out_size)
    tiles_of_runs = -(-run // 8) * (outputs // 4) + -(-run // 16) * (outputs % 4)
    return 1.1 * (-(-positions // 4) * -(-outputs // 8)) < tiles_of_runs


def block_elements() -> int:
    return _BLOCK_ELEMENTS * torch.get_num_threads()


def _gather_columns(
    x: np.ndarray, scale: np.ndarray, by_channel: bool, gather: Gather, block: Block, out: np.ndarray
) -> None:
    given = x, scale, by_channel, *gather.arrays, block.first, block.last
    _spread_channels(gather_columns, given, gather.channels, out.size // max(gather.channels, 1), out)


def _spread_channels(
    loop: Callable[..., None], given: tuple[Any, ...], channels: int, elements: int, out: np.ndarray
) -> None:
    """A loop whose last arguments are a share of the channels, each of so many elements, and what it fills."""
    spread(lambda first, last: loop(*given, first, last, out), channels, channels * elements)


def conv(
    x: torch.Tensor, weight: torch.Tensor, g: Geometry, bits: int, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """The convolution, with bias."""
    q, unit = _weight(weight, g.out_channels, bits)
    y = torch.empty(g.batch, g.out_channels, *g.out_size)
    placing = _placing(g.out_channels, g.out_size, (1, 1, 1), (0, 0, 0), g.out_size[2])
    added = NO_BIAS if bias is None else flat(bias)
    matrix = q.reshape(g.groups, g.group_out, g.terms_forward)
    _Operand.of(x, g.groups, bits).times(matrix, forward_gather(g), _Result(unit, added, placing, flat(y)))
    return y


def conv_input_grad(grad: torch.Tensor, weight: torch.Tensor, g: Geometry, bits: int) -> torch.Tensor:
    """The gradient of a convolution to its input."""
    operand = _Operand.of(grad, g.groups, bits)
    by_input = weight.reshape(g.groups, g.group_out, g.group_in, g.taps).transpose(1, 2)
    q, unit = _weight(by_input, g.in_channels, bits)
    q = q.reshape(g.in_channels, g.group_out, *g.kernel)
    grad_x = torch.empty(g.batch, g.in_channels, *g.size)
    into = flat(grad_x)
    for phase in input_grad_phases(g):
        taken = q[(slice(None), slice(None), *phase.taps)]
        matrix = taken.reshape(g.groups, g.group_in, g.group_out * math.prod(taken.shape[2:]))
        placing = _placing(g.in_channels, g.size, g.stride, phase.starts, phase.gather.out_size[2])
        operand.times(matrix, phase.gather, _Result(unit, NO_BIAS, placing, into))
    return grad_x


def conv_weight_grad(grad: torch.Tensor, x: torch.Tensor, g: Geometry, bits: int) -> torch.Tensor:
    """The gradient of a convolution to its weight."""
    arrays = flat(grad), flat(x)
    scales, units = zip(*(_scales(a, t.shape, 1, bits) for a, t in zip(arrays, (grad, x), strict=True)), strict=True)
    gather = forward_gather(g)
    totals = _weight_grad_directly if adds_maps(gather, g.groups) else _weight_grad_by_columns
    total = totals(*arrays, *scales, gather, g, bits)
    grad_weight = torch.empty(g.out_channels, g.group_in, *g.kernel)
    columns, shape = np.repeat(units[1], g.taps), (g.groups, g.group_out, g.terms_forward)
    rounded(total.reshape(-1), units[0], columns, shape, NO_BIAS, flat(grad_weight))
    return grad_weight


def _weight_grad_directly(
    grad: np.ndarray,
    x: np.ndarray,
    grad_scale: np.ndarray,
    x_scale: np.ndarray,
    gather: Gather,
    g: Geometry,
    bits: int,
) -> np.ndarray:
    maps, exact = gather.maps_of(g.groups), exact_terms(bits)
    given = grad, x, grad_scale, x_scale, maps.geometry, maps.phases, maps.terms
    positions, outputs = maps.places.size, grad_scale.size
    products = g.batch * positions * outputs * maps.terms.size
    parts = shares(g.batch, products // PRODUCTS_OF_AN_ELEMENT)
    found = np.zeros((len(parts), outputs, maps.terms.size), np.int64)
    if g.group_out >= _LEAST_OUTPUTS_BY_POSITION and positions <= exact:
        loop, rest = weight_grad_of_positions, (maps.places, max(_KEPT_POSITIONS // max(positions, 1), 1))
    else:
        loop, rest = direct_weight_grad, (maps.out_size, maps.run)

    def of_parts(first: int, last: int) -> None:
        for i in range(first, last):
            loop(*given, *rest, g.groups, exact, np.array(parts[i], np.int64), found[i].reshape(-1))

    spread(of_parts, len(parts), math.inf)
    return _rounded_once(found.sum(0) if len(parts) != 1 else found[0])[:, : g.terms_forward]


def _rounded_once(total: np.ndarray) -> np.ndarray:
    """Integers of more than 53 bits as binary32, which later roundings leave as they are."""
    return total.astype(np.float32).astype(np.float64)


def _weight_grad_by_columns(
    grad: np.ndarray,
    x: np.ndarray,
    grad_scale: np.ndarray,
    x_scale: np.ndarray,
    gather: Gather,
    g: Geometry,
    bits: int,
) -> np.ndarray:
    running = torch.zeros(g.groups, g.group_out, g.terms_forward, dtype=torch.float64)
    total, room, step = None, exact_terms(bits), exact_terms(bits)
    for block in gather.blocks(g.batch, block_elements()):
        cols = scratch("columns", gather.rows * block.positions).view(g.groups, g.terms_forward, block.positions)
        part = scratch("gradient", g.out_channels * block.positions).view(g.groups, g.group_out, block.positions)
        _gather_columns(x, x_scale, True, gather, block, flat(cols))
        runs = grad, grad_scale, g.out_channels, g.positions, *block.run
        _spread_channels(gather_runs, runs, g.out_channels, block.positions, flat(part))
        for positions in slices(block.positions, step):
            count = positions.stop - positions.start
            if count > room:
                total = running.to(torch.int64) if total is None else total.add_(running.to(torch.int64))
                running.zero_()
                room = step
            room -= count
            running.baddbmm_(part[:, :, positions], cols[:, :, positions].transpose(1, 2))
    if total is None:
        return running.numpy()
    return _rounded_once((total + running.to(torch.int64)).numpy())
