"""The baseline of Shkolnikov (arXiv 2603.28040): a BatchNorm-ReLU residual CNN with mean and max pooling and dropout.

Published: 64, 128 and 256 channels in 3, 4 and 3 blocks, 1.65 million parameters. What the publication leaves open is
chosen here to give that number (1,649,420): blocks of two 3-tap convolutions before which BatchNorm and ReLU stand (He
et al. 2016, "Identity Mappings"), a 15-tap stem of stride 2, stride 2 at the second and third stage, one-tap projections
without a norm where the shape changes, and a hidden layer of 128 before the classifier.
"""

import torch

from dettriton import nn
from dettriton.models.ecg._layers import MeanMaxPool, check_sizes, classifier, conv, ends_residual, linear_act

STEM_KERNEL = 15
KERNEL = 3


class PreActivationBlock(nn.Module):
    """BatchNorm, ReLU, convolution, twice, plus a shortcut: (N, C_in, L) to (N, C_out, ceil(L/stride))."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float, stage: int):
        super().__init__()
        self.norm1 = nn.BatchNormReLU1d(in_channels)
        self.conv1 = conv(in_channels, out_channels, KERNEL, stride=stride, stage=stage)
        self.norm2 = nn.BatchNormReLU1d(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = ends_residual(conv(out_channels, out_channels, KERNEL, stage=stage))
        self.shortcut = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = conv(in_channels, out_channels, 1, stride=stride, stage=stage)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = self.norm1(x)
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        return self.conv2(self.dropout(self.norm2(self.conv1(activated)))) + shortcut


class Baseline(nn.Module):
    """Stem, stages of pre-activation blocks, mean and maximum, a hidden layer, linear head.

    Args:
        in_channels: leads of the recording.
        num_classes: outputs of the head.
        widths: channels of the stages; the stem has the first.
        depths: blocks of each stage.
        hidden: features the classifier reads.
        dropout: probability of a zero, between the convolutions of a block and on both sides of the hidden layer.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        hidden: int,
        dropout: float,
    ):
        super().__init__()
        check_sizes("ecg_baseline", in_channels=in_channels, num_classes=num_classes)
        last = len(widths) - 1
        self.stem = conv(in_channels, widths[0], STEM_KERNEL, stride=2, stage=0)
        blocks, channels = [], widths[0]
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for block in range(depth):
                blocks.append(PreActivationBlock(channels, width, 2 if stage and not block else 1, dropout, stage))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNormReLU1d(channels)
        self.pool = MeanMaxPool()
        self.hidden = nn.Sequential(
            nn.Dropout(dropout), linear_act(2 * channels, hidden, "relu", stage=last), nn.Dropout(dropout)
        )
        self.head = classifier(hidden, num_classes, stage=last)
        nn.set_random_state(self, seed=0, step=0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.hidden(self.pool(self.norm(self.blocks(self.stem(x))))))


def ecg_baseline(in_channels: int = 12, num_classes: int = 12, dropout: float = 0.2) -> Baseline:
    """``(N, in_channels, L)`` to logits ``(N, num_classes)``; 1,649,420 parameters by default."""
    return Baseline(in_channels, num_classes, (64, 128, 256), (3, 4, 3), 128, dropout)


def ecg_baseline_tiny(in_channels: int = 12, num_classes: int = 12, dropout: float = 0.2) -> Baseline:
    """:func:`ecg_baseline` with one narrow block a stage; 10,940 parameters by default."""
    return Baseline(in_channels, num_classes, (8, 16, 32), (1, 1, 1), 32, dropout)
