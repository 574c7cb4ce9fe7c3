"""exp, exp2, expm1, log, log1p, log2, sigmoid, tanh and erf of each element, with their gradients.

The functions are the fixed sequences of R1 operations of :mod:`dettriton.exact.elementary` and
:mod:`dettriton.exact.elementary_more` (R3). Gradients in written order, every operation rounded once to binary32::

    exp      g * exp(x)                 log      g / x
    exp2     g * (exp2(x) * ln2)        log1p    g / (x + 1)
    expm1    g * exp(x)                 log2     g / (x * ln2)
    sigmoid  g * (s * (1 - s))          tanh     g * (1 - y * y)
    erf      g * (exp(-(x * x)) * (2 / sqrt(pi)))

Batch-invariant: elementwise. The formulas of :mod:`trigonometric <dettriton.ops.trigonometric>` and
:mod:`power <dettriton.ops.power>` can be imported from here too.
"""

import torch

from dettriton.exact import _elementary_loops as loops
from dettriton.exact import elementary as host
from dettriton.exact import elementary_more as more
from dettriton.ops import _device_elementary as device
from dettriton.ops._contract import contract
from dettriton.ops._device_elementary import erf_f32, exp2_f32, exp_f32, expm1_f32, sigmoid_f32, tanh_f32
from dettriton.ops._elementwise import elementwise, formula
from dettriton.ops._function import require_float32
from dettriton.ops._launch import jit, tl
from dettriton.ops.power import POW, RSQRT, SQRT
from dettriton.ops.trigonometric import ATAN, COS, SIN, TAN

__all__ = [
    "ATAN",
    "COS",
    "ERF",
    "EXP",
    "EXP2",
    "EXPM1",
    "LOG",
    "LOG1P",
    "LOG2",
    "POW",
    "RSQRT",
    "SIGMOID",
    "SIN",
    "SQRT",
    "TAN",
    "TANH",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log1p",
    "log2",
    "sigmoid",
    "tanh",
]

LN2 = 0.6931471824645996
TWO_OVER_SQRT_PI = 1.1283791065216064
"""The binary32 constants of the gradients."""

_LN2 = tl.constexpr(LN2)
_TWO_OVER_SQRT_PI = tl.constexpr(TWO_OVER_SQRT_PI)


def _exp_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return grad * host.exp(x)


@jit
def _exp_gradient_f32(grad, x):
    return grad * exp_f32(x)


def _exp2_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return grad * (more.exp2(x) * LN2)


@jit
def _exp2_gradient_f32(grad, x):
    return grad * (exp2_f32(x) * _LN2)


def _log_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return grad / x


@jit
def _log_gradient_f32(grad, x):
    return tl.div_rn(grad, x)


def _log1p_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return grad / (x + 1.0)


@jit
def _log1p_gradient_f32(grad, x):
    return tl.div_rn(grad, x + 1.0)


def _log2_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return grad / (x * LN2)


@jit
def _log2_gradient_f32(grad, x):
    return tl.div_rn(grad, x * _LN2)


def _sigmoid_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    s = host.sigmoid(x)
    return grad * (s * (1.0 - s))


@jit
def _sigmoid_gradient_f32(grad, x):
    s = sigmoid_f32(x)
    return grad * (s * (1.0 - s))


def _tanh_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    y = host.tanh(x)
    return grad * (1.0 - y * y)


@jit
def _tanh_gradient_f32(grad, x):
    y = tanh_f32(x)
    return grad * (1.0 - y * y)


def _erf_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return grad * (host.exp(-(x * x)) * TWO_OVER_SQRT_PI)


@jit
def _erf_gradient_f32(grad, x):
    return grad * (exp_f32((x * x) * -1.0) * _TWO_OVER_SQRT_PI)


