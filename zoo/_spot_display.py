"""What a person sees of a spot check: a live bar in a terminal, one line a segment elsewhere, nothing if not wanted."""

import sys
from typing import Protocol

from dettriton.train._commitment import Commitment


class Display(Protocol):
    """Where a spot check reports to; a context for its length."""

    def __enter__(self) -> "Display": ...

    def __exit__(self, *_: object) -> None: ...

    def step(self, done: int) -> None:
        """So many steps of the current segment are done."""

    def segment(self, index: int, matches: bool) -> None:
        """A segment is done."""


def make_display(progress: bool, commitment: Commitment, chosen: tuple[int, ...]) -> Display:
    """The display for this process's standard error stream; none at all without ``progress``."""
    if not progress:
        return _Silent()
    return _Bar(commitment, chosen) if sys.stderr.isatty() else _Lines(commitment)


class _Silent:
    def __enter__(self) -> "_Silent":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def step(self, done: int) -> None:
        pass

    def segment(self, index: int, matches: bool) -> None:
        pass


class _Lines(_Silent):
    def __init__(self, commitment: Commitment):
        self._commitment = commitment

    def segment(self, index: int, matches: bool) -> None:
        print(self._summary(index, matches), file=sys.stderr, flush=True)

    def _summary(self, index: int, matches: bool) -> str:
        begin, end = self._commitment.bounds(index)
        verdict = "match" if matches else "MISMATCH"
        return f"segment {index + 1}/{self._commitment.count}  steps {begin} to {end - 1}  {verdict}"


class _Bar(_Lines):
    def __init__(self, commitment: Commitment, chosen: tuple[int, ...]):
        super().__init__(commitment)
        # rich takes longer to import than the rest of a short command
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn(f"{len(chosen)} segments"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        lengths = [end - begin for begin, end in map(commitment.bounds, chosen)]
        self._task = self._progress.add_task("", total=sum(lengths))
        self._before = 0

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, done: int) -> None:
        self._progress.update(self._task, completed=self._before + done)

    def segment(self, index: int, matches: bool) -> None:
        begin, end = self._commitment.bounds(index)
        self._before += end - begin
        self._progress.console.print(self._summary(index, matches), highlight=False)
