"""relu: ``y = x if x > 0, +0 if x <= 0, the canonical NaN if x is NaN``; gradient ``g if x > 0 else +0``.

Exact (no rounding). ``-0`` gives ``+0``. Batch-invariant: elementwise.
"""

from typing import Any

import torch

from dettriton.exact._jit import compiles
from dettriton.exact.ieee import canonical_nan
from dettriton.ops._contract import contract
from dettriton.ops._elementwise import evaluate, formula
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops._launch import jit, tl


@jit
def _relu_f32(x):
    return tl.where(x > 0, x, tl.where(x == x, 0.0, float("nan")))


@jit
def _relu_gradient_f32(grad, y):
    return tl.where(y > 0, grad, 0.0)


def relu_torch(x: torch.Tensor) -> torch.Tensor:
    if compiles():
        from dettriton.exact.compiled_elementwise import relu_of

        return relu_of(x)
    y = torch.where(x > 0, x, torch.zeros((), dtype=x.dtype))
    return torch.where(x == x, y, canonical_nan(x)) if bool(torch.isnan(x).any()) else y


def relu_grad_torch(grad: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if compiles():
        from dettriton.exact.compiled_elementwise import relu_gradient_of

        return relu_gradient_of(grad, y)
    return torch.where(y > 0, grad, torch.zeros((), dtype=grad.dtype))


RELU = formula("relu", relu_torch, _relu_f32)
RELU_GRADIENT = formula("relu gradient", relu_grad_torch, _relu_gradient_f32, tensors=2)
"""Of the upstream gradient and the *result*, which the next op keeps anyway."""


class ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        y = evaluate(RELU, x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (y,) = ctx.saved_tensors
        return evaluate(RELU_GRADIENT, grad, y)


@contract(
    "Activations",
    definition="x where x > 0, else +0; gradient g where x > 0, else +0",
    error="exact",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.relu",
)
def relu(input: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    """Rectified linear unit, as :func:`torch.nn.functional.relu`.

    Args:
        input: binary32, any shape.
        inplace: accepted for compatibility; the result is always a new tensor.

    Returns:
        A tensor of the input's shape: ``x`` where ``x > 0``, ``+0`` where ``x <= 0`` (also for ``-0``), and the
        canonical NaN where ``x`` is NaN. Exact; the gradient is ``grad`` where ``x > 0`` and ``+0`` elsewhere.

    Raises:
        InputError: ``input`` is not binary32.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("relu", input=input)
    return ReLU.apply(input)
