"""The ways to compute a case: stock torch as it ships, strict and deterministic, and ours at each precision."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch

PRECISIONS = ("high", "medium")

STOCK, STRICT, TF32, DETERMINISTIC, FUSED = (
    "stock",
    "stock float32",
    "stock TF32",
    "stock deterministic",
    "stock fused",
)
OURS = "ours"
"""Our variant of an op without products, which has no precision."""

GRAPH = ", CUDA graph"


def as_shipped() -> AbstractContextManager[None]:
    """Torch's own defaults: on a GPU TF32 in convolutions and not in matrix products."""
    return nullcontext()


@contextmanager
def _products(precision: str) -> Iterator[None]:
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = matmul.fp32_precision, conv.fp32_precision
    matmul.fp32_precision = conv.fp32_precision = precision
    try:
        yield
    finally:
        matmul.fp32_precision, conv.fp32_precision = before


@contextmanager
def deterministic() -> Iterator[None]:
    """``torch.use_deterministic_algorithms(True)``, which raises where torch has no such algorithm."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@dataclass(frozen=True)
class Variant:
    """One way to compute a case.

    Attributes:
        name: what results call it.
        ours: whether it is dettriton's, whose bits must be the reference's.
        precision: of our products.
        settings: torch's switches while it runs.
        graph: whether a CUDA graph replays it.
        fused: whether torch's fused optimizer computes it.
    """

    name: str
    ours: bool = False
    precision: str = "high"
    settings: Callable[[], AbstractContextManager[None]] = as_shipped
    graph: bool = False
    fused: bool = False


def variants(device: str, *, products: bool, graphs: bool = False, fused: bool = False) -> list[Variant]:
    """What a case is computed by, baselines first.

    Args:
        device: ``"cpu"`` or ``"cuda"``. A CPU has no TF32, so that there strict float32 is stock itself.
        products: whether the case has dot products, and so two precisions of ours.
        graphs: whether our variants are also replayed as CUDA graphs, on a GPU.
        fused: whether torch has a fused form of its own.
    """
    on_gpu = device == "cuda"
    found = [Variant(STOCK)]
    if products and on_gpu:
        found += [
            Variant(STRICT, settings=lambda: _products("ieee")),
            Variant(TF32, settings=lambda: _products("tf32")),
        ]
    if fused:
        found.append(Variant(FUSED, fused=True))
    found.append(Variant(DETERMINISTIC, settings=deterministic))
    ours = [Variant(p, True, p) for p in PRECISIONS] if products else [Variant(OURS, True)]
    replayed = [Variant(v.name + GRAPH, True, v.precision, graph=True) for v in ours if graphs and on_gpu]
    return [*found, *ours, *replayed]


def allow_deterministic_products() -> None:
    """What torch asks for before cuBLAS may run in its deterministic mode; call it before the first product on a GPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
