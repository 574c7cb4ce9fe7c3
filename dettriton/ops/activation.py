"""relu6, leaky_relu, elu, hardswish, hardsigmoid: piecewise activations of each element.

Written order, every operation rounded once to binary32 (R1)::

    relu6        min(max(x, 0), 6)                          grad g where 0 < x < 6, else 0
    leaky_relu   x where x > 0, else x * a                  grad g where x > 0, else g * a
    elu          x where x > 0, else a * expm1(x)           grad g where x > 0, else g * (a * exp(x))
    hardsigmoid  c / 6 with c = min(max(x + 3, 0), 6)       grad g / 6 where -3 < x < 3, else 0
    hardswish    (x * c) / 6                                grad g * (x / 3 + 0.5) where -3 < x < 3, g above, 0 below

Batch-invariant: elementwise.
"""

import torch

from dettriton.exact import elementary as host
from dettriton.exact.ieee import canonical_nan
from dettriton.ops._contract import contract
from dettriton.ops._device_elementary import exp_f32, expm1_f32
from dettriton.ops._elementwise import elementwise, formula
from dettriton.ops._function import require_float32
from dettriton.ops._launch import jit, tl
from dettriton.ops.elementary import EXPM1


def clamped(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """``min(max(x, low), high)`` with +0 for a -0 at the bound 0, and the canonical NaN for NaN."""
    y = torch.where(x > low, torch.where(x < high, x, torch.full_like(x, high)), torch.full_like(x, low))
    return torch.where(x == x, y, canonical_nan(x))


def divided(x: torch.Tensor, divisor: float) -> torch.Tensor:
    """``x / divisor``, a division where torch could multiply by a reciprocal."""
    return x / torch.full_like(x, divisor)


@jit
def clamped_f32(x, low, high):
    y = tl.where(x > low, tl.where(x < high, x, high), low)
    return tl.where(x == x, y, float("nan"))


@jit
def divided_f32(x, divisor):
    return tl.div_rn(x, tl.zeros_like(x) + divisor)


def _relu6(x: torch.Tensor) -> torch.Tensor:
    return clamped(x, 0.0, 6.0)


@jit
def _relu6_f32(x):
    return clamped_f32(x, 0.0, 6.0)


def _relu6_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.where((x > 0) & (x < 6), grad, torch.zeros_like(grad))


@jit
def _relu6_gradient_f32(grad, x):
    return tl.where((x > 0) & (x < 6), grad, 0.0)


def _leaky(x: torch.Tensor, slope: float) -> torch.Tensor:
    return torch.where(x > 0, x, x * slope)


@jit
def _leaky_f32(x, slope):
    return tl.where(x > 0, x, x * slope)


def _leaky_gradient(grad: torch.Tensor, x: torch.Tensor, slope: float) -> torch.Tensor:
    return torch.where(x > 0, grad, grad * slope)


@jit
def _leaky_gradient_f32(grad, x, slope):
    return tl.where(x > 0, grad, grad * slope)


def _elu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return torch.where(x > 0, x, EXPM1.host(x) * alpha)


@jit
def _elu_f32(x, alpha):
    return tl.where(x > 0, x, expm1_f32(x) * alpha)


def _elu_gradient(grad: torch.Tensor, x: torch.Tensor, alpha: float) -> torch.Tensor:
    return torch.where(x > 0, grad, grad * (host.exp(x) * alpha))


@jit
def _elu_gradient_f32(grad, x, alpha):
    return tl.where(x > 0, grad, grad * (exp_f32(x) * alpha))


def _hardsigmoid(x: torch.Tensor) -> torch.Tensor:
    return divided(clamped(x + 3.0, 0.0, 6.0), 6.0)


@jit
def _hardsigmoid_f32(x):
    return divided_f32(clamped_f32(x + 3.0, 0.0, 6.0), 6.0)


def _hardsigmoid_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.where((x > -3) & (x < 3), divided(grad, 6.0), torch.zeros_like(grad))


@jit
def _hardsigmoid_gradient_f32(grad, x):
    return tl.where((x > -3) & (x < 3), divided_f32(grad, 6.0), 0.0)


def _hardswish(x: torch.Tensor) -> torch.Tensor:
    return divided(x * clamped(x + 3.0, 0.0, 6.0), 6.0)


@jit
def _hardswish_f32(x):
    return divided_f32(x * clamped_f32(x + 3.0, 0.0, 6.0), 6.0)


def _hardswish_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    inner = torch.where(x < 3, grad * (divided(x, 3.0) + 0.5), grad)
    return torch.where(x > -3, inner, torch.zeros_like(grad))


@jit
def _hardswish_gradient_f32(grad, x):
    return tl.where(x > -3, tl.where(x < 3, grad * (divided_f32(x, 3.0) + 0.5), grad), 0.0)


RELU6 = formula(
    "relu6",
    _relu6,
    _relu6_f32,
    gradients=(formula("relu6 gradient", _relu6_gradient, _relu6_gradient_f32, tensors=2),),
)
LEAKY_RELU = formula(
    "leaky_relu",
    _leaky,
    _leaky_f32,
    scalars=1,
    gradients=(formula("leaky_relu gradient", _leaky_gradient, _leaky_gradient_f32, tensors=2, scalars=1),),
)
ELU = formula(
    "elu",
    _elu,
    _elu_f32,
    scalars=1,
    gradients=(formula("elu gradient", _elu_gradient, _elu_gradient_f32, tensors=2, scalars=1),),
)
HARDSIGMOID = formula(
    "hardsigmoid",
    _hardsigmoid,
    _hardsigmoid_f32,
    gradients=(formula("hardsigmoid gradient", _hardsigmoid_gradient, _hardsigmoid_gradient_f32, tensors=2),),
)
HARDSWISH = formula(
    "hardswish",
    _hardswish,
    _hardswish_f32,
    gradients=(formula("hardswish gradient", _hardswish_gradient, _hardswish_gradient_f32, tensors=2),),
)


@contract(
    "Activations",
    definition="min(max(x, 0), 6); gradient g where 0 < x < 6",
    error="exact",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.relu6",
)
def relu6(input: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    """``min(max(x, 0), 6)``, as :func:`torch.nn.functional.relu6`.

    Args:
        input: binary32, any shape.
        inplace: accepted for compatibility; the result is always a new tensor.

    Returns:
        A tensor of the input's shape, exact; the canonical NaN for NaN. The gradient is ``g`` where ``0 < x < 6``.

    Raises:
        InputError: ``input`` is not binary32.
    """
    require_float32("relu6", input=input)
    return elementwise(RELU6, input)


@contract(
    "Activations",
    definition="x where x > 0, else x * slope; gradient g or g * slope",
    error="half an ulp",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.leaky_relu",
)
def leaky_relu(input: torch.Tensor, negative_slope: float = 0.01, inplace: bool = False) -> torch.Tensor:
    """``x`` where ``x > 0``, else ``x * negative_slope``, as :func:`torch.nn.functional.leaky_relu`.

    Args:
        input: binary32, any shape.
        negative_slope: rounded to binary32.
        inplace: accepted for compatibility; the result is always a new tensor.

    Returns:
        A tensor of the input's shape, one rounding. The gradient is ``g`` or ``g * negative_slope``.

    Raises:
        InputError: ``input`` is not binary32.
    """
    require_float32("leaky_relu", input=input)
    return elementwise(LEAKY_RELU, input, scalars=(float(negative_slope),))


@contract(
    "Activations",
    definition="x where x > 0, else expm1(x) * alpha; gradient g or g * (exp(x) * alpha)",
    error="2 ulp",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.elu",
)
def elu(input: torch.Tensor, alpha: float = 1.0, inplace: bool = False) -> torch.Tensor:
    """Exponential linear unit, as :func:`torch.nn.functional.elu` (Clevert et al., ICLR 2016).

    Args:
        input: binary32, any shape.
        alpha: rounded to binary32.
        inplace: accepted for compatibility; the result is always a new tensor.

    Returns:
        ``x`` where ``x > 0``, else ``expm1(x) * alpha`` with our expm1 and one more rounding. The gradient is ``g`` or
        ``g * (exp(x) * alpha)``.

    Raises:
        InputError: ``input`` is not binary32.
    """
    require_float32("elu", input=input)
    return elementwise(ELU, input, scalars=(float(alpha),))


@contract(
    "Activations",
    definition="min(max(x + 3, 0), 6) / 6; gradient g / 6 where -3 < x < 3",
    error="one rounding each of the addition and the division",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.hardsigmoid",
)
def hardsigmoid(input: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    """``min(max(x + 3, 0), 6) / 6``, as :func:`torch.nn.functional.hardsigmoid`.

    Args:
        input: binary32, any shape.
        inplace: accepted for compatibility; the result is always a new tensor.

    Returns:
        A tensor of the input's shape; one rounding each of the addition and the division. The gradient is ``g / 6``
        where ``-3 < x < 3``, else +0.

    Raises:
        InputError: ``input`` is not binary32.
    """
    require_float32("hardsigmoid", input=input)
    return elementwise(HARDSIGMOID, input)


@contract(
    "Activations",
    definition="(x * min(max(x + 3, 0), 6)) / 6; gradient g * (x / 3 + 0.5) where -3 < x < 3, g above, 0 below",
    error="one rounding for each of the three operations",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.hardswish",
)
def hardswish(input: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    """``(x * min(max(x + 3, 0), 6)) / 6``, as :func:`torch.nn.functional.hardswish` (Howard et al., ICCV 2019).

    Args:
        input: binary32, any shape.
        inplace: accepted for compatibility; the result is always a new tensor.

    Returns:
        A tensor of the input's shape, each operation rounded once; Inf where ``6 * x`` overflows. The gradient is
        ``g * (x / 3 + 0.5)`` where ``-3 < x < 3``, ``g`` where ``x >= 3``, else +0.

    Raises:
        InputError: ``input`` is not binary32.
    """
    require_float32("hardswish", input=input)
    return elementwise(HARDSWISH, input)
