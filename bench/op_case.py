"""What a case is: an op on fixed inputs made on the host, and the results whose bits must be the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import op_inputs as inputs
import torch

from dettriton.digest import digest
from dettriton.engine import use_engine
from dettriton.exact.ieee import canonical_nan

CANONICAL_NAN_OPS = (
    *("relu", "sum", "cumsum", "index_add", "scatter_add"),
    *(
        "matmul",
        "bmm",
        "linear",
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
    ),
    *("amax", "amin", "max", "min", "median", "nanmedian", "kthvalue"),
    *("max_pool1d", "max_pool2d", "fractional_max_pool2d", "fractional_max_pool3d"),
)
"""Ops whose NaNs have the bits of the canonical one, in results and in gradients of finite upstream gradients.

Everywhere else any NaN is the same NaN: prod, norm and logsumexp too, whose gradients multiply and divide NaNs and
infinities, and which NaN an elementwise operation returns depends on the hardware.
"""

HARD = (*inputs.FINITE, *inputs.NON_FINITE)
PRECISIONS = ("high", "medium")

Made = tuple[int, ...] | Callable[[str], torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One op on fixed inputs.

    Attributes:
        op: a name of ``dettriton.ops``, or ``"optim"``, ``"elementary"``, ``"plain"``.
        configuration: what is special about it, unique within the op.
        fn: takes the inputs by name; returns a tensor, or a mapping of names to tensors.
        made: the inputs by name: a shape for noise, or what makes the tensor from a key.
        leaves: the inputs whose gradients are results.
        mutable: the inputs that ``fn`` changes in place, whose new values are results.
        large: whether the kernels are too slow for it under the interpreter.
    """

    op: str
    configuration: str
    fn: Callable[..., Any]
    made: Mapping[str, Made]
    leaves: tuple[str, ...]
    mutable: tuple[str, ...]
    large: bool

    @property
    def name(self) -> str:
        return f"{self.op}/{self.configuration}"

    def inputs(self) -> dict[str, torch.Tensor]:
        """Fresh inputs by name, on the host."""
        return {
            name: make(f"{self.name} {name}") if callable(make) else inputs.noise(f"{self.name} {name}", *make)
            for name, make in self.made.items()
        }

    def results(
        self,
        device: str = "cpu",
        engine: str | None = None,
        layout: Callable[[torch.Tensor], torch.Tensor] | None = None,
        wrap: Callable[[Callable], Callable] | None = None,
    ) -> dict[str, torch.Tensor]:
        """All results by name, on the host: outputs, gradients of a fixed upstream gradient, and changed inputs.

        Args:
            device: where to compute.
            engine: ``"torch"`` or ``"triton"``; None for the device's own.
            layout: gives each input other strides; None leaves them contiguous.
            wrap: what to call instead of ``fn``, such as its compiled form.
        """
        given = {name: x.to(device) for name, x in self.inputs().items()}
        if layout:
            given = {name: layout(x) for name, x in given.items()}
        for name in self.leaves:
            given[name].requires_grad_()
        fn = wrap(self.fn) if wrap else self.fn
        with use_engine(engine) if engine else nullcontext():
            out = fn(**given)
            outputs = dict(out) if isinstance(out, Mapping) else {"output": out}
            sloped = {name: y for name, y in outputs.items() if y.requires_grad}
            if sloped:
                upstream = [inputs.noise(f"upstream {name}", *y.shape).to(device) for name, y in sloped.items()]
                torch.autograd.backward([*sloped.values()], upstream)
        outputs |= {f"gradient of {name}": given[name].grad for name in self.leaves}
        outputs |= {f"{name} afterwards": given[name] for name in self.mutable}
        return {name: self._identity(y.detach().cpu().clone()) for name, y in outputs.items()}

    def digest(self, device: str = "cpu", engine: str | None = None) -> str:
        """The digest of all results."""
        return digest(self.results(device, engine))

    def _identity(self, y: torch.Tensor) -> torch.Tensor:
        any_nan = y.is_floating_point() and self.op not in CANONICAL_NAN_OPS
        return torch.where(y == y, y, canonical_nan(y).to(y.dtype)) if any_nan else y


def case(
    op: str,
    configuration: str,
    fn: Callable[..., Any],
    leaves: str = "",
    *,
    mutable: str = "",
    large: bool = False,
    **made: Made,
) -> Case:
    """A case; ``leaves`` and ``mutable`` are names with spaces between them, the rest the inputs."""
    return Case(op, configuration, fn, made, tuple(leaves.split()), tuple(mutable.split()), large)


def hard_cases(
    op: str, fn: Callable[..., Any], leaf: str, *shape: int, configuration: str = "hard", **made: Made
) -> list[Case]:
    """One case for each kind of hard input, given as ``leaf``."""
    return [case(op, f"{configuration} {kind}", fn, leaf, **{leaf: hard(kind, *shape)}, **made) for kind in HARD]


def hard(kind: str, *shape: int) -> Made:
    """Inputs of one hard kind."""
    return lambda key: inputs.hard(kind, key, *shape)


def classes(count: int, *shape: int, dtype: torch.dtype = torch.int64) -> Made:
    """Class numbers in [0, count)."""
    return lambda key: inputs.classes(key, count, *shape).to(dtype)


def positive(*shape: int) -> Made:
    """Numbers in [0.5, 1.5)."""
    return lambda key: inputs.positive(key, *shape)
