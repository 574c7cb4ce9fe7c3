"""What a person sees of a study: a bar in a terminal, one line a run elsewhere, nothing if not wanted."""

import sys
import time
from collections.abc import Mapping
from typing import Any


class Progress:
    """A context that is told of each run that ends.

    Args:
        shown: False for nothing at all.
        done: runs that were there before.
        total: runs in all.
    """

    def __init__(self, shown: bool, done: int, total: int):
        self._shown, self._before, self._done, self._total = shown, done, done, total
        self._started = time.monotonic()
        self._bar = _bar() if shown and sys.stderr.isatty() else None

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._task = self._bar.add_task("", total=self._total, completed=self._done, left="")
            self._bar.start()
        elif self._shown and self._before:
            self._print(f"{self._before} of {self._total} runs are there already")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def ended(self, key: str, run: Mapping[str, Any], seconds: float | None) -> None:
        """A run is kept."""
        self._done += 1
        left = self._time_left()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, left=left)
        if self._shown:
            self._print(f"{_said(key, run, seconds)}  ({self._done} of {self._total}{f', {left}' if left else ''})")

    def _time_left(self) -> str:
        # since the start of this process, so that runs side by side count as they should
        mean = (time.monotonic() - self._started) / (self._done - self._before)
        seconds = mean * (self._total - self._done)
        return f"about {duration(seconds)} left" if seconds else ""

    def _print(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A length of time in words, to about two digits."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _said(key: str, run: Mapping[str, Any], seconds: float | None) -> str:
    if "problem" in run:
        return f"{key}: {run['problem']}"
    test = run["test"]
    time_taken = "" if seconds is None else f"  {duration(seconds)}"
    return f"{key}: test AUC {test['auc']:.4f} ACC {test['acc']:.4f}, best epoch {run['best_epoch'] + 1}{time_taken}"


def _bar() -> Any:
    # rich takes longer to import than the rest of a short command
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("runs"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=Console(stderr=True),
        transient=True,
    )
