"""Which engine computes an op: chosen by the device of its tensors, or forced.

Engines never change bits, so nothing here can: ``torch`` is the contract written in plain CPU tensor operations,
``triton`` is the kernels, on a GPU, or on CPU tensors when ``TRITON_INTERPRET=1`` was set before import.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from dettriton._rehearsal import META, current_rehearsal
from dettriton.errors import EngineError

ENGINES = ("torch", "triton")

_forced: ContextVar[str | None] = ContextVar("dettriton_engine", default=None)


def interpreting() -> bool:
    """Whether Triton kernels run under the interpreter in this process."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def engine_for(*tensors: torch.Tensor) -> str:
    """The engine for an op on these tensors.

    Raises:
        EngineError: the tensors live on different devices, or the forced engine cannot run on their device.
    """
    device = tensors[0].device
    if any(t.device != device for t in tensors[1:]):
        names = ", ".join(sorted({str(t.device) for t in tensors}))
        raise EngineError(f"all tensors of one op must be on one device, got {names}; move them with .to(device)")
    forced = _forced.get()
    if forced is None and device.type == "cpu":
        return "torch"
    engine = forced or "triton"
    if engine == "torch" and device.type != "cpu":
        raise EngineError(f"engine 'torch' runs on the CPU, got tensors on {device}; move them with .cpu()")
    if engine == "triton" and device.type == "cpu" and not interpreting():
        raise EngineError(
            "engine 'triton' needs tensors on a GPU; to run the kernels on the CPU (slowly, for tests) "
            "set TRITON_INTERPRET=1 before Python starts"
        )
    if engine == "triton" and device.type not in ("cpu", "cuda") and not (device == META and current_rehearsal()):
        raise EngineError(f"no engine for device {device}; dettriton runs on 'cpu' and 'cuda' tensors")
    return engine


@contextmanager
def use_engine(name: str) -> Iterator[None]:
    """Force an engine (``"torch"`` or ``"triton"``) within the context; nested contexts restore the outer one."""
    if name not in ENGINES:
        raise EngineError(f"unknown engine {name!r}; choose one of {', '.join(ENGINES)}")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)
