"""ResNet-18 and ResNet-50 (He et al. 2016, "Deep Residual Learning for Image Recognition") for images of 28x28.

timm's networks, layer names and state dicts, with the stem of MedMNIST v2 (Yang et al. 2023) and of Shkolnikov
(arXiv 2603.28040): one 3x3 convolution of stride 1 and no pooling, so that four stages see 28x28 to 4x4. BatchNorm,
the shortcut and ReLU are one op.
"""

import torch
from timm.models import resnet

from dettriton import nn
from dettriton.errors import InputError
from dettriton.models.med._twins import become
from dettriton.models.med.timm_backbone import make_exact


class BasicBlock(resnet.BasicBlock):
    """timm's block of the same name, whose norms include the activations."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.bn2(self.conv2(self.bn1(self.conv1(x))), shortcut)


class Bottleneck(resnet.Bottleneck):
    """timm's block of the same name, whose norms include the activations."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.bn3(self.conv3(self.bn2(self.conv2(self.bn1(self.conv1(x))))), shortcut)


FUSED = {resnet.BasicBlock: BasicBlock, resnet.Bottleneck: Bottleneck}


def _for_small_images(name: str, block: type, depths: tuple[int, ...], in_channels: int, classes: int) -> resnet.ResNet:
    if in_channels < 1 or classes < 1:
        raise InputError(f"{name}: in_channels and num_classes must be positive, got {in_channels}, {classes}")
    model = resnet.ResNet(block, depths, num_classes=classes, in_chans=in_channels)
    model.conv1 = torch.nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    model.maxpool = torch.nn.Identity()
    make_exact(model)
    for owner in list(model.modules()):
        if type(owner) in FUSED:
            become(owner, FUSED[type(owner)])
        if owner is model or isinstance(owner, tuple(FUSED)):
            _fuse_activations(owner)
    return model


def _fuse_activations(owner: torch.nn.Module) -> None:
    for number in (1, 2, 3):
        if hasattr(owner, f"act{number}"):
            become(getattr(owner, f"bn{number}"), nn.BatchNormReLU2d)
            setattr(owner, f"act{number}", nn.Identity())


def med_resnet18(in_channels: int = 3, num_classes: int = 8) -> resnet.ResNet:
    """``(N, in_channels, 28, 28)`` to logits ``(N, num_classes)``; 11,172,936 parameters by default."""
    return _for_small_images("med_resnet18", resnet.BasicBlock, (2, 2, 2, 2), in_channels, num_classes)


def med_resnet50(in_channels: int = 3, num_classes: int = 8) -> resnet.ResNet:
    """``(N, in_channels, 28, 28)`` to logits ``(N, num_classes)``; 23,516,744 parameters by default."""
    return _for_small_images("med_resnet50", resnet.Bottleneck, (3, 4, 6, 3), in_channels, num_classes)
