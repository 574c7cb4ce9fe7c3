"""Running the kernels with other tiles, warps and stages: launch plans, none of which may move a bit."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType, ModuleType
from typing import Any

import dettriton.ops  # noqa: F401 declares the kernels
from dettriton.ops._launch import KERNELS, Kernel
from dettriton.ops._plans import Plan as Tile

_OPS = "dettriton.ops."
_ELEMENTWISE = ("_elementwise", "dropout", "random", "bce", "batch_norm", "max_pool", "avg_pool")


@dataclass(frozen=True)
class Plan:
    """One way to launch every kernel.

    Attributes:
        name: what reports call it.
        options: ``num_warps`` and ``num_stages`` of every launch.
        constants: module of ``dettriton.ops`` to its tile constants and their values; both the kernels and the grids
            that the host computes from these constants follow. Products take their tile from ``_plans.FORCED``.
    """

    name: str
    options: Mapping[str, int] = field(default_factory=dict)
    constants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def _elementwise(block: int) -> dict[str, dict[str, int]]:
    return {module: {"BLOCK": block} for module in _ELEMENTWISE}


DECLARED = Plan("as declared")

PLANS: tuple[Plan, ...] = (
    Plan(
        "small tiles, 2 warps",
        MappingProxyType({"num_warps": 2, "num_stages": 1}),
        MappingProxyType(
            {
                **_elementwise(128),
                "_digits": {"BLOCK": 128, "TILES": 3},
                "sum": {"BLOCK": 128, "TILES": 3},
                "_epilogue": {"BLOCK": 128, "TILES": 3},
                "_row_planes": {"BLOCK_R": 8, "TILES": 2},
                "_product": {"BLOCK": 64},
                "_plans": {"FORCED": Tile(16, 32, 32, 2, 1, split_terms=96)},
                "_conv_kernels": {"BLOCK_C": 2, "BLOCK_P": 32},
                "_conv_planes": {"BLOCK": 128, "BLOCK_P": 16, "BLOCK_C": 16},
                "_conv_gather": {"BLOCK": 128},
                "_conv_weight": {"BLOCK": 64, "BLOCK_R": 4, "BLOCK_W": 16},
                "_device_rows": {"TILE": 64, "LONGEST_BLOCK": 32},
            }
        ),
    ),
    Plan(
        "large tiles, 8 warps",
        MappingProxyType({"num_warps": 8, "num_stages": 2}),
        MappingProxyType(
            {
                **_elementwise(2048),
                "_digits": {"BLOCK": 4096, "TILES": 2},
                "sum": {"BLOCK": 4096, "TILES": 2},
                "_epilogue": {"BLOCK": 4096, "TILES": 2},
                "_row_planes": {"BLOCK_R": 64, "TILES": 3},
                "_product": {"BLOCK": 1024},
                "_plans": {"FORCED": Tile(128, 64, 32, 8, 2)},
                "_conv_kernels": {"BLOCK_C": 16, "BLOCK_P": 256},
                "_conv_planes": {"BLOCK": 1024, "BLOCK_P": 128, "BLOCK_C": 128},
                "_conv_gather": {"BLOCK": 1024},
                "_conv_weight": {"BLOCK": 512, "BLOCK_R": 32, "BLOCK_W": 128},
                "_device_rows": {"TILE": 4096, "LONGEST_BLOCK": 8192},
            }
        ),
    ),
    Plan(
        "1 warp",
        MappingProxyType({"num_warps": 1}),
        MappingProxyType(
            {
                "_plans": {"FORCED": Tile(32, 16, 64, 1, 3, split_terms=512)},
            }
        ),
    ),
)


@contextmanager
def launched_by(plan: Plan) -> Iterator[None]:
    """Launch every kernel of this process by ``plan`` within the context.

    It holds for all threads, because a backward pass on a GPU launches from autograd's own threads.
    """
    modules = {name: importlib.import_module(_OPS + name) for name in plan.constants}
    declared = {name: {k: getattr(module, k) for k in plan.constants[name]} for name, module in modules.items()}
    previous = {kernel.name: kernel.overrides for kernel in KERNELS.values()}
    try:
        for kernel in KERNELS.values():
            home = inspect.unwrap(_function(kernel)).__module__.removeprefix(_OPS)
            kernel.overrides = {
                **plan.options,
                **_followed(kernel, declared.get(home, {}), plan.constants.get(home, {})),
            }
        for name, module in modules.items():
            _set(module, plan.constants[name])
        yield
    finally:
        for name, module in modules.items():
            _set(module, declared[name])
        for name, overrides in previous.items():
            KERNELS[name].overrides = overrides


def _followed(kernel: Kernel, declared: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Those constants of a module that a kernel takes as its defaults; a default of its own is left alone."""
    return {k: v for k, v in wanted.items() if k in kernel.defaults and kernel.defaults[k] == declared[k]}


def _function(kernel: Kernel) -> Any:
    return getattr(kernel.fn, "fn", kernel.fn)


def _set(module: ModuleType, constants: Mapping[str, Any]) -> None:
    for name, value in constants.items():
        setattr(module, name, value)
