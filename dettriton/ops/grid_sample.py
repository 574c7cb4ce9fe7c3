"""grid_sample: a map or volume read at the places that a grid names, between its elements.

Everything is binary32 with one rounding for each written operation (R1), in the order written here. A grid value ``g`` of
an axis of ``L`` elements becomes a coordinate, which ``padding_mode`` then moves into the map (not for bicubic)::

    align_corners     u = ((g + 1) * 0.5) * (L - 1)         otherwise    u = ((g + 1) * L - 1) * 0.5
    border            u cut to [0, L - 1]; NaN gives 0
    reflection        d = |u - low|      n = floor(d / span)      r = d - n * span
                      u = (r if n is even, span - r if odd) + low, cut to [0, L - 1]; 0 where span = 0
                      low, span = 0, L - 1 with align_corners and -0.5, L without

and that a list of taps (elements) with weights; ``i = floor(u)``::

    nearest    u rounded to an integer, ties to even         weight 1
    bilinear   i, i + 1                                      weights (i + 1) - u, u - i
    bicubic    i - 1 .. i + 2                                Keys' weights for a = -0.75 at t = u - i, by Horner's rule;
                                                             padding_mode moves each tap instead

A tap outside the map is +0, whatever its weight. The result is the sum of ``weight * element`` over the taps of all axes
in ascending row-major order, starting from the first; the weight of several axes is their product, first axis first.

Gradient to the input: the exact windowed sum (R2) of ``grad * weight`` over all taps that read the element. Gradient to
the grid: for each channel ``grad`` times the sum above with one axis's weights replaced by their derivatives; these
summed exactly over the channels (R2), then times ``L / 2`` or ``(L - 1) / 2`` and +1, -1 or 0 as the coordinate was
kept, reflected or cut. Batch-invariant forward and backward.
"""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.ops._contract import contract
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._index_sum import index_sum
from dettriton.ops.sum import exact_sum

MODES = ("bilinear", "nearest", "bicubic")
PADDINGS = ("zeros", "border", "reflection")
CUBIC = -0.75


class Axis(NamedTuple):
    """The taps of one axis at every place of the grid.

    Attributes:
        taps: the elements as int64, one tensor for each tap; 0 where it is outside.
        outside: whether each tap is outside the map.
        weights: the weight of each tap.
        slopes: the derivatives of the weights with respect to the coordinate.
        factor: the derivative of the coordinate with respect to the grid.
    """

    taps: list[torch.Tensor]
    outside: list[torch.Tensor]
    weights: list[torch.Tensor]
    slopes: list[torch.Tensor]
    factor: torch.Tensor


class Settings(NamedTuple):
    mode: str
    padding: str
    align_corners: bool


def cut(u: torch.Tensor, size: int) -> torch.Tensor:
    """``u`` in [0, size - 1]; 0 for NaN."""
    zero, last = torch.zeros_like(u), torch.full_like(u, size - 1)
    u = torch.where(u > 0, u, zero)
    return torch.where(u < size - 1, u, last)


def moved_inside(u: torch.Tensor, size: int, settings: Settings) -> tuple[torch.Tensor, torch.Tensor]:
    """The coordinate after ``padding_mode``, and its derivative: 1, -1 or 0."""
    sign = torch.ones_like(u)
    if settings.padding == "zeros":
        return u, sign
    if settings.padding == "reflection":
        low, span = (0.0, size - 1) if settings.align_corners else (-0.5, size)
        if span == 0:
            return torch.zeros_like(u), torch.zeros_like(u)
        width = torch.full((), float(span), dtype=torch.float32, device=u.device)
        from_low = u - low
        distance = torch.abs(from_low)
        turns = torch.floor(distance / width)
        rest = distance - turns * width
        halved = turns * 0.5
        odd = torch.floor(halved) != halved
        u = torch.where(odd, width - rest, rest) + low
        sign = torch.where(odd ^ (from_low < 0), -sign, sign)
    kept = (u > 0) & (u < size - 1)
    return cut(u, size), torch.where(kept, sign, torch.zeros_like(u))


