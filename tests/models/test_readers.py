"""No tensor of a network sends gradients to three readers: torch would choose the order in which they are added."""

import pytest
import torch
from gradient_readers import most_readers

from dettriton.models import create_model, list_models

BACKBONES = ("resnet18", "convnextv2_atto", "efficientnet_b0", "mobilenetv3_small_100", "regnety_002", "seresnet50")


def images(channels: int, side: int) -> torch.Tensor:
    return torch.ones(2, channels, side, side)


def inputs_of(name: str) -> torch.Tensor:
    if name.startswith("ecg"):
        return torch.ones(2, 12, 96)
    return images(1, 8) if name == "med_cnn_8x8" else images(3, 28)


@pytest.mark.parametrize("name", list_models())
def test_verify_the_models(name):
    assert most_readers(create_model(name)(inputs_of(name))) == 2


@pytest.mark.parametrize("name", BACKBONES)
def test_verify_backbones_of_timm(name):
    assert most_readers(create_model(f"timm:{name}", num_classes=3)(images(3, 64))) == 2


def test_a_tensor_read_three_times_is_seen():
    x = torch.ones(2, requires_grad=True) * 2.0
    assert most_readers((x + x) + x) == 3
