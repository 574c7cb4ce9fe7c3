"""Public ops under ``torch.compile``: each is one opaque operator, so that no compiler can fuse or reorder it.

Traced into its parts, an op would be handed to a code generator that may join a multiplication and an addition. So
while a graph is being traced, a public op becomes ``torch.ops.dettriton.NAME``, registered with :mod:`torch.library`:
its other arguments travel as text, its tensors as a list, its fake implementation is the torch function it mirrors, and
its gradient is a second operator that computes the op again and differentiates that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch

from dettriton.exact.philox import Stream

OWN_ARGUMENTS = ("precision", "rng", "offset")
"""Arguments that the mirrored torch functions do not have."""

_AUTOGRAD_KEYS = ("AutogradCPU", "AutogradCUDA", "AutogradOther", "AutogradNestedTensor", "ADInplaceOrView")


def written(value: Any, tensors: list[torch.Tensor]) -> str:
    """``value`` as text that :func:`read` turns back; its tensors are appended to ``tensors``."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return f"T[{len(tensors) - 1}]"
    if isinstance(value, dict):
        return "{" + "".join([f"{key!r}:{written(v, tensors)}," for key, v in value.items()]) + "}"
    if isinstance(value, list):
        return "[" + "".join([f"{written(v, tensors)}," for v in value]) + "]"
    if isinstance(value, tuple):
        return "(" + "".join([f"{written(v, tensors)}," for v in value]) + ")"
    return repr(value)


def read(text: str, tensors: Sequence[torch.Tensor]) -> Any:
    """What :func:`written` wrote; the text comes from there alone, never from a file."""
    names = {"T": list(tensors), "torch": torch, "Stream": Stream, "inf": math.inf, "nan": math.nan}
    return eval(text, {"__builtins__": {}}, names)


def flattened(result: Any) -> list[torch.Tensor]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


@contextmanager
def _recording() -> Iterator[None]:
    """Record a graph inside an operator, where the dispatcher has switched recording off."""
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in _AUTOGRAD_KEYS:
        excluded = excluded.remove(getattr(torch._C.DispatchKey, key))
    with torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded), torch.enable_grad():
        yield


def mirrored(mirrors: str) -> Callable:
    """The torch function of that dotted name, without the arguments that only ours has."""
    stock = attrgetter(mirrors)(torch)

    def fake(*args: Any, **kwargs: Any) -> Any:
        return stock(*args, **{name: value for name, value in kwargs.items() if name not in OWN_ARGUMENTS})

    return fake


def argument(args: tuple, kwargs: dict[str, Any], name: str, position: int) -> Any:
    """The argument passed by that name or at that position; None where it was left out."""
    return kwargs.get(name, args[position] if len(args) > position else None)


@dataclass(frozen=True)
class Mutation:
    """What an op changes in place: names and positions of tensors, while another argument (name, position) is true.

    In that case the op's gradients must not depend on the old values.
    """

    tensors: tuple[tuple[str, int], ...]
    while_: tuple[str, int]

    def of(self, args: tuple, kwargs: dict[str, Any]) -> list[torch.Tensor]:
        """The tensors that a call with these arguments changes."""
        if not argument(args, kwargs, *self.while_):
            return []
        return [t for t in (argument(args, kwargs, *where) for where in self.tensors) if t is not None]


