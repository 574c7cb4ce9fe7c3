"""gelu, silu, mish, softplus, glu: smooth activations made of our elementary functions.

Written order, every operation rounded once to binary32 (R1), functions the library's own (R3)::

    gelu       (0.5 * x) * (1 + erf(x * sqrt(1/2)))
               grad g * (0.5 * (1 + erf(x * sqrt(1/2))) + x * (exp((x * x) * -0.5) * (1 / sqrt(2 pi))))
    gelu tanh  (0.5 * x) * (1 + t)  with  t = tanh(k * (x + c * ((x * x) * x))),  k = sqrt(2 / pi),  c = 0.044715
               grad g * (0.5 * (1 + t) + ((0.5 * x) * (1 - t * t)) * (k * (1 + (3 c) * (x * x))))
    silu       x * s  with  s = sigmoid(x)                     grad g * (s * (1 + x * (1 - s)))
    softplus   x where x * b > h, else log1p(exp(x * b)) / b   grad g where x * b > h, else g * sigmoid(x * b)
    mish       x * t  with  t = tanh(softplus(x)), h = 20      grad g * (t + (x * sigmoid(x)) * (1 - t * t))
    glu        a * sigmoid(b), the halves of x                 grads g * s,  (g * a) * (s * (1 - s))

Batch-invariant: elementwise.
"""

import torch

from dettriton.errors import InputError
from dettriton.exact import _elementary_loops as loops
from dettriton.exact import elementary as host
from dettriton.ops._compile import of_the_inputs_shape
from dettriton.ops._contract import contract
from dettriton.ops._device_elementary import erf_f32, exp_f32, log1p_f32, sigmoid_f32, tanh_f32
from dettriton.ops._elementwise import elementwise, formula
from dettriton.ops._function import require_float32
from dettriton.ops._launch import jit, tl
from dettriton.ops.elementary import ERF

SQRT_HALF = 0.7071067690849304
INVERSE_SQRT_2PI = 0.3989422917366028
SQRT_2_OVER_PI = 0.7978845834732056
CUBIC = 0.044714998453855515
THREE_CUBIC = 0.13414500653743744
MISH_THRESHOLD = 20.0
"""The binary32 constants of the written orders above."""

_SQRT_HALF = tl.constexpr(SQRT_HALF)
_INVERSE_SQRT_2PI = tl.constexpr(INVERSE_SQRT_2PI)
_SQRT_2_OVER_PI = tl.constexpr(SQRT_2_OVER_PI)
_CUBIC = tl.constexpr(CUBIC)
_THREE_CUBIC = tl.constexpr(THREE_CUBIC)
_MISH_THRESHOLD = tl.constexpr(MISH_THRESHOLD)


def _gelu(x: torch.Tensor) -> torch.Tensor:
    return (x * 0.5) * (ERF.host(x * SQRT_HALF) + 1.0)


@jit
def _gelu_f32(x):
    return (x * 0.5) * (erf_f32(x * _SQRT_HALF) + 1.0)


def _gelu_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    density = host.exp((x * x) * -0.5) * INVERSE_SQRT_2PI
    return grad * ((ERF.host(x * SQRT_HALF) + 1.0) * 0.5 + x * density)


@jit
def _gelu_gradient_f32(grad, x):
    density = exp_f32((x * x) * -0.5) * _INVERSE_SQRT_2PI
    return grad * ((erf_f32(x * _SQRT_HALF) + 1.0) * 0.5 + x * density)


def _bend(x: torch.Tensor) -> torch.Tensor:
    return host.tanh((x + ((x * x) * x) * CUBIC) * SQRT_2_OVER_PI)


@jit
def _bend_f32(x):
    return tanh_f32((x + ((x * x) * x) * _CUBIC) * _SQRT_2_OVER_PI)


def _gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    return (x * 0.5) * (_bend(x) + 1.0)


@jit
def _gelu_tanh_f32(x):
    return (x * 0.5) * (_bend_f32(x) + 1.0)


def _gelu_tanh_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    t = _bend(x)
    slope = ((x * x) * THREE_CUBIC + 1.0) * SQRT_2_OVER_PI
    return grad * ((t + 1.0) * 0.5 + ((x * 0.5) * (1.0 - t * t)) * slope)


@jit
def _gelu_tanh_gradient_f32(grad, x):
    t = _bend_f32(x)
    slope = ((x * x) * _THREE_CUBIC + 1.0) * _SQRT_2_OVER_PI
    return grad * ((t + 1.0) * 0.5 + ((x * 0.5) * (1.0 - t * t)) * slope)


