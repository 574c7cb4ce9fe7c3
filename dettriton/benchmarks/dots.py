"""Cases with dot products: matrix products, the zoo's linear layers and convolutions, attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch.nn import functional

from dettriton import ops
from dettriton.benchmarks.case import FORWARD, INPUT_GRADIENT, TRAINING, WEIGHT_GRADIENT, OpCase
from dettriton.benchmarks.zoo_shapes import Layer, layers

PARTS = {FORWARD: (), INPUT_GRADIENT: ("input",), WEIGHT_GRADIENT: ("weight",)}

TINY_CONFORMER_HEADS, CONFORMER_HEADS, VIT_S_HEADS = (4, 63, 8), (4, 125, 40), (6, 197, 64)
"""Heads, positions and width of the attention of ecg_conformer_tiny, ecg_conformer, and ViT-S of 224 by 224 pixels."""

LARGE_BATCH = 128


def matmuls(size: str, *sides: int, first: int = 0) -> Iterator[OpCase]:
    """Products of square matrices; the reference computes ``first`` rows."""
    for n in sides:
        yield OpCase(
            "matmul", f"{n}x{n} by {n}x{n}", FORWARD, size, ops.matmul, torch.matmul, {"input": (n, n), "other": (n, n)},
            samples=("input",), per_sample=True, invariant=True, products=True, flops=2 * n**3, first=first,
        )  # fmt: skip


def layer_cases(size: str, batch: int, names: tuple[str, ...], first: int = 0) -> Iterator[OpCase]:
    """Forward pass and both gradients of every different layer of the networks of these recipes.

    The reference computes ``first`` samples of a forward pass, where that is not 0.
    """
    for layer in layers(names):
        ours, stock = _functions(layer)
        for what, leaves in PARTS.items():
            yield OpCase(
                layer.op, f"{batch}x{layer.words}", what, size, ours, stock,
                {"input": (batch, *layer.input), "weight": layer.weight}, leaves,
                samples=("input",), per_sample=True, invariant=True, products=True,
                flops=2 * batch * layer.multiplications, first=0 if leaves else first,
            )  # fmt: skip


def _functions(layer: Layer) -> tuple[Callable, Callable]:
    both = getattr(ops, layer.op), getattr(functional, layer.op)
    if layer.op == "linear":
        return both
    options = {key: getattr(layer, key) for key in ("stride", "padding", "dilation", "groups")}
    return partial(both[0], **options), partial(both[1], **options)


def attentions(size: str, batch: int, heads: tuple[int, int, int]) -> Iterator[OpCase]:
    """Attention of every position to every position."""
    count, length, width = heads
    for what, leaves, passes in ((FORWARD, (), 2), (TRAINING, ("query", "key", "value"), 7)):
        yield OpCase(
            "scaled_dot_product_attention", "x".join(map(str, (batch, *heads))), what, size,
            ops.scaled_dot_product_attention, functional.scaled_dot_product_attention,
            dict.fromkeys(("query", "key", "value"), (batch, *heads)), leaves,
            samples=("query", "key", "value"), per_sample=True, invariant=True, products=True,
            flops=passes * 2 * batch * count * length**2 * width,
        )  # fmt: skip
