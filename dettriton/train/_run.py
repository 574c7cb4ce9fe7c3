"""A training run in memory: model, optimizer and data, one step at a time."""

import math
from collections.abc import Mapping
from typing import Protocol

import torch

from dettriton import models, nn, ops, optim, schedules
from dettriton.data import ArrayDataset, Dataset, epoch_order, to_float
from dettriton.data.dataset import MULTI_LABEL
from dettriton.digest import digest, named_tensors, tensor_digest
from dettriton.errors import EngineError, InputError
from dettriton.init import initialize
from dettriton.train._finite import require_finite_gradients, require_finite_loss
from dettriton.train._fit import Scalars, Tensors, require_model_state, require_optimizer_state
from dettriton.train.batches import augmentation, batch_bounds, move_pixels, pos_weight
from dettriton.train.recipe import Cosine, Recipe, Step

_OPTIMIZERS = {"sgd": optim.SGD, "adam": optim.Adam, "adamw": optim.AdamW}


class Watcher(Protocol):
    """What a run shows its steps to."""

    def batch(self, order: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        """The indices of the step's samples, what the model is given of them, and their labels."""

    def gradients(self, model: torch.nn.Module) -> None:
        """The model before the optimizer's step, its gradients complete."""


class Run:
    """What a recipe makes of its data.

    Attributes:
        model: initialised, on the device.
        init_digest: digest of the model before step 0.
        steps_per_epoch, total_steps: counted in optimizer steps.
        watcher: sees the batch and the gradients of each step, and must change nothing; None for nobody.

    Raises:
        InputError: recipe, model and data do not fit together.
        EngineError: the device is not here.
    """

    watcher: Watcher | None = None

    def __init__(self, recipe: Recipe, splits: Mapping[str, Dataset], device: str):
        self.recipe = recipe
        self.splits = splits
        self.device = find_device(device)
        data = splits["train"]
        _require_fitting_loss(recipe, data)
        _require_images_to_move(recipe, data)
        self.model = build_model(recipe)
        _require_fitting_output(self.model, data)
        self.init_digest = digest(self.model)
        self.model.to(self.device)
        self.optimizer = make_optimizer(recipe, self.model)
        self._data = data.to(self.device)
        weight = pos_weight(recipe.train.pos_weight, data.labels)
        self._pos_weight = None if weight is None else weight.to(self.device)
        self._bounds = list(batch_bounds(len(data), recipe.train.batch_size))
        self.steps_per_epoch = len(self._bounds)
        self.total_steps = self.steps_per_epoch * recipe.train.epochs
        self._epoch = -1

    def step(self, step: int) -> float:
        """Compute step ``step`` (from 0), update the model, and return the loss, a binary32 number.

        Raises:
            NonFiniteError: the loss or a gradient is not finite; the parameters are as they were before the step.
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        self._enter(epoch)
        begin, end = self._bounds[position]
        chosen = self._order[begin:end]
        nn.set_random_state(self.model, self.recipe.train.seed, step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        inputs = self._inputs(chosen)
        labels = self._data.labels[chosen]
        if self.watcher is not None:
            self.watcher.batch(chosen, inputs, labels)
        loss = self._loss(self.model(inputs), labels)
        value = loss.item()
        where = f"step {step} of epoch {epoch} (both counted from 0)"
        require_finite_loss(value, where, self.model, inputs)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        require_finite_gradients(self.model, where)
        if self.watcher is not None:
            self.watcher.gradients(self.model)
        self.optimizer.step()
        return value

    def learning_rate(self, step: int) -> float:
        """The rate of step ``step``: a function of the recipe, the number of steps in an epoch, and the step alone."""
        schedule, lr = self.recipe.schedule, self.recipe.optimizer.lr
        warmup_steps = schedule.warmup_epochs * self.steps_per_epoch
        if isinstance(schedule, Cosine):
            return schedules.cosine(step, self.total_steps, lr, warmup_steps, schedule.min_lr)
        if isinstance(schedule, Step):
            step_size = schedule.every_epochs * self.steps_per_epoch
            return schedules.step_decay(step, lr, step_size=step_size, gamma=schedule.gamma, warmup_steps=warmup_steps)
        return schedules.warmup(step, lr, warmup_steps)

    def tensor_digests(self) -> dict[str, str]:
        """Name to digest of every parameter and buffer."""
        return {name: tensor_digest(name, t) for name, t in named_tensors(self.model).items()}

    def state(self) -> dict[str, torch.Tensor]:
        """A copy of every parameter and buffer, on the CPU."""
        return {name: t.detach().to("cpu", copy=True) for name, t in self.model.state_dict().items()}

    def require_state(self, model: Tensors, optimizer: Tensors, scalars: Scalars, steps: int) -> None:
        """Raise unless a kept state is one of this run's model and optimizer after so many steps.

        Raises:
            MisfitError: names, shapes, types or counts are others.
        """
        require_model_state(self.model, model)
        sample = lambda: self.splits["train"].inputs(slice(0, 1))  # noqa: E731 one call's argument
        require_optimizer_state(self.model, self.optimizer, optimizer, scalars, steps, sample)

    def _enter(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        self.model.train()
        recipe, n = self.recipe, len(self._data)
        order = epoch_order(recipe.order.kind, n, epoch, recipe.order.seed)
        self._order = torch.as_tensor(order, dtype=torch.int64).to(self.device)
        choices = augmentation(recipe.augment, n, epoch, recipe.train.seed)
        self._choices = None if choices is None else choices.to(self.device)
        self._epoch = epoch

    def _inputs(self, chosen: torch.Tensor) -> torch.Tensor:
        if self._choices is None:
            return self._data.inputs(chosen)
        images = move_pixels(self._data.images[chosen], self._choices[chosen], self.recipe.augment.crop_padding)
        return to_float(images, self._data.scale)

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.recipe.train.loss == "cross_entropy":
            return ops.cross_entropy(logits, labels, label_smoothing=self.recipe.train.label_smoothing)
        return ops.binary_cross_entropy_with_logits(logits, labels, pos_weight=self._pos_weight)


def build_model(recipe: Recipe) -> torch.nn.Module:
    """The recipe's model, initialised, on the CPU, in training mode.

    Raises:
        InputError: the model is unknown, or does not take the recipe's arguments or initialisation.
    """
    model = make_model(recipe)
    initialize(model, recipe.init.scheme, recipe.init.seed)
    return model.train()


def make_model(recipe: Recipe) -> torch.nn.Module:
    """The recipe's model with the recipe's precision; its weights are still to be filled.

    Raises:
        InputError: the model is unknown, or does not take the recipe's arguments.
    """
    try:
        model = models.create_model(recipe.model.name, **recipe.model.args)
    except TypeError as error:
        raise InputError(f"[model] args do not suit {recipe.model.name}: {error}") from error
    for module in model.modules():
        if hasattr(module, "precision"):
            module.precision = recipe.train.precision
    return model


def make_optimizer(recipe: Recipe, model: torch.nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimizer of a model's parameters, with the rate before its schedule."""
    settings = {k: v for k, v in recipe.to_dict()["optimizer"].items() if k != "name"}
    return _OPTIMIZERS[recipe.optimizer.name](model.parameters(), **settings)


def find_device(name: str) -> torch.device:
    """The device of a name.

    Raises:
        InputError: dettriton does not train on such a device.
        EngineError: it is not here.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"there is no device {name!r}; choose cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"dettriton trains on cpu or cuda, not on {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise EngineError(
            "torch sees no GPU here, so device cuda cannot be used; use --device cpu (the result is the same bits), "
            "or install a driver and a torch build that fit the GPU. `dettriton doctor` shows what is found"
        )
    return device


def _require_fitting_loss(recipe: Recipe, data: Dataset) -> None:
    fitting = "binary_cross_entropy_with_logits" if data.task == MULTI_LABEL else "cross_entropy"
    if recipe.train.loss != fitting:
        raise InputError(f'{data.name} is a {data.task} task: set loss = "{fitting}" in [train]')


def _require_images_to_move(recipe: Recipe, data: Dataset) -> None:
    if (recipe.augment.hflip or recipe.augment.crop_padding) and not isinstance(data, ArrayDataset):
        raise InputError(f"[augment] moves the pixels of images and {data.name} has none; leave the section out")


def _require_fitting_output(model: torch.nn.Module, data: Dataset) -> None:
    model.eval()
    with torch.no_grad():
        try:
            shape = tuple(model(data.inputs(slice(0, 1))).shape)
        except (InputError, RuntimeError) as error:
            sizes = " x ".join(map(str, data.inputs(slice(0, 1)).shape[1:]))
            raise InputError(f"the model cannot take the {sizes} samples of {data.name}: {error}") from error
    if shape != (1, data.num_classes):
        raise InputError(
            f"the model gives {math.prod(shape)} outputs for a sample and {data.name} has {data.num_classes} classes: "
            f"set num_classes = {data.num_classes} in the args of [model]"
        )
    model.train()
