"""InceptionTime (Ismail Fawaz et al. 2020, "InceptionTime: Finding AlexNet for Time Series Classification").

Modules of three parallel convolutions behind a one-tap bottleneck, and a pooled branch, at the full length; a shortcut
around every three modules. As in the PTB-XL benchmark (Strodthoff et al. 2021) the kernels are odd, 39, 19 and 9 taps
for 40, 20 and 10, so that the length stays, and the head reads mean and maximum.

No layer is marked as the last of a residual branch: a branch ends in ReLU, which would pass no gradient back if the
convolutions before it started at zero.
"""

import torch

from dettriton import nn
from dettriton.models.ecg._layers import MeanMaxPool, check_sizes, classifier, conv
from dettriton.ops._fork import fork

MODULES_PER_BLOCK = 3


class InceptionModule(nn.Module):
    """(N, C, L) to (N, filters * (kernels + 1), L), then BatchNorm and ReLU."""

    def __init__(self, in_channels: int, filters: int, bottleneck: int, kernels: tuple[int, ...], stage: int):
        super().__init__()
        self.bottleneck = conv(in_channels, bottleneck, 1, stage=stage)
        self.branches = nn.ModuleList(conv(bottleneck, filters, kernel, stage=stage) for kernel in kernels)
        self.pool = nn.MaxPool1d(3, 1, 1)
        self.pooled = conv(in_channels, filters, 1, stage=stage)
        self.norm = nn.BatchNormReLU1d(filters * (len(kernels) + 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        narrow = fork(self.bottleneck(x), len(self.branches))
        wide = [branch(part) for branch, part in zip(self.branches, narrow, strict=True)]
        return self.norm(torch.cat([*wide, self.pooled(self.pool(x))], 1))


class InceptionBlock(nn.Module):
    """Three modules and a projected shortcut around them."""

    def __init__(self, in_channels: int, filters: int, bottleneck: int, kernels: tuple[int, ...], first_stage: int):
        super().__init__()
        width = filters * (len(kernels) + 1)
        self.branch = nn.Sequential(
            *(
                InceptionModule(width if i else in_channels, filters, bottleneck, kernels, first_stage + i)
                for i in range(MODULES_PER_BLOCK)
            )
        )
        self.shortcut = conv(in_channels, width, 1, stage=first_stage)
        self.norm = nn.BatchNormReLU1d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The branch reads it twice: without a fork the order of three gradients would be torch's.
        around, through = fork(x, 2)
        return self.norm(self.shortcut(around), self.branch(through))


class InceptionTime(nn.Module):
    """Blocks of three modules, mean and maximum, linear head. A module's stage is its place.

    Args:
        in_channels: leads of the recording.
        num_classes: outputs of the head.
        depth: modules, a multiple of 3.
        filters: channels of each branch of a module.
        bottleneck: channels that a module's convolutions read.
        kernels: taps of a module's convolutions, odd.
        shrink: how many samples of the signal are averaged into one first; 1 in the papers.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        depth: int,
        filters: int,
        bottleneck: int,
        kernels: tuple[int, ...],
        shrink: int = 1,
    ):
        super().__init__()
        check_sizes("ecg_inceptiontime", in_channels=in_channels, num_classes=num_classes)
        width = filters * (len(kernels) + 1)
        self.shrink = nn.AvgPool1d(shrink) if shrink > 1 else nn.Identity()
        self.blocks = nn.Sequential(
            *(
                InceptionBlock(width if first else in_channels, filters, bottleneck, kernels, first)
                for first in range(0, depth, MODULES_PER_BLOCK)
            )
        )
        self.pool = MeanMaxPool()
        self.head = classifier(2 * width, num_classes, stage=depth - 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.blocks(self.shrink(x))))


def ecg_inceptiontime(in_channels: int = 12, num_classes: int = 12) -> InceptionTime:
    """``(N, in_channels, L)`` to logits ``(N, num_classes)``; 476,428 parameters by default."""
    return InceptionTime(in_channels, num_classes, 6, 32, 32, (39, 19, 9))


def ecg_inceptiontime_tiny(in_channels: int = 12, num_classes: int = 12) -> InceptionTime:
    """:func:`ecg_inceptiontime` of three narrow modules on pairs of samples; 15,500 parameters by default.

    Pairs, so that three modules still see more than two seconds: a rhythm shows in several beats.
    """
    return InceptionTime(in_channels, num_classes, 3, 8, 8, (39, 19, 9), shrink=2)
