"""Optimizers with torch.optim's names, arguments and state, each one written sequence of IEEE operations (R1).

Tensors are binary32 and every written operation is rounded once. Constants are prepared on the host in binary64
(``+ - * / sqrt``, powers as repeated products) and rounded to binary32 where they meet a tensor, written ``[c]`` below.
torch's own optimizers fuse multiplications into additions on some CPUs, so their results depend on the CPU.

On a GPU one kernel launch updates all parameters of a group in place. Its constants are arguments of the launch: a
captured CUDA graph keeps those of its capture.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import torch

from dettriton._clip_grad import clip_grad_norm_, clip_grad_value_
from dettriton._light_optimizer import LightOptimizer
from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.exact import compiled_optim
from dettriton.exact._jit import compiles
from dettriton.exact.ieee import sqrt
from dettriton.ops._optim_kernels import adam_triton, in_order_of, is_dense, sgd_triton
from dettriton.schedules import LRSchedule, constant, cosine, step_decay, warmup

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "LRSchedule",
    "clip_grad_norm_",
    "clip_grad_value_",
    "constant",
    "cosine",
    "step_decay",
    "warmup",
]

_PACK_ELEMENTS = 1 << 20
_POWERS: dict[float, tuple[int, float]] = {}


def repeated_power(base: float, exponent: int) -> float:
    """``base ** exponent`` as ``exponent`` binary64 products in order from 1.0: a function of its arguments alone."""
    done, value = _POWERS.get(base, (0, 1.0))
    if done > exponent:
        done, value = 0, 1.0
    for _ in range(exponent - done):
        value *= base
    _POWERS[base] = (exponent, value)
    return value


def _scalars(device: torch.device, *values: float) -> tuple[torch.Tensor, ...]:
    # 0-dim tensors on the device: CUDA multiplies by the reciprocal where it should divide by a Python number.
    return torch.tensor(values, dtype=torch.float32).to(device, non_blocking=True).unbind()


def _packs(params: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Runs of parameters to update as one vector: an update is elementwise, so packing cannot change bits."""
    pack, elements = [], 0
    for p in params:
        if pack and (elements + p.numel() > _PACK_ELEMENTS or p.device != pack[0].device):
            yield pack
            pack, elements = [], 0
        pack.append(p)
        elements += p.numel()
    if pack:
        yield pack


