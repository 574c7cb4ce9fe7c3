"""Checking a convolution's arguments and turning a 1-D or 2-D one into a 3-D one of extent 1."""

from dataclasses import dataclass

import torch

from dettriton.errors import InputError
from dettriton.exact.convolution import Geometry
from dettriton.exact.grid import bits_of
from dettriton.ops._function import require_float32

IntOrInts = int | tuple[int, ...]


@dataclass(frozen=True)
class ConvCall:
    """A validated call: 5-D operands, their geometry, and how to give back the caller's number of dimensions.

    Of a transposed convolution, the geometry is that of the convolution whose gradient to the input it is.
    """

    input: torch.Tensor
    weight: torch.Tensor
    geometry: Geometry
    rank: int
    batched: bool

    def finish(self, y: torch.Tensor) -> torch.Tensor:
        """``y`` (N, C, D, H, W) without the dimensions that were added."""
        y = y.reshape(*y.shape[:2], *y.shape[5 - self.rank :])
        return y if self.batched else y.squeeze(0)


def _tuple(op: str, name: str, value: IntOrInts, rank: int, least: int) -> tuple[int, ...]:
    values = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(values) == 1:
        values *= rank
    if len(values) != rank or not all(isinstance(v, int) and v >= least for v in values):
        raise InputError(f"{op}: {name} must be an integer or {rank} integers of at least {least}, got {value!r}")
    return values


