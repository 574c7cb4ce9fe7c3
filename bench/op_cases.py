"""The list of cases: every public op of ``dettriton.ops`` in several configurations, and what composed ops rest on.

``tests/bench/test_op_cases.py`` fails when a public op has no case.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import cases_activations
import cases_attention
import cases_dots
import cases_elementary
import cases_fused
import cases_indexing
import cases_losses
import cases_norms
import cases_pools
import cases_reductions
import torch
from foundation_cases import FOUNDATIONS
from op_case import HARD, PRECISIONS, Case, case, classes, hard, hard_cases, positive

from dettriton import ops
from dettriton.exact.philox import Stream

MATRICES = {
    "tail": ((5, 37), (37, 9)),
    "tiles": ((70, 130), (130, 65)),
    "vector": ((33,), (33, 4)),
    "batched": ((3, 2, 7, 20), (2, 20, 6)),
    "one term": ((4, 1), (1, 3)),
    "no terms": ((3, 0), (0, 2)),
    "more terms than an accumulator": ((2, 140_000), (140_000, 2)),
}
LARGE = ("more terms than an accumulator", "split")

MAPS = {
    "plain": ((2, 3, 13, 11), (5, 3, 3, 3), {"padding": 1}),
    "strided": ((2, 4, 9, 14), (6, 4, 3, 2), {"stride": (2, 3), "padding": (1, 2)}),
    "dilated": ((1, 2, 11, 10), (2, 2, 3, 3), {"dilation": (2, 3), "padding": 3}),
    "grouped": ((3, 4, 8, 8), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((2, 4, 8, 8), (4, 1, 3, 3), {"groups": 4, "stride": 2}),
    "pointwise": ((2, 70, 6, 6), (33, 70, 1, 1), {}),
    "even kernel": ((2, 2, 7, 6), (3, 2, 3, 2), {"padding": "same"}),
    "uncovered": ((1, 2, 8, 8), (2, 2, 2, 2), {"stride": 3}),
    "tiles": ((3, 16, 12, 12), (40, 16, 3, 3), {"padding": 1}),
    "split": ((9, 2, 45, 45), (2, 2, 3, 3), {"padding": 1}),
}


def _dots() -> list[Case]:
    found = []
    for precision in PRECISIONS:
        matmul = partial(ops.matmul, precision=precision)
        found += [
            case("matmul", f"{name}, {precision}", lambda a, b, f=matmul: f(a, b), "a b", a=a, b=b, large=name in LARGE)
            for name, (a, b) in MATRICES.items()
        ]
        against_rows = lambda a, b, f=matmul: f(a, b.t())  # noqa: E731 used once, below
        found += hard_cases("matmul", against_rows, "a", 5, 33, configuration=f"{precision}, hard", b=(6, 33))
    medium = partial(ops.linear, precision="medium")
    return [
        *found,
        case("linear", "bias", ops.linear, "input weight bias", input=(70, 37), weight=(10, 37), bias=(10,)),
        *hard_cases(
            "linear", ops.linear, "bias", 6, configuration="hard bias", input=hard("inf", 5, 33), weight=(6, 33)
        ),
        case("linear", "batch, medium", medium, "input weight", input=(2, 3, 64), weight=(5, 64)),
    ]


def _convolutions() -> list[Case]:
    found = []
    for precision in PRECISIONS:
        for name, (x, w, arguments) in MAPS.items():
            fn = partial(ops.conv2d, **arguments, precision=precision)
            found.append(
                case("conv2d", f"{name}, {precision}", fn, "input weight", input=x, weight=w, large=name in LARGE)
            )
        fn = partial(ops.conv1d, padding=1, precision=precision)
        found += [
            case(
                "conv1d", f"{precision}, hard {kind}", fn, "input weight",
                input=hard(kind, 2, 3, 10), weight=hard(kind, 4, 3, 3),
            )
            for kind in HARD
        ]  # fmt: skip
    strided = partial(ops.conv1d, stride=2, padding=2, dilation=2)
    return [
        *found,
        case("conv1d", "strided", strided, "input weight bias", input=(3, 12, 50), weight=(8, 12, 7), bias=(8,)),
        case(
            "conv2d", "channels last", lambda x, w: ops.conv2d(x.to(memory_format=torch.channels_last), w), "x w",
            x=(2, 3, 9, 9), w=(4, 3, 3, 3),
        ),
    ]  # fmt: skip


def _reductions() -> list[Case]:
    found = []
    for op in ("sum", "mean", "var"):
        fn = getattr(ops, op)
        found += [
            case(op, "all", fn, "input", input=(3, 41, 29)),
            case(op, "outer and inner", partial(fn, dim=(0, 2)), "input", input=(5, 7, 300)),
            case(op, "middle", partial(fn, dim=1, keepdim=True), "input", input=(4, 19, 6)),
            case(op, "transposed", lambda x, f=fn: f(x.t(), 0), "x", x=(33, 17)),
            case(op, "every other", lambda x, f=fn: f(x[:, ::2], 1), "x", x=(6, 50)),
            case(op, "long", fn, "input", input=(100_003,)),
            case(op, "one term", partial(fn, dim=1), "input", input=(4, 1)),
            case(op, "no term", partial(fn, dim=1), "input", input=(4, 0)),
            *hard_cases(op, partial(fn, dim=1), "input", 3, 1500),
        ]
    return [*found, case("var", "population", partial(ops.var, correction=0), "input", input=(1000,))]


def _normalisation() -> list[Case]:
    found = []
    train = partial(ops.batch_norm, training=True)
    for name, shape in {"map": (6, 5, 7, 3), "signal": (9, 4, 11), "rows": (13, 6), "large": (16, 3, 33, 33)}.items():
        made = {k: (shape[1],) for k in ("running_mean", "weight", "bias")}
        made |= {"running_var": positive(shape[1]), "input": shape}
        learned = "input weight bias"
        found += [
            case("batch_norm", f"train {name}", train, learned, mutable="running_mean running_var", **made),
            case("batch_norm", f"eval {name}", ops.batch_norm, learned, **made),
        ]
    bare = partial(train, running_mean=None, running_var=None, eps=1e-3)
    return [
        *found,
        case("batch_norm", "bare", bare, "input", input=(8, 3, 5)),
        *hard_cases("batch_norm", bare, "input", 16, 3, 5),
    ]


def _with_indices(input: torch.Tensor, **arguments: Any) -> dict[str, torch.Tensor]:
    values, indices = ops.max_pool2d(input, return_indices=True, **arguments)
    return {"output": values, "indices": indices}


def _pools() -> list[Case]:
    overlapping = {"kernel_size": 3, "stride": 2, "padding": 1}
    inside = {"kernel_size": 3, "padding": 1, "count_include_pad": False, "ceil_mode": True}
    dilated = {"kernel_size": (3, 2), "stride": (1, 2), "dilation": (2, 3)}
    pools = [
        ("max_pool2d", "2x2", partial(_with_indices, kernel_size=2), (2, 3, 9, 8)),
        ("max_pool2d", "overlapping", partial(_with_indices, **overlapping), (2, 3, 11, 7)),
        ("max_pool2d", "dilated", partial(_with_indices, **dilated), (1, 2, 12, 12)),
        ("max_pool2d", "ceil", partial(_with_indices, kernel_size=3, stride=2, ceil_mode=True), (1, 2, 10, 9)),
        ("avg_pool2d", "2x2", partial(ops.avg_pool2d, kernel_size=2), (2, 3, 9, 8)),
        ("avg_pool2d", "overlapping", partial(ops.avg_pool2d, **overlapping), (2, 3, 11, 7)),
        ("avg_pool2d", "inside", partial(ops.avg_pool2d, **inside), (2, 2, 9, 9)),
        ("avg_pool2d", "divisor", partial(ops.avg_pool2d, kernel_size=(2, 3), divisor_override=5), (1, 2, 8, 8)),
        ("avg_pool2d", "large window", partial(ops.avg_pool2d, kernel_size=10, stride=5), (2, 2, 20, 20)),
        ("adaptive_avg_pool2d", "whole map", partial(ops.adaptive_avg_pool2d, output_size=1), (2, 3, 10, 11)),
        ("adaptive_avg_pool2d", "uneven", partial(ops.adaptive_avg_pool2d, output_size=(3, 5)), (2, 3, 10, 11)),
        ("adaptive_avg_pool2d", "rows", partial(ops.adaptive_avg_pool2d, output_size=(None, 2)), (2, 3, 10, 11)),
    ]
    found = [case(op, configuration, fn, "input", input=shape) for op, configuration, fn, shape in pools]
    signals = [
        ("max_pool1d", partial(ops.max_pool1d, kernel_size=3, stride=2, padding=1)),
        ("avg_pool1d", partial(ops.avg_pool1d, kernel_size=4, stride=3, padding=1)),
        ("adaptive_avg_pool1d", partial(ops.adaptive_avg_pool1d, output_size=7)),
    ]
    for op, fn in signals:
        found += hard_cases(op, fn, "input", 2, 3, 31, configuration="signal,")
    return found


def _elementwise() -> list[Case]:
    drop = partial(ops.dropout, p=0.3, rng=Stream(7, 3, 2**33 + 5))
    return [
        case("relu", "tail", ops.relu, "input", input=(3, 1025)),
        case("relu", "transposed", lambda x: ops.relu(x.t()), "x", x=(33, 40)),
        *hard_cases("relu", ops.relu, "input", 100),
        case("dropout", "map", drop, "input", input=(5, 7, 41)),
        case("dropout", "transposed", lambda x: drop(x.t(), p=0.5), "x", x=(40, 33)),
        case("dropout", "everything", partial(drop, p=1.0), "input", input=(100,)),
        *hard_cases("dropout", drop, "input", 100),
    ]


def _softmaxes() -> list[Case]:
    found = []
    for op in ("softmax", "log_softmax"):
        fn = getattr(ops, op)
        found += [
            case(op, "rows", partial(fn, dim=1), "input", input=(150, 10)),
            case(op, "map", partial(fn, dim=1), "input", input=(2, 7, 3, 3)),
            case(op, "long rows", partial(fn, dim=-1), "input", input=(3, 5000)),
            *hard_cases(op, partial(fn, dim=1), "input", 4, 15),
        ]
    return found


def _losses() -> list[Case]:
    cross, binary = ops.cross_entropy, ops.binary_cross_entropy_with_logits
    rows = {"input": (70, 10), "target": classes(10, 70)}
    weighted = {"input": (20, 5), "target": classes(5, 20), "weight": positive(5)}
    labelled = {"input": (33, 12), "target": classes(2, 33, 12, dtype=torch.float32)}
    factors = {"weight": positive(33, 1), "pos_weight": positive(12)}
    found = [
        case("cross_entropy", f"{r}, smoothing {s}", partial(cross, reduction=r, label_smoothing=s), "input", **rows)
        for r in ("mean", "sum", "none")
        for s in (0.0, 0.1)
    ]
    ignoring = partial(cross, ignore_index=2, label_smoothing=0.2)
    towards = lambda input, logits: cross(input, ops.softmax(logits, 1), label_smoothing=0.1)  # noqa: E731 used once
    found += [
        case("cross_entropy", "weights", cross, "input", **weighted),
        case("cross_entropy", "weights, ignored, smoothed", ignoring, "input", **weighted),
        case("cross_entropy", "map", cross, "input", input=(2, 4, 3, 5), target=classes(4, 2, 3, 5)),
        case("cross_entropy", "many classes", cross, "input", input=(3, 5000), target=classes(5000, 3)),
        case("cross_entropy", "probabilities", towards, "input", input=(9, 6), logits=(9, 6)),
        *hard_cases("cross_entropy", cross, "input", 5, 7, target=classes(7, 5)),
    ]
    op = "binary_cross_entropy_with_logits"
    found += [case(op, r, partial(binary, reduction=r), "input", **labelled) for r in ("mean", "sum", "none")]
    return [
        *found,
        case(op, "weights", binary, "input", **labelled, **factors),
        *hard_cases(op, binary, "input", 60, target=classes(2, 60, dtype=torch.float32)),
    ]


CASES: tuple[Case, ...] = (
    *_dots(),
    *_convolutions(),
    *_reductions(),
    *_normalisation(),
    *_pools(),
    *_elementwise(),
    *_softmaxes(),
    *_losses(),
    *cases_activations.CASES,
    *cases_attention.CASES,
    *cases_dots.CASES,
    *cases_elementary.CASES,
    *cases_fused.CASES,
    *cases_indexing.CASES,
    *cases_losses.CASES,
    *cases_norms.CASES,
    *cases_pools.CASES,
    *cases_reductions.CASES,
    *FOUNDATIONS,
)
