"""The elementary functions on any device: the host's sequences on the CPU, their device twins in a kernel elsewhere."""

import torch

from dettriton.ops._elementwise import FORMULAS, evaluate
from dettriton.ops.elementary import EXP, LOG, LOG1P, SIGMOID, TANH

ELEMENTARY = tuple(formula.name for formula in (EXP, LOG, LOG1P, SIGMOID, TANH))


def elementary(name: str, x: torch.Tensor) -> torch.Tensor:
    """One of :data:`ELEMENTARY`, on the engine of ``x``."""
    return evaluate(FORMULAS[name], x)
