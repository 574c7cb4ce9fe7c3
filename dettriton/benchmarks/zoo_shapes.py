"""The convolutions and linear layers of the zoo, found by running each network on one sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import torch

from dettriton import data, models, zoo
from dettriton.benchmarks.bits import threads
from dettriton.models._plain import as_plain

LAYERS = {torch.nn.Conv1d: "conv1d", torch.nn.Conv2d: "conv2d", torch.nn.Linear: "linear"}


@dataclass(frozen=True)
class Layer:
    """A layer as an op: what it takes of one sample and what it does.

    Attributes:
        op: ``"conv1d"``, ``"conv2d"`` or ``"linear"``.
        input: the shape of one sample's input.
        weight: the weight's shape.
        stride, padding, dilation, groups: of a convolution; one number each, for the zoo's are square.
    """

    op: str
    input: tuple[int, ...]
    weight: tuple[int, ...]
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1

    @property
    def words(self) -> str:
        """Shapes and what is not usual about it."""
        usual = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
        unusual = (f", {name} {value}" for name, plain in usual.items() if (value := getattr(self, name)) != plain)
        return "x".join(map(str, self.input)) + " by " + "x".join(map(str, self.weight)) + "".join(unusual)

    @property
    def multiplications(self) -> int:
        """Products of one sample's forward pass; each gradient has as many."""
        if self.op == "linear":
            return torch.Size((*self.input[:-1], *self.weight)).numel()
        outputs = [self._output(length, taps) for length, taps in zip(self.input[1:], self.weight[2:], strict=True)]
        return torch.Size((*outputs, *self.weight)).numel()

    def _output(self, length: int, taps: int) -> int:
        return (length + 2 * self.padding - self.dilation * (taps - 1) - 1) // self.stride + 1


def sample_shape(dataset: str) -> tuple[int, ...]:
    """The shape of one network input of a dataset."""
    info = data.describe(dataset)
    return tuple(info.signal_shape if isinstance(info, data.SignalInfo) else info.image_shape)


@cache
def layers(names: tuple[str, ...]) -> tuple[Layer, ...]:
    """The different layers of the networks of these recipes, by op and size."""
    found: dict[Layer, None] = {}
    seen = set()
    for name in names:
        recipe = zoo.recipe(name)
        shape = sample_shape(recipe.data.name)
        network = (recipe.model.name, str(recipe.model.args), shape)
        if network not in seen:
            seen.add(network)
            model = models.create_model(recipe.model.name, **recipe.model.args)
            found |= dict.fromkeys(_layers_of(as_plain(model), shape))
    return tuple(sorted(found, key=lambda layer: (layer.op, -layer.multiplications, layer.words)))


def _layers_of(model: torch.nn.Module, shape: tuple[int, ...]) -> Iterable[Layer]:
    found: list[Layer] = []

    def see(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        op = next(name for kind, name in LAYERS.items() if isinstance(module, kind))
        options = {} if op == "linear" else {k: _one(getattr(module, k)) for k in ("stride", "padding", "dilation")}
        if op != "linear":
            options["groups"] = module.groups
        found.append(Layer(op, tuple(inputs[0].shape[1:]), tuple(module.weight.shape), **options))

    for module in model.modules():
        if isinstance(module, tuple(LAYERS)):
            module.register_forward_hook(see)
    # a thread for every small layer would take longer than the layer
    with torch.no_grad(), threads(1):
        model(torch.zeros(1, *shape))
    return found


def _one(number: int | tuple[int, ...]) -> int:
    """A number given once for each dimension."""
    numbers = {number} if isinstance(number, int) else set(number)
    if len(numbers) != 1:
        raise ValueError(f"a layer of the zoo has {number} along its dimensions; benchmarks take one number for all")
    return numbers.pop()
