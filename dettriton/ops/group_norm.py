"""group_norm and instance_norm: groups of a sample's channels, or each channel, normalised by mean and variance.

The definition is the one of :mod:`dettriton.ops._row_norm`: a row is one group of one sample, with all its positions,
and every channel has one weight and one bias. instance_norm's groups are single channels; what it tracks::

    running_mean = (running_mean * (1 - momentum)) + ((S''(m) / N) * momentum)
    running_var  = (running_var  * (1 - momentum)) + ((S''(q / (n - 1)) / N) * momentum)      q = S((x - m) * (x - m))

with ``S''`` the exact sum over the batch's N samples. By running statistics it is batch_norm's inference.
"""

import math

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.ops._compile import Mutation
from dettriton.ops._contract import contract
from dettriton.ops._row_norm import check_row_norm, row_norm
from dettriton.ops.batch_norm import STATISTICS, TRACKED, check_channels, check_statistics, normalise_batch, track
from dettriton.ops.sum import exact_sum


@contract(
    "Normalisation",
    definition="as layer_norm over each group's channels and positions; weight and bias per channel",
    error="h: (2^-21 + n * 2^-32) relative + (2^-23 of the mean + 2^-32 of the largest x) / sqrt(v)",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.group_norm",
)
def group_norm(
    input: torch.Tensor,
    num_groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Group normalisation, as :func:`torch.nn.functional.group_norm` (Wu and He, 2018).

    Order of operations and error of a row, here the channels and positions of one group of one sample, as
    :func:`dettriton.ops.layer_norm`; weight and bias belong to channels.

    Args:
        input: binary32, (N, C) or (N, C, ...) with any further axes.
        num_groups: how many groups of neighbouring channels; divides C.
        weight, bias: binary32 (C,), or None to leave out that operation.
        eps: added to the variance, rounded to binary32.

    Returns:
        A new tensor of the input's shape. Any non-finite value in a group makes that group NaN, and so does a sum or
        a squared deviation that overflows.

    Raises:
        InputError: not binary32, fewer than two axes, shapes that do not fit, or ``num_groups`` does not divide C.
        EngineError: the engine cannot run on the tensors' device.
    """
    if input.dim() < 2:
        raise InputError(f"group_norm: input must be (N, C, ...), got shape {tuple(input.shape)}; add a batch axis")
    samples, channels = input.shape[:2]
    if num_groups < 1 or channels % num_groups:
        raise InputError(f"group_norm: num_groups must divide the {channels} channels, got {num_groups}")
    check_row_norm("group_norm", (channels,), input, weight, bias)
    view = (samples, num_groups, channels // num_groups, math.prod(input.shape[2:]))
    return row_norm("group_norm", input, view, weight, bias, eps)


def _track_rows(rows: torch.Tensor, running_mean: torch.Tensor, running_var: torch.Tensor, momentum: float) -> None:
    """Update the running statistics of C channels by rows of shape (1, N * C, P)."""
    with torch.no_grad():
        mean, squares, _ = STATISTICS[engine_for(rows, running_mean, running_var)](rows)
        variance = squares / torch.full_like(squares[:1], rows.shape[2] - 1)
        for running, statistic in ((running_mean, mean), (running_var, variance)):
            by_sample = statistic.view(-1, running.shape[0])
            samples = torch.full_like(running[:1], by_sample.shape[0])
            track(running, exact_sum(by_sample, (0,)) / samples, momentum)


@contract(
    "Normalisation",
    definition="as layer_norm over each channel's positions; weight and bias per channel",
    error="h: (2^-21 + n * 2^-32) relative + (2^-23 of the mean + 2^-32 of the largest x) / sqrt(v)",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.instance_norm",
    mutation=Mutation(TRACKED, "use_input_stats"),
)
def instance_norm(
    input: torch.Tensor,
    running_mean: torch.Tensor | None = None,
    running_var: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Instance normalisation, as :func:`torch.nn.functional.instance_norm` (Ulyanov, Vedaldi and Lempitsky, 2016).

    Order of operations and error of a row, here the positions of one channel of one sample, as
    :func:`dettriton.ops.layer_norm`; weight and bias belong to channels. Without ``use_input_stats`` it is
    :func:`dettriton.ops.batch_norm`'s inference.

    Args:
        input: binary32, (N, C, ...) with at least one further axis.
        running_mean, running_var: binary32 (C,); updated in place, by the mean over the batch of its rows' statistics,
            with ``use_input_stats`` if given (not by a batch of no samples), and used without.
        weight, bias: binary32 (C,), or None to leave out that operation.
        use_input_stats: normalise each row by its own statistics instead of the running ones.
        momentum: weight of the new statistic in the running one.
        eps: added to the variance, rounded to binary32.

    Returns:
        A new tensor of the input's shape. Any non-finite value in a row makes that row NaN, and so does a sum or
        a squared deviation that overflows.

    Raises:
        InputError: not binary32, fewer than three axes, shapes that do not fit, no running statistics to use, or fewer
            than two positions with ``use_input_stats``.
        EngineError: the engine cannot run on the tensors' device.
    """
    op = "instance_norm"
    if input.dim() < 3:
        raise InputError(f"{op}: input must be (N, C, ...) with positions, got shape {tuple(input.shape)}")
    check_channels(op, input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if not use_input_stats:
        check_statistics(op, input, False, running_mean)
        return normalise_batch(input, running_mean, running_var, weight, bias, None, False, momentum, eps, relu=False)
    (samples, channels), positions = input.shape[:2], math.prod(input.shape[2:])
    if positions < 2:
        raise InputError(f"{op}: needs more than one position per channel, got shape {tuple(input.shape)}")
    if running_mean is not None and running_var is not None and samples > 0:
        _track_rows(input.detach().reshape(1, -1, positions), running_mean, running_var, momentum)
    return row_norm(op, input, (samples, channels, 1, positions), weight, bias, eps)
