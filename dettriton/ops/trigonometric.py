"""sin, cos, tan and atan of each element, with their gradients.

The functions are the fixed sequences of :mod:`dettriton.exact.trigonometric` and, for atan,
:mod:`dettriton.exact.elementary_more` (R3). Gradients in written order, every operation rounded once to binary32::

    sin  g * cos(x)          tan   g * (1 + y * y)
    cos  -(g * sin(x))       atan  g / (1 + x * x)

Batch-invariant: elementwise.
"""

import torch

from dettriton.exact import trigonometric as host
from dettriton.exact.elementary_more import atan as atan_host
from dettriton.ops._contract import contract
from dettriton.ops._device_elementary import atan_f32
from dettriton.ops._device_trigonometric import cos_f32, sin_f32, tan_f32
from dettriton.ops._elementwise import elementwise, formula
from dettriton.ops._function import require_float32
from dettriton.ops._launch import jit, tl


def _sin_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return grad * host.cos(x)


@jit
def _sin_gradient_f32(grad, x):
    return grad * cos_f32(x)


def _cos_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return -(grad * host.sin(x))


@jit
def _cos_gradient_f32(grad, x):
    return (grad * sin_f32(x)) * -1.0


def _tan_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    y = host.tan(x)
    return grad * (y * y + 1.0)


@jit
def _tan_gradient_f32(grad, x):
    y = tan_f32(x)
    return grad * (y * y + 1.0)


def _atan_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return grad / (x * x + 1.0)


@jit
def _atan_gradient_f32(grad, x):
    return tl.div_rn(grad, x * x + 1.0)


_SIN_GRADIENT = formula("sin gradient", _sin_gradient, _sin_gradient_f32, tensors=2)
_COS_GRADIENT = formula("cos gradient", _cos_gradient, _cos_gradient_f32, tensors=2)
_TAN_GRADIENT = formula("tan gradient", _tan_gradient, _tan_gradient_f32, tensors=2)
_ATAN_GRADIENT = formula("atan gradient", _atan_gradient, _atan_gradient_f32, tensors=2)

SIN = formula("sin", host.sin, sin_f32, gradients=(_SIN_GRADIENT,))
COS = formula("cos", host.cos, cos_f32, gradients=(_COS_GRADIENT,))
TAN = formula("tan", host.tan, tan_f32, gradients=(_TAN_GRADIENT,))
ATAN = formula("atan", atan_host, atan_f32, gradients=(_ATAN_GRADIENT,))


@contract(
    "Elementary functions",
    definition="integer range reduction, binary64 polynomials, one rounding; gradient g * cos(x)",
    error="at most 0.501 ulp, measured over all inputs",
    batch_invariant=True,
    kernels=True,
    mirrors="sin",
)
def sin(input: torch.Tensor) -> torch.Tensor:
    """The sine of angles in radians, as :func:`torch.sin`.

    Args:
        input: binary32, any shape.

    Returns:
        A tensor of the input's shape, at most 0.501 ulp from the exact value;
        sin(±0) = ±0 and NaN for ±Inf. The gradient is ``g * cos(x)``.

    Raises:
        InputError: ``input`` is not binary32.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("sin", input=input)
    return elementwise(SIN, input)


@contract(
    "Elementary functions",
    definition="integer range reduction, binary64 polynomials, one rounding; gradient -(g * sin(x))",
    error="at most 0.501 ulp, measured over all inputs",
    batch_invariant=True,
    kernels=True,
    mirrors="cos",
)
def cos(input: torch.Tensor) -> torch.Tensor:
    """The cosine of angles in radians, as :func:`torch.cos`.

    Args:
        input: binary32, any shape.

    Returns:
        A tensor of the input's shape, at most 0.501 ulp from the exact value;
        NaN for ±Inf. The gradient is ``-(g * sin(x))``.

    Raises:
        InputError: ``input`` is not binary32.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("cos", input=input)
    return elementwise(COS, input)


@contract(
    "Elementary functions",
    definition="integer range reduction, binary64 polynomials, one rounding; gradient g * (y * y + 1)",
    error="at most 0.502 ulp, measured over all inputs",
    batch_invariant=True,
    kernels=True,
    mirrors="tan",
)
def tan(input: torch.Tensor) -> torch.Tensor:
    """The tangent of angles in radians, as :func:`torch.tan`.

    Args:
        input: binary32, any shape.

    Returns:
        A tensor of the input's shape, at most 0.502 ulp from the exact value;
        tan(±0) = ±0 and NaN for ±Inf. The gradient is ``g * (y * y + 1)``.

    Raises:
        InputError: ``input`` is not binary32.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("tan", input=input)
    return elementwise(TAN, input)


@contract(
    "Elementary functions",
    definition="fixed binary32 sequence; gradient g / (x * x + 1)",
    error="at most 1.31 ulp, measured over all inputs",
    batch_invariant=True,
    kernels=True,
    mirrors="atan",
)
def atan(input: torch.Tensor) -> torch.Tensor:
    """The inverse tangent, as :func:`torch.atan`.

    Args:
        input: binary32, any shape.

    Returns:
        A tensor of the input's shape, at most 1.31 ulp from the exact value;
        atan(±0) = ±0. The gradient is ``g / (x * x + 1)``.

    Raises:
        InputError: ``input`` is not binary32.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("atan", input=input)
    return elementwise(ATAN, input)
