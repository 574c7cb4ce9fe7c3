"""kl_div, elementwise over log-probabilities ``x`` and targets ``y``.

Written order, every operation rounded once to binary32 (R1), exp and log the library's own (R3)::

    probabilities     loss = (y * log(y)) - (y * x), the first product +0 for y = 0
                      grad_x = (y * -1) * k      grad_y = ((log(y) + 1) - x) * k
    log_target        e = exp(y)      d = y - x      loss = e * d
                      grad_x = (e * -1) * k      grad_y = (e * (d + 1)) * k

``k`` is the upstream gradient of that element's loss. With ``reduction="mean"`` the losses' exact sum (R2) is
divided by their number, with ``"batchmean"`` by the size of the first dimension, in binary32, and the upstream
gradient likewise. Where shapes differ both are broadcast, and a gradient is the exact sum over the broadcast
dimensions. Batch-invariant: elementwise.
"""

import torch

from dettriton.errors import InputError
from dettriton.exact import elementary as host
from dettriton.ops._contract import contract
from dettriton.ops._device_elementary import exp_f32, log_f32
from dettriton.ops._elementwise import elementwise, formula
from dettriton.ops._function import require_float32
from dettriton.ops._launch import jit, tl
from dettriton.ops._reduction import REDUCTIONS, check_reduction, of_one_shape, reduced


def divergence_torch(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.where(y == 0, torch.zeros_like(y), y * host.log(y)) - y * x


@jit
def _divergence(x, y):
    return tl.where(y == 0, 0.0, y * log_f32(y)) - y * x


def divergence_grad_torch(k: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (y * -1.0) * k


@jit
def _divergence_grad(k, x, y):
    return (y * -1.0) * k


def divergence_target_grad_torch(k: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((host.log(y) + 1.0) - x) * k


@jit
def _divergence_target_grad(k, x, y):
    return ((log_f32(y) + 1.0) - x) * k


def log_divergence_torch(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return host.exp(y) * (y - x)


@jit
def _log_divergence(x, y):
    return exp_f32(y) * (y - x)


def log_divergence_grad_torch(k: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (host.exp(y) * -1.0) * k


@jit
def _log_divergence_grad(k, x, y):
    return (exp_f32(y) * -1.0) * k


def log_divergence_target_grad_torch(k: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (host.exp(y) * ((y - x) + 1.0)) * k


@jit
def _log_divergence_target_grad(k, x, y):
    return (exp_f32(y) * ((y - x) + 1.0)) * k


DIVERGENCE = formula(
    "kl_div",
    divergence_torch,
    _divergence,
    tensors=2,
    gradients=(
        formula("gradient of kl_div", divergence_grad_torch, _divergence_grad, tensors=3),
        formula("gradient of kl_div to the target", divergence_target_grad_torch, _divergence_target_grad, tensors=3),
    ),
)
LOG_DIVERGENCE = formula(
    "kl_div of log targets",
    log_divergence_torch,
    _log_divergence,
    tensors=2,
    gradients=(
        formula("gradient of kl_div of log targets", log_divergence_grad_torch, _log_divergence_grad, tensors=3),
        formula(
            "gradient of kl_div to the log target",
            log_divergence_target_grad_torch,
            _log_divergence_target_grad,
            tensors=3,
        ),
    ),
)


@contract(
    "Softmax and losses",
    definition="y log y - y x, or exp(y) (y - x) for log targets, in R1; exact sum over their number for the mean",
    error="1.4 ulp of abs(y log y), half an ulp of abs(y x) and of the loss; log targets: 2 ulp of the loss",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.kl_div",
)
def kl_div(
    input: torch.Tensor,
    target: torch.Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> torch.Tensor:
    """Kullback-Leibler divergence, as :func:`torch.nn.functional.kl_div`; differentiable in the target too.

    ``(y * log(y)) - (y * x)``, or ``exp(y) * (y - x)`` with ``log_target``; the module's docstring has the gradients.
    Each written operation is rounded once.

    Args:
        input: binary32 log-probabilities, any shape.
        target: binary32 probabilities, or their logarithms; broadcast with ``input``.
        size_average: deprecated in torch, refused.
        reduce: deprecated in torch, refused.
        reduction: ``"mean"``: the losses' exact sum divided by their number; ``"batchmean"``: by the input's first
            dimension, the divergence's mathematical definition; ``"sum"``; or ``"none"``.
        log_target: whether ``target`` holds logarithms.

    Returns:
        A 0-dim tensor, or the losses for ``reduction="none"``. A target of 0 counts ``-(0 * x)``, and its gradient is
        -Inf times the upstream one (torch's is NaN); a negative one is NaN.

    Raises:
        InputError: a shape, type or option is wrong.
        EngineError: the tensors are on different devices, or the engine cannot run on theirs.
    """
    op = "kl_div"
    if size_average is not None or reduce is not None or reduction != "batchmean":
        if reduction not in (*REDUCTIONS, "batchmean"):
            raise InputError(f"{op}: reduction must be one of {', '.join(REDUCTIONS)}, batchmean, got {reduction!r}")
        check_reduction(op, size_average, reduce, "mean" if reduction == "batchmean" else reduction)
    require_float32(op, input=input, target=target)
    losses = elementwise(LOG_DIVERGENCE if log_target else DIVERGENCE, *of_one_shape(op, input, target))
    if reduction != "batchmean":
        return reduced(op, losses, reduction)
    if input.dim() == 0:
        raise InputError(f"{op}: reduction='batchmean' needs a first dimension; use 'sum' for one number")
    samples = torch.full((), input.shape[0], dtype=torch.float32, device=input.device)
    return reduced(op, losses, "mean", divisor=samples)
