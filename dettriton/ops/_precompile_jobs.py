"""Compiling many launches ahead of time, in several processes, and what came of each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from dettriton.errors import EngineError
from dettriton.ops._aot import Compiled
from dettriton.ops._launch import DeviceFunction, Launch, triton
from dettriton.ops._precompile import compile_launch, pretend

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Outcome:
    """What came of one launch.

    Attributes:
        launch: what was compiled.
        cached: whether Triton's cache had it already.
        problem: why it does not compile; None if it does. Then the rest is empty.
        violations: what in the code breaks the contract.
        facts: what the code takes, as JSON data.
    """

    launch: Launch
    cached: bool
    problem: str | None
    violations: tuple[str, ...]
    facts: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The outcome as JSON data."""
        named = {n: v.name if isinstance(v, DeviceFunction) else v for n, v in self.launch.options}
        launch = {"kernel": self.launch.kernel, "arguments": list(self.launch.arguments), "options": named}
        found = {"cached": self.cached, "problem": self.problem, "violations": list(self.violations)}
        return launch | found | self.facts


def compiled(launches: Sequence[Launch], target: str, jobs: int) -> Iterator[Outcome]:
    """Compile launches into Triton's cache, and give each outcome when it is there.

    With one job this process does it, and pretends to have that GPU from then on.

    Args:
        launches: different ones.
        target: as :func:`dettriton.ops._precompile.pretend` takes it.
        jobs: processes at a time, from 1.

    Raises:
        EngineError: a process ended before its work.
    """
    if jobs == 1:
        _start(target)
        for launch in launches:
            yield _outcome(launch, target)
        return
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(min(jobs, len(launches)), multiprocessing.get_context("spawn"), _start_worker, (target,))
    try:
        waiting: set[Future[Outcome]] = {pool.submit(_outcome, launch, target) for launch in launches}
        while waiting:
            # with a limit, so that a signal is heard
            done, waiting = wait(waiting, _POLL_SECONDS, FIRST_COMPLETED)
            for future in done:
                yield future.result()
        pool.shutdown()
    except BrokenProcessPool as error:
        raise EngineError(f"a compiling process ended early ({error}); try again with fewer --jobs") from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        # Triton writes an entry of its cache under another name and moves it last: a killed process leaves no half
        for child in multiprocessing.active_children():
            if child not in others:
                child.terminate()


_hits: list[bool] = []


def _listen(*, cache_hit: bool, **_: Any) -> None:
    _hits.append(cache_hit)


def _start(target: str) -> None:
    pretend(target)
    triton.knobs.compilation.listener = _listen


def _start_worker(target: str) -> None:
    # Ctrl-C in a terminal reaches all its processes: these end without a word, and also when the first one is no more
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _start(target)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _outcome(launch: Launch, target: str) -> Outcome:
    _hits.clear()
    try:
        made = compile_launch(launch, target)
    except Exception as error:  # whatever a compiler raises is what the report is for
        return Outcome(launch, False, f"{type(error).__name__}: {' '.join(str(error).split())[:500]}", (), {})
    broken = (*made.violations(), *(f"narrow offset: {line}" for line in made.narrow_offsets()))
    # what this process compiled before under the same key is not listened to again
    return Outcome(launch, all(_hits), None, broken, _facts(made))


def _facts(made: Compiled) -> dict[str, Any]:
    taken = made.resources()
    facts = {
        "instructions": list(taken.matrix_instructions),
        "num_warps": made.num_warps,
        "shared_bytes": made.shared_bytes,
        "registers": taken.registers,
        "stack_bytes": taken.stack_bytes,
    }
    try:
        occupancy = taken.occupancy(made.target)
    except EngineError:  # not a target whose limits are known
        return facts
    return facts | {"blocks": occupancy.blocks, "occupancy": occupancy.share}
