"""Cases of the dot products not in ``op_cases``: volumes, transposed convolutions, batched products, einsum."""

from functools import partial

from op_case import HARD, PRECISIONS, Case, case, hard, hard_cases

from dettriton.ops.addmm import addmm, baddbmm
from dettriton.ops.bmm import bmm
from dettriton.ops.conv import conv1d, conv2d, conv3d
from dettriton.ops.conv_transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d
from dettriton.ops.einsum import einsum

CONVOLUTIONS = [
    ("conv3d", "plain", conv3d, (2, 3, 4, 5, 6), (4, 3, 2, 3, 3), {"padding": 1}),
    ("conv3d", "strided", conv3d, (1, 2, 5, 6, 7), (2, 2, 3, 2, 3), {"stride": (2, 1, 3), "padding": (1, 0, 2)}),
    ("conv3d", "grouped, dilated", conv3d, (2, 4, 4, 5, 4), (6, 2, 2, 2, 2), {"groups": 2, "dilation": (2, 1, 3)}),
    ("conv3d", "depthwise", conv3d, (2, 3, 4, 5, 5), (6, 1, 3, 3, 3), {"groups": 3, "padding": 1}),
    ("conv3d", "even kernel", conv3d, (1, 2, 3, 4, 5), (3, 2, 2, 2, 4), {"padding": "same"}),
    ("conv2d", "depthwise 7x7", conv2d, (2, 5, 9, 9), (5, 1, 7, 7), {"groups": 5, "padding": 3}),
    ("conv2d", "depthwise 5x5, stride 2", conv2d, (1, 3, 9, 8), (6, 1, 5, 5), {"groups": 3, "stride": 2, "padding": 2}),
    ("conv_transpose1d", "upsampling", conv_transpose1d, (2, 4, 9), (4, 3, 4), {"stride": 2, "padding": 1}),
    (
        "conv_transpose1d", "output padding beyond the stride", conv_transpose1d, (1, 2, 5), (2, 3, 3),
        {"stride": 2, "output_padding": 3, "dilation": 4},
    ),
    ("conv_transpose2d", "plain", conv_transpose2d, (2, 3, 6, 5), (3, 5, 3, 2), {}),
    (
        "conv_transpose2d", "uneven", conv_transpose2d, (2, 3, 5, 4), (3, 2, 3, 2),
        {"stride": (3, 2), "padding": (1, 0), "output_padding": (2, 1), "dilation": (1, 2)},
    ),
    ("conv_transpose2d", "grouped", conv_transpose2d, (2, 4, 4, 5), (4, 3, 2, 2), {"groups": 2, "stride": 2}),
    ("conv_transpose3d", "strided", conv_transpose3d, (1, 2, 2, 3, 3), (2, 2, 2, 3, 2), {"stride": (1, 2, 2)}),
]  # fmt: skip

EQUATIONS = {
    "matrices": ("ij,jk->ik", (7, 33), (33, 5)),
    "attention": ("bqhd,bkhd->bhqk", (2, 5, 2, 8), (2, 6, 2, 8)),
    "ellipsis": ("...ij,...jk->...ik", (2, 1, 3, 9), (3, 9, 4)),
    "own sums": ("ij,jkl->k", (6, 9), (9, 4, 5)),
    "products": ("ij,kj->ikj", (3, 6), (4, 6)),
}


def _convolutions() -> list[Case]:
    return [
        case(op, f"{name}, {precision}", partial(fn, **arguments, precision=precision), "input weight bias",
             input=x, weight=w, bias=(w[1] * arguments.get("groups", 1) if "transpose" in op else w[0],))
        for op, name, fn, x, w, arguments in CONVOLUTIONS
        for precision in PRECISIONS
    ] + [
        case("conv_transpose1d", f"hard {kind}", partial(conv_transpose1d, stride=2), "input weight",
             input=hard(kind, 2, 3, 10), weight=hard(kind, 3, 4, 3))
        for kind in HARD
    ] + [
        case(op.__name__, f"hard bias {kind}", op, "input weight bias",
             input=(2, 3, 9), weight=(3, 3, 3), bias=hard(kind, 3))
        for op in (conv1d, conv_transpose1d)
        for kind in HARD
    ] + [
        case("conv3d", f"hard {kind}", conv3d, "input weight",
             input=hard(kind, 2, 2, 3, 3, 3), weight=hard(kind, 2, 2, 2, 2, 2))
        for kind in HARD
    ]  # fmt: skip


def _products() -> list[Case]:
    against_rows = lambda input, other: bmm(input, other.transpose(1, 2))  # noqa: E731 used once, below
    scaled = {"beta": 0.3, "alpha": -1.7}
    found = [
        *(
            case("bmm", f"batch, {p}", partial(bmm, precision=p), "input mat2", input=(3, 7, 33), mat2=(3, 33, 5))
            for p in PRECISIONS
        ),
        *hard_cases("bmm", against_rows, "input", 2, 5, 17, other=(2, 4, 17)),
        case("addmm", "row", addmm, "input mat1 mat2", input=(5,), mat1=(7, 33), mat2=(33, 5)),
        case("addmm", "scaled", partial(addmm, **scaled), "input mat1 mat2", input=(7, 5), mat1=(7, 33), mat2=(33, 5)),
        *hard_cases("addmm", partial(addmm, **scaled), "mat1", 4, 17, input=(4, 3), mat2=(17, 3)),
        case(
            "baddbmm", "column, scaled", partial(baddbmm, **scaled), "input batch1 batch2",
            input=(7, 1), batch1=(2, 7, 20), batch2=(2, 20, 3),
        ),
        case("einsum", "three operands", lambda a, b, c: einsum("ab,bc,cd->ad", a, b, c), "a b c",
             a=(3, 9), b=(9, 7), c=(7, 4)),
        case("einsum", "medium", lambda a, b: einsum("ij,kj->ki", a, b, precision="medium"), "a b",
             a=(4, 19), b=(5, 19)),
        case("einsum", "sum", lambda a: einsum("ijk->ki", a), "a", a=(3, 20, 4)),
        *hard_cases("einsum", lambda a, b: einsum("bij,bj->bi", a, b), "a", 2, 3, 8, b=(2, 8)),
    ]  # fmt: skip
    for name, (equation, a, b) in EQUATIONS.items():
        found.append(case("einsum", name, lambda a, b, e=equation: einsum(e, a, b), "a b", a=a, b=b))
    return found


CASES: list[Case] = [*_convolutions(), *_products()]