def _gather(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def _scatter(flat: torch.Tensor, tensors: list[torch.Tensor]) -> None:
    for part, tensor in zip(flat.split([t.numel() for t in tensors]), tensors, strict=True):
        tensor.copy_(part.view(tensor.shape))


def _not_negative(value: float) -> bool:
    return value >= 0


class _Optimizer(LightOptimizer):
    """What the optimizers share: checking options, collecting the parameters that have a gradient, packing them."""

    _UNSUPPORTED = ("amsgrad", "maximize", "foreach", "fused", "capturable", "differentiable")
    _RANGES: ClassVar[dict[str, Callable[[Any], bool]]]
    _MOMENTS: ClassVar[tuple[str, ...]]
    _kernel: ClassVar[Callable[..., None]]
    _loop: ClassVar[Callable[..., None]]

    def _check_group(self, group: dict[str, Any]) -> None:
        name = type(self).__name__
        for option in self._UNSUPPORTED:
            if group.pop(option, None):
                raise InputError(f"{name}: {option}=True is not supported; leave {option} out")
        for option, allowed in self._RANGES.items():
            value = group[option]
            numbers = value if isinstance(value, (tuple, list)) else (value,)
            if any(isinstance(v, torch.Tensor) for v in numbers) or not allowed(value):
                raise InputError(
                    f"{name}: invalid {option}={value!r}; give Python numbers in torch.optim.{name}'s range"
                )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self._check_group(self.param_groups[-1])

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            self._check_group(group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the parameters once; ``closure`` may compute the loss and its gradients first, and is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[Any, list[torch.Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    self._check_gradient(p)
                    alike.setdefault(self._advance(p, group), []).append(p)
            for progress, params in alike.items():
                by_device, others = self._split(params)
                for fused in by_device:
                    self._in_place(self._kernel, [self._row(p) for p in fused], group, progress)
                if compiles():
                    looped, others = self._split_contiguous(others)
                    self._in_place(self._loop, [self._row(p) for p in looped], group, progress)
                for pack in _packs(others):
                    self._update(pack, group, progress)
        return loss

    def _split(self, params: list[torch.Tensor]) -> tuple[list[list[torch.Tensor]], list[torch.Tensor]]:
        """The parameters that one launch on each device updates, and those that are packed."""
        by_device: dict[torch.device, list[torch.Tensor]] = {}
        others = []
        for p in params:
            (by_device.setdefault(p.device, []) if self._has_kernel(p) else others).append(p)
        return list(by_device.values()), others

    def _split_contiguous(self, params: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The parameters that are flat arrays on the CPU with all of their state, and the others."""
        found: tuple[list[torch.Tensor], list[torch.Tensor]] = [], []
        for p in params:
            tensors = (p, *self._moments(p))
            found[not all(t.device.type == "cpu" and t.is_contiguous() for t in tensors)].append(p)
        return found

    def _moments(self, p: torch.Tensor) -> list[torch.Tensor]:
        found = (self.state[p].get(key) for key in self._MOMENTS)
        return [t for t in found if t is not None]

    def _has_kernel(self, p: torch.Tensor) -> bool:
        """Whether a table of addresses can hold ``p`` and its state: on an accelerator, dense, in one memory order."""
        alike = self._moments(p)
        return (
            engine_for(p, p.grad) == "triton"
            and p.numel() > 0
            and is_dense(p)
            and all(t.stride() == p.stride() and t.device == p.device for t in alike)
        )

    def _row(self, p: torch.Tensor) -> list[torch.Tensor]:
        """A parameter with the tensors of its update, in the kernels' order."""
        return [p, in_order_of(p.grad, p), *self._moments(p)]

    def _check_gradient(self, p: torch.Tensor) -> None:
        if p.dtype != torch.float32 or p.grad.is_sparse:
            kind = "a sparse gradient" if p.grad.is_sparse else str(p.dtype)
            raise InputError(f"{type(self).__name__} updates dense torch.float32 parameters, got {kind}")

    def _advance(self, p: torch.Tensor, group: dict[str, Any]) -> Any:
        """Prepare the state of ``p`` for one more step; parameters with equal results share their constants."""
        raise NotImplementedError

    def _update(self, params: list[torch.Tensor], group: dict[str, Any], progress: Any) -> None:
        raise NotImplementedError

    def _in_place(
        self, update: Callable[..., None], rows: list[list[torch.Tensor]], group: dict[str, Any], progress: Any
    ) -> None:
        """Update rows by ``_kernel`` or ``_loop``, which take the same arguments."""
        raise NotImplementedError


class SGD(_Optimizer):
    """Stochastic gradient descent, as :class:`torch.optim.SGD` (Nesterov form of Sutskever et al., 2013).

    For a parameter ``p`` with gradient ``g`` and buffer ``b``::

        g = g + [weight_decay] * p                          if weight_decay != 0
        b = g at the first step, then ([momentum] * b) + ([1 - dampening] * g)      if momentum != 0
        g = g + [momentum] * b if nesterov, else b          if momentum != 0
        p = p - [lr] * g

    Args:
        params: parameters or groups of them, binary32.
        lr, momentum, dampening, weight_decay, nesterov: as in torch; Python numbers.
        maximize, foreach, differentiable, fused: only their defaults.

    Raises:
        InputError: an option out of its range or not supported; a parameter that is not binary32 (at ``step``).
    """

    _MOMENTS: ClassVar = ("momentum_buffer",)
    _kernel, _loop = staticmethod(sgd_triton), staticmethod(compiled_optim.update_sgd)
    _RANGES: ClassVar = {"lr": _not_negative, "momentum": _not_negative, "weight_decay": _not_negative}

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        refused = {"maximize": maximize, "foreach": foreach, "differentiable": differentiable, "fused": fused}
        options = {"momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov}
        super().__init__(params, {"lr": lr, **options, **refused})

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise InputError("SGD: nesterov=True needs a momentum above 0 and no dampening")

    def _advance(self, p: torch.Tensor, group: dict[str, Any]) -> bool:
        """Whether ``p`` has a momentum buffer already."""
        started = self.state[p].get("momentum_buffer") is not None
        if group["momentum"] != 0 and not started:
            self.state[p]["momentum_buffer"] = torch.empty_like(p)
        return started

    def _update(self, params: list[torch.Tensor], group: dict[str, Any], progress: bool) -> None:
        decay, momentum = group["weight_decay"], group["momentum"]
        lr, decay_, momentum_, rest = _scalars(params[0].device, group["lr"], decay, momentum, 1 - group["dampening"])
        p, g = _gather(params), _gather([p.grad for p in params])
        if decay != 0:
            g = g + p * decay_
        if momentum != 0:
            buffers = [self.state[q]["momentum_buffer"] for q in params]
            b = _gather(buffers).mul_(momentum_).add_(g * rest) if progress else g
            _scatter(b, buffers)
            g = g + b * momentum_ if group["nesterov"] else b
        _scatter(p.sub_(g * lr), params)

    def _in_place(
        self, update: Callable[..., None], rows: list[list[torch.Tensor]], group: dict[str, Any], progress: bool
    ) -> None:
        constants = (group["lr"], group["weight_decay"], group["momentum"], 1 - group["dampening"])
        rows = rows if group["momentum"] != 0 else [row[:2] for row in rows]
        update(rows, *constants, started=progress, nesterov=group["nesterov"])


class Adam(_Optimizer):
    """Adam, as :class:`torch.optim.Adam` (Kingma and Ba, 2015; decoupled decay by Loshchilov and Hutter, 2019).

    For a parameter ``p`` with gradient ``g``, moments ``m`` and ``v`` and step ``t = 1, 2, ...``::

        p = p * [1 - lr * weight_decay]                     if weight_decay != 0, decoupled
        g = g + [weight_decay] * p                          if weight_decay != 0, not decoupled
        m = ([beta1] * m) + ([1 - beta1] * g)
        v = ([beta2] * v) + ([1 - beta2] * (g * g))
        p = p - [lr / (1 - beta1^t)] * (m / ((sqrt(v) / [sqrt(1 - beta2^t)]) + [eps]))

    ``beta^t`` is :func:`repeated_power`, so a run resumed from ``state_dict`` has the constants of one never stopped.

    Args:
        params: parameters or groups of them, binary32.
        lr, betas, eps, weight_decay: as in torch; Python numbers.
        amsgrad, foreach, maximize, capturable, differentiable, fused: only their defaults.
        decoupled_weight_decay: decay the parameter instead of adding to the gradient, as AdamW.

    Raises:
        InputError: an option out of its range or not supported; a parameter that is not binary32 (at ``step``).
    """

    _MOMENTS: ClassVar = ("exp_avg", "exp_avg_sq")
    _kernel, _loop = staticmethod(adam_triton), staticmethod(compiled_optim.update_adam)
    _RANGES: ClassVar = {
        "lr": _not_negative,
        "eps": _not_negative,
        "weight_decay": _not_negative,
        "betas": lambda betas: len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
    }

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        refused = {"amsgrad": amsgrad, "foreach": foreach, "maximize": maximize, "capturable": capturable}
        refused |= {"differentiable": differentiable, "fused": fused}
        options = {"betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {"lr": lr, **options, "decoupled_weight_decay": decoupled_weight_decay, **refused})

    def _advance(self, p: torch.Tensor, group: dict[str, Any]) -> int:
        """The step number that ``p`` is about to make."""
        state = self.state[p]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        state["step"] = int(state["step"]) + 1
        return state["step"]

    @staticmethod
    def _constants(group: dict[str, Any], step: int) -> tuple[float, ...]:
        lr, (beta1, beta2), decay = group["lr"], group["betas"], group["weight_decay"]
        rate = lr / (1 - repeated_power(beta1, step))
        correction = math.sqrt(1 - repeated_power(beta2, step))
        return rate, correction, group["eps"], beta1, 1 - beta1, beta2, 1 - beta2, decay, 1 - lr * decay

    def _in_place(
        self, update: Callable[..., None], rows: list[list[torch.Tensor]], group: dict[str, Any], progress: int
    ) -> None:
        flags = {"decay": group["weight_decay"] != 0, "decoupled": group["decoupled_weight_decay"]}
        update(rows, *self._constants(group, progress), **flags)

    def _update(self, params: list[torch.Tensor], group: dict[str, Any], progress: int) -> None:
        decay = group["weight_decay"]
        constants = self._constants(group, progress)
        rate, correction, eps, b1, c1, b2, c2, decay_, shrink = _scalars(params[0].device, *constants)
        means, squares = ([self.state[q][key] for q in params] for key in ("exp_avg", "exp_avg_sq"))
        p, g, m, v = (_gather(ts) for ts in (params, [p.grad for p in params], means, squares))
        if decay != 0 and group["decoupled_weight_decay"]:
            p.mul_(shrink)
        elif decay != 0:
            g.add_(p * decay_)
        m.mul_(b1).add_(g * c1)
        v.mul_(b2).add_(g.mul_(g).mul_(c2))
        _scatter(m, means)
        _scatter(v, squares)
        _scatter(p.sub_(m.div_(sqrt(v).div_(correction).add_(eps)).mul_(rate)), params)


class AdamW(Adam):
    """Adam with decoupled weight decay, as :class:`torch.optim.AdamW`: :class:`Adam`'s sequence, decoupled."""

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        refused = {"foreach": foreach, "maximize": maximize, "capturable": capturable}
        refused |= {"differentiable": differentiable, "fused": fused}
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **refused, decoupled_weight_decay=True)
