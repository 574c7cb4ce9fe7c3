"""Cases of whole training steps of the zoo's networks: each recipe's model, loss, optimizer and batch.

Samples are noise of the form of the recipe's data, so that no data file is needed; how long a step takes does not depend
on what they show. Stock torch trains the same network made of torch.nn's layers (``zoo.load(NAME, plain=True)`` gives
that one), from the same initial weights, with torch's loss and optimizer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch.nn import functional

from dettriton import data, nn, optim, zoo
from dettriton.benchmarks.case import ALONE, STEP, WHOLE, Tensors
from dettriton.benchmarks.inputs import bell, classes
from dettriton.benchmarks.memory import kept_bytes
from dettriton.benchmarks.variants import Variant, variants
from dettriton.data.dataset import MULTI_LABEL
from dettriton.data.signals import measure
from dettriton.models._plain import as_plain
from dettriton.train._run import Run, build_model
from dettriton.train.recipe import Recipe

OPTIMIZERS = {
    False: {"sgd": optim.SGD, "adam": optim.Adam, "adamw": optim.AdamW},
    True: {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW},
}
"""By whether it is stock torch's."""

BATCHES = 8
"""Batches of the made training set."""

COMPARED_LOGITS = 2
LOGITS_BATCH = 4


@dataclass(frozen=True)
class StepCase:
    """A training step of a recipe; see :class:`dettriton.benchmarks.case.Case`."""

    entry: str
    batch: int
    size: str
    flops: int = 0
    op: str = "step"
    what: str = STEP
    products: bool = True

    @property
    def shapes(self) -> str:
        return f"{self.entry}, batch {self.batch}"

    @property
    def name(self) -> str:
        return f"{self.op} {self.shapes}"

    def variants(self, device: str) -> list[Variant]:
        return variants(device, products=True, graphs=True)

    def bench(self, device: str) -> StepBench:
        # a graph is captured after a step that compiles the kernels
        return StepBench(self, device, compared=2 if device == "cuda" else 1)


class StepBench:
    """The recipe with its made data; results are compared after ``compared`` steps."""

    def __init__(self, case: StepCase, device: str, compared: int):
        recipe = zoo.recipe(case.entry)
        self._start = build_model(recipe).state_dict()
        # the weights are there already, and structured initialisation of a large network takes seconds
        plain = replace(recipe.init, scheme="torch_default")
        self._recipe = replace(recipe, init=plain, train=replace(recipe.train, batch_size=case.batch))
        self._splits = {"train": made_data(recipe.data.name, BATCHES * case.batch)}
        self._device, self._compared = device, compared
        self._references: dict[str, Tensors] = {}

    def work(self, variant: Variant) -> StepWork:
        return StepWork(self._run(variant, self._device), self._compared, replays=variant.graph)

    def reference(self, variant: Variant) -> Tensors:
        if variant.precision not in self._references:
            work = StepWork(self._run(variant, "cpu"), self._compared, replays=False)
            self._references[variant.precision] = work.results(WHOLE)
        return self._references[variant.precision]

    def comparable(self, results: Tensors) -> Tensors:
        return results

    def _run(self, variant: Variant, device: str) -> Trainee:
        recipe = replace(self._recipe, train=replace(self._recipe.train, precision=variant.precision))
        return (Trainee if variant.ours else StockTrainee)(recipe, self._splits, device, self._start)


