"""A network as torch.nn computes it: the same parameters under the same names, and none of dettriton's code.

A layer takes back the class of torch.nn's that its own extends, and a model of timm's takes back timm's classes. Any other
network is traced by torch.fx, for its ``forward`` is our code: what is left are torch.nn's layers and torch's functions.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx
from torch.nn import functional

from dettriton import nn
from dettriton.errors import InputError
from dettriton.models.ecg.conformer import Attend
from dettriton.models.med._twins import TORCH_TWINS
from dettriton.ops._fork import fork

STOCK: dict[type, type] = {nn.MultiheadAttention: torch.nn.MultiheadAttention} | {
    exact: stock for stock, exact in TORCH_TWINS.items() if exact is not stock
}
"""torch.nn's class for each of dettriton.nn's that is one layer."""

NORM_AND_RELU = {
    nn.BatchNormReLU1d: torch.nn.BatchNorm1d,
    nn.BatchNormReLU2d: torch.nn.BatchNorm2d,
    nn.BatchNormReLU3d: torch.nn.BatchNorm3d,
}
WITH_ACTIVATION = {
    nn.LinearAct: torch.nn.Linear,
    nn.Conv1dAct: torch.nn.Conv1d,
    nn.Conv2dAct: torch.nn.Conv2d,
    nn.Conv3dAct: torch.nn.Conv3d,
}
LAYERS = STOCK | NORM_AND_RELU | WITH_ACTIVATION

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "hardswish": functional.hardswish,
}

_NOT_PLAIN = "has no counterpart in torch that is known here; plain models are those of dettriton.models.list_models()"
_OURS = ("precision", "seed", "stream", "step", "activation", "stage", "last_in_residual", "classifier_head")


def as_plain(model: torch.nn.Module) -> torch.nn.Module:
    """A copy of a model in evaluation mode whose modules are torch.nn's and timm's.

    It computes in torch's own arithmetic, so its bits depend on the machine. It can be trained, compiled and exported,
    and saved whole: loading it needs torch (and timm, for a model of timm's) and not dettriton.

    Args:
        model: of :func:`dettriton.models.create_model`; it stays as it is.

    Returns:
        A module whose ``state_dict`` has the names, order and values of the model's: one of timm's classes, or a
        :class:`torch.fx.GraphModule`.

    Raises:
        InputError: the model calls an op or has a module that this module knows no counterpart of.
    """
    plain = copy.deepcopy(model)
    if _is_timm(model):
        from dettriton.models.med._stock_timm import become_stock_timm

        become_stock_timm(plain)
    else:
        plain = _traced(plain)
    for module in plain.modules():
        become_stock(module, LAYERS)
    _require_no_dettriton(plain)
    return plain.eval()


def become_stock(module: torch.nn.Module, stock: dict[type, type]) -> None:
    """Give a layer its stock class and take our marks off it; one that is in no table stays as it is."""
    kind = stock.get(type(module))
    if kind is not None:
        module.__class__ = kind
        for name in _OURS:
            vars(module).pop(name, None)


def _is_timm(model: torch.nn.Module) -> bool:
    return any(base.__module__.startswith("timm.") for base in type(model).__mro__)


def _is_ours(kind: Any) -> bool:
    return getattr(kind, "__module__", None) is not None and kind.__module__.split(".")[0] == "dettriton"


class _LayerTracer(fx.Tracer):
    """Goes into dettriton's networks down to their layers; an op that a fused layer ends with becomes a node."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(fork,))

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        return type(m) in LAYERS or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: torch.nn.Module, forward: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        if isinstance(m, Attend):
            return functional.scaled_dot_product_attention(*args)
        if type(m) in NORM_AND_RELU:
            x, *residual = args
            y = super().call_module(m, forward, (x,), kwargs)
            return functional.relu(y + residual[0] if residual else y)
        y = super().call_module(m, forward, args, kwargs)
        return ACTIVATIONS[m.activation](y) if type(m) in WITH_ACTIVATION else y

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        if obj.node.target is not fork:
            return super().iter(obj)
        readers = obj.node.args[1]
        return iter([obj[i] for i in range(readers)])


def _traced(model: torch.nn.Module) -> fx.GraphModule:
    try:
        graph = _LayerTracer().trace(model)
    except fx.proxy.TraceError as error:
        raise InputError(f"{type(model).__name__} {_NOT_PLAIN} (torch.fx: {error})") from error
    for node in list(graph.nodes):
        # torch's record of the traced classes and of where their source lies on this machine
        node.meta.clear()
        if node.target is fork:
            _join(graph, node)
    # a new one, for the traced one holds on to the class of its tracer
    own = fx.Graph()
    own.output(own.graph_copy(graph, {}))
    traced = fx.GraphModule(model, own, type(model).__name__)
    _order_as(model, traced)
    return traced


def _join(graph: fx.Graph, forked: fx.Node) -> None:
    """Readers of the parts of a fork read what was forked."""
    for part in list(forked.users):
        part.replace_all_uses_with(forked.args[0])
        graph.erase_node(part)
    graph.erase_node(forked)


def _order_as(model: torch.nn.Module, traced: torch.nn.Module) -> None:
    """Modules in the order of the model, instead of that of their first use."""
    for name, module in list(traced.named_modules()):
        for child, _ in model.get_submodule(name).named_children():
            if hasattr(module, child):
                moved = getattr(module, child)
                delattr(module, child)
                module.add_module(child, moved)


def _require_no_dettriton(plain: torch.nn.Module) -> None:
    kinds: list[Any] = [type(module) for module in plain.modules()]
    if isinstance(plain, fx.GraphModule):
        kinds += [node.target for node in plain.graph.nodes if node.op == "call_function"]
    left = next((kind for kind in kinds if _is_ours(kind)), None)
    if left is not None:
        raise InputError(f"{left.__module__}.{left.__qualname__} {_NOT_PLAIN}")
