"""linear: ``matmul(input, weight^T)`` on one grid per input row and per weight row, then ``+ bias`` (one rounding).

Gradients: to the input with one grid per row of the gradient and per column of the weight; to the weight with one grid
per column of the gradient and of the input; to the bias an exact sum. The kernels are matmul's.
"""

import math
from typing import Any

import torch

from dettriton.errors import InputError
from dettriton.exact.grid import bits_of
from dettriton.ops._contract import contract
from dettriton.ops._epilogue import Activation, Epilogue, grad_before
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops.matmul import ERROR, dot_rows, finished_dot_rows


class Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        op: str,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        precision: str,
        activation: Activation | None,
    ) -> torch.Tensor:
        ctx.op, ctx.precision, ctx.activation = op, precision, activation
        epilogue = Epilogue(bias, activation, keep=any(ctx.needs_input_grad))
        y, kept = finished_dot_rows(x.unsqueeze(0), weight.unsqueeze(0), precision, epilogue)
        _, to_x, to_weight, *_ = ctx.needs_input_grad
        ctx.save_for_backward(x if to_weight else None, weight if to_x else None, kept)
        return y.squeeze(0)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, kept = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad[1:4]
        before = grad_before(grad.unsqueeze(0), kept, ctx.activation, grad.shape[1], 1, to_bias)
        columns = before.grad.transpose(1, 2)
        grad_x = grad_weight = None
        if to_x:
            grad_x = dot_rows(before.grad, weight.t().unsqueeze(0), ctx.precision).squeeze(0)
        if to_weight:
            grad_weight = dot_rows(columns, x.t().unsqueeze(0), ctx.precision, before.top).squeeze(0)
        return None, grad_x, grad_weight, before.bias, None, None


def affine(
    op: str,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    precision: str,
    activation: Activation | None = None,
) -> torch.Tensor:
    """What linear and its fused form call, with the arguments of the public ``op``."""
    require_float32(op, input=input, weight=weight, bias=bias)
    bits_of(precision)
    if weight.dim() != 2 or input.dim() == 0 or input.shape[-1] != weight.shape[1]:
        raise InputError(
            f"{op}: input {tuple(input.shape)} needs a weight (out_features, in_features) with in_features = its "
            f"last dimension, got {tuple(weight.shape)}"
        )
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise InputError(f"{op}: bias must have shape ({weight.shape[0]},), got {tuple(bias.shape)}")
    rows = input.reshape(math.prod(input.shape[:-1]), input.shape[-1])
    return Linear.apply(op, rows, weight, bias, precision, activation).view(*input.shape[:-1], weight.shape[0])


@contract(
    "Dot products",
    definition="matmul(input, weight^T) on a grid per input row and per weight row, then + bias; gradients: matmul's; "
    "of the bias: an exact sum",
    error=f"{ERROR}, plus half an ulp",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.linear",
)
def linear(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, *, precision: str = "high"
) -> torch.Tensor:
    """Affine map, as :func:`torch.nn.functional.linear`.

    Args:
        input: binary32 ``(..., in_features)``; each row is one grid.
        weight: binary32 ``(out_features, in_features)``; each row is one grid.
        bias: binary32 ``(out_features,)``, added to the rounded product.
        precision: ``"high"`` (20-bit grids) or ``"medium"`` (13-bit grids).

    Returns:
        ``(..., out_features)``; error bound as :func:`dettriton.ops.matmul`, plus half an ulp for the bias.

    Raises:
        InputError: an operand is not binary32, shapes do not fit, in_features > 2**22, or the precision is unknown.
    """
    return affine("linear", input, weight, bias, precision)
