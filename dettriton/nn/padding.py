"""Padding modules: torch.nn's, computed by dettriton.ops.pad."""

import torch

from dettriton.ops.pad import pad


class ReflectionPad1d(torch.nn.ReflectionPad1d):
    """:class:`torch.nn.ReflectionPad1d`, computed by :func:`dettriton.ops.pad`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return pad(input, self.padding, "reflect")


class ReflectionPad2d(torch.nn.ReflectionPad2d):
    """:class:`torch.nn.ReflectionPad2d`, computed by :func:`dettriton.ops.pad`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return pad(input, self.padding, "reflect")


class ReflectionPad3d(torch.nn.ReflectionPad3d):
    """:class:`torch.nn.ReflectionPad3d`, computed by :func:`dettriton.ops.pad`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return pad(input, self.padding, "reflect")


class ReplicationPad1d(torch.nn.ReplicationPad1d):
    """:class:`torch.nn.ReplicationPad1d`, computed by :func:`dettriton.ops.pad`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return pad(input, self.padding, "replicate")


class ReplicationPad2d(torch.nn.ReplicationPad2d):
    """:class:`torch.nn.ReplicationPad2d`, computed by :func:`dettriton.ops.pad`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return pad(input, self.padding, "replicate")


class ReplicationPad3d(torch.nn.ReplicationPad3d):
    """:class:`torch.nn.ReplicationPad3d`, computed by :func:`dettriton.ops.pad`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return pad(input, self.padding, "replicate")


class CircularPad1d(torch.nn.CircularPad1d):
    """:class:`torch.nn.CircularPad1d`, computed by :func:`dettriton.ops.pad`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return pad(input, self.padding, "circular")


class CircularPad2d(torch.nn.CircularPad2d):
    """:class:`torch.nn.CircularPad2d`, computed by :func:`dettriton.ops.pad`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return pad(input, self.padding, "circular")


class CircularPad3d(torch.nn.CircularPad3d):
    """:class:`torch.nn.CircularPad3d`, computed by :func:`dettriton.ops.pad`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return pad(input, self.padding, "circular")


class ConstantPad1d(torch.nn.ConstantPad1d):
    """:class:`torch.nn.ConstantPad1d`, computed by :func:`dettriton.ops.pad`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return pad(input, self.padding, "constant", self.value)


class ConstantPad2d(torch.nn.ConstantPad2d):
    """:class:`torch.nn.ConstantPad2d`, computed by :func:`dettriton.ops.pad`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return pad(input, self.padding, "constant", self.value)


class ConstantPad3d(torch.nn.ConstantPad3d):
    """:class:`torch.nn.ConstantPad3d`, computed by :func:`dettriton.ops.pad`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return pad(input, self.padding, "constant", self.value)


class ZeroPad1d(torch.nn.ZeroPad1d):
    """:class:`torch.nn.ZeroPad1d`, computed by :func:`dettriton.ops.pad`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return pad(input, self.padding, "constant")


class ZeroPad2d(torch.nn.ZeroPad2d):
    """:class:`torch.nn.ZeroPad2d`, computed by :func:`dettriton.ops.pad`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return pad(input, self.padding, "constant")


class ZeroPad3d(torch.nn.ZeroPad3d):
    """:class:`torch.nn.ZeroPad3d`, computed by :func:`dettriton.ops.pad`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return pad(input, self.padding, "constant")
