"""What each public op promises, declared beside its code: README's and CONTRACT.md's tables are generated from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import Any, TypeVar

import torch

from dettriton.ops._compile import OPAQUE, Mutation, Opaque, mirrored

Function = TypeVar("Function", bound=Callable)

FAMILIES = (
    "Dot products",
    "Attention",
    "Reductions",
    "Normalisation",
    "Softmax and losses",
    "Activations",
    "Elementary functions",
    "Pooling and resampling",
    "Indexing",
    "Fused ops",
    "Random numbers",
)


@dataclass(frozen=True)
class Contract:
    """The promise of one public op.

    Attributes:
        name: its name in ``dettriton.ops``.
        family: one of :data:`FAMILIES`.
        definition: the grids, windows and order of operations, forward and gradient, in a line or two.
        error: the bound on a result's error.
        batch_invariant: whether a sample's result depends on that sample alone.
        kernels: whether it has Triton kernels of its own or those of one part; False for a composition of exact parts.
        mirrors: the torch function whose name and arguments it has, below ``torch``; empty for none.
    """

    name: str
    family: str
    definition: str
    error: str
    batch_invariant: bool
    kernels: bool
    mirrors: str
    function: Callable


CONTRACTS: dict[str, Contract] = {}


def contract(
    family: str,
    *,
    definition: str,
    error: str,
    batch_invariant: bool,
    kernels: bool,
    mirrors: str,
    mutation: Mutation | None = None,
    fake: Callable | None = None,
    differentiable: bool = True,
) -> Callable[[Function], Function]:
    """Declare the contract of the public op below, and make it one opaque operator under ``torch.compile``.

    Args:
        mutation: what the op changes in place.
        fake: gives results of the right shapes and dtypes on fake tensors; None for the mirrored torch function.
        differentiable: whether floating-point results have gradients.
    """

    def declare(fn: Function) -> Function:
        name = fn.__name__
        parameters = {p.name: (i, p.default) for i, p in enumerate(signature(fn).parameters.values())}
        several = getattr(torch.return_types, name, tuple)
        opaque = OPAQUE[name] = Opaque(
            name, fn, fake or mirrored(mirrors), mutation, differentiable, parameters, several
        )

        @wraps(fn)
        def public(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling():
                return opaque(args, kwargs)
            return fn(*args, **kwargs)

        CONTRACTS[name] = Contract(name, family, definition, error, batch_invariant, kernels, mirrors, public)
        return public

    return declare
