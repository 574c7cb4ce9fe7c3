"""addmm, baddbmm: ``input * beta + matmul(a, b) * alpha``, the product by exact dot products (rule R2).

Written order: ``t = matmul(a, b)``; ``t * alpha`` unless alpha is 1; ``input * beta`` unless beta is 1; their sum: one
rounding for each step. With beta 0 the input is not read. Gradients: ``grad * alpha`` into matmul's, and
``grad * beta`` into the input, an exact sum over what was broadcast. Grids and errors as matmul's. Batch-invariant.
"""

from typing import Any

import torch

from dettriton.errors import InputError
from dettriton.exact.grid import bits_of
from dettriton.ops._broadcast import expand
from dettriton.ops._contract import contract
from dettriton.ops._function import first_derivative_only, require_float32
from dettriton.ops.matmul import ERROR, MatMul


def _scaled(x: torch.Tensor, factor: float) -> torch.Tensor:
    return x if factor == 1 else x * factor


class AddScaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, product: torch.Tensor, beta: float, alpha: float) -> torch.Tensor:
        ctx.beta, ctx.alpha = beta, alpha
        scaled = _scaled(product, alpha)
        return scaled.clone() if beta == 0 else _scaled(x, beta) + scaled

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.zeros_like(grad) if ctx.beta == 0 else _scaled(grad, ctx.beta)
        return grad_x, _scaled(grad, ctx.alpha), None, None


def _add_product(
    op: str,
    rank: int,
    input: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    beta: float,
    alpha: float,
    precision: str,
) -> torch.Tensor:
    require_float32(op, input=input, first=a, second=b)
    bits_of(precision)
    if a.dim() != rank or b.dim() != rank or a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        shapes = "(M, K) and (K, N)" if rank == 2 else "(B, M, K) and (B, K, N)"
        raise InputError(f"{op}: the matrices must be {shapes}, got {tuple(a.shape)} and {tuple(b.shape)}")
    shape = (*a.shape[:-1], b.shape[-1])
    padded = (1,) * (rank - input.dim()) + tuple(input.shape)
    if len(padded) != rank or any(have not in (1, want) for have, want in zip(padded, shape, strict=True)):
        raise InputError(f"{op}: input {tuple(input.shape)} does not broadcast to the product's shape {shape}")
    if rank == 2:
        a, b = a.unsqueeze(0), b.unsqueeze(0)
    product = MatMul.apply(a, b, precision).view(shape)
    return AddScaled.apply(expand(input, shape), product, beta, alpha)


@contract(
    "Dot products",
    definition="t = matmul(mat1, mat2); t * alpha unless alpha is 1; input * beta unless beta is 1; their "
    "sum; the gradient of a broadcast input is an exact sum",
    error=f"{ERROR}; then half an ulp for each scaling and for the sum",
    batch_invariant=True,
    kernels=True,
    mirrors="addmm",
)
def addmm(
    input: torch.Tensor,
    mat1: torch.Tensor,
    mat2: torch.Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
    precision: str = "high",
) -> torch.Tensor:
    """A matrix plus a matrix product, as :func:`torch.addmm`.

    Args:
        input: binary32, broadcasts to ``(M, N)``.
        mat1: binary32 ``(M, K)``; each row is one grid.
        mat2: binary32 ``(K, N)``; each column is one grid.
        beta, alpha: factors of ``input`` and of the product, as binary32; ``input`` is not read where beta is 0.
        precision: ``"high"`` (20-bit grids) or ``"medium"`` (13-bit grids).

    Returns:
        ``(M, N)``: ``input * beta + (mat1 @ mat2) * alpha``; a factor of 1 is no multiplication. Error bound as
        :func:`dettriton.ops.matmul`, plus half an ulp for each further step.

    Raises:
        InputError: an operand is not binary32, shapes do not fit, K > 2**22, or the precision is unknown.
    """
    return _add_product("addmm", 2, input, mat1, mat2, beta, alpha, precision)


@contract(
    "Dot products",
    definition="t = bmm(batch1, batch2); t * alpha unless alpha is 1; input * beta unless beta is 1; their "
    "sum; the gradient of a broadcast input is an exact sum",
    error=f"{ERROR}; then half an ulp for each scaling and for the sum",
    batch_invariant=True,
    kernels=True,
    mirrors="baddbmm",
)
def baddbmm(
    input: torch.Tensor,
    batch1: torch.Tensor,
    batch2: torch.Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
    precision: str = "high",
) -> torch.Tensor:
    """A batch of matrices plus a batch of matrix products, as :func:`torch.baddbmm`.

    Args:
        input: binary32, broadcasts to ``(B, M, N)``.
        batch1: binary32 ``(B, M, K)``; each row is one grid.
        batch2: binary32 ``(B, K, N)``; each column is one grid.
        beta, alpha, precision: as :func:`addmm`.

    Returns:
        ``(B, M, N)``: ``input * beta + bmm(batch1, batch2) * alpha``, as :func:`addmm`.

    Raises:
        InputError: as :func:`addmm`.
    """
    return _add_product("baddbmm", 3, input, batch1, batch2, beta, alpha, precision)
