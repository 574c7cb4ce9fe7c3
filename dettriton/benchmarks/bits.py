"""Whether a case's results are the same bits however they are computed, and how many different ones there are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch

from dettriton.benchmarks.case import WHOLE, Bench, Tensors, Work
from dettriton.benchmarks.plans import PLANS, launched_by
from dettriton.benchmarks.variants import Variant
from dettriton.digest import digest, first_difference
from dettriton.engine import use_engine
from dettriton.exact._jit import SWITCH, compiles


@dataclass
class Looks:
    """Different results of one variant.

    Attributes:
        distinct: one of each; the first is the whole batch's, computed as declared.
        differing: how the others were computed.
    """

    distinct: list[Tensors] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)

    def add(self, how: str, results: Tensors) -> None:
        if any(_same(results, known) for known in self.distinct):
            return
        if self.distinct:
            self.differing.append(how)
        self.distinct.append(results)


def look(work: Work, variant: Variant, device: str) -> Looks:
    """Compute a variant with its batch put together in each way, and with other threads or tiles."""
    looks = Looks()
    for composition in work.compositions:
        with variant.settings():
            _add_to(looks, composition, work, composition)
    for how, set_up in _launches(variant, device):
        with variant.settings(), set_up:
            _add_to(looks, how, work, WHOLE)
    return looks


def _add_to(looks: Looks, how: str, work: Work, composition: str) -> None:
    # other results may be part of what the work changes in place
    looks.add(how, {name: y.detach() for name, y in work.results(composition).items()})


def difference(looks: Looks, bench: Bench, variant: Variant, device: str) -> tuple[str | None, str]:
    """How our results differ from one another or from the reference, and the digest of the reference.

    The reference is the CPU's torch engine; on a CPU, without its compiled loops.
    """
    with use_engine("torch"), without_compiled_loops() if device == "cpu" else nullcontext():
        reference = bench.reference(variant)
    found = {name: y.cpu() for name, y in bench.comparable(looks.distinct[0]).items()}
    apart = first_difference(reference, found)
    if apart is not None:
        return f"not the bits of the CPU's reference: {apart}", digest(reference)
    if looks.differing:
        apart = first_difference(*({name: y.cpu() for name, y in results.items()} for results in looks.distinct[:2]))
        return f"other bits with {', '.join(looks.differing)}: {apart}", digest(reference)
    return None, digest(reference)


@contextmanager
def without_compiled_loops() -> Iterator[None]:
    """The torch engine in plain torch operations."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "0"
    compiles.cache_clear()
    try:
        yield
    finally:
        os.environ.pop(SWITCH)
        if before is not None:
            os.environ[SWITCH] = before
        compiles.cache_clear()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Another number of CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _launches(variant: Variant, device: str) -> Iterator[tuple[str, AbstractContextManager[None]]]:
    if device == "cpu":
        count = 1 if torch.get_num_threads() > 1 else 2
        yield f"{count} thread{'s' if count > 1 else ''}", threads(count)
    elif variant.ours:
        for plan in PLANS:
            yield plan.name, launched_by(plan)


def _same(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(_same_bits(x, b[name]) for name, x in a.items())


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.dtype == b.dtype == torch.float32:
        a, b = (x.contiguous().view(torch.int32) for x in (a, b))
    return torch.equal(a, b)
