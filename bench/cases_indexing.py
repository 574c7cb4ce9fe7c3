"""Cases of the indexing ops: embeddings, gathers, scatters, counts and ranks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from op_case import Case, Made, case, classes, hard, hard_cases

from dettriton.ops.bincount import bincount, histc
from dettriton.ops.embedding import embedding, embedding_bag
from dettriton.ops.gather import gather, index_select
from dettriton.ops.index_add import index_add
from dettriton.ops.index_put import index_copy, index_put, put
from dettriton.ops.median import kthvalue, median, nanmedian
from dettriton.ops.scatter import REDUCTIONS, scatter, scatter_add, scatter_reduce

MANY = 200_000
LARGE = "many"
OFFSETS = (0, 4, 4, 5, 12)


def fixed(*values: int) -> Made:
    """These integers."""
    return lambda key: torch.tensor(values, dtype=torch.int64)


def ranked(fn: Callable) -> Callable:
    def named(input: torch.Tensor) -> dict[str, torch.Tensor]:
        values, indices = fn(input)
        return {"output": values, "indices": indices}

    return named


def _embeddings() -> list[Case]:
    taken = partial(case, "embedding", leaves="weight")
    found = [
        taken("plain", embedding, input=classes(9, 4, 7), weight=(9, 5)),
        taken("padding", partial(embedding, padding_idx=-2), input=classes(9, 40), weight=(9, 5)),
        taken("by frequency", partial(embedding, scale_grad_by_freq=True), input=classes(9, 40), weight=(9, 3)),
        taken("wide", embedding, input=classes(11, 30), weight=(11, 300)),
        taken("nothing", embedding, input=classes(9, 0), weight=(9, 5)),
        taken("many", embedding, large=True, input=classes(50, 40, 500), weight=(50, 64)),
        *hard_cases("embedding", embedding, "weight", 9, 5, input=classes(9, 4, 7)),
    ]
    for mode in ("sum", "mean", "max"):
        bag = partial(embedding_bag, mode=mode)
        bags = partial(case, "embedding_bag", leaves="weight")
        found += [
            bags(f"{mode}, rows", bag, input=classes(9, 4, 7), weight=(9, 5)),
            bags(f"{mode}, padding", partial(bag, padding_idx=3), input=classes(9, 4, 7), weight=(9, 5)),
            bags(f"{mode}, offsets", bag, input=classes(9, 15), offsets=fixed(*OFFSETS), weight=(9, 5)),
            *hard_cases("embedding_bag", bag, "weight", 9, 3, configuration=f"{mode}, hard", input=classes(9, 4, 6)),
        ]
    weighted = partial(embedding_bag, mode="sum")
    made = {"input": classes(9, 4, 7), "weight": (9, 5), "per_sample_weights": (4, 7)}
    return [*found, case("embedding_bag", "weighted", weighted, "weight per_sample_weights", **made)]


def _gathers() -> list[Case]:
    def transposed(input: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return gather(input.t(), 0, index)

    gathers = [
        ("rows", partial(gather, dim=0), (6, 5), classes(6, 9, 4)),
        ("columns", partial(gather, dim=1), (6, 5), classes(5, 3, 40)),
        ("transposed", transposed, (6, 5), classes(5, 9, 6)),
        ("one element", partial(gather, dim=0), (1,), classes(1, 3000)),
    ]
    slices = [
        ("rows", partial(index_select, dim=0), (6, 5), classes(6, 40)),
        ("middle", partial(index_select, dim=1), (3, 6, 5), classes(6, 40)),
    ]
    return [
        *(case("gather", name, fn, "input", input=shape, index=index) for name, fn, shape, index in gathers),
        *(case("index_select", name, fn, "input", input=shape, index=index) for name, fn, shape, index in slices),
        *hard_cases("gather", partial(gather, dim=0), "input", 9, index=classes(9, 30)),
    ]


def _adds() -> list[Case]:
    slices = [
        ("rows", {"dim": 0}, (6, 5), classes(6, 40), (40, 5)),
        ("alpha", {"dim": 1, "alpha": 0.3}, (3, 6, 5), classes(6, 8), (3, 8, 5)),
        ("one slot", {"dim": 0}, (1, 2), classes(1, 3000), (3000, 2)),
        (LARGE, {"dim": 0}, (1,), classes(1, MANY), (MANY,)),
    ]
    elements = [
        ("rows", {"dim": 0}, (6, 5), classes(6, 9, 4), (9, 4)),
        ("columns", {"dim": 1}, (6, 5), classes(5, 6, 30), (6, 30)),
        ("larger source", {"dim": 0}, (6, 5), classes(6, 9, 4), (11, 7)),
        (LARGE, {"dim": 0}, (1000,), classes(1000, MANY), (MANY,)),
    ]
    found = []
    tables = {index_add: ("source", slices), scatter_add: ("src", elements), scatter: ("src", elements[:3])}
    for op, (source, rows) in tables.items():
        for name, arguments, shape, index, source_shape in rows:
            made = {"input": shape, "index": index, source: source_shape}
            fn = partial(op, **arguments)
            found.append(case(op.__name__, name, fn, f"input {source}", large=name == LARGE, **made))
        fn = partial(op, dim=0)
        found += hard_cases(op.__name__, fn, source, 30, input=(4,), index=classes(4, 30))
    for reduce in REDUCTIONS:
        for include_self in (True, False):
            fn = partial(scatter_reduce, dim=0, reduce=reduce, include_self=include_self)
            name = reduce if include_self else f"{reduce} without self"
            found.append(
                case("scatter_reduce", name, fn, "input src", input=(6, 5), index=classes(6, 15, 4), src=(15, 4))
            )
        fn = partial(scatter_reduce, dim=0, reduce=reduce)
        made = {"input": (4,), "index": classes(4, 30)}
        found += hard_cases("scatter_reduce", fn, "src", 30, configuration=f"{reduce}, hard", **made)
    return found


def _puts() -> list[Case]:
    def rows(input: torch.Tensor, i: torch.Tensor, values: torch.Tensor, accumulate: bool) -> torch.Tensor:
        return index_put(input, (i,), values, accumulate)

    def columns(input: torch.Tensor, i: torch.Tensor, values: torch.Tensor, accumulate: bool) -> torch.Tensor:
        return index_put(input, (None, i), values, accumulate)

    def points(
        input: torch.Tensor, i: torch.Tensor, j: torch.Tensor, values: torch.Tensor, accumulate: bool
    ) -> torch.Tensor:
        return index_put(input, (i, j), values, accumulate)

    named = [
        ("rows", rows, {"input": (6, 5), "i": classes(6, 9), "values": (9, 5)}),
        ("one value", rows, {"input": (6, 5), "i": classes(6, 9), "values": ()}),
        ("columns", columns, {"input": (6, 5), "i": classes(5, 9), "values": (6, 9)}),
        ("points", points, {"input": (4, 5, 3), "i": classes(4, 6, 1), "j": classes(5, 7), "values": (6, 7, 3)}),
    ]
    found = []
    for verb, accumulate in (("write", False), ("accumulate", True)):
        found += [
            case("index_put", f"{verb} {name}", partial(fn, accumulate=accumulate), "input values", **made)
            for name, fn, made in named
        ]
        fn = partial(rows, accumulate=accumulate)
        made = {"input": (4,), "i": classes(4, 30)}
        found += hard_cases("index_put", fn, "values", 30, configuration=f"{verb}, hard", **made)
    copies = {"rows": ((6, 5), 0, (9, 5)), "columns": ((6, 5), 1, (6, 9))}
    for name, (shape, dim, source) in copies.items():
        made = {"input": shape, "index": classes(5, 9), "source": source}
        found.append(case("index_copy", name, partial(index_copy, dim=dim), "input source", **made))
    return found


def _counts() -> list[Case]:
    weighted = lambda input, weights: bincount(input, weights, 9)  # noqa: E731
    return [
        case("bincount", "counts", bincount, input=classes(9, 500)),
        case("bincount", "weights", weighted, "weights", input=classes(7, 500), weights=(500,)),
        case("bincount", "nothing", partial(bincount, minlength=4), input=classes(7, 0)),
        *hard_cases("bincount", weighted, "weights", 60, input=classes(7, 60)),
        case("histc", "limits", partial(histc, bins=13, min=-1.5, max=2.0), input=(30, 40)),
        case("histc", "limits of the data", histc, input=(1000,)),
        *(case("histc", f"hard {kind}", partial(histc, bins=10), input=hard(kind, 60)) for kind in ("huge", "nan")),
    ]  # fmt: skip


def _ranks() -> list[Case]:
    found = []
    for op, fn in {"median": median, "nanmedian": nanmedian, "kthvalue": partial(kthvalue, k=3)}.items():
        along = ranked(partial(fn, dim=1, keepdim=True))
        found += [
            case(op, "middle", along, "input", input=(4, 19, 6)),
            case(op, "even", along, "input", input=(5, 8)),
            *hard_cases(op, along, "input", 3, 41),
        ]
    return [
        *found,
        case("median", "all", median, "input", input=(13, 17)),
        case("nanmedian", "all", nanmedian, "input", input=hard("nan", 13, 17)),
        case("median", "transposed", lambda input: median(input.t()), "input", input=(8, 9)),
    ]


CASES = [*_embeddings(), *_gathers(), *_adds(), *_puts(), *_counts(), *_ranks()]

CASES += [
    case(
        "put",
        f"accumulate {accumulate}",
        lambda input, source, index, a=accumulate: put(input, index, source, a),
        "input source",
        input=(4, 5),
        source=(3, 7),
        index=classes(20, 3, 7),
    )
    for accumulate in (False, True)
]
