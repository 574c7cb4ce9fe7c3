"""What is measured: a case, which is an op on given shapes, and the work of one variant of it.

Every kind of case (:class:`OpCase`, and those of updates and of whole steps) gives the runner the same things: its
variants, a bench that holds its inputs on a device, and for each variant a :class:`Work`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from dettriton.benchmarks.inputs import bell
from dettriton.benchmarks.memory import kept_bytes
from dettriton.benchmarks.variants import Variant, variants

SIZES = ("small", "zoo", "large")

FORWARD, TRAINING = "forward", "forward and backward"
INPUT_GRADIENT, WEIGHT_GRADIENT = "input gradient", "weight gradient"
UPDATE, STEP = "update", "training step"

WHOLE, AGAIN, PERMUTED, ALONE = "whole", "again", "permuted", "one sample alone"
"""How a batch is put together: as it is, so once more, in another order, or with single samples apart."""

Tensors = dict[str, torch.Tensor]


class Work(Protocol):
    """One variant of a case on one device.

    Attributes:
        compositions: ways to put the batch together that the results must not depend on; ``WHOLE`` comes first.
    """

    compositions: tuple[str, ...]

    def __call__(self) -> None:
        """What is timed."""

    def results(self, composition: str) -> Tensors:
        """All results by name, on the device, in the order of the whole batch."""

    def kept(self) -> int | None:
        """Bytes kept for the backward pass, or None where there is none."""

    def traffic(self, results: Tensors) -> int | None:
        """Bytes of all tensors that are read and written, once each; None where that says nothing."""


class Bench(Protocol):
    """A case's inputs on one device."""

    def work(self, variant: Variant) -> Work:
        """A variant's work."""

    def reference(self, variant: Variant) -> Tensors:
        """What the torch engine computes on the CPU, of the first samples where the case is too large for it."""

    def comparable(self, results: Tensors) -> Tensors:
        """The part of the results that the reference has."""


class Case(Protocol):
    """Something that is measured.

    Attributes:
        op: what ``--op`` chooses it by.
        shapes: of its tensors, or the name of a zoo entry.
        what: which part of training it is.
        size: one of :data:`SIZES`.
        products: whether it has dot products.
        flops: floating-point operations of the ordinary algorithm; 0 where that says nothing.
    """

    op: str
    shapes: str
    what: str
    size: str
    products: bool
    flops: int

    @property
    def name(self) -> str: ...

    def variants(self, device: str) -> list[Variant]: ...

    def bench(self, device: str) -> Bench: ...


@dataclass(frozen=True)
class OpCase:
    """An op of ``dettriton.ops`` beside torch's.

    Attributes:
        op, shapes, what, size, products, flops: see :class:`Case`.
        ours, stock: functions of the inputs by name; ours takes ``precision`` too where there are products.
        made: the inputs by name: a shape for noise, or what makes the tensor from a key.
        leaves: the inputs whose gradients are computed; none for the forward pass alone.
        samples: the inputs whose first dimension counts samples.
        per_sample: whether the result's first dimension does too.
        invariant: whether a sample's result depends on that sample alone.
        first: how many samples the reference computes, where all of them would take too long; 0 for all.
    """

    op: str
    shapes: str
    what: str
    size: str
    ours: Callable[..., torch.Tensor]
    stock: Callable[..., torch.Tensor]
    made: Mapping[str, tuple[int, ...] | Callable[[str], torch.Tensor]]
    leaves: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    per_sample: bool = False
    invariant: bool = False
    products: bool = False
    flops: int = 0
    first: int = 0

    @property
    def name(self) -> str:
        return f"{self.op} {self.shapes}, {self.what}"

    def variants(self, device: str) -> list[Variant]:
        return variants(device, products=self.products)

    def bench(self, device: str) -> OpBench:
        return OpBench(self, device)

    def inputs(self) -> Tensors:
        """Fresh inputs by name, on the host."""
        key = f"{self.op} {self.shapes}"
        return {
            name: make(f"{key} {name}") if callable(make) else bell(f"{key} {name}", *make)
            for name, make in self.made.items()
        }