class Trainee(Run):
    """A run that can begin again, and give the parts of its step."""

    stock = False

    def __init__(self, recipe: Recipe, splits: dict[str, data.Dataset], device: str, start: Tensors):
        super().__init__(recipe, splits, device)
        self._start = start
        self.restart()

    def restart(self) -> None:
        """To the initial weights, an optimizer without state, and torch's random numbers from their seed."""
        torch.manual_seed(self.recipe.train.seed)
        self.model.load_state_dict(self._start)
        self.optimizer = self._new_optimizer()

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and labels of a step, as the trainer makes them."""
        epoch, position = divmod(step, self.steps_per_epoch)
        self._enter(epoch)
        begin, end = self._bounds[position]
        chosen = self._order[begin:end]
        return self._inputs(chosen), self._data.labels[chosen]

    def forward(self, step: int, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of a step."""
        nn.set_random_state(self.model, self.recipe.train.seed, step)
        return self._loss(self.model(inputs), labels)

    def learn(self, loss: torch.Tensor) -> None:
        """Gradients and update."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def _new_optimizer(self) -> torch.optim.Optimizer:
        settings = {k: v for k, v in self.recipe.to_dict()["optimizer"].items() if k != "name"}
        return OPTIMIZERS[self.stock][self.recipe.optimizer.name](self.model.parameters(), **settings)


class StockTrainee(Trainee):
    """The same training by stock torch; nothing is checked to be finite."""

    stock = True

    def __init__(self, recipe: Recipe, splits: dict[str, data.Dataset], device: str, start: Tensors):
        super().__init__(recipe, splits, device, start)
        self.model = as_plain(self.model).train()
        self.restart()

    def step(self, step: int) -> float:
        rate = self.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.forward(step, *self.batch(step))
        value = loss.item()
        self.learn(loss)
        return value

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.recipe.train.loss == "cross_entropy":
            smoothing = self.recipe.train.label_smoothing
            return functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        return functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=self._pos_weight)


class StepWork:
    """The training steps of one run, one after another, or one of them replayed as a CUDA graph."""

    compositions = (WHOLE, ALONE)

    def __init__(self, run: Trainee, compared: int, replays: bool):
        self._run, self._compared, self._replays = run, compared, replays
        self._next = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self._replays:
            self._captured().replay()
            return
        self._run.step(self._next % self._run.total_steps)
        self._next += 1

    def results(self, composition: str) -> Tensors:
        """The state after some steps from the start, and logits of some samples, together or one at a time."""
        self._run.restart()
        self._graph = None
        if self._replays:
            self._captured().replay()
        else:
            for step in range(self._compared):
                self._run.step(step)
        found = {f"state {name}": x.detach().clone() for name, x in self._run.model.state_dict().items()}
        return found | {"logits": self._logits(alone=composition == ALONE)}

    def kept(self) -> int:
        return kept_bytes(lambda: self._run.forward(0, *self._run.batch(0)))

    def traffic(self, results: Tensors) -> None:
        return None

    def _logits(self, alone: bool) -> torch.Tensor:
        # batch normalisation in training mode looks at the whole batch, so that only evaluation can be taken apart
        model = self._run.model.eval()
        inputs, _ = self._run.batch(0)
        with torch.no_grad():
            if alone:
                logits = torch.cat([model(inputs[i : i + 1]) for i in range(COMPARED_LOGITS)])
            else:
                logits = model(inputs[:LOGITS_BATCH])[:COMPARED_LOGITS]
        model.train()
        return logits

    def _captured(self) -> torch.cuda.CUDAGraph:
        """A graph of the last compared step, after the ones before it, which also compile the kernels."""
        if self._graph is not None:
            return self._graph
        run, last = self._run, self._compared - 1
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for step in range(last):
                run.step(step)
        torch.cuda.current_stream().wait_stream(side)
        for group in run.optimizer.param_groups:
            group["lr"] = run.learning_rate(last)
        inputs, labels = run.batch(last)
        run.optimizer.zero_grad(set_to_none=True)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            run.learn(run.forward(last, inputs, labels))
        return self._graph


@cache
def made_data(name: str, samples: int) -> data.Dataset:
    """Noise of the form of a dataset's training split, with random labels."""
    info = data.describe(name)
    multi_label = info.task == MULTI_LABEL
    labels = classes(f"labels of {name}", 2, samples, info.num_classes).to(torch.float32)
    if not multi_label:
        labels = classes(f"labels of {name}", info.num_classes, samples)
    if isinstance(info, data.SignalInfo):
        signals = (bell(f"signals of {name}", samples, *info.signal_shape) * 500).to(torch.int16)
        gains = [1000.0] * info.signal_shape[0]
        records = tuple(map(str, range(samples)))
        rest = (info.num_classes, info.task, measure(signals, gains), records)
        return data.SignalDataset(name, "train", signals, labels, *rest)
    images = classes(f"images of {name}", 17 if info.scale == "digits" else 256, samples, *info.image_shape)
    return data.ArrayDataset(name, "train", images.to(torch.uint8), labels, info.num_classes, info.task, info.scale)


def steps(size: str, names: tuple[str, ...], batch: int | None = None) -> Iterator[StepCase]:
    """The training step of each recipe, with its own batch unless another is given."""
    for name in names:
        yield StepCase(name, batch or zoo.recipe(name).train.batch_size, size)
