"""What compiled loops are given: flat arrays, and a share of the work for each thread."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
import torch

SHARED_ELEMENTS = 1 << 18
"""Work below this many elements is done by the calling thread alone."""


def flat(x: torch.Tensor) -> np.ndarray:
    """The elements of a tensor in row-major order; a view where it is contiguous."""
    values = (x if x.is_contiguous() else x.contiguous()).numpy(force=True)
    return values if values.ndim == 1 else values.reshape(-1)


def shares(count: int, elements: int) -> list[tuple[int, int]]:
    """``range(count)`` in parts, one for each of torch's threads where ``elements`` are worth it."""
    parts = min(torch.get_num_threads(), count) if elements > SHARED_ELEMENTS else 1
    bounds = [count * i // parts for i in range(parts + 1)] if count else []
    return list(pairwise(bounds))


def spread(loop: Callable[[int, int], object], count: int, elements: int) -> None:
    """Call ``loop(first, last)`` for parts of ``range(count)``, at the same time where ``elements`` are worth it."""
    first, *others = shares(count, elements) or [(0, 0)]
    waiting = [_pool(torch.get_num_threads(), os.getpid()).submit(loop, *part) for part in others]
    loop(*first)
    for part in waiting:
        part.result()


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    # A forked process has none of its parent's threads.
    return ThreadPoolExecutor(threads, thread_name_prefix="dettriton")
