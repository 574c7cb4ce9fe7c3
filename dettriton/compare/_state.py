"""A training's state in groups: parameters, buffers and the optimizer's state, each by the parameter's name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dettriton.digest import Difference, all_differences
from dettriton.errors import DettritonError
from dettriton.train._run import make_model
from dettriton.train.checkpoint import named_optimizer_state
from dettriton.train.recipe import parse_recipe

PARAMETERS, BUFFERS, OPTIMIZER, WEIGHTS = "parameters", "buffers", "optimizer state", "weights"

Groups = dict[str, list[Difference]]


@dataclass(frozen=True)
class Names:
    """Names of a model's parameters, in the optimizer's order, and of its buffers."""

    parameters: tuple[str, ...]
    buffers: frozenset[str]


def names_of_model(model: torch.nn.Module) -> Names:
    """The names that a model has."""
    return Names(
        tuple(name for name, _ in model.named_parameters()), frozenset(name for name, _ in model.named_buffers())
    )


def names_of_recipe(tables: Mapping[str, Any] | None) -> Names | None:
    """The names of a recipe's model; None if the recipe is not known or its model cannot be made here."""
    if tables is None:
        return None
    try:
        return names_of_model(make_model(parse_recipe(tables)))
    except DettritonError:
        return None


def split_weights(tensors: Mapping[str, torch.Tensor], names: Names | None) -> dict[str, dict[str, torch.Tensor]]:
    """Parameters and buffers apart, or all as weights where the model is not known."""
    if names is None:
        return {WEIGHTS: dict(tensors)}
    return {
        PARAMETERS: {name: t for name, t in tensors.items() if name not in names.buffers},
        BUFFERS: {name: t for name, t in tensors.items() if name in names.buffers},
    }


def optimizer_group(
    tensors: Mapping[str, torch.Tensor], scalars: Mapping[str, int | float], names: Names | None
) -> dict[str, torch.Tensor]:
    """:func:`dettriton.train.checkpoint.named_optimizer_state` with the names that are known."""
    return named_optimizer_state(tensors, scalars, () if names is None else names.parameters)


def state_groups(
    model: Mapping[str, torch.Tensor],
    optimizer: Mapping[str, torch.Tensor],
    scalars: Mapping[str, int | float],
    names: Names | None,
) -> dict[str, dict[str, torch.Tensor]]:
    """A whole state: :func:`split_weights` and :func:`optimizer_group`."""
    return {**split_weights(model, names), OPTIMIZER: optimizer_group(optimizer, scalars, names)}


def differing_groups(
    a: Mapping[str, Mapping[str, torch.Tensor]], b: Mapping[str, Mapping[str, torch.Tensor]]
) -> Groups:
    """The groups that differ, with every tensor that does."""
    found = {
        group: all_differences(a.get(group, {}), b.get(group, {})) for group in [*a, *(g for g in b if g not in a)]
    }
    return {group: differences for group, differences in found.items() if differences}
