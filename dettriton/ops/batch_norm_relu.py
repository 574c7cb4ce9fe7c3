"""batch_norm_relu: ``relu(batch_norm(x) + residual)`` in batch_norm's kernels, the bits of its parts.

Written order and gradients are those of :mod:`dettriton.ops.batch_norm` with its epilogue; what comes back to the
addition and to the normalisation is ``g`` where the saved result is above 0, ``+0`` elsewhere, as in
:func:`dettriton.ops.relu`.
"""

import torch

from dettriton.errors import InputError
from dettriton.ops._compile import Mutation, of_the_inputs_shape
from dettriton.ops._contract import contract
from dettriton.ops._function import require_float32
from dettriton.ops.batch_norm import TRACKED, check_channels, check_statistics, normalise_batch


@contract(
    "Fused ops",
    definition="relu(batch_norm(x) + residual), the bits of its parts, forward and gradients",
    error="that of batch_norm, one rounding for the residual; relu is exact",
    batch_invariant=False,
    kernels=True,
    mirrors="",
    mutation=Mutation(TRACKED, "training"),
    fake=of_the_inputs_shape,
)
def batch_norm_relu(
    input: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """``relu(batch_norm(input, ...))``, or ``relu(batch_norm(input, ...) + residual)``, bit for bit.

    On a GPU the addition and the relu cost no pass over memory of their own; backward keeps the result instead of two
    intermediates.

    Args:
        input: binary32, (N, C) or (N, C, ...) with any further axes.
        running_mean, running_var: binary32 (C,); used at inference, updated in place in training if given.
        weight, bias: binary32 (C,), or None to leave out that operation.
        training: normalise by this batch's statistics instead of the running ones.
        momentum: weight of the new statistic in the running one.
        eps: added to the variance.
        residual: binary32 of the input's shape, added before the relu; None adds nothing.

    Returns:
        A new tensor of the input's shape, +0 or positive; the canonical NaN where the relu meets a NaN.

    Raises:
        InputError: not binary32, fewer than two axes, shapes that do not fit, inference without running statistics,
            or training with fewer than two values per channel.
        EngineError: the engine cannot run on the tensors' device.
    """
    given = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    check_channels("batch_norm_relu", input, **given)
    check_statistics("batch_norm_relu", input, training, running_mean)
    require_float32("batch_norm_relu", residual=residual)
    if residual is not None and residual.shape != input.shape:
        raise InputError(
            f"batch_norm_relu: residual must have the input's shape {tuple(input.shape)}, got {tuple(residual.shape)}"
        )
    return normalise_batch(input, running_mean, running_var, weight, bias, residual, training, momentum, eps, relu=True)
