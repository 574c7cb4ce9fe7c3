"""linear: ``matmul(input, weight^T)`` on one grid per input row and per weight row, then ``+ bias`` (one rounding).

Gradients: to the input with one grid per row of the gradient and per column of the weight; to the weight with one grid
per column of the gradient and of the input; to the bias an exact sum. Composed of exact parts.
"""

import torch

from dettriton.errors import InputError
from dettriton.ops._broadcast import add_bias
from dettriton.ops._contract import contract
from dettriton.ops._function import require_float32
from dettriton.ops.matmul import ERROR, matmul


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
    require_float32("linear", input=input, weight=weight, bias=bias)
    if weight.dim() != 2 or input.dim() == 0 or input.shape[-1] != weight.shape[1]:
        raise InputError(
            f"linear: input {tuple(input.shape)} needs a weight (out_features, in_features) with in_features = its "
            f"last dimension, got {tuple(weight.shape)}"
        )
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise InputError(f"linear: bias must have shape ({weight.shape[0]},), got {tuple(bias.shape)}")
    return add_bias(matmul(input, weight.t(), precision=precision), bias, -1)
