"""Stopping on NaN and infinities, with the name of the tensor where they began."""

import math
from typing import Any

import torch
from torch import nn

from dettriton.errors import NonFiniteError

_ADVICE = "Lower 'lr' in [optimizer], add 'warmup_epochs' in [schedule], or look at this layer's inputs"


def require_finite_loss(value: float, where: str, model: nn.Module, inputs: torch.Tensor) -> None:
    """Raise unless the loss is finite; to name its origin, the forward pass is run once more, layer by layer.

    The model is not fit for use after an error: the second pass moved its running statistics.
    """
    if value - value == 0:
        return
    origin = _first_bad_state(model) or _first_bad_output(model, inputs) or "the loss itself"
    raise NonFiniteError(
        f"{where}: the loss is {value}, and the first tensor that is not finite is {origin}. {_ADVICE}."
    )


def require_finite_gradients(model: nn.Module, where: str) -> None:
    """Raise unless every gradient is finite; called before the parameters are updated."""
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    if not named:
        return
    # The largest magnitude: one number for the host to wait for. It is NaN where an element is.
    if not math.isfinite(torch.nn.utils.get_total_norm([grad for _, grad in named], math.inf).item()):
        name = next(name for name, grad in named if not torch.isfinite(grad).all())
        raise NonFiniteError(f"{where}: the gradient of {name} is not finite; no parameter was updated. {_ADVICE}.")


def require_finite_state(model: nn.Module, where: str) -> None:
    """Raise unless every parameter and buffer is finite."""
    origin = _first_bad_state(model)
    if origin is not None:
        raise NonFiniteError(f"{where}: {origin} is not finite after the update. {_ADVICE}.")


def _first_bad_state(model: nn.Module) -> str | None:
    kinds = (("parameter", model.named_parameters()), ("buffer", model.named_buffers()))
    return next((f"{kind} {name}" for kind, named in kinds for name, t in named if not _finite(t)), None)


def _first_bad_output(model: nn.Module, inputs: torch.Tensor) -> str | None:
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if not found and isinstance(output, torch.Tensor) and not _finite(output):
                found.append(f"the output of {name}" if name else "the model's output")

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