_EXP_GRADIENT = formula("exp gradient", _exp_gradient, _exp_gradient_f32, tensors=2)
_EXP2_GRADIENT = formula("exp2 gradient", _exp2_gradient, _exp2_gradient_f32, tensors=2)
_LOG_GRADIENT = formula("log gradient", _log_gradient, _log_gradient_f32, tensors=2)
_LOG1P_GRADIENT = formula("log1p gradient", _log1p_gradient, _log1p_gradient_f32, tensors=2)
_LOG2_GRADIENT = formula("log2 gradient", _log2_gradient, _log2_gradient_f32, tensors=2)
_SIGMOID_GRADIENT = formula(
    "sigmoid gradient", _sigmoid_gradient, _sigmoid_gradient_f32, tensors=2, loop=loops.sigmoid_gradient
)
_TANH_GRADIENT = formula("tanh gradient", _tanh_gradient, _tanh_gradient_f32, tensors=2, loop=loops.tanh_gradient)
_ERF_GRADIENT = formula("erf gradient", _erf_gradient, _erf_gradient_f32, tensors=2)

EXP = formula("exp", host.exp, exp_f32, gradients=(_EXP_GRADIENT,), loop=loops.exp)
EXP2 = formula("exp2", more.exp2, exp2_f32, gradients=(_EXP2_GRADIENT,))
EXPM1 = formula("expm1", more.expm1, expm1_f32, gradients=(_EXP_GRADIENT,))
LOG = formula("log", host.log, device.log_f32, gradients=(_LOG_GRADIENT,), loop=loops.log)
LOG1P = formula("log1p", host.log1p, device.log1p_f32, gradients=(_LOG1P_GRADIENT,))
LOG2 = formula("log2", more.log2, device.log2_f32, gradients=(_LOG2_GRADIENT,))
SIGMOID = formula("sigmoid", host.sigmoid, sigmoid_f32, gradients=(_SIGMOID_GRADIENT,), loop=loops.sigmoid)
TANH = formula("tanh", host.tanh, tanh_f32, gradients=(_TANH_GRADIENT,), loop=loops.tanh)
ERF = formula("erf", more.erf, erf_f32, gradients=(_ERF_GRADIENT,))


@contract(
    "Elementary functions",
    definition="fixed binary32 sequence; gradient g * exp(x)",
    error="at most 0.90 ulp, measured over all inputs",
    batch_invariant=True,
    kernels=True,
    mirrors="exp",
)
def exp(input: torch.Tensor) -> torch.Tensor:
    """The exponential, as :func:`torch.exp`.

    Args:
        input: binary32, any shape.

    Returns:
        A tensor of the input's shape, at most 0.90 ulp from the exact value;
        Inf on overflow. The gradient is ``g * exp(x)``.

    Raises:
        InputError: ``input`` is not binary32.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("exp", input=input)
    return elementwise(EXP, input)


@contract(
    "Elementary functions",
    definition="fixed binary32 sequence; gradient g * (exp2(x) * ln2)",
    error="at most 1.08 ulp, measured over all inputs",
    batch_invariant=True,
    kernels=True,
    mirrors="exp2",
)
def exp2(input: torch.Tensor) -> torch.Tensor:
    """2 to the power of each element, as :func:`torch.exp2`.

    Args:
        input: binary32, any shape.

    Returns:
        A tensor of the input's shape, at most 1.08 ulp from the exact value;
        exact for integers, Inf on overflow. The gradient is ``g * (exp2(x) * ln2)``.

    Raises:
        InputError: ``input`` is not binary32.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("exp2", input=input)
    return elementwise(EXP2, input)


@contract(
    "Elementary functions",
    definition="fixed binary32 sequence; gradient g * exp(x)",
    error="at most 1.17 ulp, measured over all inputs",
    batch_invariant=True,
    kernels=True,
    mirrors="expm1",
)
def expm1(input: torch.Tensor) -> torch.Tensor:
    """exp(x) - 1, as :func:`torch.expm1`.

    Args:
        input: binary32, any shape.

    Returns:
        A tensor of the input's shape, at most 1.17 ulp from the exact value;
        expm1(±0) = ±0. The gradient is ``g * exp(x)``.

    Raises:
        InputError: ``input`` is not binary32.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("expm1", input=input)
    return elementwise(EXPM1, input)


@contract(
    "Elementary functions",
    definition="fixed binary32 sequence; gradient g / x",
    error="at most 0.91 ulp, measured over all inputs",
    batch_invariant=True,
    kernels=True,
    mirrors="log",
)
def log(input: torch.Tensor) -> torch.Tensor:
    """The natural logarithm, as :func:`torch.log`.

    Args:
        input: binary32, any shape.

    Returns:
        A tensor of the input's shape, at most 0.91 ulp from the exact value;
        -Inf for ±0 and NaN for negative numbers. The gradient is ``g / x``.

    Raises:
        InputError: ``input`` is not binary32.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("log", input=input)
    return elementwise(LOG, input)


