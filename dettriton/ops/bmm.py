"""bmm: matrix products of two batches, each :func:`dettriton.ops.matmul`'s exact dot products (rule R2).

Grids: one per row of the first operand and per column of the second, in each matrix of the batch; gradients as
matmul's. Error as matmul's. Batch-invariant.
"""

import torch

from dettriton.errors import InputError
from dettriton.exact.grid import bits_of
from dettriton.ops._contract import contract
from dettriton.ops._function import require_float32
from dettriton.ops.matmul import ERROR, MatMul


@contract(
    "Dot products",
    definition="matmul of each pair of matrices of the batch; gradients: matmul's",
    error=ERROR,
    batch_invariant=True,
    kernels=True,
    mirrors="bmm",
)
def bmm(input: torch.Tensor, mat2: torch.Tensor, *, precision: str = "high") -> torch.Tensor:
    """Batched matrix product, as :func:`torch.bmm`.

    Args:
        input: binary32 ``(B, M, K)``; each row is one grid.
        mat2: binary32 ``(B, K, N)``; each column is one grid.
        precision: ``"high"`` (20-bit grids) or ``"medium"`` (13-bit grids).

    Returns:
        ``(B, M, N)``; error bound as :func:`dettriton.ops.matmul`.

    Raises:
        InputError: an operand is not binary32 or not three-dimensional, shapes do not fit, K > 2**22, or the precision
            is unknown.
    """
    require_float32("bmm", input=input, mat2=mat2)
    bits_of(precision)
    if input.dim() != 3 or mat2.dim() != 3 or input.shape[0] != mat2.shape[0] or input.shape[2] != mat2.shape[1]:
        raise InputError(
            f"bmm: operands must be (B, M, K) and (B, K, N), got {tuple(input.shape)} and {tuple(mat2.shape)}; "
            "use dettriton.ops.matmul to broadcast"
        )
    return MatMul.apply(input, mat2, precision)
