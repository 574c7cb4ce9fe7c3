"""ResNet-18 in one dimension (He et al. 2016, "Deep Residual Learning for Image Recognition").

Blocks of two convolutions, 5 and 3 taps wide as in the PTB-XL benchmark's one-dimensional ResNets (Strodthoff et al.
2021), after a stem of 7 taps, stride 2, and a max pooling. The length shrinks 32 times. The head reads mean and maximum.
"""

import torch

from dettriton import nn
from dettriton.models.ecg._layers import MeanMaxPool, check_sizes, classifier, conv, ends_residual

WIDTHS = (64, 128, 256, 512)
TINY_WIDTHS = (8, 16, 24, 32)
BLOCKS_PER_STAGE = 2


class BasicBlock(nn.Module):
    """Two convolutions with BatchNorm and ReLU, plus a shortcut: (N, C_in, L) to (N, C_out, ceil(L/stride))."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, stage: int):
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, 5, stride=stride, stage=stage)
        self.norm1 = nn.BatchNormReLU1d(out_channels)
        self.conv2 = ends_residual(conv(out_channels, out_channels, 3, stage=stage))
        self.norm2 = nn.BatchNormReLU1d(out_channels)
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            project = conv(in_channels, out_channels, 1, stride=stride, stage=stage)
            self.shortcut = nn.Sequential(project, nn.BatchNorm1d(out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm2(self.conv2(self.norm1(self.conv1(x))), self.shortcut(x))


class ResNet18(nn.Module):
    """Stem, four stages of two blocks, mean and maximum, linear head.

    Args:
        in_channels: leads of the recording.
        num_classes: outputs of the head.
        widths: channels of the four stages; the stem has the first.
    """

    def __init__(self, in_channels: int, num_classes: int, widths: tuple[int, ...]):
        super().__init__()
        check_sizes("ecg_resnet18", in_channels=in_channels, num_classes=num_classes)
        self.conv = conv(in_channels, widths[0], 7, stride=2, stage=0)
        self.norm = nn.BatchNormReLU1d(widths[0])
        self.max_pool = nn.MaxPool1d(3, 2, 1)
        blocks, channels = [], widths[0]
        for stage, width in enumerate(widths):
            for block in range(BLOCKS_PER_STAGE):
                blocks.append(BasicBlock(channels, width, 2 if stage and not block else 1, stage))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.pool = MeanMaxPool()
        self.head = classifier(2 * channels, num_classes, stage=len(widths) - 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.blocks(self.max_pool(self.norm(self.conv(x))))))


def ecg_resnet18(in_channels: int = 12, num_classes: int = 12) -> ResNet18:
    """``(N, in_channels, L)`` to logits ``(N, num_classes)``; 4,909,708 parameters by default."""
    return ResNet18(in_channels, num_classes, WIDTHS)


def ecg_resnet18_tiny(in_channels: int = 12, num_classes: int = 12) -> ResNet18:
    """:func:`ecg_resnet18`, 8 to 32 channels wide; 31,372 parameters by default."""
    return ResNet18(in_channels, num_classes, TINY_WIDTHS)
