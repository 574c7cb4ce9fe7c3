"""What the ECG networks share: layers that carry their stage, and pooling over time by mean and maximum."""

import torch

from dettriton import nn
from dettriton.errors import InputError


def check_sizes(model: str, **sizes: int) -> None:
    """Refuse sizes below 1.

    Raises:
        InputError: one is.
    """
    if min(sizes.values()) < 1:
        given = ", ".join(f"{name}={size}" for name, size in sizes.items())
        raise InputError(f"{model}: sizes must be positive, got {given}")


def conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stage: int,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
) -> nn.Conv1d:
    """A convolution of odd ``kernel`` from length L to ``ceil(L / stride)``."""
    layer = nn.Conv1d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=bias)
    layer.stage = stage
    return layer


def linear(in_features: int, out_features: int, *, stage: int) -> nn.Linear:
    """A linear layer."""
    layer = nn.Linear(in_features, out_features)
    layer.stage = stage
    return layer


def linear_act(in_features: int, out_features: int, activation: str, *, stage: int) -> nn.LinearAct:
    """A linear layer and the activation after it."""
    layer = nn.LinearAct(in_features, out_features, activation=activation)
    layer.stage = stage
    return layer


def ends_residual(layer: nn.Module) -> nn.Module:
    """The layer, marked as the last of a residual branch."""
    layer.last_in_residual = True
    return layer


def classifier(features: int, num_classes: int, *, stage: int) -> nn.Linear:
    """The layer that gives the logits."""
    head = linear(features, num_classes, stage=stage)
    head.classifier_head = True
    return head


class MeanMaxPool(nn.Module):
    """Mean and maximum over time: (N, C, L) to (N, 2C), the means first."""

    def __init__(self):
        super().__init__()
        self.mean = nn.AdaptiveAvgPool1d(1)
        self.maximum = nn.AdaptiveMaxPool1d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat((self.mean(x), self.maximum(x)), 1).flatten(1)
