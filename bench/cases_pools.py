"""Cases of the pooling and resampling ops beyond those of ``op_cases.py``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from op_case import Case, case, hard_cases

from dettriton.exact.philox import Stream
from dettriton.ops.adaptive_max_pool import adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d
from dettriton.ops.avg_pool import adaptive_avg_pool3d, avg_pool3d
from dettriton.ops.fractional_max_pool import fractional_max_pool2d, fractional_max_pool3d
from dettriton.ops.grid_sample import grid_sample
from dettriton.ops.interpolate import interpolate
from dettriton.ops.max_pool import max_pool1d, max_pool2d, max_pool3d
from dettriton.ops.max_unpool import max_unpool1d, max_unpool2d, max_unpool3d
from dettriton.ops.pad import pad

SIGNAL, MAP, VOLUME = (2, 3, 11), (2, 3, 7, 6), (2, 2, 5, 4, 6)


def _pools() -> list[Case]:
    return [
        case(
            "max_pool3d", "overlapping", partial(max_pool3d, kernel_size=3, stride=2, padding=1), "input", input=VOLUME
        ),
        case(
            "avg_pool3d", "overlapping", partial(avg_pool3d, kernel_size=3, stride=2, padding=1), "input", input=VOLUME
        ),
        case(
            "adaptive_avg_pool3d", "uneven", partial(adaptive_avg_pool3d, output_size=(2, 3, 4)), "input", input=VOLUME
        ),
        case("adaptive_max_pool1d", "uneven", partial(adaptive_max_pool1d, output_size=4), "input", input=SIGNAL),
        case("adaptive_max_pool2d", "uneven", partial(adaptive_max_pool2d, output_size=(3, 4)), "input", input=MAP),
        case(
            "adaptive_max_pool3d", "uneven", partial(adaptive_max_pool3d, output_size=(2, 3, 4)), "input", input=VOLUME
        ),
    ]


def _drawn_windows() -> list[Case]:
    pools: dict[str, tuple[Callable, tuple[int, ...], tuple[int, ...]]] = {
        "fractional_max_pool2d": (fractional_max_pool2d, (3, 4), MAP),
        "fractional_max_pool3d": (fractional_max_pool3d, (2, 3, 4), VOLUME),
    }
    found = []
    for op, (fn, out, shape) in pools.items():
        drawn = partial(fn, kernel_size=2, output_size=out, rng=Stream(5, 1, 9))
        found += [case(op, "drawn", drawn, "input", input=shape), *hard_cases(op, drawn, "input", *shape)]
    return found


def _unpooled(pool: Callable, unpool: Callable, x: torch.Tensor) -> torch.Tensor:
    y, indices = pool(x, 2, return_indices=True)
    return unpool(y, indices, 2, output_size=x.shape[2:])


def _unpools() -> list[Case]:
    pairs = {
        "max_unpool1d": (max_pool1d, max_unpool1d, SIGNAL),
        "max_unpool2d": (max_pool2d, max_unpool2d, MAP),
        "max_unpool3d": (max_pool3d, max_unpool3d, VOLUME),
    }
    return [case(op, "after pooling", partial(_unpooled, p, u), "x", x=shape) for op, (p, u, shape) in pairs.items()]


def _interpolations() -> list[Case]:
    sizes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
        "nearest": (MAP, (10, 4)),
        "nearest-exact": (MAP, (10, 4)),
        "linear": (SIGNAL, (17,)),
        "bilinear": (MAP, (10, 4)),
        "bicubic": (MAP, (10, 4)),
        "trilinear": (VOLUME, (7, 3, 9)),
    }
    found = []
    for mode, (shape, size) in sizes.items():
        fn = partial(interpolate, size=size, mode=mode)
        found.append(case("interpolate", mode, fn, "input", input=shape))
        if "nearest" not in mode:
            found.append(case("interpolate", f"{mode}, corners", partial(fn, align_corners=True), "input", input=shape))
    scaled = partial(interpolate, scale_factor=1.7, mode="bilinear")
    return [*found, case("interpolate", "scaled", scaled, "input", input=MAP)]


def _paddings() -> list[Case]:
    shapes: dict[str, Any] = {"signal": (SIGNAL, (3, 2)), "map": (MAP, (2, 1, 0, 3)), "volume": (VOLUME, (1,) * 6)}
    return [
        case("pad", f"{mode} {name}", partial(pad, pad=ends, mode=mode), "input", input=shape)
        for mode in ("constant", "reflect", "replicate", "circular")
        for name, (shape, ends) in shapes.items()
    ]


def _grids() -> list[Case]:
    return [
        case(
            "grid_sample",
            f"{mode}, {padding}, corners {corners}",
            partial(grid_sample, mode=mode, padding_mode=padding, align_corners=corners),
            "input grid",
            input=MAP,
            grid=(2, 4, 3, 2),
        )
        for mode in ("bilinear", "nearest", "bicubic")
        for padding in ("zeros", "border", "reflection")
        for corners in (False, True)
    ]


CASES: list[Case] = [*_pools(), *_drawn_windows(), *_unpools(), *_interpolations(), *_paddings(), *_grids()]
