"""What the pooling ops share: torch's arguments, its output sizes, and where the taps of a strided window fall.

A map is the last two dimensions of a tensor, a volume the last three; a signal is a map of height 1, so every pool has
two or three axes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import prod

import torch

from dettriton.errors import InputError
from dettriton.ops._function import require_float32
from dettriton.ops._tables import device_tables

Size = int | tuple[int, ...]

IN_ORDER_LIMIT = 64
LAYOUTS = {1: "L", 2: "H, W", 3: "D, H, W"}


@dataclass(frozen=True)
class Axis:
    """Strided windows along one axis: tap ``t`` of output ``o`` is input ``o*stride - padding + t*dilation``.

    Taps outside ``[0, size)`` are padding.
    """

    size: int
    out: int
    kernel: int
    stride: int
    padding: int = 0
    dilation: int = 1

    def taps(self) -> Iterator[tuple[int, slice, slice]]:
        """For each tap in ascending order: the tap, the outputs whose tap is inside the map, and those inputs."""
        for t in range(self.kernel):
            shift = t * self.dilation - self.padding
            first = max(-(shift // self.stride), 0)
            last = min((self.size - 1 - shift) // self.stride + 1, self.out)
            if first < last:
                start = first * self.stride + shift
                yield t, slice(first, last), slice(start, start + (last - first - 1) * self.stride + 1, self.stride)


def all_taps(axes: tuple[Axis, ...]) -> Iterator[tuple[int, tuple, tuple]]:
    """For each tap of a window in row-major order: the tap, and the indexes of its outputs and of their inputs."""
    for taps in product(*(axis.taps() for axis in axes)):
        place = 0
        for axis, (t, _, _) in zip(axes, taps, strict=True):
            place = place * axis.kernel + t
        yield place, (..., *(outputs for _, outputs, _ in taps)), (..., *(inputs for _, _, inputs in taps))


def spatial(op: str, name: str, value: Size, dims: int) -> tuple[int, ...]:
    """An argument for each axis of a map or a volume, given as an integer or as ``dims`` integers.

    The axis that a signal lacks gets what leaves it alone: no padding, and 1 for the other arguments.
    """
    values = tuple(value) if isinstance(value, (tuple, list, torch.Size)) else (value,)
    values = values * dims if len(values) == 1 else values
    if len(values) != dims or not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        raise InputError(f"{op}: {name} must be an integer or {dims} of them, got {value!r}")
    return values if dims > 1 else (0 if name == "padding" else 1, *values)


def as_map(op: str, x: torch.Tensor, dims: int) -> torch.Tensor:
    """``x`` seen as maps or volumes: a signal gets a height of 1.

    Raises:
        InputError: ``x`` is not binary32, has the wrong rank, or has an empty map.
    """
    require_float32(op, input=x)
    if x.dim() not in (dims + 1, dims + 2):
        axes = LAYOUTS[dims]
        raise InputError(f"{op}: input must be (C, {axes}) or (N, C, {axes}), got shape {tuple(x.shape)}")
    if 0 in x.shape[-dims:]:
        raise InputError(f"{op}: only the batch may be empty, got shape {tuple(x.shape)}")
    return x if dims > 1 else x.unsqueeze(-2)


def from_map(y: torch.Tensor, dims: int) -> torch.Tensor:
    """Undo :func:`as_map`."""
    return y if dims > 1 else y.squeeze(-2)


def strided_axes(
    op: str,
    x: torch.Tensor,
    dims: int,
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    dilation: Size,
    ceil: bool,
) -> tuple[Axis, ...]:
    """The axes of the windows over the map or volume ``x``, with torch's output sizes.

    Raises:
        InputError: an argument is out of range, or a window would hold no element of the map.
    """
    kernels = spatial(op, "kernel_size", kernel_size, dims)
    steps = kernels if stride is None or stride == () else spatial(op, "stride", stride, dims)
    paddings = spatial(op, "padding", padding, dims)
    dilations = spatial(op, "dilation", dilation, dims)
    sizes = x.shape[-len(kernels) :]
    return tuple(
        _axis(op, *arguments, ceil) for arguments in zip(sizes, kernels, steps, paddings, dilations, strict=True)
    )


def _axis(op: str, size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> Axis:
    if kernel < 1 or stride < 1 or dilation < 1:
        raise InputError(f"{op}: kernel_size, stride and dilation must be positive, got {kernel}, {stride}, {dilation}")
    span = dilation * (kernel - 1) + 1
    if not 0 <= padding <= span // 2:
        raise InputError(f"{op}: padding must lie in [0, {span // 2}], half of the window's {span}, got {padding}")
    steps, rest = divmod(size + 2 * padding - span, stride)
    out = steps + 1
    if ceil and rest and out * stride < size + padding:
        out += 1
    if out < 1:
        raise InputError(f"{op}: a window of {span} does not fit a map of {size} padded by {padding} on both sides")
    axis = Axis(size, out, kernel, stride, padding, dilation)
    filled = [range(out)[outputs] for _, outputs, _ in axis.taps()]
    if len(set().union(*filled)) < out:
        raise InputError(f"{op}: a window with kernel_size {kernel} and dilation {dilation} holds nothing but padding")
    return axis


@dataclass(frozen=True)
class Runs:
    """For each target ``o``, the run of sources from ``(step*o + first) // per`` up to ``(step*o + end) // per``.

    Runs are cut to ``[0, sources)`` and hold at most ``longest`` sources. Their ends grow with the target, so the
    targets that hold one source are a run too.
    """

    sources: int
    targets: int
    step: int
    first: int
    end: int
    per: int
    longest: int

    def bounds(self, target: int) -> tuple[int, int]:
        first, end = (max((self.step * target + bound) // self.per, 0) for bound in (self.first, self.end))
        return first, min(end, self.sources)

    def all_bounds(self) -> list[tuple[int, int]]:
        return [self.bounds(target) for target in range(self.targets)]

    def cover(self) -> bool:
        """Whether every run is all of the sources."""
        return all(self.bounds(o) == (0, self.sources) for o in (0, self.targets - 1))

    def inverse(self) -> "Runs":
        """For each source, the run of targets that hold it."""
        first = self.per - self.end + self.step - 1
        end = self.per - 1 - self.first + self.step
        longest = -(-(self.end - self.first) // self.step)
        return Runs(self.targets, self.sources, self.per, first, end, self.step, longest)


def run_table(runs: tuple[Runs, ...], device: torch.device) -> torch.Tensor:
    """Where the elements of each window of a map or volume are, (elements of the longest window, windows) int64.

    Both in row-major order. A place is one in the flattened map; where a window has no such element it is the number of
    places in the map, one past the last.
    """
    return _run_tables(runs, device)[0]


@device_tables(most=64)
def _run_tables(runs: tuple[Runs, ...]) -> tuple[torch.Tensor]:
    place, missing = torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.bool)
    for k, r in enumerate(runs):
        bounds = torch.tensor(r.all_bounds(), dtype=torch.int64)
        along = bounds[:, 0] + torch.arange(r.longest, dtype=torch.int64)[:, None]
        shape = [1] * (2 * len(runs))
        shape[k], shape[len(runs) + k] = r.longest, r.targets
        place = place * r.sources + along.view(shape)
        missing = missing | (along >= bounds[:, 1]).view(shape)
    table = torch.where(missing, prod(r.sources for r in runs), place)
    return (table.reshape(prod(r.longest for r in runs), -1),)


@dataclass(frozen=True)
class Windows:
    """The windows of an average pool: their runs, their strided axes where they are regular, and their divisors."""

    runs: tuple[Runs, ...]
    axes: tuple[Axis, ...] | None
    counts: tuple[tuple[int, ...], ...]
    divisor: int | None

    @property
    def whole_map(self) -> bool:
        return all(r.cover() for r in self.runs)

    @property
    def exact(self) -> bool:
        return self.whole_map or prod(r.longest for r in self.runs) > IN_ORDER_LIMIT

    @property
    def inputs(self) -> tuple[int, ...]:
        return tuple(r.sources for r in self.runs)

    @property
    def outputs(self) -> tuple[int, ...]:
        return tuple(r.targets for r in self.runs)

    @property
    def inverse_runs(self) -> tuple[Runs, ...]:
        """For each input, the run of outputs that hold it."""
        return tuple(r.inverse() for r in self.runs)


def strided_runs(axis: Axis) -> Runs:
    return Runs(axis.size, axis.out, axis.stride, -axis.padding, axis.kernel - axis.padding, 1, axis.kernel)


def strided_counts(axis: Axis, include_padding: bool) -> tuple[int, ...]:
    """How many taps of each window divide: those up to the end of the padding, or those inside the map."""
    if not include_padding:
        return tuple(end - first for first, end in strided_runs(axis).all_bounds())
    starts = [o * axis.stride - axis.padding for o in range(axis.out)]
    return tuple(min(start + axis.kernel, axis.size + axis.padding) - start for start in starts)


def adaptive_sizes(op: str, x: torch.Tensor, output_size: object, dims: int) -> tuple[int, ...]:
    """The output sizes of an adaptive pool of the map ``x``; None among several keeps the input's size.

    Raises:
        InputError: a size is not a positive integer, or there are not ``dims`` of them.
    """
    if isinstance(output_size, (tuple, list)) and len(output_size) == dims:
        kept = x.shape[-dims:]
        output_size = tuple(size if out is None else out for out, size in zip(output_size, kept, strict=True))
    sizes = spatial(op, "output_size", output_size, dims)
    if min(sizes) < 1:
        raise InputError(f"{op}: output_size must be positive, got {output_size!r}")
    return sizes


def adaptive_runs(size: int, out: int) -> Runs:
    runs = Runs(size, out, size, 0, size + out - 1, out, size)
    return replace(runs, longest=max(end - first for first, end in runs.all_bounds()))


def strided_windows(axes: tuple[Axis, ...], include_padding: bool, divisor: int | None) -> Windows:
    counts = tuple(strided_counts(axis, include_padding) for axis in axes)
    return Windows(tuple(strided_runs(axis) for axis in axes), axes, counts, divisor)


def adaptive_windows(sizes: tuple[int, ...], outs: tuple[int, ...]) -> Windows:
    runs = tuple(adaptive_runs(size, out) for size, out in zip(sizes, outs, strict=True))
    even = all(r.sources % r.targets == 0 for r in runs)
    axes = tuple(Axis(r.sources, r.targets, r.longest, r.longest) for r in runs) if even else None
    counts = tuple(tuple(end - first for first, end in r.all_bounds()) for r in runs)
    return Windows(runs, axes, counts, None)
