"""Loops compiled by a second process while the first one reads data and compiles others.

Numba compiles on one thread at a time, so only processes can share its work; they meet in numba's cache. A training
takes its loops from the front of :data:`LOOPS`, the second process from the back, and what one of them has compiled the
other one loads. Machine code is the same whoever compiled it, and where the second process fails, nothing is missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from types import TracebackType

from dettriton.exact._elementary_loops import class_loss_gradient, class_losses
from dettriton.exact._elementwise_loops import relu_gradient
from dettriton.exact._grid_loops import grid_scales, quantize_grids
from dettriton.exact._jit import Jitted, compiles
from dettriton.exact._map_loops import direct, dots_of_rows, round_matrices, weight_grad_of_positions
from dettriton.exact._norm_loops import finish_statistics, gradient_runs, normalise_runs
from dettriton.exact._optim_loops import adam
from dettriton.exact._philox_loops import blocks_of_words
from dettriton.exact._pool_loops import max_pool, max_pool_gradient
from dettriton.exact._window_loops import accumulate_columns, accumulate_runs, gradient_sums, round_all, statistics

_F32, _F64, _I64, _U8, _BOOLS = (f"{name}[::1]" for name in ("float32", "float64", "int64", "uint8", "boolean"))
_INT, _BOOL, _NUMBER = "int64", "boolean", "float32"

_PART = (*[_INT] * 5,)
_WINDOWS = _I64, _I64, _I64, _BOOLS
_OF_CHANNELS = (*[_F32] * 4,)
_MAPS = (*[_I64] * 4,)

LOOPS: tuple[tuple[Jitted, tuple[str, ...]], ...] = (
    (blocks_of_words, (*[_INT] * 7, _I64)),
    (quantize_grids, (_F32, *_PART, _F64, _F64)),
    (grid_scales, (_F32, *_PART, _F64, _F64)),
    (direct, (_F32, *[_F64] * 4, _F32, *_MAPS, _I64, _INT, _INT, _I64, _F32)),
    (normalise_runs, (_F32, _F32, _BOOL, _BOOL, _F32, *[_INT] * 4, *_OF_CHANNELS)),
    (max_pool, (_F32, _F32, _U8, _BOOL, _I64, _INT, _INT)),
    (accumulate_runs, (_F32, *_PART, *_WINDOWS)),
    (round_all, (*_WINDOWS, _F32)),
    (dots_of_rows, (_F32, _F32, *[_F64] * 4, *[_I64] * 3, _F32, _INT, _INT, _F32)),
    (statistics, (_F32, *_PART, _F32, _F32)),
    (finish_statistics, (*[_F32] * 6,)),
    (class_losses, (_F32, _I64, _F32, _BOOL, _INT, _INT, *[_F32] * 4, _INT, _INT)),
    (class_loss_gradient, (_F32, _F32, _I64, _F32, _BOOL, _INT, _NUMBER, _NUMBER, _INT, *[_F32] * 4, _INT, _INT)),
    (accumulate_columns, (_F32, *_PART, *_WINDOWS)),
    (max_pool_gradient, (_F32, _U8, _F32, _I64, _INT, _INT)),
    (gradient_sums, (*[_F32] * 3, _BOOL, *_PART, *_OF_CHANNELS)),
    (gradient_runs, (*[_F32] * 3, _BOOL, _F32, *[_INT] * 4, *_OF_CHANNELS, _F32)),
    (relu_gradient, (*[_F32] * 3, _INT, _INT)),
    (weight_grad_of_positions, (_F32, _F32, _F64, _F64, *_MAPS, *[_INT] * 3, _I64, _I64)),
    (round_matrices, (*[_F64] * 3, *[_INT] * 3, _F32, _F32)),
    (adam, (*[_F32] * 4, _BOOL, _BOOL, _INT, _INT, *[_NUMBER] * 9)),
)
"""What the default's data and training call, and most others, in the order of the first calls; with the types of the
arguments as numba writes them."""


class LoopsAhead:
    """A context at whose start a second process begins to compile loops, if numba's cache lacks them.

    Leaving it ends that process.

    Args:
        device: of the training; on another one than ``"cpu"`` no loop is called.
    """

    def __init__(self, device: str):
        self._wanted = device == "cpu" and compiles() and (os.cpu_count() or 1) > 1
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> LoopsAhead:
        if self._wanted:
            loop, types = LOOPS[0]
            if loop.compile(types) and loop.cached:
                self._process = _start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._process is not None:
            # Numba writes files of its cache under other names first, so they can be left at any time.
            with self._process as process:
                process.terminate()


def _start() -> subprocess.Popen | None:
    try:
        # A session of its own: Ctrl-C in the terminal reaches the first process alone, which then ends this one.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return None


def _end_with_the_input() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def main() -> None:
    """Compile the loops from the back. The end of the standard input, which the first process holds, ends this one."""
    threading.Thread(target=_end_with_the_input, daemon=True).start()
    for loop, types in reversed(LOOPS):
        loop.compile(types)


if __name__ == "__main__":
    main()
