"""Elementwise formulas: each is written once for the host and once for kernels, and three kernels run all of them.

A formula takes one to three tensors of one shape and up to two scalars, which are rounded to binary32 first. Its device
function is a compile-time constant of the kernel, so a new formula needs no new kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.exact import compiled_elementwise
from dettriton.exact._jit import compiles
from dettriton.ops._function import first_derivative_only
from dettriton.ops._launch import Variant, blocks, kernel, tl

BLOCK = 1024


@dataclass(frozen=True)
class Formula:
    """A function of each element.

    Attributes:
        name: the public op, or what it is the gradient of, for messages.
        host: the sequence of R1 operations on CPU tensors: ``host(*tensors, *scalars)``.
        device: the same sequence as a ``jit`` function with the same arguments.
        tensors: how many tensors it takes, 1 to 3.
        scalars: how many scalars it takes, 0 to 2.
        gradients: for each tensor, the formula of ``(grad, *tensors, *scalars)`` that is its gradient, or None.
        loop: the same sequence as a compiled loop ``(*arrays, out, first, last)`` over flat arrays, or None; formulas
            with scalars have none.
    """

    name: str
    host: Callable[..., torch.Tensor]
    device: Any
    tensors: int
    scalars: int
    gradients: tuple[Formula | None, ...]
    loop: Callable[..., None] | None = None

    def on_cpu(self, *tensors: torch.Tensor, scalars: tuple[float, ...] = ()) -> torch.Tensor:
        """The function of CPU tensors of one shape."""
        if self.loop is not None and compiles():
            return compiled_elementwise.mapped(self.loop, *tensors)
        return self.host(*tensors, *scalars)


FORMULAS: dict[str, Formula] = {}


def formula(
    name: str,
    host: Callable[..., torch.Tensor],
    device: Any,
    *,
    tensors: int = 1,
    scalars: int = 0,
    gradients: tuple[Formula | None, ...] = (),
    loop: Callable[..., None] | None = None,
) -> Formula:
    """Declare a formula, which is then compiled ahead of time like every kernel variant."""
    declared = FORMULAS[name] = Formula(name, host, device, tensors, scalars, gradients, loop)
    _KERNELS[tensors - 1].variants += (Variant({"FORMULA": device, "SCALARS": scalars}),)
    return declared


def _kernel_of_formulas(signature: str) -> Callable:
    def declare(fn: Callable) -> Any:
        declared = kernel(signature)(fn)
        declared.variants = ()
        return declared

    return declare


@_kernel_of_formulas("*fp32 *fp32 i64 fp32 fp32")
def _map1_kernel(x_ptr, out_ptr, n, a, b, FORMULA: tl.constexpr, SCALARS: tl.constexpr, BLOCK: tl.constexpr = BLOCK):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, other=1.0)
    if SCALARS == 0:
        out = FORMULA(x)
    elif SCALARS == 1:
        out = FORMULA(x, a)
    else:
        out = FORMULA(x, a, b)
    tl.store(out_ptr + offsets, out, mask=mask)


@_kernel_of_formulas("*fp32 *fp32 *fp32 i64 fp32 fp32")
def _map2_kernel(
    x_ptr, y_ptr, out_ptr, n, a, b, FORMULA: tl.constexpr, SCALARS: tl.constexpr, BLOCK: tl.constexpr = BLOCK
):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, other=1.0)
    y = tl.load(y_ptr + offsets, mask=mask, other=1.0)
    if SCALARS == 0:
        out = FORMULA(x, y)
    elif SCALARS == 1:
        out = FORMULA(x, y, a)
    else:
        out = FORMULA(x, y, a, b)
    tl.store(out_ptr + offsets, out, mask=mask)


@_kernel_of_formulas("*fp32 *fp32 *fp32 *fp32 i64 fp32 fp32")
def _map3_kernel(
    x_ptr, y_ptr, z_ptr, out_ptr, n, a, b, FORMULA: tl.constexpr, SCALARS: tl.constexpr, BLOCK: tl.constexpr = BLOCK
):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask, other=1.0)
    y = tl.load(y_ptr + offsets, mask=mask, other=1.0)
    z = tl.load(z_ptr + offsets, mask=mask, other=1.0)
    if SCALARS == 0:
        out = FORMULA(x, y, z)
    elif SCALARS == 1:
        out = FORMULA(x, y, z, a)
    else:
        out = FORMULA(x, y, z, a, b)
    tl.store(out_ptr + offsets, out, mask=mask)


_KERNELS = (_map1_kernel, _map2_kernel, _map3_kernel)


def evaluate(chosen: Formula, *tensors: torch.Tensor, scalars: tuple[float, ...] = ()) -> torch.Tensor:
    """A formula of binary32 tensors of one shape on their engine, outside autograd. Composed ops call this."""
    if len(tensors) != chosen.tensors or len(scalars) != chosen.scalars:
        raise InputError(f"{chosen.name} takes {chosen.tensors} tensors and {chosen.scalars} scalars")
    if any(t.shape != tensors[0].shape for t in tensors):
        raise InputError(f"{chosen.name}: shapes differ, {[tuple(t.shape) for t in tensors]}; expand them first")
    if engine_for(*tensors) == "torch":
        return chosen.on_cpu(*tensors, scalars=scalars)
    tensors = tuple(t.contiguous() for t in tensors)
    out = torch.empty_like(tensors[0])
    padded = (*scalars, 0.0, 0.0)[:2]
    launched = _KERNELS[chosen.tensors - 1]
    grid = (blocks(out.numel(), BLOCK),)
    launched(grid, *tensors, out, out.numel(), *padded, FORMULA=chosen.device, SCALARS=chosen.scalars)
    return out


class _Elementwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, chosen: Formula, scalars: tuple[float, ...], *tensors: torch.Tensor) -> torch.Tensor:
        ctx.op, ctx.formula, ctx.scalars = chosen.name, chosen, scalars
        ctx.save_for_backward(*tensors)
        return evaluate(chosen, *tensors, scalars=scalars)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        tensors = ctx.saved_tensors
        found = (
            evaluate(g, grad, *tensors, scalars=ctx.scalars) if g and needed else None
            for g, needed in zip(ctx.formula.gradients, ctx.needs_input_grad[2:], strict=True)
        )
        return None, None, *found


def elementwise(chosen: Formula, *tensors: torch.Tensor, scalars: tuple[float, ...] = ()) -> torch.Tensor:
    """A formula of binary32 tensors of one shape, with its declared gradients."""
    return _Elementwise.apply(chosen, scalars, *tensors)
