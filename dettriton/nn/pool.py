"""Pooling modules: torch.nn's, computed by dettriton.ops."""

from collections.abc import Callable

import torch

from dettriton import ops
from dettriton.nn._random import Drawing
from dettriton.ops._pool import Size
from dettriton.ops.adaptive_max_pool import adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d
from dettriton.ops.avg_pool import adaptive_avg_pool3d, avg_pool3d
from dettriton.ops.fractional_max_pool import fractional_max_pool2d, fractional_max_pool3d
from dettriton.ops.max_pool import max_pool3d
from dettriton.ops.max_unpool import max_unpool1d, max_unpool2d, max_unpool3d


class MaxPool1d(torch.nn.MaxPool1d):
    """:class:`torch.nn.MaxPool1d`, computed by :func:`dettriton.ops.max_pool1d`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.max_pool1d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )


class MaxPool2d(torch.nn.MaxPool2d):
    """:class:`torch.nn.MaxPool2d`, computed by :func:`dettriton.ops.max_pool2d`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.max_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )


class AvgPool1d(torch.nn.AvgPool1d):
    """:class:`torch.nn.AvgPool1d`, computed by :func:`dettriton.ops.avg_pool1d`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.avg_pool1d(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )


class AvgPool2d(torch.nn.AvgPool2d):
    """:class:`torch.nn.AvgPool2d`, computed by :func:`dettriton.ops.avg_pool2d`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class AdaptiveAvgPool1d(torch.nn.AdaptiveAvgPool1d):
    """:class:`torch.nn.AdaptiveAvgPool1d`, computed by :func:`dettriton.ops.adaptive_avg_pool1d`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(torch.nn.AdaptiveAvgPool2d):
    """:class:`torch.nn.AdaptiveAvgPool2d`, computed by :func:`dettriton.ops.adaptive_avg_pool2d`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ops.adaptive_avg_pool2d(input, self.output_size)


class MaxPool3d(torch.nn.MaxPool3d):
    """:class:`torch.nn.MaxPool3d`, computed by :func:`dettriton.ops.max_pool3d`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return max_pool3d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )


class AvgPool3d(torch.nn.AvgPool3d):
    """:class:`torch.nn.AvgPool3d`, computed by :func:`dettriton.ops.avg_pool3d`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return avg_pool3d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class AdaptiveAvgPool3d(torch.nn.AdaptiveAvgPool3d):
    """:class:`torch.nn.AdaptiveAvgPool3d`, computed by :func:`dettriton.ops.adaptive_avg_pool3d`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return adaptive_avg_pool3d(input, self.output_size)


class AdaptiveMaxPool1d(torch.nn.AdaptiveMaxPool1d):
    """:class:`torch.nn.AdaptiveMaxPool1d`, computed by :func:`dettriton.ops.adaptive_max_pool1d`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return adaptive_max_pool1d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool2d(torch.nn.AdaptiveMaxPool2d):
    """:class:`torch.nn.AdaptiveMaxPool2d`, computed by :func:`dettriton.ops.adaptive_max_pool2d`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return adaptive_max_pool2d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool3d(torch.nn.AdaptiveMaxPool3d):
    """:class:`torch.nn.AdaptiveMaxPool3d`, computed by :func:`dettriton.ops.adaptive_max_pool3d`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return adaptive_max_pool3d(input, self.output_size, self.return_indices)


class _DrawnWindows(Drawing):
    _pool: Callable

    def __init__(
        self,
        kernel_size: Size,
        output_size: Size | None = None,
        output_ratio: float | tuple[float, ...] | None = None,
        return_indices: bool = False,
        _random_samples: torch.Tensor | None = None,
        *,
        seed: int = 0,
        stream: int = 0,
    ) -> None:
        super().__init__(kernel_size, output_size, output_ratio, return_indices, _random_samples)
        self.seeded(seed, stream)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        rng = self.next_numbers(advance=self._random_samples is None)
        return self._pool(
            input,
            self.kernel_size,
            self.output_size,
            self.output_ratio,
            self.return_indices,
            self._random_samples,
            rng=rng,
        )


class FractionalMaxPool2d(_DrawnWindows, torch.nn.FractionalMaxPool2d):
    """:class:`torch.nn.FractionalMaxPool2d` whose windows are a function of (seed, stream, step), on any device.

    ``step`` is a plain integer that each forward without ``_random_samples`` uses and then raises by one, in training
    and in evaluation, as torch draws in both. It is not part of ``state_dict``.

    Args:
        kernel_size, output_size, output_ratio, return_indices, _random_samples: torch's.
        seed, stream: the key of this module's samples.
    """

    _pool = staticmethod(fractional_max_pool2d)


class FractionalMaxPool3d(_DrawnWindows, torch.nn.FractionalMaxPool3d):
    """:class:`torch.nn.FractionalMaxPool3d` whose windows are drawn as :class:`FractionalMaxPool2d`'s."""

    _pool = staticmethod(fractional_max_pool3d)


class MaxUnpool1d(torch.nn.MaxUnpool1d):
    """:class:`torch.nn.MaxUnpool1d`, computed by :func:`dettriton.ops.max_unpool1d`."""

    def forward(self, input: torch.Tensor, indices: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        return max_unpool1d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool2d(torch.nn.MaxUnpool2d):
    """:class:`torch.nn.MaxUnpool2d`, computed by :func:`dettriton.ops.max_unpool2d`."""

    def forward(self, input: torch.Tensor, indices: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        return max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool3d(torch.nn.MaxUnpool3d):
    """:class:`torch.nn.MaxUnpool3d`, computed by :func:`dettriton.ops.max_unpool3d`."""

    def forward(self, input: torch.Tensor, indices: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        return max_unpool3d(input, indices, self.kernel_size, self.stride, self.padding, output_size)
