"""A run that can be watched: everything that one step computes, in the order in which it is computed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from dettriton.compare._state import names_of_model, state_groups
from dettriton.digest import tensor_digest
from dettriton.train._detail import tensors_in
from dettriton.train._run import Run
from dettriton.train.checkpoint import optimizer_state, restore_optimizer


@dataclass(frozen=True)
class Call:
    """One call of a module: its name, its kind, digests of its inputs, and copies of its outputs."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[torch.Tensor, ...]


@dataclass
class Observation:
    """What a step computed; copies on the CPU, so that what is changed in place later is kept as it was.

    Attributes:
        chosen: indices of the samples.
        inputs, labels: the batch.
        calls: of modules, in the order in which they ended.
        loss: the loss.
        gradients: by parameter, in the order in which they were complete.
    """

    chosen: torch.Tensor | None = None
    inputs: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    calls: list[Call] = field(default_factory=list)
    loss: torch.Tensor | None = None
    gradients: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """A run's whole state between two steps."""

    model: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, torch.Tensor]
    scalars: Mapping[str, int | float]


class ObservedRun(Run):
    """A :class:`dettriton.train._run.Run` with the same bits whose steps can be watched, undone and compared."""

    _seen: Observation | None = None

    def observe(self, step: int) -> Observation:
        """Compute a step as :meth:`step` does, and return all that it computed."""
        with self._watching() as seen:
            self.step(step)
        return seen

    def snapshot(self) -> Snapshot:
        """A copy of the state."""
        tensors, scalars = optimizer_state(self.optimizer)
        return Snapshot(self.state(), {name: _copy(t) for name, t in tensors.items()}, dict(scalars))

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a state; it stays as it is when the run goes on."""
        self.model.load_state_dict(dict(snapshot.model))
        # the optimizer keeps the tensors that it is given, and updates them in place
        tensors = {name: t.clone() for name, t in snapshot.optimizer.items()}
        restore_optimizer(self.optimizer, tensors, snapshot.scalars)

    def groups(self) -> dict[str, dict[str, torch.Tensor]]:
        """The state as parameters, buffers and optimizer state."""
        names, now = names_of_model(self.model), self.snapshot()
        return state_groups(now.model, now.optimizer, now.scalars, names)

    def _inputs(self, chosen: torch.Tensor) -> torch.Tensor:
        inputs = super()._inputs(chosen)
        if self._seen is not None:
            self._seen.chosen, self._seen.inputs = _copy(chosen), _copy(inputs)
        return inputs

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = super()._loss(logits, labels)
        if self._seen is not None:
            self._seen.labels, self._seen.loss = _copy(labels), _copy(loss)
        return loss

    @contextmanager
    def _watching(self) -> Iterator[Observation]:
        seen = self._seen = Observation()
        handles = [hook for name, module in self.model.named_modules() for hook in _watch_calls(seen, name, module)]
        handles += [
            p.register_post_accumulate_grad_hook(_watch_gradient(seen, name))
            for name, p in self.model.named_parameters()
            if p.requires_grad
        ]
        try:
            yield seen
        finally:
            self._seen = None
            for handle in handles:
                handle.remove()


def _watch_calls(seen: Observation, name: str, module: torch.nn.Module) -> Iterator[Any]:
    open_calls: list[tuple[str, ...]] = []

    def before(module: torch.nn.Module, args: Any, named: Any) -> None:
        # digests, because a module may change its inputs in place and copies of all of them would double the memory
        open_calls.append(tuple(tensor_digest("", t) for t in tensors_in((args, named))))

    def after(module: torch.nn.Module, args: Any, output: Any) -> None:
        outputs = tuple(_copy(t) for t in tensors_in(output))
        seen.calls.append(Call(name, type(module).__qualname__, open_calls.pop(), outputs))

    yield module.register_forward_pre_hook(before, with_kwargs=True)
    yield module.register_forward_hook(after)


def _watch_gradient(seen: Observation, name: str) -> Any:
    def complete(parameter: torch.Tensor) -> None:
        seen.gradients[name] = _copy(parameter.grad)

    return complete


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True)
