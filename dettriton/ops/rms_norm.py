"""rms_norm: each sample's trailing dimensions divided by their root mean square, then scaled.

The definition is the one of :mod:`dettriton.ops._row_norm` without the mean: one row for each sample, one weight for
each of a row's elements.
"""

from collections.abc import Sequence

import torch

from dettriton.ops._compile import of_the_inputs_shape
from dettriton.ops._contract import contract
from dettriton.ops._row_norm import check_row_norm, row_norm
from dettriton.ops.layer_norm import normalised_view

EPSILON = 2.0**-23
"""binary32's machine epsilon, torch's choice for ``eps=None``."""


@contract(
    "Normalisation",
    definition="h = x * (1 / sqrt(S(x * x) / n + eps)), h * weight; gradient (t - (h * (S(t * h) / n))) * r, "
    "t = g * weight",
    error="h: 2^-21 + n * 2^-32 relative",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.rms_norm",
    fake=of_the_inputs_shape,
)
def rms_norm(
    input: torch.Tensor,
    normalized_shape: int | Sequence[int],
    weight: torch.Tensor | None = None,
    eps: float | None = None,
) -> torch.Tensor:
    """Root mean square normalisation, as :func:`torch.nn.functional.rms_norm` (Zhang and Sennrich, 2019).

    ``r = 1 / sqrt(S(x * x) / n + eps)``, ``h = x * r``, ``y = h * weight`` with ``S`` the exact sum rounded once; each
    written operation is rounded once. While nothing overflows or underflows, the relative error of ``h`` is at most
    ``2**-21 + n * 2**-32``.

    Args:
        input: binary32, any shape that ends in ``normalized_shape``.
        normalized_shape: the trailing dimensions that are normalised together.
        weight: binary32 of ``normalized_shape``, or None to leave out the multiplication.
        eps: added to the mean square, rounded to binary32; None for ``2**-23``.

    Returns:
        A new tensor of the input's shape. Any non-finite value in a sample makes that sample NaN, and so does a square
        that overflows.

    Raises:
        InputError: not binary32, or shapes that do not fit.
        EngineError: the engine cannot run on the tensors' device.
    """
    shape, view = normalised_view("rms_norm", input, normalized_shape)
    check_row_norm("rms_norm", shape, input, weight, None)
    return row_norm("rms_norm", input, view, weight, None, EPSILON if eps is None else eps, centre=False)
