"""One tensor for several readers, whose gradients are added in written order.

Autograd adds the gradients of a tensor's readers as they arrive. Two sum to the same bits either way; of three or more
the order would be torch's choice.
"""

from typing import Any

import torch

from dettriton.ops._function import first_derivative_only


class Fork(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, readers: int) -> tuple[torch.Tensor, ...]:
        return tuple(x.view_as(x) for _ in range(readers))

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = grads[0]
        for grad in grads[1:]:
            total = total + grad
        return total, None


def fork(x: torch.Tensor, readers: int) -> tuple[torch.Tensor, ...]:
    """``x`` once for each reader; the gradient is ``((g0 + g1) + g2) + ...``, each addition rounded once (R1)."""
    return Fork.apply(x, readers)