@contract(
    "Elementary functions",
    definition="fixed binary32 sequence; gradient g / (x + 1)",
    error="at most 0.91 ulp, measured over all inputs",
    batch_invariant=True,
    kernels=True,
    mirrors="log1p",
)
def log1p(input: torch.Tensor) -> torch.Tensor:
    """log(1 + x), as :func:`torch.log1p`.

    Args:
        input: binary32, any shape.

    Returns:
        A tensor of the input's shape, at most 0.91 ulp from the exact value;
        -Inf for -1 and NaN below. The gradient is ``g / (x + 1)``.

    Raises:
        InputError: ``input`` is not binary32.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("log1p", input=input)
    return elementwise(LOG1P, input)


@contract(
    "Elementary functions",
    definition="fixed binary32 sequence; gradient g / (x * ln2)",
    error="at most 1.25 ulp, measured over all inputs",
    batch_invariant=True,
    kernels=True,
    mirrors="log2",
)
def log2(input: torch.Tensor) -> torch.Tensor:
    """The logarithm to base 2, as :func:`torch.log2`.

    Args:
        input: binary32, any shape.

    Returns:
        A tensor of the input's shape, at most 1.25 ulp from the exact value;
        exact for powers of two, -Inf for ±0 and NaN for negative numbers. The gradient is ``g / (x * ln2)``.

    Raises:
        InputError: ``input`` is not binary32.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("log2", input=input)
    return elementwise(LOG2, input)


@contract(
    "Elementary functions",
    definition="fixed binary32 sequence; gradient g * (s * (1 - s))",
    error="at most 1.17 ulp, measured over all inputs",
    batch_invariant=True,
    kernels=True,
    mirrors="sigmoid",
)
def sigmoid(input: torch.Tensor) -> torch.Tensor:
    """1 / (1 + exp(-x)), as :func:`torch.sigmoid`.

    Args:
        input: binary32, any shape.

    Returns:
        A tensor of the input's shape, at most 1.17 ulp from the exact value;
        in [0, 1]. The gradient is ``g * (s * (1 - s))``.

    Raises:
        InputError: ``input`` is not binary32.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("sigmoid", input=input)
    return elementwise(SIGMOID, input)


@contract(
    "Elementary functions",
    definition="fixed binary32 sequence; gradient g * (1 - y * y)",
    error="at most 1.06 ulp, measured over all inputs",
    batch_invariant=True,
    kernels=True,
    mirrors="tanh",
)
def tanh(input: torch.Tensor) -> torch.Tensor:
    """The hyperbolic tangent, as :func:`torch.tanh`.

    Args:
        input: binary32, any shape.

    Returns:
        A tensor of the input's shape, at most 1.06 ulp from the exact value;
        tanh(±0) = ±0. The gradient is ``g * (1 - y * y)``.

    Raises:
        InputError: ``input`` is not binary32.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("tanh", input=input)
    return elementwise(TANH, input)


@contract(
    "Elementary functions",
    definition="fixed binary32 sequence; gradient g * (exp(-(x * x)) * (2 / sqrt(pi)))",
    error="at most 1.36 ulp, measured over all inputs",
    batch_invariant=True,
    kernels=True,
    mirrors="erf",
)
def erf(input: torch.Tensor) -> torch.Tensor:
    """The error function, as :func:`torch.erf`.

    Args:
        input: binary32, any shape.

    Returns:
        A tensor of the input's shape, at most 1.36 ulp from the exact value;
        erf(±0) = ±0. The gradient is ``g * (exp(-(x * x)) * (2 / sqrt(pi)))``.

    Raises:
        InputError: ``input`` is not binary32.
        EngineError: the engine cannot run on the input's device.
    """
    require_float32("erf", input=input)
    return elementwise(ERF, input)
