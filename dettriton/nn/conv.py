"""Convolution modules: torch.nn's, computed by the functions of :mod:`dettriton.ops.conv` and ``conv_transpose``."""

from typing import Any

import torch

from dettriton.errors import InputError
from dettriton.nn._precision import check_precision
from dettriton.ops.conv import conv1d, conv2d, conv3d
from dettriton.ops.conv_transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d


class _ExactConv:
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: str | int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        precision: str = "high",
    ) -> None:
        if padding_mode != "zeros":
            raise InputError(f"padding_mode {padding_mode!r} is not supported; use padding_mode='zeros'")
        checked = check_precision(precision)
        geometry = (kernel_size, stride, padding, dilation, groups, bias, padding_mode)
        super().__init__(in_channels, out_channels, *geometry, device, dtype)
        self.precision = checked

    def _operands(self, input: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
        """The input and the symmetric padding to convolve with; a lopsided "same" padding is moved into the input."""
        if not isinstance(self.padding, str):
            return input, self.padding
        ends = self._reversed_padding_repeated_twice
        if ends[0::2] == ends[1::2]:
            return input, tuple(reversed(ends[0::2]))
        return torch.nn.functional.pad(input, ends), (0,) * len(self.kernel_size)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, precision={self.precision!r}"


class Conv1d(_ExactConv, torch.nn.Conv1d):
    """:class:`torch.nn.Conv1d` by exact dot products; ``precision`` is that of :func:`dettriton.ops.conv1d`."""

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        input, padding = self._operands(input)
        return conv1d(input, weight, bias, self.stride, padding, self.dilation, self.groups, precision=self.precision)


class Conv2d(_ExactConv, torch.nn.Conv2d):
    """:class:`torch.nn.Conv2d` by exact dot products; ``precision`` is that of :func:`dettriton.ops.conv2d`."""

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        input, padding = self._operands(input)
        return conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups, precision=self.precision)


class Conv3d(_ExactConv, torch.nn.Conv3d):
    """:class:`torch.nn.Conv3d` by exact dot products; ``precision`` is that of :func:`dettriton.ops.conv3d`."""

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        input, padding = self._operands(input)
        return conv3d(input, weight, bias, self.stride, padding, self.dilation, self.groups, precision=self.precision)


class _ExactConvTranspose:
    _function: Any

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        output_padding: int | tuple[int, ...] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, ...] = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        precision: str = "high",
    ) -> None:
        if padding_mode != "zeros":
            raise InputError(f"padding_mode {padding_mode!r} is not supported; use padding_mode='zeros'")
        checked = check_precision(precision)
        geometry = (kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode)
        super().__init__(in_channels, out_channels, *geometry, device, dtype)
        self.precision = checked

    def forward(self, input: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        rank = len(self.kernel_size)
        geometry = (self.stride, self.padding, self.kernel_size, rank, self.dilation)
        output_padding = tuple(self._output_padding(input, output_size, *geometry))
        arguments = (self.stride, self.padding, output_padding, self.groups, self.dilation)
        return self._function(input, self.weight, self.bias, *arguments, precision=self.precision)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, precision={self.precision!r}"


class ConvTranspose1d(_ExactConvTranspose, torch.nn.ConvTranspose1d):
    """:class:`torch.nn.ConvTranspose1d` by exact dot products, of :func:`dettriton.ops.conv_transpose1d`."""

    _function = staticmethod(conv_transpose1d)


class ConvTranspose2d(_ExactConvTranspose, torch.nn.ConvTranspose2d):
    """:class:`torch.nn.ConvTranspose2d` by exact dot products, of :func:`dettriton.ops.conv_transpose2d`."""

    _function = staticmethod(conv_transpose2d)


class ConvTranspose3d(_ExactConvTranspose, torch.nn.ConvTranspose3d):
    """:class:`torch.nn.ConvTranspose3d` by exact dot products, of :func:`dettriton.ops.conv_transpose3d`."""

    _function = staticmethod(conv_transpose3d)
