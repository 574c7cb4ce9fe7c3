"""Exact twins of torch.nn's layers. A layer becomes its twin in place, so it keeps its parameters, hooks and name.

A twin is a subclass of the layer's class without parameters of its own, so the object can take the twin's class.
"""

import inspect

import torch

from dettriton import nn
from dettriton.errors import InputError
from dettriton.nn._random import Drawing

_PROJECTIONS_OF_ITS_OWN = "MultiheadAttention"

TORCH_TWINS = {
    getattr(torch.nn, name): getattr(nn, name)
    for name in nn.__all__
    if hasattr(torch.nn, name) and name != _PROJECTIONS_OF_ITS_OWN
}
"""dettriton.nn's class for each of torch.nn's; containers, which compute nothing, stand for themselves."""


def check_convertible(name: str, module: torch.nn.Module) -> None:
    """Refuse options that the twin of a layer does not have.

    Raises:
        InputError: a convolution pads with other values than zeros, a softmax has no axis, or a vision transformer
            resamples its positions to the size of the image.
    """
    if getattr(module, "padding_mode", "zeros") != "zeros":
        raise InputError(f"layer {name!r}: padding_mode {module.padding_mode!r} is not supported; use 'zeros'")
    if isinstance(module, (torch.nn.Softmax, torch.nn.LogSoftmax)) and module.dim is None:
        raise InputError(f"layer {name!r}: {type(module).__name__} needs its axis; pass dim")
    if getattr(module, "dynamic_img_size", False):
        raise InputError(f"module {name!r}: dynamic_img_size is not supported; give the images' size as img_size")


def become(module: torch.nn.Module, twin: type[torch.nn.Module]) -> None:
    """Turn a layer into its twin, at precision ``"high"`` and at step 0 of its random numbers."""
    module.__class__ = twin
    if "precision" in inspect.signature(twin).parameters:
        module.precision = "high"
    if isinstance(module, Drawing):
        module.seeded(0, 0)
    prepare = getattr(module, "prepare_twin", None)
    if prepare is not None:
        prepare()
