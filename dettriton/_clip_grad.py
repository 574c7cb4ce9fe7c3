"""Clipping gradients in place, by their norm or one by one: written sequences of IEEE operations (R1)."""

from collections.abc import Iterable

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.ops._optim_kernels import is_dense, scale_triton
from dettriton.ops.norm import total_norm


def _gradients(op: str, parameters: torch.Tensor | Iterable[torch.Tensor]) -> list[torch.Tensor]:
    parameters = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
    grads = [p.grad for p in parameters if p.grad is not None]
    for g in grads:
        if g.dtype != torch.float32 or g.is_sparse:
            raise InputError(f"{op}: gradients must be dense torch.float32, got {'sparse' if g.is_sparse else g.dtype}")
    return grads


def _refuse_foreach(op: str, foreach: bool | None) -> None:
    if foreach:
        raise InputError(f"{op}: foreach=True is not supported; leave foreach out")


@torch.no_grad()
def clip_grad_norm_(
    parameters: torch.Tensor | Iterable[torch.Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> torch.Tensor:
    """Scale gradients in place to a norm of at most ``max_norm``, as :func:`torch.nn.utils.clip_grad_norm_`.

    ``f = [max_norm] / (norm + [1e-6])``, replaced by 1 where it is larger; each gradient becomes ``g * f``. Each
    written operation is rounded once. Nothing is read back to the host unless ``error_if_nonfinite``.

    Args:
        parameters: whose gradients to scale together, all on one device.
        max_norm: the largest norm allowed, a Python number.
        norm_type: the order of the norm, as in :func:`dettriton.ops.norm.total_norm`.
        error_if_nonfinite: whether to raise where the norm is NaN or infinite.
        foreach: only its default.

    Returns:
        The norm of the concatenated gradients before scaling, 0-dim; +0 without gradients.

    Raises:
        InputError: a gradient is sparse or not binary32; the norm is not finite and ``error_if_nonfinite``.
        EngineError: the gradients are on different devices, or the engine cannot run on theirs.
    """
    op = "clip_grad_norm_"
    _refuse_foreach(op, foreach)
    grads = _gradients(op, parameters)
    if not grads:
        return torch.zeros(())
    engine = engine_for(*grads)
    total = total_norm(grads, norm_type)
    if error_if_nonfinite and not bool(total.isfinite()):
        raise InputError(
            f"{op}: the gradients' norm of order {norm_type} is {float(total)}; find the step that made it so, or pass "
            "error_if_nonfinite=False"
        )
    limit, tiny = (torch.full((), v, dtype=torch.float32, device=total.device) for v in (max_norm, 1e-6))
    factor = limit / (total + tiny)
    factor = torch.where(factor > 1, torch.ones_like(factor), factor)
    dense = [g for g in grads if g.numel() and is_dense(g)] if engine == "triton" else []
    if dense:
        scale_triton(dense, factor)
    scaled = {id(g) for g in dense}
    for g in grads:
        if id(g) not in scaled:
            g.mul_(factor)
    return total


@torch.no_grad()
def clip_grad_value_(
    parameters: torch.Tensor | Iterable[torch.Tensor], clip_value: float, foreach: bool | None = None
) -> None:
    """Replace gradients beyond ``[-clip_value, clip_value]`` by its ends, as :func:`torch.nn.utils.clip_grad_value_`.

    Exact; a NaN stays.

    Args:
        parameters: whose gradients to clip.
        clip_value: at least 0, rounded to binary32.
        foreach: only its default.

    Raises:
        InputError: ``clip_value`` is negative or NaN, or a gradient is sparse or not binary32.
    """
    op = "clip_grad_value_"
    _refuse_foreach(op, foreach)
    if not clip_value >= 0:
        raise InputError(f"{op}: clip_value must be at least 0, got {clip_value}")
    for g in _gradients(op, parameters):
        high = torch.full((), clip_value, dtype=torch.float32, device=g.device)
        g.copy_(torch.where(g > high, high, torch.where(g < -high, -high, g)))
