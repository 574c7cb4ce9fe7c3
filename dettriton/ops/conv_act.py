"""conv1d_act, conv2d_act, conv3d_act: ``activation(conv(x, weight, bias))`` in conv's kernels, the bits of its parts.

Written order: conv's, then the activation's formula. Gradients: the activation's formula of the upstream gradient,
then conv's. Activations: relu, relu6, gelu (with erf), gelu_tanh, silu, hardswish.
"""

from collections.abc import Callable
from typing import Any

import torch

from dettriton.ops._contract import contract
from dettriton.ops._conv_geometry import IntOrInts
from dettriton.ops._epilogue import activation_named
from dettriton.ops.conv import ERROR, convolve


def _fused(rank: int) -> Callable:
    """The contract of the op for that many spatial dimensions."""
    stock = getattr(torch.nn.functional, f"conv{rank}d")

    def shaped_as_conv(
        input: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        *geometry: Any,
        activation: str = "relu",
        precision: str = "high",
        **named: Any,
    ) -> torch.Tensor:
        return stock(input, weight, bias, *geometry, **named)

    return contract(
        "Fused ops",
        definition=f"activation(conv{rank}d(input, weight, bias)), the bits of its parts, forward and gradients",
        error=f"conv{rank}d's, then the activation's ({ERROR})",
        batch_invariant=True,
        kernels=True,
        mirrors="",
        fake=shaped_as_conv,
    )


@_fused(1)
def conv1d_act(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: IntOrInts = 1,
    padding: IntOrInts | str = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
    *,
    activation: str = "relu",
    precision: str = "high",
) -> torch.Tensor:
    """``activation(conv1d(...))``, bit for bit: :func:`conv2d_act` in one dimension.

    Args:
        input: binary32 ``(N, C_in, L)`` or ``(C_in, L)``.
        weight: binary32 ``(C_out, C_in/groups, k)``.
        bias, stride, padding, dilation, groups, activation, precision: as :func:`conv2d_act`.

    Returns:
        ``(N, C_out, L_out)``.

    Raises:
        InputError: as :func:`conv2d_act`.
    """
    fused = activation_named("conv1d_act", activation)
    return convolve("conv1d_act", 1, input, weight, bias, stride, padding, dilation, groups, precision, fused)


@_fused(2)
def conv2d_act(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: IntOrInts = 1,
    padding: IntOrInts | str = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
    *,
    activation: str = "relu",
    precision: str = "high",
) -> torch.Tensor:
    """``activation(conv2d(...))``, bit for bit.

    On a GPU bias and activation cost no pass over memory of their own. Backward reads the upstream gradient once for
    the activation, the bias's gradient and the grid of the gradient to the weight; it keeps one tensor of the result's
    size, for relu the result itself.

    Args:
        input: binary32 ``(N, C_in, H, W)`` or ``(C_in, H, W)``.
        weight: binary32 ``(C_out, C_in/groups, kH, kW)``.
        bias: binary32 ``(C_out,)`` or None.
        stride, padding, dilation, groups, precision: as :func:`dettriton.ops.conv2d`.
        activation: ``"relu"``, ``"relu6"``, ``"gelu"``, ``"gelu_tanh"``, ``"silu"`` or ``"hardswish"``.

    Returns:
        ``(N, C_out, H_out, W_out)``; the error of :func:`dettriton.ops.conv2d`, then that of the activation.

    Raises:
        InputError: as :func:`dettriton.ops.conv2d`, or the activation is unknown.
    """
    fused = activation_named("conv2d_act", activation)
    return convolve("conv2d_act", 2, input, weight, bias, stride, padding, dilation, groups, precision, fused)


@_fused(3)
def conv3d_act(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: IntOrInts = 1,
    padding: IntOrInts | str = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
    *,
    activation: str = "relu",
    precision: str = "high",
) -> torch.Tensor:
    """``activation(conv3d(...))``, bit for bit: :func:`conv2d_act` in three dimensions.

    Args:
        input: binary32 ``(N, C_in, D, H, W)`` or ``(C_in, D, H, W)``.
        weight: binary32 ``(C_out, C_in/groups, kD, kH, kW)``.
        bias, stride, padding, dilation, groups, activation, precision: as :func:`conv2d_act`.

    Returns:
        ``(N, C_out, D_out, H_out, W_out)``.

    Raises:
        InputError: as :func:`conv2d_act`.
    """
    fused = activation_named("conv3d_act", activation)
    return convolve("conv3d_act", 3, input, weight, bias, stride, padding, dilation, groups, precision, fused)
