"""Exact depthwise convolutions of integer tensors on the CPU, tap by tap over whole maps.

A padded map is split into its phases modulo the stride, so that what a tap reads of one phase is one contiguous run,
as long as the output laid out with the phase's row length. Sums are binary64 and exact, so in any order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch

from dettriton.exact.convolution import Consumer, Geometry
from dettriton.exact.dot import exact_terms, slices

_BLOCK_ELEMENTS = 1 << 18
_MOST_OUTPUTS = 4


def is_depthwise(g: Geometry, bits: int) -> bool:
    """Whether each output channel reads one input channel, few read the same one, and their sums fit 53 bits."""
    return g.group_in == 1 and g.group_out <= _MOST_OUTPUTS and g.terms_input_grad <= exact_terms(bits)


class _Layout:
    """Where the taps of one depthwise convolution read their maps."""

    def __init__(self, g: Geometry):
        self.g = g
        self.phase = tuple(-(-p // s) for p, s in zip(g.padded_size, g.stride, strict=True))
        self.run = self._at(tuple(n - 1 for n in g.out_size)) + 1
        reach = math.prod(g.stride) * math.prod(self.phase)
        self.room = max(_BLOCK_ELEMENTS // max(reach, g.group_out * self.run, 1), 1)

    def _at(self, index: tuple[int, ...]) -> int:
        return (index[0] * self.phase[1] + index[1]) * self.phase[2] + index[2]

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Samples and channels whose maps fit the cache."""
        channels = min(self.room, max(self.g.groups, 1))
        samples = max(self.room // channels, 1)
        return itertools.product(slices(self.g.batch, samples), slices(self.g.groups, channels))

    def tap_runs(self, phases: torch.Tensor) -> Iterator[torch.Tensor]:
        """What each tap reads of the phases: ``(samples, channels, 1, run)``, views."""
        strides, elements = self.g.stride, phases.shape[3]
        steps = (*phases.stride()[:2], 0, 1)
        for tap in itertools.product(*map(range, self.g.kernel)):
            reads = [t * d for t, d in zip(tap, self.g.dilation, strict=True)]
            residue = [r % s for r, s in zip(reads, strides, strict=True)]
            start = self._at(tuple(r // s for r, s in zip(reads, strides, strict=True)))
            phase = (residue[0] * strides[1] + residue[1]) * strides[2] + residue[2]
            yield phases.as_strided((*phases.shape[:2], 1, self.run), steps, phase * elements + start)

    def _padded(self, samples: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
        """An empty padded map, and the view of it without padding."""
        sizes = [q * s for q, s in zip(self.phase, self.g.stride, strict=True)]
        padded = torch.zeros(samples, channels, *sizes, dtype=torch.float64)
        inside = (slice(p, p + s) for p, s in zip(self.g.padding, self.g.size, strict=True))
        return padded, padded[(..., *inside)]

    def phases(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(samples, channels, *size)`` as their phases ``(samples, channels, phases, elements)``."""
        padded, interior = self._padded(*x.shape[:2])
        interior.copy_(x)
        steps = [n for pair in zip(self.phase, self.g.stride, strict=True) for n in pair]
        split = padded.view(*x.shape[:2], *steps).permute(0, 1, 3, 5, 7, 2, 4, 6)
        # The runs are read by address, and where only one dimension is split a reshape alone would be a view.
        return split.reshape(*x.shape[:2], math.prod(self.g.stride), math.prod(self.phase)).contiguous()

    def joined(self, phases: torch.Tensor) -> torch.Tensor:
        """The maps whose phases these are: the inverse of :meth:`phases`."""
        split = phases.view(*phases.shape[:2], *self.g.stride, *self.phase).permute(0, 1, 5, 2, 6, 3, 7, 4)
        padded, interior = self._padded(*phases.shape[:2])
        padded.view(split.shape).copy_(split)
        return interior

    def outputs(self, samples: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Zero outputs as runs ``(samples, channels, group_out, run)``, and the view of them as maps."""
        depth, height, width = self.g.out_size
        shape = (samples, channels, self.g.group_out, depth, *self.phase[1:])
        laid = torch.zeros(shape, dtype=torch.float64)
        return laid.flatten(3)[..., : self.run], laid[..., :height, :width]

    def out_channels(self, channels: slice) -> slice:
        return slice(channels.start * self.g.group_out, channels.stop * self.g.group_out)

    def gradients(self, grad: torch.Tensor, samples: slice, channels: slice) -> torch.Tensor:
        """A block of an output-shaped tensor as runs."""
        part = grad[samples, self.out_channels(channels)]
        runs, maps = self.outputs(part.shape[0], channels.stop - channels.start)
        maps.copy_(part.reshape(maps.shape))
        return runs


def _by_tap(weight: torch.Tensor, g: Geometry) -> torch.Tensor:
    """The weight as binary64 ``(taps, groups, group_out, 1)``."""
    return weight.to(torch.float64).reshape(g.groups, g.group_out, g.taps).permute(2, 0, 1).unsqueeze(-1).contiguous()


def depthwise_conv(x: torch.Tensor, weight: torch.Tensor, g: Geometry, bits: int, consume: Consumer) -> None:
    """As :func:`dettriton.exact.convolution.integer_conv`, where :func:`is_depthwise`."""
    layout, factors = _Layout(g), _by_tap(weight, g)
    for samples, channels in layout.blocks():
        phases = layout.phases(x[samples, channels])
        runs, maps = layout.outputs(*phases.shape[:2])
        for read, factor in zip(layout.tap_runs(phases), factors[:, channels].unbind(), strict=True):
            runs.addcmul_(read, factor)
        consume((samples, layout.out_channels(channels)), maps.flatten(1, 2))


def depthwise_conv_input_grad(
    grad: torch.Tensor, weight: torch.Tensor, g: Geometry, bits: int, consume: Consumer
) -> None:
    """As :func:`dettriton.exact.convolution.integer_conv_input_grad`, where :func:`is_depthwise`."""
    layout, factors = _Layout(g), _by_tap(weight, g)
    for samples, channels in layout.blocks():
        runs = layout.gradients(grad, samples, channels)
        shape = (*runs.shape[:2], math.prod(g.stride), math.prod(layout.phase))
        phases = torch.zeros(shape, dtype=torch.float64)
        for read, factor in zip(layout.tap_runs(phases), factors[:, channels].unbind(), strict=True):
            for out in range(g.group_out):
                read.addcmul_(runs[:, :, out : out + 1], factor[:, out : out + 1])
        consume((samples, channels), layout.joined(phases))


def depthwise_conv_weight_grad(grad: torch.Tensor, x: torch.Tensor, g: Geometry, bits: int) -> torch.Tensor:
    """As :func:`dettriton.exact.convolution.integer_conv_weight_grad`, where :func:`is_depthwise`."""
    layout = _Layout(g)
    total = torch.zeros(g.taps, g.groups, g.group_out, dtype=torch.int64)
    for samples, channels in layout.blocks():
        phases = layout.phases(x[samples, channels])
        runs = layout.gradients(grad, samples, channels)
        products = torch.empty_like(runs)
        for tap, read in enumerate(layout.tap_runs(phases)):
            torch.mul(runs, read, out=products)
            for part in slices(layout.run, exact_terms(bits)):
                total[tap, channels] += products[..., part].sum(-1).to(torch.int64).sum(0)
    return total.permute(1, 2, 0).reshape(g.out_channels, 1, *g.kernel)
