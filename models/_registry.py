"""The registry: model names and where their factories live; a factory is imported when its model is created."""

import fnmatch
import importlib
import inspect
from types import MappingProxyType
from typing import Any

from torch import nn

from dettriton.errors import InputError

FACTORIES = MappingProxyType(
    {
        "ecg_baseline": "dettriton.models.ecg.baseline",
        "ecg_baseline_tiny": "dettriton.models.ecg.baseline",
        "ecg_conformer": "dettriton.models.ecg.conformer",
        "ecg_conformer_tiny": "dettriton.models.ecg.conformer",
        "ecg_inceptiontime": "dettriton.models.ecg.inception",
        "ecg_inceptiontime_tiny": "dettriton.models.ecg.inception",
        "ecg_resnet18": "dettriton.models.ecg.resnet",
        "ecg_resnet18_tiny": "dettriton.models.ecg.resnet",
        "ecg_xresnet50": "dettriton.models.ecg.xresnet",
        "ecg_xresnet50_tiny": "dettriton.models.ecg.xresnet",
        "med_cnn": "dettriton.models.med.cnn",
        "med_cnn_8x8": "dettriton.models.med.cnn",
        "med_resnet18": "dettriton.models.med.resnet",
        "med_resnet50": "dettriton.models.med.resnet",
    }
)

TIMM_PREFIX = "timm:"
"""``create_model("timm:NAME")`` is :func:`dettriton.models.med.timm_backbone.timm_model` of NAME."""


def list_models(filter: str = "*") -> list[str]:
    """The names of all models, sorted, that match a shell-style pattern."""
    return sorted(fnmatch.filter(FACTORIES, filter))


def create_model(model_name: str, **kwargs: Any) -> nn.Module:
    """A new model with torch.nn's default weights; initialise it with :func:`dettriton.init.initialize`.

    Args:
        model_name: one of :func:`list_models`, or ``"timm:NAME"`` for a backbone of timm's with exact layers.
        kwargs: the factory's arguments.

    Raises:
        InputError: the name is unknown, or an argument is, or a layer of the backbone has no exact twin.
    """
    if model_name.startswith(TIMM_PREFIX):
        backbones = importlib.import_module("dettriton.models.med.timm_backbone")
        return backbones.timm_model(model_name.removeprefix(TIMM_PREFIX), **kwargs)
    if model_name not in FACTORIES:
        raise InputError(f"unknown model {model_name!r}; the models are: {', '.join(list_models())}, {TIMM_PREFIX}NAME")
    factory = getattr(importlib.import_module(FACTORIES[model_name]), model_name)
    try:
        inspect.signature(factory).bind(**kwargs)
    except TypeError as error:
        known = ", ".join(inspect.signature(factory).parameters)
        raise InputError(f"model {model_name!r}: {error}; its arguments are: {known}") from error
    return factory(**kwargs)
