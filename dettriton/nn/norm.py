"""Normalisation modules: torch.nn's, computed by dettriton.ops."""

from typing import Any

import torch

from dettriton.ops.batch_norm import batch_norm
from dettriton.ops.group_norm import group_norm, instance_norm
from dettriton.ops.layer_norm import layer_norm
from dettriton.ops.rms_norm import rms_norm


class _ExactBatchNorm:
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return batch_norm(*self._arguments(input))

    def _arguments(self, input: torch.Tensor) -> tuple[Any, ...]:
        """The op's arguments for one more batch, which is counted."""
        self._check_input_dim(input)
        momentum = self.momentum
        track = self.training and self.track_running_stats and self.num_batches_tracked is not None
        if track:
            self.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1.0 / int(self.num_batches_tracked) if track else 0.0
        keep = not self.training or self.track_running_stats
        running_mean, running_var = (self.running_mean, self.running_var) if keep else (None, None)
        by_batch = self.training or running_mean is None
        return input, running_mean, running_var, self.weight, self.bias, by_batch, momentum, self.eps


class BatchNorm1d(_ExactBatchNorm, torch.nn.BatchNorm1d):
    """:class:`torch.nn.BatchNorm1d` by exact sums; ``momentum=None`` averages over all batches seen."""


class BatchNorm2d(_ExactBatchNorm, torch.nn.BatchNorm2d):
    """:class:`torch.nn.BatchNorm2d` by exact sums; ``momentum=None`` averages over all batches seen."""


class BatchNorm3d(_ExactBatchNorm, torch.nn.BatchNorm3d):
    """:class:`torch.nn.BatchNorm3d` by exact sums; ``momentum=None`` averages over all batches seen."""


class _ExactInstanceNorm:
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        self._check_input_dim(input)
        unbatched = input.dim() == self._get_no_batch_dim()
        batch = input.unsqueeze(0) if unbatched else input
        by_row = self.training or not self.track_running_stats
        momentum = 0.0 if self.momentum is None else self.momentum
        tracked = self.running_mean, self.running_var
        y = instance_norm(batch, *tracked, self.weight, self.bias, by_row, momentum, self.eps)
        return y.squeeze(0) if unbatched else y


class InstanceNorm1d(_ExactInstanceNorm, torch.nn.InstanceNorm1d):
    """:class:`torch.nn.InstanceNorm1d`, computed by :func:`dettriton.ops.instance_norm`."""


class InstanceNorm2d(_ExactInstanceNorm, torch.nn.InstanceNorm2d):
    """:class:`torch.nn.InstanceNorm2d`, computed by :func:`dettriton.ops.instance_norm`."""


class InstanceNorm3d(_ExactInstanceNorm, torch.nn.InstanceNorm3d):
    """:class:`torch.nn.InstanceNorm3d`, computed by :func:`dettriton.ops.instance_norm`."""


class LayerNorm(torch.nn.LayerNorm):
    """:class:`torch.nn.LayerNorm`, computed by :func:`dettriton.ops.layer_norm`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class GroupNorm(torch.nn.GroupNorm):
    """:class:`torch.nn.GroupNorm`, computed by :func:`dettriton.ops.group_norm`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class RMSNorm(torch.nn.RMSNorm):
    """:class:`torch.nn.RMSNorm`, computed by :func:`dettriton.ops.rms_norm`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return rms_norm(input, self.normalized_shape, self.weight, self.eps)
