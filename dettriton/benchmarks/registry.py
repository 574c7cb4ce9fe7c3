"""The one list of what is measured.

``small`` is for a quick look: the zoo's shapes at batch 8. ``zoo`` is its shapes at batch 128 and the whole training
steps of the released entries. ``large`` is what fills a GPU, and the networks of the zoo that have recipes but no
released hash yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

from dettriton import zoo
from dettriton.benchmarks.case import SIZES, Case
from dettriton.benchmarks.dots import (
    CONFORMER_HEADS,
    LARGE_BATCH,
    TINY_CONFORMER_HEADS,
    VIT_S_HEADS,
    attentions,
    layer_cases,
    matmuls,
)
from dettriton.benchmarks.others import channels, elementwise, indexing, losses, reductions, rows
from dettriton.benchmarks.steps import steps
from dettriton.benchmarks.updates import updates
from dettriton.errors import InputError

FLAT = 1 << 26
"""Elements of 256 MB of binary32."""


@cache
def unreleased() -> tuple[str, ...]:
    """One recipe for each network that no released entry has."""
    released = {zoo.recipe(name).model.name for name in zoo.names()}
    found: dict[str, str] = {}
    for name in zoo.list_recipes():
        model = zoo.recipe(name).model.name
        if model not in released:
            found.setdefault(model, name)
    return tuple(found.values())


def cases(sizes: Iterable[str] = SIZES) -> list[Case]:
    """All cases of these sizes."""
    makers = {"small": _small, "zoo": _zoo, "large": _large}
    return [case for size in sizes for case in makers[size]()]


def _small() -> Iterator[Case]:
    yield from matmuls("small", 64)
    yield from _of_batch("small", 8)
    yield from attentions("small", 2, CONFORMER_HEADS)
    yield from attentions("small", 1, VIT_S_HEADS)
    yield from losses("small", 8, 12)
    yield from indexing("small", 64, 32, 512)
    yield from updates("small", "med_cnn_8x8")
    yield from layer_cases("small", 8, tuple(zoo.names()))
    yield from steps("small", tuple(zoo.names()), batch=8)


def _zoo() -> Iterator[Case]:
    yield from matmuls("zoo", 512)
    yield from _of_batch("zoo", LARGE_BATCH)
    yield from attentions("zoo", 16, CONFORMER_HEADS)
    yield from attentions("zoo", 4, VIT_S_HEADS)
    yield from losses("zoo", LARGE_BATCH, 12)
    yield from indexing("zoo", 1000, 64, 8192)
    yield from updates("zoo", "med_cnn")
    yield from layer_cases("zoo", LARGE_BATCH, tuple(zoo.names()))
    yield from steps("zoo", tuple(zoo.names()))


def _of_batch(size: str, batch: int) -> Iterator[Case]:
    yield from attentions(size, batch, TINY_CONFORMER_HEADS)
    yield from reductions(size, batch, 8, 500)
    yield from rows(size, batch, 500, 32)
    yield from channels(size, batch, 8, 500)
    yield from channels(size, batch, 16, 14, 14)
    yield from elementwise(size, batch, 8, 500)


def _large() -> Iterator[Case]:
    yield from matmuls("large", 4096, 8192, first=64)
    yield from reductions("large", LARGE_BATCH, FLAT // LARGE_BATCH)
    yield from rows("large", 1 << 16, 1 << 10)
    yield from channels("large", LARGE_BATCH, 64, 56, 56)
    yield from elementwise("large", LARGE_BATCH, FLAT // LARGE_BATCH)
    yield from attentions("large", LARGE_BATCH, CONFORMER_HEADS)
    yield from attentions("large", LARGE_BATCH, VIT_S_HEADS)
    yield from indexing("large", 100_000, 256, 1 << 18)
    yield from losses("large", 8192, 10_000)
    yield from updates("large", "med_resnet18")
    yield from layer_cases("large", LARGE_BATCH, unreleased(), first=8)
    yield from steps("large", unreleased())


def op_names() -> list[str]:
    """What ``--op`` takes."""
    return sorted({case.op for case in cases(("small",))})


def chosen(
    sizes: Iterable[str],
    ops: Iterable[str] = (),
    only: Iterable[str] = (),
    entries: Iterable[str] = (),
) -> list[Case]:
    """The cases of these sizes that every given choice holds for.

    Args:
        sizes: of :data:`SIZES`.
        ops: names of :func:`op_names`; none for all.
        only: texts, one of which the case's name holds; none for all.
        entries: zoo entries whose training steps are the only cases; none for all.

    Raises:
        InputError: an op or an entry is unknown, or no case is left.
    """
    ops, only, entries = (*ops,), (*only,), (*entries,)
    known_ops, known_entries = op_names(), [*zoo.names(), *unreleased()]
    _require_known("op", ops, known_ops)
    _require_known("entry", entries, known_entries)
    found = [
        case
        for case in cases(sizes)
        if (not ops or case.op in ops)
        and (not only or any(text in case.name for text in only))
        and (not entries or getattr(case, "entry", None) in entries)
    ]
    if not found:
        raise InputError(
            f"no case of size {', '.join(sizes)} is left by these choices; sizes are {', '.join(SIZES)}, "
            f"ops are {', '.join(known_ops)}"
        )
    return found


def _require_known(what: str, given: tuple[str, ...], known: list[str]) -> None:
    unknown = sorted({*given} - {*known})
    if unknown:
        raise InputError(f"there is no {what} {', '.join(unknown)} to measure; choose of {', '.join(known)}")
