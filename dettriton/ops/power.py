"""sqrt, rsqrt and pow of each element, with their gradients.

``sqrt`` is the correctly rounded square root (R1); ``rsqrt`` and ``pow`` are the fixed sequences of
:mod:`dettriton.exact.power` (R3). Gradients in written order, every operation rounded once to binary32::

    sqrt   g / (y * 2)
    rsqrt  g * (((y * y) * y) * -0.5)
    pow    to the base      g * (e * pow(x, e - 1)), +0 where e is 0
           to the exponent  g * (pow(x, e) * log(x)), +0 where x is 0 and e >= 0

An argument of ``pow`` that was broadcast gets the exact windowed sum of its gradients. Batch-invariant: elementwise.
"""

import torch

from dettriton.errors import InputError
from dettriton.exact import power as host
from dettriton.exact.elementary import _keep_nan
from dettriton.exact.elementary import log as log_host
from dettriton.exact.ieee import sqrt as sqrt_host
from dettriton.ops._broadcast import expand
from dettriton.ops._contract import contract
from dettriton.ops._device_elementary import log_f32
from dettriton.ops._device_power import pow_f32, rsqrt_f32
from dettriton.ops._elementwise import elementwise, formula
from dettriton.ops._function import require_float32
from dettriton.ops._launch import jit, tl


def _sqrt(x: torch.Tensor) -> torch.Tensor:
    y = sqrt_host(x)
    return _keep_nan(y, y)


@jit
def _sqrt_f32(x):
    return tl.where(x >= 0, tl.sqrt_rn(tl.where(x >= 0, x, 1.0)), float("nan"))


def _sqrt_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return grad / (_sqrt(x) * 2.0)


@jit
def _sqrt_gradient_f32(grad, x):
    return tl.div_rn(grad, _sqrt_f32(x) * 2.0)


def _rsqrt_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    y = host.rsqrt(x)
    return grad * (((y * y) * y) * -0.5)


@jit
def _rsqrt_gradient_f32(grad, x):
    y = rsqrt_f32(x)
    return grad * (((y * y) * y) * -0.5)


def _base_gradient(grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.where(y == 0, torch.zeros_like(y), grad * (y * host.pow(x, y - 1.0)))


@jit
def _base_gradient_f32(grad, x, y):
    return tl.where(y == 0, 0.0, grad * (y * pow_f32(x, y - 1.0)))


def _exponent_gradient(grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    flat = (x == 0) & (y >= 0)
    return torch.where(flat, torch.zeros_like(x), grad * (host.pow(x, y) * log_host(x)))


@jit
def _exponent_gradient_f32(grad, x, y):
    flat = (x == 0) & (y >= 0)
    return tl.where(flat, 0.0, grad * (pow_f32(x, y) * log_f32(x)))


_SQRT_GRADIENT = formula("sqrt gradient", _sqrt_gradient, _sqrt_gradient_f32, tensors=2)
_RSQRT_GRADIENT = formula("rsqrt gradient", _rsqrt_gradient, _rsqrt_gradient_f32, tensors=2)
_BASE_GRADIENT = formula("pow gradient to the base", _base_gradient, _base_gradient_f32, tensors=3)
_EXPONENT_GRADIENT = formula("pow gradient to the exponent", _exponent_gradient, _exponent_gradient_f32, tensors=3)

SQRT = formula("sqrt", _sqrt, _sqrt_f32, gradients=(_SQRT_GRADIENT,))
RSQRT = formula("rsqrt", host.rsqrt, rsqrt_f32, gradients=(_RSQRT_GRADIENT,))
POW = formula("pow", host.pow, pow_f32, tensors=2, gradients=(_BASE_GRADIENT, _EXPONENT_GRADIENT))


@contract(
    "Elementary functions",
    definition="IEEE square root; gradient g / (y * 2)",
    error="correctly rounded",
    batch_invariant=True,
    kernels=True,
    mirrors="sqrt",
)
def sqrt(input: torch.Tensor) -> torch.Tensor:
    """The square root, as :func:`torch.sqrt`.

    Args:
        input: binary32, any shape.

    Returns:
        A tensor of the input's shape, correctly rounded;
        sqrt(-0) = -0 and NaN for negative numbers. The gradient is ``g / (y * 2)``.

    Raises:
        InputError: ``input`` is not binary32.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("sqrt", input=input)
    return elementwise(SQRT, input)


@contract(
    "Elementary functions",
    definition="reciprocal of the square root, corrected once in binary64; gradient g * (((y * y) * y) * -0.5)",
    error="at most 0.501 ulp, measured over all inputs",
    batch_invariant=True,
    kernels=True,
    mirrors="rsqrt",
)
def rsqrt(input: torch.Tensor) -> torch.Tensor:
    """1 / sqrt(x), as :func:`torch.rsqrt`.

    Args:
        input: binary32, any shape.

    Returns:
        A tensor of the input's shape, at most 0.501 ulp from the exact value;
        ±Inf for ±0 and NaN for negative numbers. The gradient is ``g * (((y * y) * y) * -0.5)``.

    Raises:
        InputError: ``input`` is not binary32.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("rsqrt", input=input)
    return elementwise(RSQRT, input)


@contract(
    "Elementary functions",
    definition="2**(e * log2(x)) in binary64, rounded once; gradients g * (e * pow(x, e - 1)),"
    " g * (pow(x, e) * log(x))",
    error="at most 0.501 ulp, measured over 10**7 pairs",
    batch_invariant=True,
    kernels=True,
    mirrors="pow",
)
def pow(input: torch.Tensor | float, exponent: torch.Tensor | float) -> torch.Tensor:
    """``input`` to the power ``exponent``, as :func:`torch.pow`.

    Args:
        input: binary32, any shape, or a number.
        exponent: binary32 of a shape that broadcasts with ``input``'s, or a number, which is rounded to binary32. One
            of the two must be a tensor.

    Returns:
        A tensor of the broadcast shape, at most 0.501 ulp from the exact value, special cases as in C99. Gradients are
        ``g * (e * pow(x, e - 1))``, +0 where ``e`` is 0, and ``g * (pow(x, e) * log(x))``, +0 where ``x`` is 0 and
        ``e >= 0``.

    Raises:
        InputError: neither is a tensor, a tensor is not binary32, or the shapes do not broadcast.
        EngineError: the engine cannot run on the tensors' device.
    """
    tensors = {n: t for n, t in {"input": input, "exponent": exponent}.items() if isinstance(t, torch.Tensor)}
    if not tensors:
        raise InputError("pow: input or exponent must be a tensor; two numbers have no device")
    require_float32("pow", **tensors)
    try:
        shape = torch.broadcast_shapes(*(t.shape for t in tensors.values()))
    except RuntimeError:
        shapes = [tuple(t.shape) for t in tensors.values()]
        raise InputError(f"pow: shapes {shapes[0]} and {shapes[1]} do not broadcast") from None
    device = next(iter(tensors.values())).device
    x, y = (
        expand(t, shape) if isinstance(t, torch.Tensor) else torch.full(shape, t, dtype=torch.float32, device=device)
        for t in (input, exponent)
    )
    return elementwise(POW, x, y)