@dataclass(frozen=True)
class Opaque:
    """A public op as one operator of :mod:`torch.library`, made when a graph first meets it.

    Attributes:
        name: of the op.
        fn: the op itself.
        fake: computes shapes and dtypes on fake tensors.
        mutation: what it changes in place, if anything.
    """

    name: str
    fn: Callable
    fake: Callable
    mutation: Mutation | None

    def __call__(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        registered(self.name)
        tensors: list[torch.Tensor] = []
        text = written((args, kwargs), tensors)
        changed = self.mutation.of(args, kwargs) if self.mutation else []
        places = [i for i, t in enumerate(tensors) if any([t is c for c in changed])]
        results = getattr(torch.ops.dettriton, self.name)(text, tensors, places)
        kept = len(results) - len(places)
        for place, value in zip(places, results[kept:], strict=True):
            tensors[place].copy_(value)
        return results[0] if kept == 1 else tuple(results[:kept])


OPAQUE: dict[str, Opaque] = {}


@torch.compiler.assume_constant_result
def registered(name: str) -> bool:
    """Make the operators of an op; called while a graph is traced, so that importing the package stays quick."""
    if name not in _MADE:
        _MADE.add(name)
        _make_operators(OPAQUE[name])
    return True


_MADE: set[str] = set()


def _make_operators(op: Opaque) -> None:
    gradient = _gradient_operator(op)

    def forward(arguments: str, tensors: Sequence[torch.Tensor], changed: Sequence[int]) -> list[torch.Tensor]:
        tensors = [t.clone() if i in changed else t for i, t in enumerate(tensors)]
        args, kwargs = read(arguments, tensors)
        results = flattened(op.fn(*args, **kwargs))
        given = {t.data_ptr() for t in tensors}
        # An operator may not return its arguments or views of them.
        results = [r.clone() if r.data_ptr() in given or r._is_view() else r for r in results]
        return results + [tensors[i] for i in changed]

    def fake(arguments: str, tensors: Sequence[torch.Tensor], changed: Sequence[int]) -> list[torch.Tensor]:
        args, kwargs = read(arguments, tensors)
        results = flattened(op.fake(*args, **kwargs)) + [tensors[i] for i in changed]
        return [torch.empty_like(r, memory_format=torch.contiguous_format, requires_grad=False) for r in results]

    def setup_context(ctx: Any, inputs: tuple, output: list[torch.Tensor]) -> None:
        ctx.arguments, tensors, ctx.changed = inputs
        ctx.shapes = [tensors[i].shape for i in ctx.changed]
        ctx.save_for_backward(*(t for i, t in enumerate(tensors) if i not in ctx.changed))
        ctx.mark_non_differentiable(*(r for r in output if not r.is_floating_point()))

    def backward(ctx: Any, grads: list[torch.Tensor | None]) -> tuple[None, list, list]:
        tensors = list(ctx.saved_tensors)
        for place, shape in zip(ctx.changed, ctx.shapes, strict=True):
            tensors.insert(place, tensors[0].new_zeros(shape))
        needs = list(ctx.needs_input_grad[1])
        given = [g is not None for g in grads]
        present = [g for g in grads if g is not None]
        found = iter(gradient(ctx.arguments, tensors, present, given, needs))
        # torch takes a list of tensors, empty ones too, as a structure, and any other list as one argument.
        return None, [next(found) if needed else None for needed in needs], None if ctx.changed else []

    operator = torch.library.custom_op(f"dettriton::{op.name}", forward, mutates_args=())
    operator.register_fake(fake)
    operator.register_autograd(backward, setup_context=setup_context)


def _gradient_operator(op: Opaque) -> Callable:
    def gradient(
        arguments: str,
        tensors: Sequence[torch.Tensor],
        grads: Sequence[torch.Tensor],
        given: Sequence[bool],
        needs: Sequence[bool],
    ) -> list[torch.Tensor]:
        with _recording():
            leaves = [t.detach().requires_grad_(n) for t, n in zip(tensors, needs, strict=True)]
            args, kwargs = read(arguments, leaves)
            results = flattened(op.fn(*args, **kwargs))
        upstream = iter(grads)
        pairs = [(r, next(upstream)) for r, g in zip(results, given, strict=False) if g]
        sloped = [(r, slope) for r, slope in pairs if r.requires_grad]
        wanted = [leaf for leaf, n in zip(leaves, needs, strict=True) if n]
        found = torch.autograd.grad([r for r, _ in sloped], wanted, [s for _, s in sloped], allow_unused=True)
        return [torch.zeros_like(w) if g is None else g.clone() for w, g in zip(wanted, found, strict=True)]

    def fake(
        arguments: str,
        tensors: Sequence[torch.Tensor],
        grads: Sequence[torch.Tensor],
        given: Sequence[bool],
        needs: Sequence[bool],
    ) -> list[torch.Tensor]:
        return [torch.empty_like(t) for t, n in zip(tensors, needs, strict=True) if n]

    operator = torch.library.custom_op(f"dettriton::{op.name}_gradient", gradient, mutates_args=())
    operator.register_fake(fake)
    return operator
