"""Upsampling modules: torch.nn's, computed by dettriton.ops."""

import torch

from dettriton.ops.interpolate import interpolate


class Upsample(torch.nn.Upsample):
    """:class:`torch.nn.Upsample`, computed by :func:`dettriton.ops.interpolate`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return interpolate(
            input,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            recompute_scale_factor=self.recompute_scale_factor,
        )


class UpsamplingNearest2d(torch.nn.UpsamplingNearest2d):
    """:class:`torch.nn.UpsamplingNearest2d`, computed by :func:`dettriton.ops.interpolate`."""

    forward = Upsample.forward


class UpsamplingBilinear2d(torch.nn.UpsamplingBilinear2d):
    """:class:`torch.nn.UpsamplingBilinear2d`, computed by :func:`dettriton.ops.interpolate`."""

    forward = Upsample.forward