def _silu(x: torch.Tensor) -> torch.Tensor:
    return x * host.sigmoid(x)


@jit
def _silu_f32(x):
    return x * sigmoid_f32(x)


def _silu_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    s = host.sigmoid(x)
    return grad * (s * (x * (1.0 - s) + 1.0))


@jit
def _silu_gradient_f32(grad, x):
    s = sigmoid_f32(x)
    return grad * (s * (x * (1.0 - s) + 1.0))


def _softplus(x: torch.Tensor, beta: float, threshold: float) -> torch.Tensor:
    scaled = x * beta
    soft = host.log1p(host.exp(scaled)) / torch.full_like(x, beta)
    return torch.where(scaled > threshold, x, soft)


@jit
def _softplus_f32(x, beta, threshold):
    scaled = x * beta
    soft = tl.div_rn(log1p_f32(exp_f32(scaled)), tl.zeros_like(x) + beta)
    return tl.where(scaled > threshold, x, soft)


def _softplus_gradient(grad: torch.Tensor, x: torch.Tensor, beta: float, threshold: float) -> torch.Tensor:
    scaled = x * beta
    return torch.where(scaled > threshold, grad, grad * host.sigmoid(scaled))


@jit
def _softplus_gradient_f32(grad, x, beta, threshold):
    scaled = x * beta
    return tl.where(scaled > threshold, grad, grad * sigmoid_f32(scaled))


def _soft_gate(x: torch.Tensor) -> torch.Tensor:
    return host.tanh(_softplus(x, 1.0, MISH_THRESHOLD))


@jit
def _soft_gate_f32(x):
    return tanh_f32(_softplus_f32(x, 1.0, _MISH_THRESHOLD))


def _mish(x: torch.Tensor) -> torch.Tensor:
    return x * _soft_gate(x)


@jit
def _mish_f32(x):
    return x * _soft_gate_f32(x)


def _mish_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    t = _soft_gate(x)
    return grad * (t + (x * host.sigmoid(x)) * (1.0 - t * t))


@jit
def _mish_gradient_f32(grad, x):
    t = _soft_gate_f32(x)
    return grad * (t + (x * sigmoid_f32(x)) * (1.0 - t * t))


