"""Modules of the fused ops: a layer and the activation after it in one, with the layer's own state_dict."""

from typing import Any

import torch

from dettriton import ops
from dettriton.nn.conv import Conv1d, Conv2d, Conv3d
from dettriton.nn.linear import Linear
from dettriton.nn.norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from dettriton.ops._epilogue import activation_named


class _WithActivation:
    def __init__(self, *arguments: Any, activation: str = "relu", **named: Any) -> None:
        activation_named(type(self).__name__, activation)
        super().__init__(*arguments, **named)
        self.activation = activation

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation!r}"


class LinearAct(_WithActivation, Linear):
    """:class:`dettriton.nn.Linear` followed by an ``activation`` of :func:`dettriton.ops.linear_act`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.linear_act(input, self.weight, self.bias, self.activation, precision=self.precision)


class _ConvAct(_WithActivation):
    _function: Any

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        input, padding = self._operands(input)
        geometry = (self.stride, padding, self.dilation, self.groups)
        return self._function(input, weight, bias, *geometry, activation=self.activation, precision=self.precision)


class Conv1dAct(_ConvAct, Conv1d):
    """:class:`dettriton.nn.Conv1d` followed by an ``activation`` of :func:`dettriton.ops.conv1d_act`."""

    _function = staticmethod(ops.conv1d_act)


class Conv2dAct(_ConvAct, Conv2d):
    """:class:`dettriton.nn.Conv2d` followed by an ``activation`` of :func:`dettriton.ops.conv2d_act`."""

    _function = staticmethod(ops.conv2d_act)


class Conv3dAct(_ConvAct, Conv3d):
    """:class:`dettriton.nn.Conv3d` followed by an ``activation`` of :func:`dettriton.ops.conv3d_act`."""

    _function = staticmethod(ops.conv3d_act)


class _BatchNormReLU:
    def forward(self, input: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        return ops.batch_norm_relu(*self._arguments(input), residual)


class BatchNormReLU1d(_BatchNormReLU, BatchNorm1d):
    """:class:`dettriton.nn.BatchNorm1d`, then ``+ residual`` if given, then relu, in one op."""


class BatchNormReLU2d(_BatchNormReLU, BatchNorm2d):
    """:class:`dettriton.nn.BatchNorm2d`, then ``+ residual`` if given, then relu, in one op."""


class BatchNormReLU3d(_BatchNormReLU, BatchNorm3d):
    """:class:`dettriton.nn.BatchNorm3d`, then ``+ residual`` if given, then relu, in one op."""
