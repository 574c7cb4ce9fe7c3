"""Activation modules: torch.nn's, computed by dettriton.ops."""

import torch

from dettriton import ops
from dettriton.errors import InputError


class ReLU(torch.nn.ReLU):
    """:class:`torch.nn.ReLU`, computed by :func:`dettriton.ops.relu`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.relu(input, self.inplace)


class ReLU6(torch.nn.ReLU6):
    """:class:`torch.nn.ReLU6`, computed by :func:`dettriton.ops.relu6`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.relu6(input, self.inplace)


class LeakyReLU(torch.nn.LeakyReLU):
    """:class:`torch.nn.LeakyReLU`, computed by :func:`dettriton.ops.leaky_relu`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.leaky_relu(input, self.negative_slope, self.inplace)


class ELU(torch.nn.ELU):
    """:class:`torch.nn.ELU`, computed by :func:`dettriton.ops.elu`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.elu(input, self.alpha, self.inplace)


class GELU(torch.nn.GELU):
    """:class:`torch.nn.GELU`, computed by :func:`dettriton.ops.gelu`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.gelu(input, self.approximate)


class SiLU(torch.nn.SiLU):
    """:class:`torch.nn.SiLU`, computed by :func:`dettriton.ops.silu`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.silu(input, self.inplace)


class Mish(torch.nn.Mish):
    """:class:`torch.nn.Mish`, computed by :func:`dettriton.ops.mish`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.mish(input, self.inplace)


class Softplus(torch.nn.Softplus):
    """:class:`torch.nn.Softplus`, computed by :func:`dettriton.ops.softplus`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.softplus(input, self.beta, self.threshold)


class Hardswish(torch.nn.Hardswish):
    """:class:`torch.nn.Hardswish`, computed by :func:`dettriton.ops.hardswish`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.hardswish(input, self.inplace)


class Hardsigmoid(torch.nn.Hardsigmoid):
    """:class:`torch.nn.Hardsigmoid`, computed by :func:`dettriton.ops.hardsigmoid`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.hardsigmoid(input, self.inplace)


class Sigmoid(torch.nn.Sigmoid):
    """:class:`torch.nn.Sigmoid`, computed by :func:`dettriton.ops.sigmoid`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.sigmoid(input)


class Tanh(torch.nn.Tanh):
    """:class:`torch.nn.Tanh`, computed by :func:`dettriton.ops.tanh`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.tanh(input)


class GLU(torch.nn.GLU):
    """:class:`torch.nn.GLU`, computed by :func:`dettriton.ops.glu`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.glu(input, self.dim)


class _OverOneAxis:
    def __init__(self, dim: int | None = None) -> None:
        if dim is None:
            raise InputError(f"{type(self).__name__} needs its axis; pass dim, as in {type(self).__name__}(dim=1)")
        super().__init__(dim)


class Softmax(_OverOneAxis, torch.nn.Softmax):
    """:class:`torch.nn.Softmax`, computed by :func:`dettriton.ops.softmax`; ``dim`` is required."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.softmax(input, self.dim)


class LogSoftmax(_OverOneAxis, torch.nn.LogSoftmax):
    """:class:`torch.nn.LogSoftmax`, computed by :func:`dettriton.ops.log_softmax`; ``dim`` is required."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.log_softmax(input, self.dim)
