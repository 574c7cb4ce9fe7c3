"""Rehearsals: code that would launch kernels runs on tensors without values and only names its launches.

A rehearsal belongs to its thread and touches no device, no random state and no table that a real run reads: its tensors
are torch's ``meta`` tensors, which have shapes and types alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

META = torch.device("meta")


class Gpu(NamedTuple):
    """What a plan of launches depends on.

    Attributes:
        shared_bytes: shared memory that one block may take.
        generation: the first number of the compute capability; 0 where there is none.
    """

    shared_bytes: int
    generation: int


@dataclass
class Rehearsal:
    """What a rehearsal finds, and the GPU that it stands for.

    Attributes:
        launches: a :class:`dettriton.ops._launch.Launch` for each launch, in order.
    """

    gpu: Gpu
    launches: list[Any] = field(default_factory=list)


_current: ContextVar[Rehearsal | None] = ContextVar("dettriton_rehearsal", default=None)


def current_rehearsal() -> Rehearsal | None:
    """The rehearsal of this thread, if there is one."""
    return _current.get()


@contextmanager
def rehearsal(gpu: Gpu) -> Iterator[Rehearsal]:
    """Within the context, kernels of this thread are named and not launched, and ops take tensors of :data:`META`."""
    token = _current.set(Rehearsal(gpu))
    try:
        yield _current.get()
    finally:
        _current.reset(token)
