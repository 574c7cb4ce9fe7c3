"""Memory of training: what is kept for the backward pass, counted on any device, and the peak on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch


def kept_bytes(forward: Callable[[], object]) -> int:
    """Bytes of the distinct storages that autograd keeps for the backward pass of ``forward``.

    The count is the same on every device; parameters and inputs that are kept count too, once each.
    """
    storages: dict[int, int] = {}
    held = []

    def pack(x: torch.Tensor) -> torch.Tensor:
        # held, so that no later storage takes a freed one's address
        held.append(x)
        storage = x.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        forward()
    return sum(storages.values())


def peak_bytes(run: Callable[[], object]) -> int:
    """Bytes that one call needs on the GPU at its peak, beside what is there before it."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
