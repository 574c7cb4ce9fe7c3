"""The Conformer of Shkolnikov (arXiv 2603.28040): bottleneck convolutions, then Conformer blocks (Gulati et al. 2020).

Published: 40 base channels, 3, 4 and 23 blocks of bottleneck convolution with LayerNorm and GELU, three Conformer blocks
with 4 heads, a 14-wide bottleneck before the 12 classes, 1.83 million parameters. What the publication leaves open is
chosen here to give that number (1,832,094): 40, 80 and 160 channels; a 15-tap stem of stride 2 and a 3-tap convolution of
stride 2 between the stages, so that 125 moments of 1000 samples reach attention; bottlenecks a quarter as wide, 7
taps in the middle, LayerNorm and GELU before each of the three convolutions; feed-forward layers twice as wide as their
input; 31 taps in the convolution module.

LayerNorm stands where the original Conformer has BatchNorm, so no result depends on the rest of the batch. There is no
encoding of positions: the convolutions see them.
"""

import torch

from dettriton import nn, ops
from dettriton.models.ecg._layers import MeanMaxPool, check_sizes, classifier, conv, ends_residual, linear, linear_act

STEM_KERNEL = 15
BOTTLENECK_KERNEL = 7
DEPTHWISE_KERNEL = 31
ATTENTION_STAGE = 3


