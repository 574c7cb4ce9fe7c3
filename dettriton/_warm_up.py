"""Kernels compiled while data are read, so that the first step of a training on a GPU does not wait for the compiler.

Where everything is in Triton's cache, it is read from there. What a recipe launches is found by a rehearsal, which
touches neither the GPU nor any state of the run, so no bit can depend on whether a kernel was warmed up.

On a CPU nothing is warmed up here. Measured on two cores, the default verification gained nothing from a step in a thread
beside the reading of its data: with numba's cache empty the data came twice as late and the first epoch no earlier,
because numba compiles under locks that both threads want; with a full cache, loading the loops costs less than such a
step. What does help is a second process: :mod:`dettriton.exact._ahead`, which the commands start.
"""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch

from dettriton import data
from dettriton.ops._launch import Launch

if TYPE_CHECKING:
    from dettriton.train.recipe import Recipe

_MOST_THREADS = 8

_log = logging.getLogger(__name__)


class WarmUp:
    """A context within which the kernels of a recipe's training are compiled in the background.

    Leaving it by an error, an interrupt for example, starts no further kernel and waits for those that are being
    compiled, a few seconds; a second interrupt ends that too. What goes wrong in the background is logged for debugging
    and nothing else: the training compiles what it misses.

    Args:
        recipe: of the training.
        device: its name; nothing happens unless it is a GPU that is here.
        data_dir: as for :func:`dettriton.data.describe`.
    """

    def __init__(self, recipe: Recipe, device: str, data_dir: str | Path | None = None):
        self._recipe, self._device, self._data_dir = recipe, device, data_dir
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dettriton warm-up", daemon=True)

    def __enter__(self) -> WarmUp:
        if self._device.partition(":")[0] == "cuda" and torch.cuda.is_available():
            self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if kind is not None:
            self._stopped.set()
        self.wait()

    def wait(self) -> None:
        """Return when everything is compiled: two threads that compile the same kernels would only slow each other."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            launches = self._launches()
            with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
                for _ in pool.map(self._compile, launches):
                    pass
            _log.debug("warmed up %d kernels", len(launches))
        except Exception:
            _log.debug("the warm-up of the kernels failed; they are compiled when they are launched", exc_info=True)

    def _launches(self) -> list[Launch]:
        from dettriton.ops._precompile import gpu_here, require_compiler
        from dettriton.train._rehearse import launches_of

        require_compiler()
        with torch.cuda.device(self._device):
            gpu = gpu_here()
        return launches_of(self._recipe, data.describe(self._recipe.data.name, self._data_dir), gpu)

    def _compile(self, launch: Launch) -> None:
        from dettriton.ops._precompile import warm

        if self._stopped.is_set():
            return
        try:
            with torch.cuda.device(self._device):
                warm(launch)
        except Exception:
            _log.debug("%s was not warmed up", launch, exc_info=True)
