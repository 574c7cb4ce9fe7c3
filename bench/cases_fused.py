"""Cases of dot products with bias and activation in their kernels."""

from __future__ import annotations

from functools import partial

from op_case import PRECISIONS, Case, case, hard_cases

from dettriton.ops._epilogue import ACTIVATIONS
from dettriton.ops.conv_act import conv1d_act, conv2d_act, conv3d_act
from dettriton.ops.linear_act import linear_act

LEAVES = "input weight bias"


def _linear() -> list[Case]:
    made = {"input": (3, 7, 37), "weight": (10, 37), "bias": (10,)}
    relu = partial(linear_act, activation="relu")
    gelu = partial(linear_act, activation="gelu")
    return [
        *(case("linear_act", name, partial(linear_act, activation=name), LEAVES, **made) for name in ACTIVATIONS),
        case("linear_act", "no bias", gelu, "input weight", input=(70, 37), weight=(70, 37)),
        case("linear_act", "tiles, medium", partial(gelu, precision="medium"), LEAVES,
             input=(130, 64), weight=(65, 64), bias=(65,)),
        *hard_cases("linear_act", relu, "input", 5, 33, weight=(6, 33), bias=(6,)),
    ]  # fmt: skip


def _convolutions() -> list[Case]:
    shapes = {
        "conv1d_act": (conv1d_act, (3, 4, 33), (6, 2, 5), {"stride": 2, "padding": 2, "groups": 2}),
        "conv2d_act": (conv2d_act, (2, 3, 11, 9), (40, 3, 3, 3), {"padding": 1}),
        "conv3d_act": (conv3d_act, (2, 2, 4, 5, 4), (3, 2, 2, 3, 2), {"padding": (1, 1, 0)}),
    }
    found = []
    for op, (fn, x, w, geometry) in shapes.items():
        made = {"input": x, "weight": w, "bias": w[:1]}
        found += [
            case(
                op,
                f"{name}, {precision}",
                partial(fn, activation=name, precision=precision, **geometry),
                LEAVES,
                **made,
            )
            for name in ("relu", "gelu")
            for precision in PRECISIONS
        ]
        hard = partial(fn, activation="silu", **geometry)
        found += hard_cases(op, hard, "input", *x, weight=w, bias=w[:1])
    swish = partial(conv2d_act, activation="hardswish", groups=4)
    return [
        *found,
        case("conv2d_act", "depthwise, no bias", swish, "input weight", input=(2, 4, 8, 8), weight=(4, 1, 3, 3)),
    ]


CASES: list[Case] = [*_linear(), *_convolutions()]
