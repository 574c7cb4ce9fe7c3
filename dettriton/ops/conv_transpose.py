"""conv_transpose1d, conv_transpose2d, conv_transpose3d: exact transposed convolutions (rule R2), then ``+ bias``.

The dot product of a transposed convolution is that of a convolution's gradient to its input, on the same grids: input
per sample, weight per output channel (over input channels and taps). Gradient to the input: the convolution of the
gradient with the weight, grids per sample and per input channel; to the weight: input per input channel and gradient
per output channel, both over batch and positions; to the bias: an exact sum. Errors as matmul's. Batch-invariant.
"""

from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.exact.convolution import Geometry
from dettriton.exact.grid import check_terms
from dettriton.ops._contract import contract
from dettriton.ops._conv_geometry import IntOrInts, conv_transpose_arguments
from dettriton.ops._conv_kernels import conv_input_grad_finished_triton
from dettriton.ops._epilogue import Epilogue, grad_before
from dettriton.ops._function import first_derivative_only
from dettriton.ops.conv import ERROR, WEIGHT_GRAD, conv_input_grad_torch
from dettriton.ops.conv import FORWARD as INPUT_GRAD

DEFINITION = (
    "dot products on a grid per sample and per output channel of the weight, then + bias; gradient to the input: grids "
    "per sample of grad and per input channel of weight; to the weight: grids per channel over batch and positions"
)


def conv_transpose_torch(
    x: torch.Tensor, weight: torch.Tensor, g: Geometry, precision: str, epilogue: Epilogue
) -> tuple[torch.Tensor, torch.Tensor | None]:
    return epilogue.finish(conv_input_grad_torch(x, weight, g, precision), 1)


FORWARD = {"torch": conv_transpose_torch, "triton": conv_input_grad_finished_triton}


class ConvTranspose(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, op: str, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, g: Geometry, precision: str
    ) -> torch.Tensor:
        _, to_x, to_weight, *_ = ctx.needs_input_grad
        ctx.save_for_backward(x if to_weight else None, weight if to_x else None)
        ctx.op, ctx.geometry, ctx.precision = op, g, precision
        check_terms(op, g.terms_input_grad)
        engine = engine_for(x, weight, *(() if bias is None else (bias,)))
        return FORWARD[engine](x, weight, g, precision, Epilogue(bias))[0]

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        g, precision, engine = ctx.geometry, ctx.precision, engine_for(grad)
        to_x, to_weight, to_bias = ctx.needs_input_grad[1:4]
        before = grad_before(grad, None, None, g.in_channels, grad.shape[2:].numel(), to_bias)
        grad_x = grad_weight = None
        if to_x:
            check_terms(f"gradient of {ctx.op} to its input", g.terms_forward)
            grad_x = INPUT_GRAD[engine](grad, weight, g, precision)
        if to_weight:
            check_terms(f"gradient of {ctx.op} to its weight", g.terms_weight_grad)
            grad_weight = WEIGHT_GRAD[engine](x, grad, g, precision, None, before.top)
        return None, grad_x, grad_weight, before.bias, None, None


def _convolve(
    op: str,
    rank: int,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: IntOrInts,
    padding: IntOrInts,
    output_padding: IntOrInts,
    groups: int,
    dilation: IntOrInts,
    precision: str,
) -> torch.Tensor:
    call = conv_transpose_arguments(
        op, rank, input, weight, bias, stride, padding, output_padding, groups, dilation, precision
    )
    return call.finish(ConvTranspose.apply(op, call.input, call.weight, bias, call.geometry, precision))


@contract(
    "Dot products",
    definition=DEFINITION,
    error=ERROR,
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.conv_transpose1d",
)
def conv_transpose1d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | tuple[int] = 1,
    padding: int | tuple[int] = 0,
    output_padding: int | tuple[int] = 0,
    groups: int = 1,
    dilation: int | tuple[int] = 1,
    *,
    precision: str = "high",
) -> torch.Tensor:
    """1-D transposed convolution, as :func:`torch.nn.functional.conv_transpose1d`.

    Args:
        input: binary32 ``(N, C_in, L)`` or ``(C_in, L)``; each sample is one grid.
        weight: binary32 ``(C_in, C_out/groups, k)``; each output channel is one grid.
        bias, stride, padding, output_padding, groups, dilation, precision: as :func:`conv_transpose2d`.

    Returns:
        ``(N, C_out, L_out)``, as :func:`conv_transpose2d`.

    Raises:
        InputError: as :func:`conv_transpose2d`.
    """
    arguments = (stride, padding, output_padding, groups, dilation, precision)
    return _convolve("conv_transpose1d", 1, input, weight, bias, *arguments)


@contract(
    "Dot products",
    definition=DEFINITION,
    error=ERROR,
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.conv_transpose2d",
)
def conv_transpose2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    output_padding: int | tuple[int, int] = 0,
    groups: int = 1,
    dilation: int | tuple[int, int] = 1,
    *,
    precision: str = "high",
) -> torch.Tensor:
    """2-D transposed convolution, as :func:`torch.nn.functional.conv_transpose2d`.

    Args:
        input: binary32 ``(N, C_in, H, W)`` or ``(C_in, H, W)``; each sample is one grid.
        weight: binary32 ``(C_in, C_out/groups, kH, kW)``; each output channel is one grid.
        bias: binary32 ``(C_out,)``, added to the rounded sum.
        stride, dilation: positive integers or pairs.
        padding: how much of the output is left out on each side: an integer or a pair.
        output_padding: how much is added at the end; smaller than the stride or the dilation.
        groups: divides both channel counts.
        precision: ``"high"`` (20-bit grids) or ``"medium"`` (13-bit grids).

    Returns:
        ``(N, C_out, H_out, W_out)``: exact sums of products of grid integers, rounded to 24 bits once, then scaled; a
        position that no tap reaches is +0 before the bias. Error bound as :func:`dettriton.ops.conv2d`. A NaN or
        infinity in a sample makes the whole sample the canonical NaN.

    Raises:
        InputError: an operand is not binary32, shapes or arguments do not fit, or a dot product (forward or gradient)
            has more than 2**22 terms.
    """
    arguments = (stride, padding, output_padding, groups, dilation, precision)
    return _convolve("conv_transpose2d", 2, input, weight, bias, *arguments)


@contract(
    "Dot products",
    definition=DEFINITION,
    error=ERROR,
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.conv_transpose3d",
)
def conv_transpose3d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | tuple[int, int, int] = 1,
    padding: int | tuple[int, int, int] = 0,
    output_padding: int | tuple[int, int, int] = 0,
    groups: int = 1,
    dilation: int | tuple[int, int, int] = 1,
    *,
    precision: str = "high",
) -> torch.Tensor:
    """3-D transposed convolution, as :func:`torch.nn.functional.conv_transpose3d`.

    Args:
        input: binary32 ``(N, C_in, D, H, W)`` or ``(C_in, D, H, W)``; each sample is one grid.
        weight: binary32 ``(C_in, C_out/groups, kD, kH, kW)``; each output channel is one grid.
        bias, stride, padding, output_padding, groups, dilation, precision: as :func:`conv_transpose2d`.

    Returns:
        ``(N, C_out, D_out, H_out, W_out)``, as :func:`conv_transpose2d`.

    Raises:
        InputError: as :func:`conv_transpose2d`.
    """
    arguments = (stride, padding, output_padding, groups, dilation, precision)
    return _convolve("conv_transpose3d", 3, input, weight, bias, *arguments)
