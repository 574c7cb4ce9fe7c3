"""Cases of optimizer steps over all parameters of a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from dettriton import models, optim
from dettriton.benchmarks.case import AGAIN, UPDATE, WHOLE, Tensors
from dettriton.benchmarks.inputs import bell
from dettriton.benchmarks.variants import Variant, variants

_SETTINGS = {"lr": 1e-3, "weight_decay": 1e-2}
_STEPS = 3


@dataclass(frozen=True)
class UpdateCase:
    """AdamW over parameters of the shapes of a network's; see :class:`dettriton.benchmarks.case.Case`."""

    shapes: str
    size: str
    model: str
    op: str = "adamw"
    what: str = UPDATE
    products: bool = False
    flops: int = 0

    @property
    def name(self) -> str:
        return f"{self.op} {self.shapes}, {self.what}"

    def variants(self, device: str) -> list[Variant]:
        return variants(device, products=False, fused=True)

    def bench(self, device: str) -> UpdateBench:
        return UpdateBench(self, device)


class UpdateBench:
    """Parameters and gradients on a device."""

    def __init__(self, case: UpdateCase, device: str):
        self.case = case
        shapes = [p.shape for p in models.create_model(case.model).parameters()]
        self.host = [(bell(f"parameter {i}", *s), bell(f"gradient {i}", *s)) for i, s in enumerate(shapes)]
        self._device = device

    def work(self, variant: Variant) -> UpdateWork:
        return UpdateWork(variant, self.host, self._device)

    def reference(self, variant: Variant) -> Tensors:
        return UpdateWork(variant, self.host, "cpu").results(WHOLE)

    def comparable(self, results: Tensors) -> Tensors:
        return results


class UpdateWork:
    """One optimizer and its parameters; every call is one more step with the same gradients."""

    compositions = (WHOLE, AGAIN)

    def __init__(self, variant: Variant, host: list[tuple[torch.Tensor, torch.Tensor]], device: str):
        self._variant, self._host, self._device = variant, host, device
        self._parameters, self._optimizer = self._fresh()

    def __call__(self) -> None:
        self._optimizer.step()

    def results(self, composition: str) -> Tensors:
        """The parameters after some steps from the start."""
        parameters, optimizer = self._fresh()
        for _ in range(_STEPS):
            optimizer.step()
        return {f"parameter {i}": p.detach() for i, p in enumerate(parameters)}

    def kept(self) -> None:
        return None

    def traffic(self, results: Tensors) -> int:
        # parameter and two moments are read and written, the gradient is read
        return 7 * sum(p.nbytes for p in self._parameters)

    def _fresh(self) -> tuple[list[torch.nn.Parameter], torch.optim.Optimizer]:
        parameters = [torch.nn.Parameter(p.to(self._device, copy=True)) for p, _ in self._host]
        for parameter, (_, gradient) in zip(parameters, self._host, strict=True):
            parameter.grad = gradient.to(self._device, copy=True)
        if self._variant.ours:
            return parameters, optim.AdamW(parameters, **_SETTINGS)
        fused = {"fused": True} if self._variant.fused else {}
        return parameters, torch.optim.AdamW(parameters, **_SETTINGS, **fused)


def updates(size: str, model: str) -> Iterator[UpdateCase]:
    """AdamW over a network."""
    parameters = sum(p.numel() for p in models.create_model(model).parameters())
    yield UpdateCase(f"{model}, {parameters:,} parameters", size, model)
