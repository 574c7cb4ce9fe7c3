"""Whether a kept state is one of a recipe's model and optimizer, before anything is taken from it.

A digest shows that a file is whole, not that it fits: torch's optimizers take any tensor, and a model converts the types
it is given, so that a state of another form would go on to other bits, or fail many steps later.
"""

from collections.abc import Callable, Iterable, Mapping, Set

import torch

from dettriton import optim
from dettriton.errors import InputError

_SHOWN = 3

Form = tuple[torch.dtype, torch.Size]
Scalars = Mapping[str, int | float]
Tensors = Mapping[str, torch.Tensor]


class MisfitError(InputError):
    """A state that holds other names, shapes, types or counts than its model and optimizer."""


def require_model_state(model: torch.nn.Module, tensors: Tensors) -> None:
    """Raise unless these are the parameters and buffers of a model, in any state: names, shapes and dtypes.

    Raises:
        MisfitError: they are not.
    """
    _require_forms("model", _forms(model.state_dict()), _forms(tensors))


def require_best_state(model: torch.nn.Module, tensors: Tensors, *, scored: bool) -> None:
    """Raise unless these are the parameters and buffers after the best epoch, of which there is none until one is scored.

    Raises:
        MisfitError: they are not.
    """
    _require_forms("best model", _forms(model.state_dict()) if scored else {}, _forms(tensors))


def require_optimizer_state(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: Tensors,
    scalars: Scalars,
    steps: int,
    sample: Callable[[], torch.Tensor],
) -> None:
    """Raise unless this is what an optimizer of a model's parameters keeps after so many steps.

    Every parameter has its whole state, or none if no gradient reaches it.

    Args:
        model, optimizer: in any state; the optimizer has the model's parameters.
        tensors, scalars: as :func:`dettriton.train.checkpoint.optimizer_state` names them.
        steps: how many are done.
        sample: gives inputs of the model, (n, ...); called where a parameter has no state.

    Raises:
        MisfitError: it is not.
    """
    moments, counts = _keys(optimizer)
    kept = {*tensors, *scalars}
    stateless: dict[str, torch.Tensor] = {}
    expected_tensors: dict[str, Form] = {}
    expected_counts: set[str] = set()
    for index, (owner, parameter) in enumerate(model.named_parameters()):
        names = {f"{index}.{key}" for key in (*moments, *counts)}
        if not (steps and names and parameter.requires_grad):
            continue
        if names.isdisjoint(kept):
            stateless[owner] = parameter
            continue
        expected_tensors |= {f"{index}.{key}": (parameter.dtype, parameter.shape) for key in moments}
        expected_counts |= {f"{index}.{key}" for key in counts}
    _require_forms("optimizer", expected_tensors, _forms(tensors))
    _require_names("optimizer", expected_counts, scalars.keys())
    for name, value in scalars.items():
        # a count beyond the steps that were done would also take as long to raise powers to
        if type(value) is not int or not 1 <= value <= steps:
            raise MisfitError(f"the optimizer's {_shown(name)} is {value!r:.40}, no count of at most {steps} steps")
    if stateless:
        _require_unreached(model, stateless, sample())


def _keys(optimizer: torch.optim.Optimizer) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What an optimizer keeps of each parameter: tensors of its form, and counts."""
    if isinstance(optimizer, optim.SGD):
        return (() if optimizer.defaults["momentum"] == 0 else ("momentum_buffer",)), ()
    return ("exp_avg", "exp_avg_sq"), ("step",)


def _require_unreached(model: torch.nn.Module, parameters: Tensors, inputs: torch.Tensor) -> None:
    was_training = model.training
    model.eval()
    try:
        logits = model(inputs.to(next(model.parameters()).device))
        gradients = torch.autograd.grad(logits.sum(), [*parameters.values()], allow_unused=True)
    finally:
        model.train(was_training)
    reached = [name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
    if reached:
        raise MisfitError(f"the optimizer has no state of {_listed(reached)}")


def _forms(tensors: Tensors) -> dict[str, Form]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}


def _require_forms(what: str, expected: Mapping[str, Form], found: Mapping[str, Form]) -> None:
    _require_names(what, expected.keys(), found.keys())
    for name, form in expected.items():
        if found[name] != form:
            raise MisfitError(
                f"the {what}'s {_shown(name)} is {_described(found[name])} and has to be {_described(form)}"
            )


def _require_names(what: str, expected: Set[str], found: Set[str]) -> None:
    missing, extra = sorted(expected - found), sorted(found - expected)
    if missing:
        raise MisfitError(f"the {what}'s {_listed(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    if extra:
        raise MisfitError(f"the {what} has no {_listed(extra)}")


def _described(form: Form) -> str:
    dtype, shape = form
    return f"{str(dtype).removeprefix('torch.')} of shape {list(shape)}"


def _listed(names: Iterable[str]) -> str:
    shown = [*map(_shown, names)]
    more = len(shown) - _SHOWN
    return ", ".join(shown[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _shown(name: str) -> str:
    return name if name.isprintable() and len(name) <= 80 else f"{name!r:.80}"
