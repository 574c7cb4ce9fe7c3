"""Cases of the norms of rows, and of batch_norm with relu and residual in its kernels."""

from __future__ import annotations

from functools import partial

from op_case import Case, case, hard_cases, positive

from dettriton.ops.batch_norm_relu import batch_norm_relu
from dettriton.ops.group_norm import group_norm, instance_norm
from dettriton.ops.layer_norm import layer_norm
from dettriton.ops.rms_norm import rms_norm


def _of_trailing_dimensions() -> list[Case]:
    found = []
    for op, fn, learned in (("layer_norm", layer_norm, "weight bias"), ("rms_norm", rms_norm, "weight")):
        for name, shape, rank in (
            ("rows", (13, 37), 1),
            ("plane", (3, 4, 5), 2),
            ("two tiles", (2, 4097), 1),
            ("one element", (5, 1), 1),
            ("many", (2048, 768), 1),
        ):
            trailing = shape[-rank:]
            made = {"input": shape, **dict.fromkeys(learned.split(), trailing)}
            over = partial(fn, normalized_shape=trailing)
            large = name in ("two tiles", "many")
            found.append(case(op, name, over, f"input {learned}", large=large, **made))
        transposed = lambda x, f=fn: f(x.t(), 6)  # noqa: E731 used once, below
        found += [
            case(op, "transposed", transposed, "x", x=(6, 9)),
            *hard_cases(op, partial(fn, normalized_shape=33), "input", 3, 33, weight=(33,)),
        ]
    return found


def _of_channels() -> list[Case]:
    found = []
    for name, groups, shape in (
        ("rows", 3, (7, 6)),
        ("signal", 2, (3, 4, 11)),
        ("map", 1, (2, 3, 5, 4)),
        ("large", 32, (16, 64, 33, 33)),
    ):
        made = {"input": shape, "weight": (shape[1],), "bias": (shape[1],)}
        over = partial(group_norm, num_groups=groups)
        found.append(case("group_norm", name, over, "input weight bias", large=name == "large", **made))
    grouped = partial(group_norm, num_groups=2)
    found += hard_cases("group_norm", grouped, "input", 2, 4, 9, weight=(4,))
    statistics = {"running_mean": (4,), "running_var": positive(4)}
    affine = {"weight": (4,), "bias": (4,)}
    learned, tracked = "input weight bias", "running_mean running_var"
    by_running = partial(instance_norm, use_input_stats=False)
    return [
        *found,
        case("instance_norm", "map", instance_norm, learned, input=(3, 4, 5, 2), **affine),
        case("instance_norm", "bare", instance_norm, "input", input=(2, 3, 40)),
        case(
            "instance_norm", "track", instance_norm, learned, mutable=tracked, input=(3, 4, 7), **affine, **statistics
        ),
        case("instance_norm", "eval", by_running, learned, input=(3, 4, 7), **affine, **statistics),
        case("instance_norm", "large", instance_norm, learned, large=True, input=(16, 4, 65, 65), **affine),
        *hard_cases("instance_norm", instance_norm, "input", 2, 3, 9),
    ]


def _fused() -> list[Case]:
    found = []
    for name, shape in {"map": (6, 5, 7, 3), "rows": (13, 6), "large": (16, 3, 33, 33)}.items():
        made = {k: (shape[1],) for k in ("running_mean", "weight", "bias")}
        made |= {"running_var": positive(shape[1]), "input": shape}
        train = partial(batch_norm_relu, training=True)
        learned, tracked = "input weight bias", "running_mean running_var"
        added = f"{learned} residual"
        found += [
            case("batch_norm_relu", f"train {name}", train, learned, mutable=tracked, **made),
            case("batch_norm_relu", f"train {name}, residual", train, added, mutable=tracked, residual=shape, **made),
            case("batch_norm_relu", f"eval {name}, residual", batch_norm_relu, added, residual=shape, **made),
        ]
    bare = partial(batch_norm_relu, running_mean=None, running_var=None, training=True, eps=1e-3)
    return [*found, *hard_cases("batch_norm_relu", bare, "input", 16, 3, 5, residual=(16, 3, 5))]


CASES: list[Case] = [*_of_trailing_dimensions(), *_of_channels(), *_fused()]
