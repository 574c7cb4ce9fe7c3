"""Tables that sizes alone give, made on the host and copied to a device without waiting for it, once for each key."""

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import TypeVar

import torch

Tables = tuple[torch.Tensor | None, ...]
Made = TypeVar("Made", bound=Tables)

_captured: list[tuple[Tables, Tables]] = []
"""What captured CUDA graphs read, on the host and on the device, kept for as long as the process lives."""


def pinned_copy(table: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """``table`` in pinned memory, and its copy on a GPU, which nobody waits for and a CUDA graph can hold."""
    pinned = table.pin_memory()
    return pinned, pinned.to(device, non_blocking=True)


def _copies(tables: Made, device: torch.device) -> tuple[Made, Made]:
    """The tables on the host and on the device."""
    if device.type == "meta":
        return tables, tuple(None if table is None else table.to(device) for table in tables)
    pairs = [(None, None) if table is None else pinned_copy(table, device) for table in tables]
    return tuple(pinned for pinned, _ in pairs), tuple(copied for _, copied in pairs)


def device_tables(most: int) -> Callable[[Callable[..., Made]], Callable[..., Made]]:
    """Give a function that makes tables on the host a last argument, their device, and keep its last ``most`` results."""

    def declare(make: Callable[..., Made]) -> Callable[..., Made]:
        @lru_cache(maxsize=most)
        def kept(*key: Hashable) -> Made:
            *sizes, device = key
            tables = make(*sizes)
            return tables if device.type == "cpu" else _copies(tables, device)[1]

        @wraps(make)
        def on_device(*key: Hashable) -> Made:
            *sizes, device = key
            if device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
                return kept(*key)
            # Nothing is copied before a replay, so no other call may read these tables; each replay copies them anew.
            _captured.append(_copies(make(*sizes), device))
            return _captured[-1][1]

        return on_device

    return declare
