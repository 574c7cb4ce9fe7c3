"""A progress bar for long loops in a terminal, and none elsewhere."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_WORTH_SHOWING = 100


def tracked(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The items, with a bar on the standard error stream while they are taken, if that is a terminal and they are many.

    Args:
        items: anything.
        what: what is being done, for the bar.
        total: how many items there are.
    """
    if total < _WORTH_SHOWING or not sys.stderr.isatty():
        yield from items
        return
    # rich takes longer to import than a short command
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(items, total=total, description=what)
