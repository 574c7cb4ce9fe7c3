"""The way back from exact twins to timm's own classes: what :mod:`dettriton.models.med.timm_backbone` does, undone."""

import torch

from dettriton import nn
from dettriton.models._plain import LAYERS, become_stock
from dettriton.models.med._timm_models import TWINS
from dettriton.models.med.resnet import FUSED

# of the layers that are one twin, torch.nn's class is taken: timm's differ in how they are called only
_STOCK = {twin: stock for stock, twin in (TWINS | FUSED).items()} | LAYERS


def become_stock_timm(model: torch.nn.Module) -> None:
    """Turn a model of exact twins into timm's model, in place."""
    for module in list(model.modules()):
        for number in (1, 2, 3):
            if type(getattr(module, f"bn{number}", None)) is nn.BatchNormReLU2d:
                setattr(module, f"act{number}", torch.nn.ReLU(inplace=True))
    for module in list(model.modules()):
        if hasattr(module, "prepare_twin"):
            del module.head_dropout
        become_stock(module, _STOCK)
