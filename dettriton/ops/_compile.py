"""Public ops under ``torch.compile``: each is one opaque operator, so that no compiler can fuse or reorder it.

Traced into its parts, an op would be handed to a code generator that may join a multiplication and an addition. So
while a graph is being traced, a public op becomes ``torch.ops.dettriton.NAME``, registered with :mod:`torch.library`:
its arguments travel as text, with lists of the tensors and numbers in it; its fake implementation is the torch function
it mirrors, or one of its own; its gradient is a second operator that computes the op again and differentiates that.
"""

from __future__ import annotations

import warnings
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


@dataclass(frozen=True)
class Values:
    """What travels beside the text of a call, in the order in which the text numbers it."""

    tensors: Sequence[torch.Tensor]
    integers: Sequence[int]
    floats: Sequence[float]


def written(value: Any, values: Values) -> str:
    """``value`` as text that :func:`read` turns back; its tensors and numbers are appended to ``values``.

    A number may be a symbol, as sizes and the steps of random streams become when a graph meets a second one.
    """
    if isinstance(value, torch.Tensor):
        return _numbered("T", value, values.tensors)
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, int):
        return _numbered("I", value, values.integers) if -(1 << 63) <= value < 1 << 63 else repr(value)
    if isinstance(value, float):
        return _numbered("F", value, values.floats)
    if isinstance(value, dict):
        return "{" + "".join([f"{key!r}:{written(v, values)}," for key, v in value.items()]) + "}"
    if isinstance(value, list):
        return "[" + "".join([f"{written(v, values)}," for v in value]) + "]"
    if isinstance(value, tuple):
        return "(" + "".join([f"{written(v, values)}," for v in value]) + ")"
    if isinstance(value, Stream):
        return "Stream" + written((value.seed, value.stream, value.step), values)
    if isinstance(value, torch.device):
        return f"torch.device({str(value)!r})"
    return repr(value)


def _numbered(kind: str, value: Any, kept: list) -> str:
    kept.append(value)
    return f"{kind}[{len(kept) - 1}]"


def read(text: str, values: Values, stream: Callable = Stream) -> Any:
    """What :func:`written` wrote; the text comes from there alone, never from a file."""
    names = {"T": values.tensors, "I": values.integers, "F": values.floats, "torch": torch, "Stream": stream}
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
        with warnings.catch_warnings():
            # What torch would warn of in its own arithmetic is not true of ours.
            warnings.simplefilter("ignore")
            return stock(*args, **{name: value for name, value in kwargs.items() if name not in OWN_ARGUMENTS})

    return fake