def _same_padding(
    op: str, x: torch.Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Padding that keeps the size; an odd total pads one more at the end, as torch does."""
    if any(s != 1 for s in stride):
        raise InputError(f"{op}: padding='same' needs stride 1, got stride {stride}")
    totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if any(t % 2 for t in totals):
        x = torch.nn.functional.pad(x, [v for t in reversed(totals) for v in (0, t % 2)])
    return x, tuple(t // 2 for t in totals)


def _spatial(x: torch.Tensor, rank: int) -> torch.Tensor:
    """``x`` with three spatial dimensions, those added of size 1."""
    return x.reshape(*x.shape[:2], *(1,) * (3 - rank), *x.shape[2:])


def _geometry(
    batch: int, channels: tuple[int, int], groups: int, size: tuple[int, ...], *parts: tuple[int, ...]
) -> Geometry:
    """The geometry with the missing leading dimensions filled in; ``parts`` are kernel, stride, padding, dilation."""
    missing = 3 - len(size)
    filled = [(fill,) * missing + values for fill, values in zip((1, 1, 1, 0, 1), (size, *parts), strict=True)]
    return Geometry(batch, *channels, groups, *filled)


def _checked_operands(
    op: str, rank: int, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, precision: str
) -> tuple[torch.Tensor, bool]:
    """The input with a batch dimension, and whether it had one."""
    require_float32(op, input=x, weight=weight, bias=bias)
    bits_of(precision)
    if weight.dim() != rank + 2:
        raise InputError(f"{op}: weight must have {rank + 2} dimensions, got {tuple(weight.shape)}")
    if x.dim() not in (rank + 1, rank + 2):
        raise InputError(f"{op}: input must have {rank + 1} or {rank + 2} dimensions, got {tuple(x.shape)}")
    batched = x.dim() == rank + 2
    return x if batched else x.unsqueeze(0), batched


def _check_bias(op: str, bias: torch.Tensor | None, channels: int) -> None:
    if bias is not None and tuple(bias.shape) != (channels,):
        raise InputError(f"{op}: bias must have shape ({channels},), got {tuple(bias.shape)}")


def conv_arguments(
    op: str,
    rank: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: IntOrInts,
    padding: IntOrInts | str,
    dilation: IntOrInts,
    groups: int,
    precision: str,
) -> ConvCall:
    """Check everything a convolution is called with.

    Raises:
        InputError: something does not fit; the message says what and what was expected.
    """
    x, batched = _checked_operands(op, rank, x, weight, bias, precision)
    if not isinstance(groups, int) or groups < 1 or x.shape[1] % groups or weight.shape[0] % groups:
        raise InputError(
            f"{op}: groups must be a positive divisor of the {x.shape[1]} input and {weight.shape[0]} output channels, "
            f"got {groups!r}"
        )
    if weight.shape[1] * groups != x.shape[1]:
        raise InputError(
            f"{op}: weight {tuple(weight.shape)} with groups={groups} expects {weight.shape[1] * groups} input "
            f"channels, got input {tuple(x.shape)}"
        )
    _check_bias(op, bias, weight.shape[0])
    kernel = tuple(weight.shape[2:])
    strides, dilations = _tuple(op, "stride", stride, rank, 1), _tuple(op, "dilation", dilation, rank, 1)
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise InputError(f"{op}: padding must be integers, 'same' or 'valid', got {padding!r}")
        x, pads = _same_padding(op, x, kernel, strides, dilations) if padding == "same" else (x, (0,) * rank)
    else:
        pads = _tuple(op, "padding", padding, rank, 0)
    channels = (x.shape[1], weight.shape[0])
    geometry = _geometry(x.shape[0], channels, groups, tuple(x.shape[2:]), kernel, strides, pads, dilations)
    if min(geometry.out_size) < 1 or min(kernel) < 1:
        raise InputError(
            f"{op}: kernel {tuple(weight.shape[2:])} with dilation {dilation} does not fit into input "
            f"{tuple(x.shape[2:])} with padding {padding}"
        )
    return ConvCall(_spatial(x, rank), _spatial(weight, rank), geometry, rank, batched)


def conv_transpose_arguments(
    op: str,
    rank: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: IntOrInts,
    padding: IntOrInts,
    output_padding: IntOrInts,
    groups: int,
    dilation: IntOrInts,
    precision: str,
) -> ConvCall:
    """Check everything a transposed convolution is called with.

    Raises:
        InputError: something does not fit; the message says what and what was expected.
    """
    x, batched = _checked_operands(op, rank, x, weight, bias, precision)
    if not isinstance(groups, int) or groups < 1 or weight.shape[0] % groups:
        raise InputError(
            f"{op}: groups must be a positive divisor of the weight's {weight.shape[0]} input channels, got {groups!r}"
        )
    if weight.shape[0] != x.shape[1]:
        raise InputError(
            f"{op}: weight {tuple(weight.shape)} (in_channels, out_channels/groups, ...) needs an input of "
            f"{weight.shape[0]} channels, got {tuple(x.shape)}"
        )
    out_channels = weight.shape[1] * groups
    _check_bias(op, bias, out_channels)
    kernel = tuple(weight.shape[2:])
    strides, dilations = _tuple(op, "stride", stride, rank, 1), _tuple(op, "dilation", dilation, rank, 1)
    pads, ends = _tuple(op, "padding", padding, rank, 0), _tuple(op, "output_padding", output_padding, rank, 0)
    if any(e >= max(s, d) for e, s, d in zip(ends, strides, dilations, strict=True)):
        raise InputError(f"{op}: output_padding {output_padding!r} must be smaller than the stride or the dilation")
    size = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(x.shape[2:], strides, pads, dilations, kernel, ends, strict=True)
    )
    if min((*x.shape[2:], *kernel, *size)) < 1:
        raise InputError(
            f"{op}: input {tuple(x.shape[2:])} with kernel {kernel}, stride {stride} and padding {padding} has no "
            f"output: its size would be {size}"
        )
    if any(e >= s for e, s in zip(ends, strides, strict=True)):
        # The convolution that this is the gradient of has outputs past those of x, where its gradient is zero.
        extra = [v for e, s in zip(reversed(ends), reversed(strides), strict=True) for v in (0, e // s)]
        x = torch.nn.functional.pad(x, extra)
    channels = (out_channels, weight.shape[0])
    geometry = _geometry(x.shape[0], channels, groups, size, kernel, strides, pads, dilations)
    return ConvCall(_spatial(x, rank), _spatial(weight, rank), geometry, rank, batched)


def by_group(weight: torch.Tensor, g: Geometry) -> torch.Tensor:
    """A weight (out_channels, in_channels / groups, *kernel) by group: (groups, out, in, *kernel)."""
    return weight.reshape(g.groups, g.group_out, g.group_in, *g.kernel)