def cubic_weights(t: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Keys' four weights and their derivatives with respect to ``t``."""

    def near(d: torch.Tensor) -> torch.Tensor:
        return (((CUBIC + 2.0) * d - (CUBIC + 3.0)) * d) * d + 1.0

    def far(d: torch.Tensor) -> torch.Tensor:
        return ((CUBIC * d - 5.0 * CUBIC) * d + 8.0 * CUBIC) * d - 4.0 * CUBIC

    def near_slope(d: torch.Tensor) -> torch.Tensor:
        return (3.0 * (CUBIC + 2.0) * d - 2.0 * (CUBIC + 3.0)) * d

    def far_slope(d: torch.Tensor) -> torch.Tensor:
        return (3.0 * CUBIC * d - 10.0 * CUBIC) * d + 8.0 * CUBIC

    after, before, beyond = t + 1.0, 1.0 - t, 2.0 - t
    return [far(after), near(t), near(before), far(beyond)], [
        far_slope(after),
        near_slope(t),
        -near_slope(before),
        -far_slope(beyond),
    ]


def axis_of(g: torch.Tensor, size: int, settings: Settings) -> Axis:
    """The taps that the grid's values of one axis name."""
    mode, align = settings.mode, settings.align_corners
    u = ((g + 1.0) * 0.5) * float(size - 1) if align else ((g + 1.0) * float(size) - 1.0) * 0.5
    half = (size - 1 if align else size) * 0.5
    sign = torch.ones_like(u)
    if mode != "bicubic":
        u, sign = moved_inside(u, size, settings)
    one, zero = torch.ones_like(u), torch.zeros_like(u)
    first = torch.floor(u)
    if mode == "nearest":
        places, weights, slopes = [torch.round(u)], [one], [zero]
    elif mode == "bilinear":
        places = [first, first + 1.0]
        weights, slopes = [places[1] - u, u - first], [-one, one]
    else:
        places = [moved_inside(first + shift, size, settings)[0] for shift in (-1.0, 0.0, 1.0, 2.0)]
        weights, slopes = cubic_weights(u - first)
    inside = [(place >= 0) & (place <= size - 1) for place in places]
    # Only what is inside is converted: how a NaN or a large number becomes an integer differs between machines.
    taps = [torch.where(kept, place, zero).to(torch.int64) for kept, place in zip(inside, places, strict=True)]
    return Axis(taps, [~kept for kept in inside], weights, slopes, sign * half)


def axes_of(grid: torch.Tensor, sizes: tuple[int, ...], settings: Settings) -> list[Axis]:
    """The axes in the order of the map's dimensions; the grid's last number is the first of them."""
    return [axis_of(grid[..., -1 - k], size, settings) for k, size in enumerate(sizes)]


def tap_table(
    axes: list[Axis], sizes: tuple[int, ...], sloped: int | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """For each tap in row-major order: its place in the flattened map, whether it is outside, and its weight.

    ``sloped`` names the axis whose weights are replaced by their derivatives.
    """
    for taps in product(*(range(len(axis.taps)) for axis in axes)):
        place = outside = weight = None
        for k, (axis, size, t) in enumerate(zip(axes, sizes, taps, strict=True)):
            factor = (axis.slopes if k == sloped else axis.weights)[t]
            place = axis.taps[t] if place is None else place * size + axis.taps[t]
            outside = axis.outside[t] if outside is None else outside | axis.outside[t]
            weight = factor if weight is None else weight * factor
        yield place, outside, weight


def read(flat: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Elements of (N, C, places) at (N, ...) places: (N, C, ...)."""
    index = place.reshape(len(place), 1, math.prod(place.shape[1:])).expand(-1, flat.shape[1], -1)
    return flat.gather(2, index).view(*flat.shape[:2], *place.shape[1:])


def sampled(flat: torch.Tensor, axes: list[Axis], sizes: tuple[int, ...], sloped: int | None = None) -> torch.Tensor:
    """The sum of weight * element over the taps, in ascending order."""
    total = None
    for place, outside, weight in tap_table(axes, sizes, sloped):
        term = (read(flat, place) * weight[:, None]).masked_fill(outside[:, None], 0.0)
        total = term if total is None else total + term
    return total


def gradient_to_input(grad: torch.Tensor, axes: list[Axis], sizes: tuple[int, ...]) -> torch.Tensor:
    """(N, C, places): the exact sum of grad * weight over the taps that read each element."""
    batch, channels = grad.shape[:2]
    places = torch.Size(sizes).numel()
    samples = torch.arange(batch, device=grad.device).view(-1, *(1,) * len(sizes)) * places
    last = grad.movedim(1, -1)
    terms, targets = [], []
    for place, outside, weight in tap_table(axes, sizes):
        term = (last * weight[..., None]).masked_fill(outside[..., None], 0.0)
        terms.append(term.reshape(-1, channels))
        targets.append((samples + place).reshape(-1))
    summed = index_sum(torch.cat(terms), torch.cat(targets), batch * places)
    return summed.view(batch, places, channels).transpose(1, 2)


def gradient_to_grid(grad: torch.Tensor, flat: torch.Tensor, axes: list[Axis], sizes: tuple[int, ...]) -> torch.Tensor:
    """(N, ..., axes), the last axis first."""
    found = [
        exact_sum(grad * sampled(flat, axes, sizes, k), (1,)) * axis.factor for k, axis in reversed([*enumerate(axes)])
    ]
    return torch.stack(found, -1)


class GridSample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, grid: torch.Tensor, settings: Settings) -> torch.Tensor:
        engine_for(x, grid)
        ctx.settings = settings
        ctx.save_for_backward(x, grid)
        sizes = tuple(x.shape[2:])
        return sampled(x.flatten(2), axes_of(grid, sizes, settings), sizes)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, grid = ctx.saved_tensors
        sizes = tuple(x.shape[2:])
        axes = axes_of(grid, sizes, ctx.settings)
        grad_x = gradient_to_input(grad, axes, sizes).reshape(x.shape) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return grad_x, None, None
        if ctx.settings.mode == "nearest":
            return grad_x, torch.zeros_like(grid), None
        return grad_x, gradient_to_grid(grad, x.flatten(2), axes, sizes), None


@contract(
    "Pooling and resampling",
    definition="coordinates and weights in binary32; weight * element added over the taps in ascending order; gradients: "
    "exact windowed sums over the taps that read an element, and over the channels for the grid",
    error="half an ulp for each written operation; gradients: also 2^-32 of the largest term for each term",
    batch_invariant=True,
    kernels=False,
    mirrors="nn.functional.grid_sample",
)
def grid_sample(
    input: torch.Tensor,
    grid: torch.Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> torch.Tensor:
    """Read a map at the places a grid names, as :func:`torch.nn.functional.grid_sample`.

    The module's docstring has the sequence of operations. torch refuses the gradient on a GPU in its deterministic mode;
    here it is an exact sum.

    Args:
        input: binary32, (N, C, H, W) or (N, C, D, H, W).
        grid: binary32, (N, H_out, W_out, 2) or (N, D_out, H_out, W_out, 3): the column, the row (and the depth) as
            numbers from -1, the first border, to 1, the last.
        mode: ``"bilinear"`` (trilinear for volumes), ``"nearest"``, or ``"bicubic"`` for maps.
        padding_mode: what lies outside: ``"zeros"``, the ``"border"``, or the ``"reflection"``.
        align_corners: whether -1 and 1 are the middles of the border elements, not their outer edges; False for None.

    Returns:
        (N, C, H_out, W_out) or (N, C, D_out, H_out, W_out).

    Raises:
        InputError: an input is not binary32, shapes do not fit, or a mode is unknown.
        EngineError: the engine cannot run on the inputs' device.
    """
    require_float32("grid_sample", input=input, grid=grid)
    dims = input.dim() - 2
    if dims not in (2, 3) or grid.dim() != input.dim() or grid.shape[-1] != dims or len(grid) != len(input):
        raise InputError(
            "grid_sample: input (N, C, H, W) takes a grid (N, H_out, W_out, 2), a volume one of (N, D, H, W, 3); got "
            f"{tuple(input.shape)} and {tuple(grid.shape)}"
        )
    if mode not in MODES or (mode == "bicubic" and dims == 3):
        raise InputError(f"grid_sample: mode must be one of {', '.join(MODES)} (bicubic for maps), got {mode!r}")
    if padding_mode not in PADDINGS:
        raise InputError(f"grid_sample: padding_mode must be one of {', '.join(PADDINGS)}, got {padding_mode!r}")
    if 0 in input.shape[1:]:
        raise InputError(f"grid_sample: only the batch and the grid may be empty, got shape {tuple(input.shape)}")
    return GridSample.apply(input, grid, Settings(mode, padding_mode, bool(align_corners)))