def over_channels(norm: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    """A norm over the channels of each moment: (N, C, L) to (N, C, L)."""
    return norm(x.transpose(1, 2)).transpose(1, 2)


class BottleneckBlock(nn.Module):
    """LayerNorm, GELU and a convolution of 1, 7 and 1 taps, plus the input: (N, C, L) to (N, C, L)."""

    def __init__(self, channels: int, width: int, stage: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in (channels, width, width))
        self.gelu = nn.GELU()
        self.convs = nn.ModuleList(
            (
                conv(channels, width, 1, stage=stage),
                conv(width, width, BOTTLENECK_KERNEL, stage=stage),
                ends_residual(conv(width, channels, 1, stage=stage)),
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = x
        for norm, layer in zip(self.norms, self.convs, strict=True):
            branch = layer(self.gelu(over_channels(norm, branch)))
        return x + branch


class FeedForward(nn.Module):
    """LayerNorm, a layer ``expansion`` times as wide with SiLU, and back: (N, L, C) to (N, L, C)."""

    def __init__(self, channels: int, expansion: int, dropout: float, stage: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.widen = linear_act(channels, expansion * channels, "silu", stage=stage)
        self.dropout1 = nn.Dropout(dropout)
        self.narrow = ends_residual(linear(expansion * channels, channels, stage=stage))
        self.dropout2 = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout2(self.narrow(self.dropout1(self.widen(self.norm(x)))))


class Attend(nn.Module):
    """Scaled dot-product attention of queries, keys and values, each (N, heads, L, width).

    ``MultiheadAttention`` holds its projections in one parameter, for which initialisation has no rule.
    """

    def __init__(self):
        super().__init__()
        self.precision = "high"

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return ops.scaled_dot_product_attention(q, k, v, precision=self.precision)


class SelfAttention(nn.Module):
    """LayerNorm and attention of every moment to every moment: (N, L, C) to (N, L, C)."""

    def __init__(self, channels: int, heads: int, dropout: float, stage: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = linear(channels, 3 * channels, stage=stage)
        self.attend = Attend()
        self.project = ends_residual(linear(channels, channels, stage=stage))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.dropout(self.project(self.attend(q, k, v).transpose(1, 2).flatten(2)))


class ConvolutionModule(nn.Module):
    """LayerNorm, a gated layer, a convolution of each channel, LayerNorm, SiLU, a layer: (N, C, L) to (N, C, L)."""

    def __init__(self, channels: int, dropout: float, stage: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.widen = conv(channels, 2 * channels, 1, stage=stage, bias=True)
        self.gate = nn.GLU(1)
        self.depthwise = conv(channels, channels, DEPTHWISE_KERNEL, groups=channels, stage=stage, bias=True)
        self.norm2 = nn.LayerNorm(channels)
        self.silu = nn.SiLU()
        self.project = ends_residual(conv(channels, channels, 1, stage=stage, bias=True))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.gate(self.widen(over_channels(self.norm1, x))))
        return self.dropout(self.project(self.silu(over_channels(self.norm2, x))))


class ConformerBlock(nn.Module):
    """Half a feed-forward layer, attention, convolution, half a feed-forward layer, LayerNorm: (N, C, L) to (N, C, L)."""

    def __init__(self, channels: int, heads: int, expansion: int, dropout: float, stage: int):
        super().__init__()
        self.first = FeedForward(channels, expansion, dropout, stage)
        self.attention = SelfAttention(channels, heads, dropout, stage)
        self.convolution = ConvolutionModule(channels, dropout, stage)
        self.second = FeedForward(channels, expansion, dropout, stage)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.transpose(1, 2)
        x = x + 0.5 * self.first(x)
        x = x + self.attention(x)
        x = x + self.convolution(x.transpose(1, 2)).transpose(1, 2)
        x = x + 0.5 * self.second(x)
        return self.norm(x).transpose(1, 2)


class Conformer(nn.Module):
    """Stem, stages of bottleneck blocks, Conformer blocks, mean and maximum, a narrow layer, linear head.

    Args:
        in_channels: leads of the recording.
        num_classes: outputs of the head.
        stem_stride: of the stem; each further stage halves the length again.
        base: channels of the stem and the first stage; each further stage has twice as many.
        depths: bottleneck blocks of each stage.
        conformers: Conformer blocks.
        heads: of their attention.
        dropout: probability of a zero at the ends of a Conformer block's branches and inside its feed-forward layers.
        features: width of the layer that the classifier reads.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        stem_stride: int,
        base: int,
        depths: tuple[int, ...],
        conformers: int,
        heads: int,
        dropout: float,
        features: int,
    ):
        super().__init__()
        check_sizes("ecg_conformer", in_channels=in_channels, num_classes=num_classes)
        self.stem = conv(in_channels, base, STEM_KERNEL, stride=stem_stride, stage=0)
        blocks, channels = [], base
        for stage, depth in enumerate(depths):
            if stage:
                blocks.append(conv(channels, 2 * channels, 3, stride=2, stage=stage))
                channels *= 2
            blocks += [BottleneckBlock(channels, channels // 4, stage) for _ in range(depth)]
        self.blocks = nn.Sequential(*blocks)
        self.conformers = nn.Sequential(
            *(ConformerBlock(channels, heads, 2, dropout, ATTENTION_STAGE) for _ in range(conformers))
        )
        self.pool = MeanMaxPool()
        self.features = linear(2 * channels, features, stage=ATTENTION_STAGE)
        self.head = classifier(features, num_classes, stage=ATTENTION_STAGE)
        nn.set_random_state(self, seed=0, step=0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(self.pool(self.conformers(self.blocks(self.stem(x))))))


def ecg_conformer(in_channels: int = 12, num_classes: int = 12, dropout: float = 0.1) -> Conformer:
    """``(N, in_channels, L)`` to logits ``(N, num_classes)``; 1,832,094 parameters by default."""
    return Conformer(in_channels, num_classes, 2, 40, (3, 4, 23), 3, 4, dropout, 14)


def ecg_conformer_tiny(in_channels: int = 12, num_classes: int = 12, dropout: float = 0.1) -> Conformer:
    """:func:`ecg_conformer`, 8 to 32 channels wide: fewer blocks, a stem of stride 4; 24,118 parameters by default."""
    return Conformer(in_channels, num_classes, 4, 8, (1, 1, 2), 1, 4, dropout, 14)