def _glu(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a * host.sigmoid(b)


@jit
def _glu_f32(a, b):
    return a * sigmoid_f32(b)


def _glu_gradient_a(grad: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return grad * host.sigmoid(b)


@jit
def _glu_gradient_a_f32(grad, a, b):
    return grad * sigmoid_f32(b)


def _glu_gradient_b(grad: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    s = host.sigmoid(b)
    return (grad * a) * (s * (1.0 - s))


@jit
def _glu_gradient_b_f32(grad, a, b):
    s = sigmoid_f32(b)
    return (grad * a) * (s * (1.0 - s))


_GELU_GRADIENT = formula("gelu gradient", _gelu_gradient, _gelu_gradient_f32, tensors=2, loop=loops.gelu_gradient)
_GELU_TANH_GRADIENT = formula("gelu tanh gradient", _gelu_tanh_gradient, _gelu_tanh_gradient_f32, tensors=2)
_SILU_GRADIENT = formula("silu gradient", _silu_gradient, _silu_gradient_f32, tensors=2, loop=loops.silu_gradient)
_SOFTPLUS_GRADIENT = formula("softplus gradient", _softplus_gradient, _softplus_gradient_f32, tensors=2, scalars=2)
_MISH_GRADIENT = formula("mish gradient", _mish_gradient, _mish_gradient_f32, tensors=2)
_GLU_GRADIENTS = (
    formula("glu gradient a", _glu_gradient_a, _glu_gradient_a_f32, tensors=3, loop=loops.glu_gradient_a),
    formula("glu gradient b", _glu_gradient_b, _glu_gradient_b_f32, tensors=3, loop=loops.glu_gradient_b),
)

GELU = formula("gelu", _gelu, _gelu_f32, gradients=(_GELU_GRADIENT,), loop=loops.gelu)
GELU_TANH = formula("gelu tanh", _gelu_tanh, _gelu_tanh_f32, gradients=(_GELU_TANH_GRADIENT,))
SILU = formula("silu", _silu, _silu_f32, gradients=(_SILU_GRADIENT,), loop=loops.silu)
SOFTPLUS = formula("softplus", _softplus, _softplus_f32, scalars=2, gradients=(_SOFTPLUS_GRADIENT,))
MISH = formula("mish", _mish, _mish_f32, gradients=(_MISH_GRADIENT,))
GLU = formula("glu", _glu, _glu_f32, tensors=2, gradients=_GLU_GRADIENTS, loop=loops.glu)
FORMS = {"none": GELU, "tanh": GELU_TANH}


@contract(
    "Activations",
    definition="(0.5 x) * (1 + erf(x sqrt(1/2))), or with tanh of a cubic; gradient in the same functions",
    error="4e-7 * max(abs(x), 1e-3), absolute: the lower tail cancels",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.gelu",
    fake=of_the_inputs_shape,
)
def gelu(input: torch.Tensor, approximate: str = "none") -> torch.Tensor:
    """Gaussian error linear unit, as :func:`torch.nn.functional.gelu` (Hendrycks and Gimpel, arXiv 1606.08415).

    Args:
        input: binary32, any shape.
        approximate: ``"none"`` for the form with erf, ``"tanh"`` for the one with tanh.

    Returns:
        A tensor of the input's shape by the written order in this module's text. For negative ``x`` the factor
        ``1 + erf`` cancels, so the error is absolute: below ``4e-7 * max(|x|, 1e-3)``.

    Raises:
        InputError: ``input`` is not binary32, or ``approximate`` is unknown.
    """
    require_float32("gelu", input=input)
    if approximate not in FORMS:
        raise InputError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    return elementwise(FORMS[approximate], input)


@contract(
    "Activations",
    definition="x * sigmoid(x); gradient g * (s * (1 + x * (1 - s)))",
    error="2 ulp",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.silu",
)
def silu(input: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    """``x * sigmoid(x)``, as :func:`torch.nn.functional.silu`.

    Args:
        input: binary32, any shape.
        inplace: accepted for compatibility; the result is always a new tensor.

    Returns:
        A tensor of the input's shape: our sigmoid and one more rounding; NaN for -Inf, as in torch.

    Raises:
        InputError: ``input`` is not binary32.
    """
    require_float32("silu", input=input)
    return elementwise(SILU, input)


@contract(
    "Activations",
    definition="x * tanh(softplus(x)); gradient g * (t + (x * sigmoid(x)) * (1 - t * t))",
    error="4 ulp",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.mish",
)
def mish(input: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    """``x * tanh(softplus(x))``, as :func:`torch.nn.functional.mish` (Misra, BMVC 2020).

    Args:
        input: binary32, any shape.
        inplace: accepted for compatibility; the result is always a new tensor.

    Returns:
        A tensor of the input's shape by the written order in this module's text; softplus is the identity above 20.

    Raises:
        InputError: ``input`` is not binary32.
    """
    require_float32("mish", input=input)
    return elementwise(MISH, input)


@contract(
    "Activations",
    definition="x where x * beta > threshold, else log1p(exp(x * beta)) / beta; gradient g or g * sigmoid(x * beta)",
    error="3 ulp for x * beta exact",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.softplus",
)
def softplus(input: torch.Tensor, beta: float = 1.0, threshold: float = 20.0) -> torch.Tensor:
    """``log(1 + exp(beta * x)) / beta``, as :func:`torch.nn.functional.softplus`.

    Args:
        input: binary32, any shape.
        beta, threshold: rounded to binary32; above ``x * beta > threshold`` the result is ``x``.

    Returns:
        A tensor of the input's shape: our exp and log1p and one division.

    Raises:
        InputError: ``input`` is not binary32.
    """
    require_float32("softplus", input=input)
    return elementwise(SOFTPLUS, input, scalars=(float(beta), float(threshold)))


@contract(
    "Activations",
    definition="a * sigmoid(b) of the halves; gradients g * s and (g * a) * (s * (1 - s))",
    error="2 ulp",
    batch_invariant=True,
    kernels=True,
    mirrors="nn.functional.glu",
)
def glu(input: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """Gated linear unit, as :func:`torch.nn.functional.glu` (Dauphin et al., ICML 2017).

    Args:
        input: binary32, any shape; its size along ``dim`` must be even.
        dim: the dimension whose halves are ``a`` and ``b``.

    Returns:
        ``a * sigmoid(b)``: our sigmoid and one more rounding.

    Raises:
        InputError: ``input`` is not binary32 or has no dimensions, ``dim`` is out of range, or its size is odd.
    """
    require_float32("glu", input=input)
    rank = input.dim()
    if not -rank <= dim < rank:
        raise InputError(f"glu: dim must be in [{-rank}, {rank - 1}] for this input, got {dim}")
    if input.shape[dim] % 2:
        raise InputError(f"glu: the size along dim {dim} must be even, got {input.shape[dim]}")
    a, b = input.chunk(2, dim)
    return elementwise(GLU, a, b)
