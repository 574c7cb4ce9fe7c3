"""What the machine can do at most, measured in the same run: copying, and on a GPU products of int8."""

from __future__ import annotations

import torch

from dettriton.benchmarks.timing import Clock, interleaved, significant
from dettriton.exact.grid import PRECISION_DIGITS

COPIED_BYTES = 1 << 28
_SIDE = 8192
_REPEATS = 5


def measure_rates(device: str, clock: Clock) -> dict[str, float]:
    """``copy_gb_per_s``, bytes read and written a second; on a GPU ``int8_top_per_s`` of ``torch._int_mm`` too."""
    source = torch.zeros(COPIED_BYTES, dtype=torch.int8, device=device)
    target = torch.zeros_like(source)
    runs = {"copy": lambda: target.copy_(source)}
    if device == "cuda":
        a = torch.ones(_SIDE, _SIDE, dtype=torch.int8, device=device)
        b = torch.ones_like(a).t()
        runs["int8"] = lambda: torch._int_mm(a, b)
    times = interleaved(runs, clock, _REPEATS, 0.0)
    found = {"copy_gb_per_s": significant(2 * COPIED_BYTES / times["copy"].median / 1e9)}
    if "int8" in times:
        found["int8_top_per_s"] = significant(2 * _SIDE**3 / times["int8"].median / 1e12)
    return found


def int8_products(precision: str) -> int:
    """How many products of int8 matrices an exact product takes: one for each pair of digits."""
    return PRECISION_DIGITS[precision] ** 2