def of_the_inputs_shape(input: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """A fake result of the shape and type of the first argument."""
    return torch.empty_like(input)


def values_and_indices(input: torch.Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """Fake results along a dimension, or one of everything, where torch takes no dimension but not None for it."""
    values = torch.amax(input, () if dim is None else dim, keepdim)
    return values if dim is None else (values, torch.empty_like(values, dtype=torch.int64))


@dataclass(frozen=True)
class Mutation:
    """What an op changes in place: the names of arguments, while the argument ``while_`` is true.

    In that case the op's gradients must not depend on the old values.
    """

    tensors: tuple[str, ...]
    while_: str


@dataclass(frozen=True)
class Opaque:
    """A public op as one operator of :mod:`torch.library`, made when a graph first meets it.

    Attributes:
        name: of the op.
        fn: the op itself.
        fake: computes shapes and dtypes on fake tensors.
        mutation: what it changes in place, if anything.
        differentiable: whether its results have gradients.
        parameters: the position and the default of each of the op's parameters.
        several: what holds several results, as the op itself returns them.
    """

    name: str
    fn: Callable
    fake: Callable
    mutation: Mutation | None
    differentiable: bool
    parameters: dict[str, tuple[int, Any]]
    several: Callable

    def __call__(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        registered(self.name)
        values = Values([], [], [])
        text = written((args, kwargs), values)
        changed = self.changed(args, kwargs)
        places = [i for i, t in enumerate(values.tensors) if any([t is c for c in changed])]
        operator = getattr(torch.ops.dettriton, self.name)
        results = operator(text, values.tensors, values.integers, values.floats, places)
        kept = len(results) - len(places)
        for place, value in zip(places, results[kept:], strict=True):
            values.tensors[place].copy_(value)
        return results[0] if kept == 1 else self.several(results[:kept])

    def argument(self, args: tuple, kwargs: dict[str, Any], name: str) -> Any:
        """The argument of that name in a call, or its default."""
        position, default = self.parameters[name]
        return kwargs.get(name, args[position] if len(args) > position else default)

    def changed(self, args: tuple, kwargs: dict[str, Any]) -> list[torch.Tensor]:
        """The tensors that a call with these arguments changes."""
        if self.mutation is None or not self.argument(args, kwargs, self.mutation.while_):
            return []
        named = [self.argument(args, kwargs, name) for name in self.mutation.tensors]
        return [t for t in named if t is not None]


OPAQUE: dict[str, Opaque] = {}


def registered(name: str) -> bool:
    """Make the operators of an op; called while a graph is traced, so that importing the package stays quick."""
    if name not in _MADE:
        _MADE.add(name)
        _make_operators(OPAQUE[name])
    return True


# What torch.compiler.assume_constant_result sets, which imports all of the compiler: seconds at every start.
registered._dynamo_marked_constant = True

_MADE: set[str] = set()


def _own(results: Sequence[torch.Tensor], given: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The results in memory of their own, as an operator must return them, and contiguous, as its fake says."""
    taken = {t.untyped_storage().data_ptr() for t in given}
    owned = []
    for result in results:
        if result.untyped_storage().data_ptr() in taken:
            result = result.clone(memory_format=torch.contiguous_format)
        owned.append(result.contiguous())
        taken.add(owned[-1].untyped_storage().data_ptr())
    return owned


def _fake_own(results: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.empty_like(r, memory_format=torch.contiguous_format, requires_grad=False) for r in results]


def _no_gradient(values: Sequence) -> list | None:
    """What stands for the gradient of a list: torch takes empty ones, as those of tensors, as a structure."""
    return None if values else []


def _make_operators(op: Opaque) -> None:
    gradient = _gradient_operator(op)

    def forward(
        arguments: str,
        tensors: Sequence[torch.Tensor],
        integers: Sequence[int],
        floats: Sequence[float],
        changed: Sequence[int],
    ) -> list[torch.Tensor]:
        tensors = [t.clone() if i in changed else t for i, t in enumerate(tensors)]
        args, kwargs = read(arguments, Values(tensors, integers, floats))
        results = _own(flattened(op.fn(*args, **kwargs)), tensors)
        return results + [tensors[i].contiguous() for i in changed]

    def fake(
        arguments: str,
        tensors: Sequence[torch.Tensor],
        integers: Sequence[int],
        floats: Sequence[float],
        changed: Sequence[int],
    ) -> list[torch.Tensor]:
        args, kwargs = read(arguments, Values(tensors, integers, floats), stream=lambda *_: None)
        return _fake_own(flattened(op.fake(*args, **kwargs)) + [tensors[i] for i in changed])

    def setup_context(ctx: Any, inputs: tuple, output: list[torch.Tensor]) -> None:
        ctx.arguments, tensors, ctx.integers, ctx.floats, ctx.changed = inputs
        ctx.shapes = [tensors[i].shape for i in ctx.changed]
        ctx.save_for_backward(*(t for i, t in enumerate(tensors) if i not in ctx.changed))
        sloped = len(output) - len(ctx.changed) if op.differentiable else 0
        ctx.mark_non_differentiable(*(r for i, r in enumerate(output) if i >= sloped or not r.is_floating_point()))

    def backward(ctx: Any, grads: list[torch.Tensor | None]) -> tuple:
        tensors = list(ctx.saved_tensors)
        for place, shape in zip(ctx.changed, ctx.shapes, strict=True):
            tensors.insert(place, tensors[0].new_zeros(shape))
        needs = list(ctx.needs_input_grad[1])
        given = [g is not None for g in grads]
        present = [g for g in grads if g is not None]
        found = iter(gradient(ctx.arguments, tensors, ctx.integers, ctx.floats, present, given, needs))
        others = (_no_gradient(values) for values in (ctx.integers, ctx.floats, ctx.changed))
        return None, [next(found) if needed else None for needed in needs], *others

    operator = torch.library.custom_op(f"dettriton::{op.name}", forward, mutates_args=())
    operator.register_fake(fake)
    operator.register_autograd(backward, setup_context=setup_context)


def _gradient_operator(op: Opaque) -> Callable:
    def gradient(
        arguments: str,
        tensors: Sequence[torch.Tensor],
        integers: Sequence[int],
        floats: Sequence[float],
        grads: Sequence[torch.Tensor],
        given: Sequence[bool],
        needs: Sequence[bool],
    ) -> list[torch.Tensor]:
        with _recording():
            leaves = [t.detach().requires_grad_(n) for t, n in zip(tensors, needs, strict=True)]
            args, kwargs = read(arguments, Values(leaves, integers, floats))
            results = flattened(op.fn(*args, **kwargs))
        upstream = iter(grads)
        pairs = [(r, next(upstream)) for r, g in zip(results, given, strict=False) if g]
        sloped = [(r, slope) for r, slope in pairs if r.requires_grad]
        wanted = [leaf for leaf, n in zip(leaves, needs, strict=True) if n]
        found = torch.autograd.grad([r for r, _ in sloped], wanted, [s for _, s in sloped], allow_unused=True)
        found = [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]
        return _own(found, [*tensors, *grads])

    def fake(
        arguments: str,
        tensors: Sequence[torch.Tensor],
        integers: Sequence[int],
        floats: Sequence[float],
        grads: Sequence[torch.Tensor],
        given: Sequence[bool],
        needs: Sequence[bool],
    ) -> list[torch.Tensor]:
        return _fake_own([t for t, n in zip(tensors, needs, strict=True) if n])

    operator = torch.library.custom_op(f"dettriton::{op.name}_gradient", gradient, mutates_args=())
    operator.register_fake(fake)
    return operator