class OpBench:
    """An op's inputs on the host and on a device."""

    def __init__(self, case: OpCase, device: str):
        self.case = case
        self.host = case.inputs()
        self.given = {name: x.to(device) for name, x in self.host.items()}

    def work(self, variant: Variant) -> OpWork:
        return OpWork(self.case, variant, self.given)

    def reference(self, variant: Variant) -> Tensors:
        first = self.case.first
        part = {n: x[:first] if first and n in self.case.samples else x for n, x in self.host.items()}
        return OpWork(self.case, variant, part).results(WHOLE)

    def comparable(self, results: Tensors) -> Tensors:
        return {name: y[: self.case.first] for name, y in results.items()} if self.case.first else results


class OpWork:
    """One variant of an op on given inputs."""

    def __init__(self, case: OpCase, variant: Variant, given: Tensors):
        self.case = case
        self._fn = case.stock if not variant.ours else case.ours
        if variant.ours and case.products:
            self._fn = partial(case.ours, precision=variant.precision)
        self._given = given
        self._leaves = {name: x.detach().requires_grad_() for name, x in given.items() if name in case.leaves}
        self._upstreams: dict[torch.Size, torch.Tensor] = {}
        self._graph: torch.Tensor | None = None
        self._batch = len(given[case.samples[0]]) if case.samples else 1
        self.compositions = (WHOLE, AGAIN)
        if self._batch > 1:
            apart = (ALONE,) if case.invariant and case.per_sample and not case.leaves else ()
            self.compositions = (WHOLE, AGAIN, PERMUTED, *apart)

    def __call__(self) -> None:
        if not self._leaves:
            with torch.no_grad():
                self._fn(**self._given)
        elif self.case.what == TRAINING:
            self._gradients(self._fn(**self._given | self._leaves), self._leaves)
        else:
            if self._graph is None:
                self._graph = self._fn(**self._given | self._leaves)
            self._gradients(self._graph, self._leaves, keep=True)

    def results(self, composition: str) -> Tensors:
        if composition == ALONE:
            with torch.no_grad():
                return {"output": torch.cat([self._fn(**self._part(s)) for s in (slice(0, 1), slice(1, None))])}
        if composition in (WHOLE, AGAIN):
            return self._results(self._given, None)
        order = torch.randperm(self._batch, generator=torch.Generator().manual_seed(1))
        order = order.to(self._given[self.case.samples[0]].device)
        permuted = {n: x[order] if n in self.case.samples else x for n, x in self._given.items()}
        back = order.argsort()
        of_samples = {f"gradient of {name}" for name in self.case.samples}
        if self.case.per_sample:
            of_samples.add("output")
        return {n: y[back] if n in of_samples else y for n, y in self._results(permuted, order).items()}

    def kept(self) -> int | None:
        return kept_bytes(lambda: self._fn(**self._given | self._leaves)) if self._leaves else None

    def traffic(self, results: Tensors) -> int:
        read = [x for n, x in self._given.items() if self.case.what in (FORWARD, TRAINING) or n not in self._leaves]
        return sum(t.nbytes for t in (*read, *results.values(), *self._upstreams.values()))

    def _part(self, samples: slice) -> Tensors:
        return {n: x[samples] if n in self.case.samples else x for n, x in self._given.items()}

    def _results(self, given: Tensors, order: torch.Tensor | None) -> Tensors:
        if not self._leaves:
            with torch.no_grad():
                return {"output": self._fn(**given)}
        leaves = {name: given[name].detach().requires_grad_() for name in self._leaves}
        out = self._fn(**given | leaves)
        gradients = self._gradients(out, leaves, order)
        found = {f"gradient of {name}": g for name, g in zip(leaves, gradients, strict=True)}
        return found | {"output": out.detach()} if self.case.what == TRAINING else found

    def _gradients(
        self, out: torch.Tensor, leaves: Tensors, order: torch.Tensor | None = None, keep: bool = False
    ) -> tuple[torch.Tensor, ...]:
        upstream = self._upstreams.get(out.shape)
        if upstream is None:
            upstream = self._upstreams[out.shape] = bell(f"upstream of {self.case.op}", *out.shape).to(out.device)
        if order is not None and self.case.per_sample:
            upstream = upstream[order]
        return torch.autograd.grad(out, [*leaves.values()], upstream, retain_graph=keep)
