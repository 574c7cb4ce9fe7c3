"""layer_norm: each sample's trailing dimensions normalised by their mean and variance, then scaled and shifted.

The definition is the one of :mod:`dettriton.ops._row_norm`: a row is one sample, and each of its elements has a weight
and a bias.
"""

import math
from collections.abc import Sequence

import torch

from dettriton.errors import InputError
from dettriton.ops._compile import of_the_inputs_shape
from dettriton.ops._contract import contract
from dettriton.ops._row_norm import check_row_norm, row_norm


def normalised_view(
    op: str, input: torch.Tensor, normalized_shape: int | Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, int, int, int]]:
    """``normalized_shape`` as a tuple, and the input's (N, G, D, P) view.

    Raises:
        InputError: it is empty or is not the end of the input's shape.
    """
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or tuple(input.shape[-len(shape) :]) != shape:
        raise InputError(f"{op}: normalized_shape {shape} must be the end of the input's shape {tuple(input.shape)}")
    return shape, (math.prod(input.shape[: -len(shape)]), 1, math.prod(shape), 1)


@contract(
    "Normalisation",
    definition="m = S(x) / n, v = S((x - m)^2) / n, h = (x - m) * (1 / sqrt(v + eps)), (h * weight) + bias; "
    "gradient ((t - S(t) / n) - (h * (S(t * h) / n))) * r, t = g * weight",
    error="h: (2^-21 + n * 2^-32) relative + (2^-23 of the mean + 2^-32 of the largest x) / sqrt(v)",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.layer_norm",
    fake=of_the_inputs_shape,
)
def layer_norm(
    input: torch.Tensor,
    normalized_shape: int | Sequence[int],
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Layer normalisation, as :func:`torch.nn.functional.layer_norm` (Ba, Kiros and Hinton, 2016).

    ``m = S(x) / n``, ``v = S((x - m) * (x - m)) / n``, ``r = 1 / sqrt(v + eps)``, ``h = (x - m) * r``,
    ``y = (h * weight) + bias`` with ``S`` the exact sum rounded once; each written operation is rounded once. While
    nothing overflows or underflows, ``h`` is within
    ``(2**-21 + n * 2**-32) * |h| + (2**-23 * |m| + 2**-32 * max|x|) * r`` of its exact value.

    Args:
        input: binary32, any shape that ends in ``normalized_shape``.
        normalized_shape: the trailing dimensions that are normalised together.
        weight, bias: binary32 of ``normalized_shape``, or None to leave out that operation.
        eps: added to the variance, rounded to binary32.

    Returns:
        A new tensor of the input's shape. Any non-finite value in a sample makes that sample NaN, and so does a sum
        or a squared deviation that overflows. A constant sample whose sum is exact gives ``bias`` (NaN if ``eps`` is
        0); another's mean may be an ulp off, which ``r`` enlarges as the bound says.

    Raises:
        InputError: not binary32, or shapes that do not fit.
        EngineError: the engine cannot run on the tensors' device.
    """
    shape, view = normalised_view("layer_norm", input, normalized_shape)
    check_row_norm("layer_norm", shape, input, weight, bias)
    return row_norm("layer_norm", input, view, weight, bias, eps)
