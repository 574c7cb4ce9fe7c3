"""The same network in stock torch.nn: every dettriton.nn module replaced by the class it stands for."""

import copy

import torch

from dettriton import nn
from dettriton.models.ecg.conformer import Attend


class PlainBatchNormReLU1d(torch.nn.BatchNorm1d):
    def forward(self, input: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        y = super().forward(input)
        return torch.relu(y if residual is None else y + residual)


class PlainLinearAct(torch.nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return getattr(torch.nn.functional, self.activation)(super().forward(input))


class PlainAttend(torch.nn.Module):
    def forward(self, *qkv: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(*qkv)


PLAIN = {
    **{getattr(nn, name): getattr(torch.nn, name) for name in nn.__all__ if hasattr(torch.nn, name)},
    nn.BatchNormReLU1d: PlainBatchNormReLU1d,
    nn.LinearAct: PlainLinearAct,
    Attend: PlainAttend,
}


def as_plain(model: torch.nn.Module) -> torch.nn.Module:
    """A copy whose layers are torch's."""
    plain = copy.deepcopy(model)
    for module in plain.modules():
        module.__class__ = PLAIN.get(type(module), type(module))
        assert not type(module).__module__.startswith("dettriton.nn")
    return plain
