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
from dettriton.exact._grid_loops import grid_scales, quantize_grids, round_matrices
from dettriton.exact._loops import flat, shares, spread
from dettriton.exact._map_loops import direct, direct_of_positions, direct_weight_grad, weight_grad_of_positions
from dettriton.exact.compiled_dot import NO_BIAS, scratch
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


def _scales(x: torch.Tensor, grid_dim: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The scales and units of ``x`` (batch, channels, ...), one grid for each index of ``grid_dim``."""
    count = x.shape[grid_dim]
    scale, unit = np.empty(count), np.empty(count)
    run = math.prod(x.shape[2:])
    outer, shared, grids, run = (1, 1, count, x.shape[1] * run) if grid_dim == 0 else (1, x.shape[0], count, run)
    grid_scales(flat(x), outer, shared, grids, run, bits, scale, unit)
    return scale, unit


def _weight(rows: torch.Tensor, bits: int) -> tuple[torch.Tensor, np.ndarray]:
    """Grid integers and units of a weight, one grid a row."""
    rows = rows.contiguous()
    q, unit = torch.empty(rows.shape, dtype=torch.float64), np.empty(rows.shape[0])
    run = math.prod(rows.shape[1:])
    quantize_grids(flat(rows), 1, 1, rows.shape[0], run, bits, flat(q), unit)
    return q, unit


class _Result(NamedTuple):
    """Where a product goes: units of the output channels, their bias or none, and places in ``y`` as for ``round_maps``."""

    unit: np.ndarray
    bias: np.ndarray
    placing: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class _Operand:
    """Contiguous ``(batch, channels, ...)`` with one grid a sample."""

    x: torch.Tensor
    groups: int
    bits: int
    scale: np.ndarray
    unit: np.ndarray

    @classmethod
    def of(cls, x: torch.Tensor, groups: int, bits: int) -> _Operand:
        x = x.contiguous()
        return cls(x, groups, bits, *_scales(x, 0, bits))

    def times(self, matrix: torch.Tensor, gather: Gather, into: _Result) -> None:
        """The gathered columns times grid integers ``(groups, rows, terms)``, rounded and put where ``into`` says."""
        terms = matrix.shape[2]
        fits = terms <= exact_terms(self.bits)
        (self._directly if fits and adds_maps(gather, self.groups) else self._by_columns)(matrix, gather, into)

    def _directly(self, matrix: torch.Tensor, gather: Gather, into: _Result) -> None:
        terms, geometry = gather.shifted_terms(self.groups)
        terms, samples = terms[: matrix.shape[2]], self.x.shape[0]
        operand = (flat(self.x), self.scale, self.unit, flat(matrix), into.unit, into.bias)
        places = geometry, gather.shifted.phases, terms, into.placing, np.array(gather.out_size, np.int64)
        by_position = adds_by_position(gather, matrix.shape[1])
        loop, rest = (direct_of_positions, gather.fours_of_places) if by_position else (direct, gather.shifted.run)

        def of_samples(first: int, last: int) -> None:
            loop(*operand, *places, rest, self.groups, np.array((first, last), np.int64), into.y)

        spread(of_samples, samples, samples * matrix[0].numel() * math.prod(gather.out_size))

    def _by_columns(self, matrix: torch.Tensor, gather: Gather, into: _Result) -> None:
        groups, rows, terms = matrix.shape
        x, outputs = flat(self.x), groups * rows
        for block in gather.blocks(self.x.shape[0], block_elements()):
            cols = scratch("columns", gather.rows * block.positions)
            _gather_columns(x, self.scale, False, gather, block, flat(cols))
            cols = cols.view(groups, terms, block.positions)
            if terms <= exact_terms(self.bits):
                total = scratch("total", outputs * block.positions).view(groups, rows, block.positions)
                torch.bmm(matrix, cols, out=total)
            else:
                total = integer_bmm(matrix, cols, self.bits).to(torch.float32).to(torch.float64)
            rounded = flat(total), self.unit, into.unit, into.bias, into.placing, block.first, block.last
            _spread_channels(round_maps, rounded, outputs, block.positions, into.y)


def adds_maps(gather: Gather, groups: int) -> bool:
    """Whether shifted maps are added up: those of a sample fit a cache."""
    return gather.channels // groups * gather.shifted.elements <= _MOST_DIRECT_MAPS


def adds_by_position(gather: Gather, outputs: int) -> bool:
    """Whether tiles of positions and outputs are fewer than tiles of outputs and runs, by what rounding them costs more."""
    tiles_of_positions = -(-math.prod(gather.out_size) // 4) * -(-outputs // 8)
    tiles_of_runs = -(-gather.shifted.run // 8) * (outputs // 4) + -(-gather.shifted.run // 16) * (outputs % 4)
    return 1.1 * tiles_of_positions < tiles_of_runs


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
    q, unit = _weight(weight, bits)
    y = torch.empty(g.batch, g.out_channels, *g.out_size)
    placing = _placing(g.out_channels, g.out_size, (1, 1, 1), (0, 0, 0), g.out_size[2])
    added = NO_BIAS if bias is None else flat(bias.contiguous())
    matrix = q.view(g.groups, g.group_out, g.terms_forward)
    _Operand.of(x, g.groups, bits).times(matrix, forward_gather(g), _Result(unit, added, placing, flat(y)))
    return y


def conv_input_grad(grad: torch.Tensor, weight: torch.Tensor, g: Geometry, bits: int) -> torch.Tensor:
    """The gradient of a convolution to its input."""
    operand = _Operand.of(grad, g.groups, bits)
    by_input = weight.reshape(g.groups, g.group_out, g.group_in, g.taps).transpose(1, 2)
    q, unit = _weight(by_input.reshape(g.in_channels, g.group_out, *g.kernel), bits)
    grad_x = torch.empty(g.batch, g.in_channels, *g.size)
    for phase in input_grad_phases(g):
        taken = q[(slice(None), slice(None), *phase.taps)]
        matrix = taken.reshape(g.groups, g.group_in, math.prod(taken.shape[1:]))
        placing = _placing(g.in_channels, g.size, g.stride, phase.starts, phase.gather.out_size[2])
        operand.times(matrix, phase.gather, _Result(unit, NO_BIAS, placing, flat(grad_x)))
    return grad_x


def conv_weight_grad(grad: torch.Tensor, x: torch.Tensor, g: Geometry, bits: int) -> torch.Tensor:
    """The gradient of a convolution to its weight."""
    grad, x = grad.contiguous(), x.contiguous()
    scales, units = zip(_scales(grad, 1, bits), _scales(x, 1, bits), strict=True)
    gather = forward_gather(g)
    totals = _weight_grad_directly if adds_maps(gather, g.groups) else _weight_grad_by_columns
    total = totals(grad, x, *scales, gather, g, bits)
    rounded = torch.empty(g.out_channels, g.group_in, *g.kernel)
    columns = np.repeat(units[1], g.taps)
    round_matrices(flat(total), units[0], columns, g.groups, g.group_out, g.terms_forward, NO_BIAS, flat(rounded))
    return rounded


def _weight_grad_directly(
    grad: torch.Tensor,
    x: torch.Tensor,
    grad_scale: np.ndarray,
    x_scale: np.ndarray,
    gather: Gather,
    g: Geometry,
    bits: int,
) -> torch.Tensor:
    terms, geometry = gather.shifted_terms(g.groups)
    given = flat(grad), flat(x), grad_scale, x_scale, geometry, gather.shifted.phases, terms
    exact = exact_terms(bits)
    parts = shares(g.batch, g.terms_weight_grad * g.out_channels * g.terms_forward)
    found = np.zeros((len(parts), g.out_channels, terms.size), np.int64)
    by_position = g.group_out >= _LEAST_OUTPUTS_BY_POSITION and g.positions <= exact
    samples = max(_KEPT_POSITIONS // max(g.positions, 1), 1)
    rest = np.array(g.out_size, np.int64), gather.shifted.run

    def of_parts(first: int, last: int) -> None:
        for i in range(first, last):
            span, total = np.array(parts[i], np.int64), found[i].reshape(-1)
            if by_position:
                weight_grad_of_positions(*given, gather.places, samples, g.groups, exact, span, total)
            else:
                direct_weight_grad(*given, *rest, g.groups, exact, span, total)

    spread(of_parts, len(parts), math.inf)
    total = torch.from_numpy(found.sum(0)[:, : g.terms_forward])
    return total.to(torch.float32).to(torch.float64)


def _weight_grad_by_columns(
    grad: torch.Tensor,
    x: torch.Tensor,
    grad_scale: np.ndarray,
    x_scale: np.ndarray,
    gather: Gather,
    g: Geometry,
    bits: int,
) -> torch.Tensor:
    running = torch.zeros(g.groups, g.group_out, g.terms_forward, dtype=torch.float64)
    total, room, step = None, exact_terms(bits), exact_terms(bits)
    from_x, from_grad = flat(x), flat(grad)
    for block in gather.blocks(g.batch, block_elements()):
        cols = scratch("columns", gather.rows * block.positions).view(g.groups, g.terms_forward, block.positions)
        part = scratch("gradient", g.out_channels * block.positions).view(g.groups, g.group_out, block.positions)
        _gather_columns(from_x, x_scale, True, gather, block, flat(cols))
        runs = from_grad, grad_scale, g.out_channels, g.positions, *block.run
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
        return running
    return (total + running.to(torch.int64)).to(torch.float32).to(torch.float64)
