"""Cases of the reductions beyond those of ``op_cases.py``: more types of ``sum``, ``mean`` and ``var``, and the rest."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf

import torch
from op_case import Case, case, hard_cases

from dettriton.ops import extrema
from dettriton.ops.cumprod import cumprod
from dettriton.ops.cumsum import cumsum
from dettriton.ops.logsumexp import logsumexp
from dettriton.ops.mean import mean
from dettriton.ops.norm import norm, total_norm
from dettriton.ops.prod import prod
from dettriton.ops.sum import sum
from dettriton.ops.var import std, std_mean, var, var_mean

TYPES = {"float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}


def _in_type(fn: Callable, dtype: torch.dtype) -> Callable:
    return lambda input: fn(input.to(dtype)).to(torch.float32)


def _named(fn: Callable, *names: str) -> Callable:
    return lambda input: dict(zip(names, fn(input), strict=True))


def _of_types(op: str, fn: Callable, *shape: int) -> list[Case]:
    return [case(op, name, _in_type(fn, dtype), "input", input=shape) for name, dtype in TYPES.items()]


def _sums() -> list[Case]:
    found = []
    for op, fn in {"sum": sum, "mean": mean, "var": var, "std": std}.items():
        found += _of_types(op, partial(fn, dim=(0, 2)), 3, 5, 400)
        found += hard_cases(
            op, _in_type(partial(fn, dim=1), torch.float64), "input", 2, 60, configuration="float64, hard"
        )
    found += [
        case("std", "all", std, "input", input=(3, 41, 29)),
        case("std", "middle", partial(std, dim=1, correction=0, keepdim=True), "input", input=(4, 19, 6)),
        *hard_cases("std", partial(std, dim=1), "input", 2, 150),
    ]
    for op, fn in {"var_mean": var_mean, "std_mean": std_mean}.items():
        pair = _named(partial(fn, dim=1), op.split("_")[0], "mean")
        found += [
            case(op, "rows", pair, "input", input=(7, 90)),
            *hard_cases(op, pair, "input", 2, 50),
        ]
    return found


def _norms() -> list[Case]:
    found = []
    for p in (2, 1, 0, inf, -inf):
        found += [
            case("norm", f"{p}, all", partial(norm, p=p), "input", input=(3, 700)),
            *hard_cases("norm", partial(norm, p=p, dim=1), "input", 2, 60, configuration=f"{p}, hard"),
        ]
    return [
        *found,
        *_of_types("norm", partial(norm, dim=1), 4, 300),
        case("norm", "outer and inner", partial(norm, dim=(0, 2), keepdim=True), "input", input=(5, 7, 30)),
        case("norm", "of several tensors", lambda a, b, c: total_norm([a, b, c]), a=(30, 50), b=(7,), c=(2, 3, 4)),
    ]


def _products() -> list[Case]:
    found = []
    for op, fn in {"prod": prod, "cumprod": cumprod, "cumsum": cumsum}.items():
        found += [
            case(op, "last", partial(fn, dim=-1), "input", input=(3, 37)),
            case(op, "first", partial(fn, dim=0), "input", input=(33, 6)),
            case(op, "middle", partial(fn, dim=1), "input", input=(2, 9, 5)),
            case(op, "transposed", lambda x, f=fn: f(x.t(), 0), "x", x=(5, 17)),
            *_of_types(op, partial(fn, dim=1), 3, 20),
            *hard_cases(op, partial(fn, dim=1), "input", 2, 25),
        ]
    return [
        *found,
        case("prod", "all", prod, "input", input=(4, 5, 6)),
        case("cumsum", "several blocks", partial(cumsum, dim=0), "input", input=(2500,), large=True),
        case("cumsum", "long rows", partial(cumsum, dim=1), "input", input=(64, 10_000), large=True),
        case("cumsum", "wide", partial(cumsum, dim=0), "input", input=(300, 1000), large=True),
        case(
            "cumsum",
            "long, float64",
            _in_type(partial(cumsum, dim=0), torch.float64),
            "input",
            input=(5000,),
            large=True,
        ),
        *hard_cases(
            "cumsum", _in_type(partial(cumsum, dim=1), torch.float64), "input", 1, 20, configuration="float64, hard"
        ),
    ]


def _extrema() -> list[Case]:
    found = []
    for op in ("amax", "amin", "max", "min"):
        fn = getattr(extrema, op)
        along = partial(fn, dim=1) if op.startswith("a") else _named(partial(fn, dim=1), "values", "indices")
        found += [
            case(op, "all", fn, "input", input=(3, 7, 11)),
            case(op, "middle", along, "input", input=(4, 9, 6)),
            case(op, "ties", lambda input, f=fn: f(torch.round(input)), "input", input=(300,)),
            *_of_types(op, fn, 5, 60),
            *hard_cases(op, along, "input", 3, 50),
        ]
    for op in ("argmax", "argmin"):
        fn = getattr(extrema, op)
        found += [
            case(op, "all", fn, input=(3, 7, 11)),
            case(op, "middle", partial(fn, dim=1, keepdim=True), input=(4, 9, 6)),
            *(case(op, name, lambda input, f=fn, d=d: f(input.to(d), 1), input=(5, 60)) for name, d in TYPES.items()),
        ]
    return found


def _logsumexps() -> list[Case]:
    return [
        case("logsumexp", "rows", partial(logsumexp, dim=1), "input", input=(150, 10)),
        case("logsumexp", "map", partial(logsumexp, dim=(1, 3), keepdim=True), "input", input=(2, 7, 3, 3)),
        case("logsumexp", "long rows", partial(logsumexp, dim=-1), "input", input=(3, 5000)),
        case("logsumexp", "bfloat16", _in_type(partial(logsumexp, dim=1), torch.bfloat16), "input", input=(6, 30)),
        *hard_cases("logsumexp", partial(logsumexp, dim=1), "input", 4, 15),
    ]


CASES: list[Case] = [*_sums(), *_norms(), *_products(), *_extrema(), *_logsumexps()]
