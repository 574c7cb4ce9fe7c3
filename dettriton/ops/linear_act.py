"""linear_act: ``activation(linear(x, weight, bias))`` in linear's kernels, the bits of its parts.

Written order: linear's, then the activation's formula. Gradients: the activation's formula of the upstream gradient,
then linear's. Activations: relu, relu6, gelu (with erf), gelu_tanh, silu, hardswish.
"""

from typing import Any

import torch

from dettriton.ops._contract import contract
from dettriton.ops._epilogue import activation_named
from dettriton.ops.linear import affine
from dettriton.ops.matmul import ERROR


def _shaped_as_linear(input: torch.Tensor, weight: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return torch.nn.functional.linear(input, weight)


@contract(
    "Fused ops",
    definition="activation(linear(input, weight, bias)), the bits of its parts, forward and gradients",
    error=f"linear's, then the activation's ({ERROR})",
    batch_invariant=True,
    kernels=True,
    mirrors="",
    fake=_shaped_as_linear,
)
def linear_act(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "relu",
    *,
    precision: str = "high",
) -> torch.Tensor:
    """``activation(linear(input, weight, bias))``, bit for bit.

    On a GPU bias and activation cost no pass over memory of their own. Backward reads the upstream gradient once for
    the activation, the bias's gradient and the grid of the gradient to the weight; it keeps one tensor of the result's
    size, for relu the result itself.

    Args:
        input: binary32 ``(..., in_features)``; each row is one grid.
        weight: binary32 ``(out_features, in_features)``; each row is one grid.
        bias: binary32 ``(out_features,)`` or None.
        activation: ``"relu"``, ``"relu6"``, ``"gelu"``, ``"gelu_tanh"``, ``"silu"`` or ``"hardswish"``.
        precision: ``"high"`` (20-bit grids) or ``"medium"`` (13-bit grids).

    Returns:
        ``(..., out_features)``; the error of :func:`dettriton.ops.linear`, then that of the activation.

    Raises:
        InputError: as :func:`dettriton.ops.linear`, or the activation is unknown.
    """
    return affine("linear_act", input, weight, bias, precision, activation_named("linear_act", activation))
