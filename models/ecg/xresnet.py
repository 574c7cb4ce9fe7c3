"""xresnet1d50, the strongest network of the PTB-XL benchmark (Strodthoff et al. 2021, "Deep Learning for ECG Analysis").

The ResNet-50 of He et al. 2019 ("Bag of Tricks") in one dimension: three convolutions in the stem, bottlenecks four
times as wide as their middle, which is 5 taps wide and holds the stride, and shortcuts that average before they project.
The length shrinks 32 times. The head reads mean and maximum.
"""

import torch

from dettriton import nn
from dettriton.models.ecg._layers import MeanMaxPool, check_sizes, classifier, conv, ends_residual

EXPANSION = 4
KERNEL = 5


class Bottleneck(nn.Module):
    """1, 5 and 1 taps with BatchNorm and ReLU, plus a shortcut: (N, C_in, L) to (N, 4 width, ceil(L/stride))."""

    def __init__(self, in_channels: int, width: int, stride: int, stage: int):
        super().__init__()
        out_channels = EXPANSION * width
        self.conv1 = conv(in_channels, width, 1, stage=stage)
        self.norm1 = nn.BatchNormReLU1d(width)
        self.conv2 = conv(width, width, KERNEL, stride=stride, stage=stage)
        self.norm2 = nn.BatchNormReLU1d(width)
        self.conv3 = ends_residual(conv(width, out_channels, 1, stage=stage))
        self.norm3 = nn.BatchNormReLU1d(out_channels)
        shortcut = [nn.AvgPool1d(stride, ceil_mode=True)] if stride != 1 else []
        if in_channels != out_channels:
            shortcut += [conv(in_channels, out_channels, 1, stage=stage), nn.BatchNorm1d(out_channels)]
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        middle = self.norm2(self.conv2(self.norm1(self.conv1(x))))
        return self.norm3(self.conv3(middle), self.shortcut(x))


class XResNet(nn.Module):
    """Stem, four stages of bottlenecks, mean and maximum, linear head.

    Args:
        in_channels: leads of the recording.
        num_classes: outputs of the head.
        stem: channels of the stem's three convolutions.
        widths: middle channels of the bottlenecks of each stage.
        depths: bottlenecks of each stage.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        stem: tuple[int, ...],
        widths: tuple[int, ...],
        depths: tuple[int, ...],
    ):
        super().__init__()
        check_sizes("ecg_xresnet50", in_channels=in_channels, num_classes=num_classes)
        layers, channels = [], in_channels
        for i, width in enumerate(stem):
            layers += [conv(channels, width, KERNEL, stride=1 if i else 2, stage=0), nn.BatchNormReLU1d(width)]
            channels = width
        self.stem = nn.Sequential(*layers, nn.MaxPool1d(3, 2, 1))
        blocks = []
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for block in range(depth):
                blocks.append(Bottleneck(channels, width, 2 if stage and not block else 1, stage))
                channels = EXPANSION * width
        self.blocks = nn.Sequential(*blocks)
        self.pool = MeanMaxPool()
        self.head = classifier(2 * channels, num_classes, stage=len(widths) - 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.blocks(self.stem(x))))


def ecg_xresnet50(in_channels: int = 12, num_classes: int = 12) -> XResNet:
    """``(N, in_channels, L)`` to logits ``(N, num_classes)``; 18,535,308 parameters by default."""
    return XResNet(in_channels, num_classes, (32, 32, 64), (64, 128, 256, 512), (3, 4, 6, 3))


def ecg_xresnet50_tiny(in_channels: int = 12, num_classes: int = 12) -> XResNet:
    """:func:`ecg_xresnet50` with one narrow bottleneck a stage; 31,500 parameters by default."""
    return XResNet(in_channels, num_classes, (8, 8, 16), (4, 8, 16, 32), (1, 1, 1, 1))
