"""The kernel launches of a recipe's training, found from shapes alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from dettriton import nn, ops
from dettriton._rehearsal import META, Gpu, rehearsal
from dettriton.data import DatasetInfo, SignalInfo
from dettriton.errors import InputError
from dettriton.ops._launch import Launch
from dettriton.train._run import make_model, make_optimizer
from dettriton.train.batches import batch_bounds
from dettriton.train.evaluate import EVALUATION_BATCH
from dettriton.train.recipe import Recipe

_STEPS = 2
"""Of each batch size: an optimizer's first step differs from the others."""


def launches_of(recipe: Recipe, info: DatasetInfo | SignalInfo, gpu: Gpu) -> list[Launch]:
    """The different launches of a training on a GPU, in the order of their first use.

    Nothing is computed and no data is read: the model is made anew of tensors that have only shapes, and goes through
    a step of each batch size and an evaluation.

    Args:
        recipe: the training.
        info: of its data.
        gpu: the GPU.

    Raises:
        InputError: the recipe does not fit its data, or its model does not exist.
    """
    shape = info.signal_shape if isinstance(info, SignalInfo) else info.image_shape
    with rehearsal(gpu) as rehearsed:
        with META:
            model = make_model(recipe)
        model.train()
        optimizer = make_optimizer(recipe, model)
        try:
            for count in _training_batches(recipe, info):
                _step(recipe, model, optimizer, torch.zeros(count, *shape, device=META), info.num_classes)
            model.eval()
            with torch.no_grad():
                for count in _evaluation_batches(info):
                    model(torch.zeros(count, *shape, device=META))
        except RuntimeError as error:
            raise InputError(f"the model cannot take the samples of {info.name}: {error}") from error
    return Launch.distinct(rehearsed.launches)


def _step(
    recipe: Recipe, model: torch.nn.Module, optimizer: torch.optim.Optimizer, inputs: torch.Tensor, classes: int
) -> None:
    nn.set_random_state(model, recipe.train.seed, 0)
    logits = model(inputs)
    if recipe.train.loss == "cross_entropy":
        labels = torch.zeros(len(inputs), dtype=torch.int64, device=META)
        loss = ops.cross_entropy(logits, labels, label_smoothing=recipe.train.label_smoothing)
    else:
        weight = None if recipe.train.pos_weight == "none" else torch.ones(classes, device=META)
        loss = ops.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), pos_weight=weight)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def _training_batches(recipe: Recipe, info: DatasetInfo | SignalInfo) -> Iterator[int]:
    bounds = batch_bounds(info.samples["train"], recipe.train.batch_size)
    for count in dict.fromkeys(end - begin for begin, end in bounds):
        yield from [count] * _STEPS


def _evaluation_batches(info: DatasetInfo | SignalInfo) -> list[int]:
    sizes = []
    for split in ("val", "test"):
        whole, rest = divmod(info.samples[split], EVALUATION_BATCH)
        sizes += [EVALUATION_BATCH] * min(whole, 1) + [rest] * min(rest, 1)
    return list(dict.fromkeys(sizes))
