"""Any backbone of timm (PyTorch Image Models, Wightman 2019) with every layer replaced by its exact twin.

A module of a timm model is covered if it is one of torch.nn's that dettriton.nn has, if it has a twin
(:mod:`dettriton.models.med._timm_layers`, :mod:`dettriton.models.med._timm_models`), or if its own code only calls its
layers, adds, multiplies tensors of one shape and moves data (:data:`CALLING_THEIR_LAYERS`). Every other one is refused.
"""

import re
from typing import Any

import torch

from dettriton import nn
from dettriton.errors import InputError
from dettriton.models.med._twins import TORCH_TWINS, become, check_convertible

CALLING_THEIR_LAYERS = frozenset(
    {
        "timm.layers.adaptive_avgmax_pool.SelectAdaptivePool2d",
        "timm.layers.classifier.ClassifierHead",
        "timm.layers.classifier.NormMlpClassifierHead",
        "timm.layers.conv_bn_act.ConvNormAct",
        "timm.layers.mlp.ConvMlp",
        "timm.layers.mlp.GlobalResponseNormMlp",
        "timm.layers.mlp.GluMlp",
        "timm.layers.mlp.Mlp",
        "timm.layers.mlp.SwiGLU",
        "timm.layers.patch_embed.PatchEmbed",
        "timm.models._efficientnet_blocks.ConvBnAct",
        "timm.models._efficientnet_blocks.DepthwiseSeparableConv",
        "timm.models._efficientnet_blocks.EdgeResidual",
        "timm.models._efficientnet_blocks.InvertedResidual",
        "timm.models._efficientnet_blocks.UniversalInvertedResidual",
        "timm.models.convnext.ConvNeXt",
        "timm.models.convnext.ConvNeXtStage",
        "timm.models.convnext.Downsample",
        "timm.models.regnet.Bottleneck",
        "timm.models.regnet.RegNet",
        "timm.models.regnet.RegStage",
        "timm.models.resnet.BasicBlock",
        "timm.models.resnet.Bottleneck",
        "timm.models.vision_transformer.Block",
    }
)
"""timm's classes whose own code leaves all arithmetic but sums and products of two tensors to their layers."""

LAST_IN_RESIDUAL = {
    "timm.models._efficientnet_blocks.DepthwiseSeparableConv": ("conv_pw",),
    "timm.models._efficientnet_blocks.EdgeResidual": ("conv_pwl",),
    "timm.models._efficientnet_blocks.InvertedResidual": ("conv_pwl",),
    "timm.models._efficientnet_blocks.UniversalInvertedResidual": ("pw_proj.conv",),
    "timm.models.convnext.ConvNeXtBlock": ("mlp.fc2",),
    "timm.models.regnet.Bottleneck": ("conv3.conv",),
    "timm.models.resnet.BasicBlock": ("conv2",),
    "timm.models.resnet.Bottleneck": ("conv3",),
    "timm.models.vision_transformer.Block": ("attn.proj", "mlp.fc2"),
}
"""The last layers of the residual branches of timm's blocks."""

_STAGE_FROM_0 = re.compile(r"^(?:stages|blocks)\.(\d+)")
_STAGE_FROM_1 = re.compile(r"^(?:layer|s)(\d+)(?:\.|$)")


def timm_model(name: str, **kwargs: Any) -> torch.nn.Module:
    """``timm.create_model(name, **kwargs)`` whose every layer is exact: (N, in_chans, H, W) to (N, num_classes).

    ``create_model("timm:NAME", ...)`` calls it. The state dict has timm's names. Covered are the families of ResNet
    (with ResNeXt, SE-ResNet and the variants of their stems), RegNet, ConvNeXt and ConvNeXt V2, EfficientNet, MobileNet
    V2 and V3 and MNASNet, ViT and DeiT, without the options that bring in layers outside this module's table.

    Layers carry the marks of :func:`dettriton.init.initialize`: the classifier, the last layers of residual branches, and
    as stage the number in the names ``layer1`` (stage 0), ``stages.0`` or ``blocks.0``. Layers that draw numbers have
    streams 0, 1, ... of seed 0 until :func:`dettriton.nn.set_random_state`. Without ``pretrained=True`` the weights are
    timm's initialisation, drawn from torch's random state.

    Args:
        name: of :func:`timm.list_models`, with or without a tag.
        kwargs: timm's, such as ``num_classes``, ``in_chans``, ``drop_path_rate``.

    Raises:
        InputError: timm has no such model, it does not take the arguments, or a layer has no exact twin (the first is
            named).
    """
    import timm

    if not timm.is_model(name):
        raise InputError(f"timm has no model {name!r}; see timm.list_models()")
    try:
        model = timm.create_model(name, **kwargs)
    except TypeError as error:
        raise InputError(f"timm model {name!r}: {error}") from error
    return make_exact(model)


def make_exact(model: torch.nn.Module) -> torch.nn.Module:
    """Turn every layer of a timm model into its exact twin, in place, and mark the layers for initialisation.

    Raises:
        InputError: a module has no twin. Nothing has been changed then.
    """
    from dettriton.models.med._timm_models import TWINS

    twins = TORCH_TWINS | TWINS
    modules = [(name, module, _dotted(module)) for name, module in model.named_modules()]
    for name, module, kind in modules:
        if type(module) not in twins and kind not in CALLING_THEIR_LAYERS:
            raise InputError(f"{kind} (module {name!r}) has no exact twin; choose a model or options without it")
        check_convertible(name, module)
    for _, module, _ in modules:
        if type(module) in twins:
            become(module, twins[type(module)])
    _mark(model, modules)
    nn.set_random_state(model, seed=0, step=0)
    return model


def _dotted(module: torch.nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _mark(model: torch.nn.Module, modules: list[tuple[str, torch.nn.Module, str]]) -> None:
    stage = 0
    for name, module, kind in modules:
        if found := _STAGE_FROM_0.match(name):
            stage = int(found[1])
        elif found := _STAGE_FROM_1.match(name):
            stage = int(found[1]) - 1
        if isinstance(module, (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Linear)):
            module.stage = stage
        if getattr(module, "has_skip", True):
            for last in LAST_IN_RESIDUAL.get(kind, ()):
                module.get_submodule(last).last_in_residual = True
    model.get_classifier().classifier_head = True
