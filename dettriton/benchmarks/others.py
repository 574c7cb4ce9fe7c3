"""Cases without dot products: reductions, normalisation, activations, indexing, losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from dettriton import ops
from dettriton.benchmarks.case import FORWARD, TRAINING, OpCase
from dettriton.benchmarks.inputs import classes


def _words(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _both(op: str, shapes: str, size: str, ours: Callable, stock: Callable, leaves: tuple[str, ...], **rest: Any):
    """The forward pass, and the forward and backward pass."""
    for what, wanted in ((FORWARD, ()), (TRAINING, leaves)):
        yield OpCase(op, shapes, what, size, ours, stock, leaves=wanted, **rest)


def reductions(size: str, *shape: int) -> Iterator[OpCase]:
    """sum, mean and var of everything."""
    for op in ("sum", "mean", "var"):
        yield OpCase(
            op, _words(shape), FORWARD, size, getattr(ops, op), getattr(torch, op), {"input": shape},
            samples=("input",),
        )  # fmt: skip


def rows(size: str, *shape: int) -> Iterator[OpCase]:
    """Softmax and layer_norm along the last dimension, and the sum of each row."""
    of_rows = {"samples": ("input",), "per_sample": True, "invariant": True}
    name, n = _words(shape), shape[-1]
    yield OpCase(
        "sum", f"{name}, rows", FORWARD, size, partial(ops.sum, dim=-1), partial(torch.sum, dim=-1), {"input": shape},
        **of_rows,
    )  # fmt: skip
    yield from _both(
        "softmax", name, size, partial(ops.softmax, dim=-1), partial(functional.softmax, dim=-1), ("input",),
        made={"input": shape}, **of_rows,
    )  # fmt: skip
    normalised = {"normalized_shape": (n,)}
    yield from _both(
        "layer_norm", name, size, partial(ops.layer_norm, **normalised), partial(functional.layer_norm, **normalised),
        ("input", "weight", "bias"), made={"input": shape, "weight": (n,), "bias": (n,)}, **of_rows,
    )  # fmt: skip


def channels(size: str, *shape: int) -> Iterator[OpCase]:
    """batch_norm in training, without running statistics."""
    bare = {"running_mean": None, "running_var": None, "training": True}
    yield from _both(
        "batch_norm", _words(shape), size, partial(ops.batch_norm, **bare), partial(functional.batch_norm, **bare),
        ("input", "weight", "bias"), made={"input": shape, "weight": shape[1:2], "bias": shape[1:2]},
        samples=("input",), per_sample=True,
    )  # fmt: skip


def elementwise(size: str, *shape: int) -> Iterator[OpCase]:
    """Activations."""
    for op in ("relu", "gelu"):
        yield from _both(
            op, _words(shape), size, getattr(ops, op), getattr(functional, op), ("input",), made={"input": shape},
            samples=("input",), per_sample=True, invariant=True,
        )  # fmt: skip


def indexing(size: str, table: int, width: int, count: int) -> Iterator[OpCase]:
    """Rows added to a table at random indices, and the gradient of reading it."""
    name = f"{count}x{width} into {table}x{width}"
    made = {"input": (table, width), "index": lambda key: classes(key, table, count), "source": (count, width)}
    yield OpCase(
        "index_add", name, FORWARD, size, partial(ops.index_add, dim=0), partial(torch.index_add, dim=0), made,
        samples=("index", "source"),
    )  # fmt: skip
    made = {"input": (table, width), "index": lambda key: classes(key, table, count, width), "src": (count, width)}
    yield OpCase(
        "scatter_add", name, FORWARD, size, partial(ops.scatter_add, dim=0), partial(torch.scatter_add, dim=0), made,
        samples=("index", "src"),
    )  # fmt: skip
    made = {"input": lambda key: classes(key, table, count), "weight": (table, width)}
    yield OpCase(
        "embedding", f"{count} of {table}x{width}", TRAINING, size, ops.embedding, functional.embedding, made,
        ("weight",), samples=("input",), per_sample=True, invariant=True,
    )  # fmt: skip


def losses(size: str, batch: int, count: int) -> Iterator[OpCase]:
    """Cross-entropy over classes, and binary cross-entropy of labels."""
    shape = (batch, count)
    yield from _both(
        "cross_entropy", _words(shape), size, ops.cross_entropy, functional.cross_entropy, ("input",),
        made={"input": shape, "target": lambda key: classes(key, count, batch)}, samples=("input", "target"),
    )  # fmt: skip
    binary = "binary_cross_entropy_with_logits"
    yield from _both(
        binary, _words(shape), size, getattr(ops, binary), getattr(functional, binary), ("input",),
        made={"input": shape, "target": lambda key: classes(key, 2, *shape).to(torch.float32)},
        samples=("input", "target"),
    )  # fmt: skip
