"""Several runs at a time, each in a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dettriton import errors
from dettriton.errors import EngineError, InputError
from dettriton.study._plan import PlannedRun
from dettriton.study._single import Task
from dettriton.study._worker import OUTCOME
from dettriton.train._interrupt import Interrupt

LOG = "log.txt"
_POLL_SECONDS = 0.1
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def in_workers(
    tasks: Sequence[tuple[PlannedRun, Task]], jobs: int, lock: int
) -> Iterator[tuple[PlannedRun, dict[str, Any]]]:
    """Carry out tasks in processes and give each outcome when it is there.

    Args:
        tasks: what to carry out, in this order as processes become free.
        jobs: processes at a time.
        lock: descriptor that the processes inherit, so that the study's directory stays locked while one is left.

    Raises:
        KeyboardInterrupt: Ctrl-C; the processes have stopped with a checkpoint (after a second one: were killed).
        DettritonError: a process could not carry out its task; the others have stopped with a checkpoint.
    """
    waiting, running = [*tasks], []
    with Interrupt() as interrupt:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    running.append(_Worker(*waiting.pop(0), lock))
                done = [worker for worker in running if worker.is_over()]
                for worker in done:
                    running.remove(worker)
                    yield worker.run, worker.outcome()
                interrupt.raise_if_requested()
                if not done:
                    time.sleep(_POLL_SECONDS)
        finally:
            _stop(running)


def _stop(workers: Sequence["_Worker"]) -> None:
    """End processes, with a checkpoint; at a second Ctrl-C, or any other trouble, at once."""
    for worker in workers:
        worker.ask_to_stop()
    try:
        for worker in workers:
            worker.wait()
    except BaseException:
        for worker in workers:
            worker.kill()
        raise


class _Worker:
    def __init__(self, run: PlannedRun, task: Task, lock: int):
        self.run, self._folder = run, Path(task.folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / OUTCOME).unlink(missing_ok=True)
        variables = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ | dict.fromkeys(_THREAD_VARIABLES, str(task.threads))
        with open(self._folder / LOG, "ab") as log:
            # a session of its own: Ctrl-C in the terminal reaches the study alone, which then asks its workers to stop
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dettriton.study._worker"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=variables,
                pass_fds=(lock,) if os.name == "posix" else (),
                start_new_session=True,
            )
        # a process that is dead already shows when it is asked for its outcome
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(task.to_dict()).encode() + b"\n")
            self._process.stdin.flush()

    def is_over(self) -> bool:
        return self._process.poll() is not None

    def ask_to_stop(self) -> None:
        with suppress(OSError):
            self._process.stdin.close()

    def wait(self) -> None:
        self._process.wait()

    def kill(self) -> None:
        if not self.is_over():
            self._process.kill()
            self._process.wait()

    def outcome(self) -> dict[str, Any]:
        """What the process left.

        Raises:
            DettritonError: it could not carry out its task.
        """
        self.ask_to_stop()
        path = self._folder / OUTCOME
        if not path.exists():
            raise EngineError(
                f"the training of {self.run.key} broke off (exit status {self._process.returncode}): {self._last_line()}. "
                f"Its log is {self._folder / LOG}; the same command goes on from its last checkpoint"
            )
        found = json.loads(path.read_bytes())
        path.unlink()
        if "error" in found:
            kind = getattr(errors, found["error"]["kind"], InputError)
            raise kind(f"{self.run.key}: {found['error']['message']}")
        return found

    def _last_line(self) -> str:
        lines = (self._folder / LOG).read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
