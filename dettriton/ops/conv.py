"""conv1d, conv2d, conv3d: exact integer convolutions (rule R2), then ``+ bias`` (one rounding).

One definition for three dimensions: a 2-D one is 3-D with depth 1, a 1-D one has height 1 too. Grids: forward, input
per sample and weight per output channel; gradient to the input, grad per sample and weight per input channel; gradient
to the weight, input per input channel and grad per output channel, both over batch and positions; gradient to the bias
an exact sum. Errors as matmul's. Batch-invariant: a sample's result depends only on its own sample.
"""

from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.exact import compiled_conv
from dettriton.exact._jit import compiles
from dettriton.exact.convolution import (
    Consumer,
    Geometry,
    integer_conv,
    integer_conv_input_grad,
    integer_conv_weight_grad,
)
from dettriton.exact.depthwise import (
    depthwise_conv,
    depthwise_conv_input_grad,
    depthwise_conv_weight_grad,
    is_depthwise,
)
from dettriton.exact.grid import bits_of, check_terms, grid_exponents, quantize
from dettriton.exact.grid import round_dot as round_dot_torch
from dettriton.ops._contract import contract
from dettriton.ops._conv_geometry import IntOrInts, by_group, conv_arguments
from dettriton.ops._conv_kernels import (
    conv_finished_triton,
    conv_input_grad_triton,
    conv_triton,
    conv_weight_grad_triton,
)
from dettriton.ops._epilogue import Activation, Epilogue, grad_before
from dettriton.ops._function import first_derivative_only

MAP = (2, 3, 4)
"""The spatial dimensions."""


def conv_torch(x: torch.Tensor, weight: torch.Tensor, g: Geometry, precision: str) -> torch.Tensor:
    bits = bits_of(precision)
    if compiles():
        return compiled_conv.conv(x, weight, g, bits)
    ex, ew = grid_exponents(x, (1, *MAP)), grid_exponents(weight, (1, *MAP))
    exponents = (ex + ew.view(1, -1, 1, 1, 1) - 2 * bits).expand(g.batch, g.out_channels, 1, 1, 1)
    y = torch.empty(g.batch, g.out_channels, *g.out_size)
    integers = depthwise_conv if is_depthwise(g, bits) else integer_conv
    integers(quantize(x, ex, bits), quantize(weight, ew, bits), g, bits, _rounded_into(y, exponents))
    return y


def _rounded_into(y: torch.Tensor, exponents: torch.Tensor) -> Consumer:
    def consume(part: tuple[slice, ...], total: torch.Tensor) -> None:
        y[part] = round_dot_torch(total, exponents[part[:2]])

    return consume


def conv_input_grad_torch(grad: torch.Tensor, weight: torch.Tensor, g: Geometry, precision: str) -> torch.Tensor:
    bits = bits_of(precision)
    if compiles():
        return compiled_conv.conv_input_grad(grad, weight, g, bits)
    grouped = by_group(weight, g)
    eg, ew = grid_exponents(grad, (1, *MAP)), grid_exponents(grouped, (1, 3, 4, 5))
    exponents = (eg + ew.view(1, -1, 1, 1, 1) - 2 * bits).expand(g.batch, g.in_channels, 1, 1, 1)
    grad_x = torch.empty(g.batch, g.in_channels, *g.size)
    integers = depthwise_conv_input_grad if is_depthwise(g, bits) else integer_conv_input_grad
    integers(quantize(grad, eg, bits), quantize(grouped, ew, bits), g, bits, _rounded_into(grad_x, exponents))
    return grad_x


def conv_weight_grad_torch(
    grad: torch.Tensor, x: torch.Tensor, g: Geometry, precision: str, *_: torch.Tensor | None
) -> torch.Tensor:
    bits = bits_of(precision)
    if compiles():
        return compiled_conv.conv_weight_grad(grad, x, g, bits)
    eg, ex = grid_exponents(grad, (0, *MAP)), grid_exponents(x, (0, *MAP))
    integers = depthwise_conv_weight_grad if is_depthwise(g, bits) else integer_conv_weight_grad
    total = integers(quantize(grad, eg, bits), quantize(x, ex, bits), g, bits)
    exponents = eg.view(g.groups, g.group_out, 1) + ex.view(g.groups, 1, g.group_in) - 2 * bits
    return round_dot_torch(total, exponents.view(g.out_channels, g.group_in, 1, 1, 1))


def conv_finished_torch(
    x: torch.Tensor, weight: torch.Tensor, g: Geometry, precision: str, epilogue: Epilogue
) -> tuple[torch.Tensor, torch.Tensor | None]:
    if compiles():
        return epilogue.after_bias(compiled_conv.conv(x, weight, g, bits_of(precision), epilogue.bias))
    return epilogue.finish(conv_torch(x, weight, g, precision), 1)


FORWARD = {"torch": conv_torch, "triton": conv_triton}
FINISHED = {"torch": conv_finished_torch, "triton": conv_finished_triton}
INPUT_GRAD = {"torch": conv_input_grad_torch, "triton": conv_input_grad_triton}
WEIGHT_GRAD = {"torch": conv_weight_grad_torch, "triton": conv_weight_grad_triton}


class Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        op: str,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        g: Geometry,
        precision: str,
        activation: Activation | None,
    ) -> torch.Tensor:
        ctx.op, ctx.geometry, ctx.precision, ctx.activation = op, g, precision, activation
        check_terms(op, g.terms_forward)
        engine = engine_for(x, weight, *(() if bias is None else (bias,)))
        epilogue = Epilogue(bias, activation, keep=any(ctx.needs_input_grad))
        y, kept = FINISHED[engine](x, weight, g, precision, epilogue)
        _, to_x, to_weight, *_ = ctx.needs_input_grad
        ctx.save_for_backward(x if to_weight else None, weight if to_x else None, kept)
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, kept = ctx.saved_tensors
        g, precision, engine = ctx.geometry, ctx.precision, engine_for(grad)
        to_x, to_weight, to_bias = ctx.needs_input_grad[1:4]
        before = grad_before(grad, kept, ctx.activation, g.out_channels, g.positions, to_bias)
        grad_x = grad_weight = None
        if to_x:
            check_terms(f"gradient of {ctx.op} to its input", g.terms_input_grad)
            grad_x = INPUT_GRAD[engine](before.grad, weight, g, precision)
        if to_weight:
            check_terms(f"gradient of {ctx.op} to its weight", g.terms_weight_grad)
            grad_weight = WEIGHT_GRAD[engine](before.grad, x, g, precision, before.top)
        return None, grad_x, grad_weight, before.bias, None, None, None


DEFINITION = (
    "dot products on a grid per sample and per output channel, then + bias; gradient to the input: grids per sample of "
    "grad and per input channel of weight; to the weight: grids per channel over batch and positions"
)
ERROR = "1.7e-6 relative on Gaussian data (medium: 2.1e-4); terms * 2^-p of the product of the largest magnitudes"


def convolve(
    op: str,
    rank: int,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: IntOrInts,
    padding: IntOrInts | str,
    dilation: IntOrInts,
    groups: int,
    precision: str,
    activation: Activation | None = None,
) -> torch.Tensor:
    """What conv1d, conv2d, conv3d and their fused forms call, with the arguments of the public ``op``."""
    call = conv_arguments(op, rank, input, weight, bias, stride, padding, dilation, groups, precision)
    return call.finish(Conv.apply(op, call.input, call.weight, bias, call.geometry, precision, activation))


@contract(
    "Dot products",
    definition=DEFINITION,
    error=ERROR,
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.conv2d",
)
def conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    *,
    precision: str = "high",
) -> torch.Tensor:
    """2-D convolution, as :func:`torch.nn.functional.conv2d`.

    Args:
        input: binary32 ``(N, C_in, H, W)`` or ``(C_in, H, W)``; each sample is one grid.
        weight: binary32 ``(C_out, C_in/groups, kH, kW)``; each output channel is one grid.
        bias: binary32 ``(C_out,)``, added to the rounded sum.
        stride, dilation: positive integers or pairs.
        padding: zeros on each side: an integer, a pair, ``"valid"`` or ``"same"`` (stride 1).
        groups: divides both channel counts.
        precision: ``"high"`` (20-bit grids) or ``"medium"`` (13-bit grids).

    Returns:
        ``(N, C_out, H_out, W_out)``: exact sums of products of grid integers, rounded to 24 bits once, then scaled;
        relative error on Gaussian data about 1.7e-6 (``high``) and 2.1e-4 (``medium``). A NaN or infinity in a
        sample makes the whole sample the canonical NaN: it has no grid.

    Raises:
        InputError: an operand is not binary32, shapes or arguments do not fit, or a dot product (forward or gradient)
            has more than 2**22 terms.
    """
    return convolve("conv2d", 2, input, weight, bias, stride, padding, dilation, groups, precision)


@contract(
    "Dot products",
    definition=DEFINITION,
    error=ERROR,
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.conv1d",
)
def conv1d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | tuple[int] = 1,
    padding: int | tuple[int] | str = 0,
    dilation: int | tuple[int] = 1,
    groups: int = 1,
    *,
    precision: str = "high",
) -> torch.Tensor:
    """1-D convolution, as :func:`torch.nn.functional.conv1d`: :func:`conv2d` with height 1.

    Args:
        input: binary32 ``(N, C_in, L)`` or ``(C_in, L)``; each sample is one grid.
        weight: binary32 ``(C_out, C_in/groups, k)``; each output channel is one grid.
        bias, stride, padding, dilation, groups, precision: as :func:`conv2d`.

    Returns:
        ``(N, C_out, L_out)``, with the error bound of :func:`conv2d`.

    Raises:
        InputError: as :func:`conv2d`.
    """
    return convolve("conv1d", 1, input, weight, bias, stride, padding, dilation, groups, precision)


@contract(
    "Dot products",
    definition=DEFINITION,
    error=ERROR,
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.conv3d",
)
def conv3d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | tuple[int, int, int] = 1,
    padding: int | tuple[int, int, int] | str = 0,
    dilation: int | tuple[int, int, int] = 1,
    groups: int = 1,
    *,
    precision: str = "high",
) -> torch.Tensor:
    """3-D convolution, as :func:`torch.nn.functional.conv3d`.

    Args:
        input: binary32 ``(N, C_in, D, H, W)`` or ``(C_in, D, H, W)``; each sample is one grid.
        weight: binary32 ``(C_out, C_in/groups, kD, kH, kW)``; each output channel is one grid.
        bias, stride, padding, dilation, groups, precision: as :func:`conv2d`, triples instead of pairs.

    Returns:
        ``(N, C_out, D_out, H_out, W_out)``, with the error bound of :func:`conv2d`.

    Raises:
        InputError: as :func:`conv2d`.
    """
    return convolve("conv3d", 3, input, weight, bias, stride, padding, dilation, groups, precision)
