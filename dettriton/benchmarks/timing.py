"""How long work takes: all variants of a case in one loop, so that whatever disturbs one disturbs all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

LEAST_REPEATS = 3
MOST = 6
"""Repetitions of short work, as a multiple of those asked for."""

Run = Callable[[], None]


class Clock(Protocol):
    """Measures one call."""

    def seconds(self, run: Run) -> float:
        """How long the call takes, until its results are there."""


class CpuClock:
    """Wall-clock time."""

    def seconds(self, run: Run) -> float:
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin


class CudaClock:
    """The GPU's own time between two events, with nothing of the call before in its L2 cache."""

    def __init__(self) -> None:
        size = torch.cuda.get_device_properties().L2_cache_size
        self._flush = torch.empty(4 * size, dtype=torch.int8, device="cuda")

    def seconds(self, run: Run) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.zero_()
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000


def clock_of(device: str) -> Clock:
    """The clock of a device."""
    return CudaClock() if device == "cuda" else CpuClock()


@dataclass(frozen=True)
class Times:
    """Seconds of the repetitions."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def p20(self) -> float:
        return statistics.quantiles(self.seconds, n=5, method="inclusive")[0]

    @property
    def p80(self) -> float:
        return statistics.quantiles(self.seconds, n=5, method="inclusive")[3]

    def to_dict(self) -> dict[str, float]:
        """In milliseconds, with four significant digits."""
        found = {"median_ms": self.median, "p20_ms": self.p20, "p80_ms": self.p80}
        return {name: significant(1000 * value) for name, value in found.items()}


def significant(x: float) -> float:
    """Four significant decimal digits."""
    return float(f"{x:.4g}")


def interleaved(runs: Mapping[str, Run], clock: Clock, repeats: int, brief: float) -> dict[str, Times]:
    """The times of several runs, each repetition of all of them in another order, after one call each to warm up.

    Args:
        runs: what to call, by name.
        clock: measures a call.
        repeats: how many repetitions.
        brief: seconds; work that is done before goes on until then, for at most :data:`MOST` times the repetitions.
    """
    for run in runs.values():
        clock.seconds(run)
    names = [*runs]
    found: dict[str, list[float]] = {name: [] for name in names}
    done, spent = 0, 0.0
    while done < repeats or (spent < brief and done < MOST * repeats):
        first = done % len(names) if names else 0
        for name in names[first:] + names[:first]:
            found[name].append(clock.seconds(runs[name]))
            spent += found[name][-1]
        done += 1
    return {name: Times(tuple(seconds)) for name, seconds in found.items()}
