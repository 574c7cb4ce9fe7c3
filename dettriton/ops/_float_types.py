"""binary32, binary64 and half precision in one definition: what reductions share.

Half precision (binary16, bfloat16) widens to binary32, which is exact; the result, and the gradient, of the binary32
definition is rounded once more to the input's type. A NaN is then that type's canonical one.
"""

from typing import Any

import torch

from dettriton.errors import InputError
from dettriton.exact.ieee import CANONICAL_NAN_BITS
from dettriton.exact.window64 import CANONICAL_NAN64_BITS
from dettriton.ops._function import first_derivative_only

HALF = (torch.float16, torch.bfloat16)
FLOATS = (torch.float32, torch.float64, *HALF)

_NANS = {
    torch.float32: (torch.int32, CANONICAL_NAN_BITS),
    torch.float64: (torch.int64, CANONICAL_NAN64_BITS),
    torch.float16: (torch.int16, 0x7E00),
    torch.bfloat16: (torch.int16, 0x7FC0),
}


def require_float(op: str, x: torch.Tensor, allowed: tuple[torch.dtype, ...] = FLOATS) -> None:
    """Raise unless ``x`` has an allowed floating-point type."""
    if x.dtype not in allowed:
        names = ", ".join(str(d) for d in allowed)
        raise InputError(f"{op}: input must be one of {names}, got {x.dtype}; convert it with .float()")


def canonical_nan_of(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The canonical NaN of a floating-point type, 0-dim."""
    integer, bits = _NANS[dtype]
    return torch.full((), bits, dtype=integer, device=device).view(dtype)


def with_canonical_nan(y: torch.Tensor) -> torch.Tensor:
    """``y`` with every NaN replaced by the canonical one."""
    return torch.where(y == y, y, canonical_nan_of(y.dtype, y.device))


def bits_of(x: torch.Tensor) -> torch.Tensor:
    """The bits of a floating-point tensor as integers of its size."""
    return x.view(_NANS[x.dtype][0])


class _Widen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.dtype = x.dtype
        return x.to(torch.float32)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return with_canonical_nan(grad.to(ctx.dtype))


class _Narrow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return with_canonical_nan(y.to(dtype))

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad.to(torch.float32), None


def widened(x: torch.Tensor) -> torch.Tensor:
    """Half precision as binary32; other types as they are."""
    return _Widen.apply(x) if x.dtype in HALF else x


def narrowed(y: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A result rounded to half precision where ``dtype`` is that; as it is otherwise."""
    return _Narrow.apply(y, dtype) if dtype in HALF else y
