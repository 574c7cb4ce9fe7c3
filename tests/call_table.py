"""Calls of public ops: arguments that torch's functions do not take, or take otherwise, and results that may alias one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from dettriton.exact.philox import Stream

RNG = Stream(3, 1, 2)
HALVES = (torch.float16, torch.bfloat16)
INTEGERS = (torch.int64, torch.int32)
REDUCTIONS = ("mean", "sum", "none")

_generator = torch.Generator().manual_seed(7)


class Call(NamedTuple):
    op: str
    args: tuple
    kwargs: dict[str, Any]


CALLS: list[Call] = []


def call(op: str, *args: Any, **kwargs: Any) -> None:
    CALLS.append(Call(op, args, kwargs))


def x(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Noise with a gradient."""
    return torch.randn(shape, generator=_generator).to(dtype).requires_grad_()


def fixed(*shape: int) -> torch.Tensor:
    """Numbers in [0.5, 1.5) without a gradient."""
    return torch.rand(shape, generator=_generator) + 0.5


def share(*shape: int) -> torch.Tensor:
    """Numbers in [0.1, 0.9) with a gradient."""
    return (torch.rand(shape, generator=_generator) * 0.8 + 0.1).requires_grad_()


def index(count: int, *shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.randint(0, count, shape, generator=_generator).to(dtype)


def running(channels: int) -> dict[str, torch.Tensor]:
    return {"running_mean": torch.zeros(channels), "running_var": torch.ones(channels)}


def _reductions() -> None:
    for op in ("sum", "mean", "prod", "amax", "amin", "var", "std", "var_mean", "std_mean", "logsumexp", "norm"):
        call(op, x(2, 3, 4), dim=(0, 2))
        call(op, x(2, 3, 4), dim=[0, 2], keepdim=True)
        call(op, x(2, 3, 4), dim=())
        call(op, x(), dim=-1)
        for dtype in (*HALVES, *(() if op == "logsumexp" else (torch.float64,))):
            call(op, x(2, 3, dtype=dtype), dim=(0, 1))
        if op != "logsumexp":
            call(op, x(2, 3))
            call(op, x(2, 3), dim=None, keepdim=True)
    for op in ("var", "std", "var_mean", "std_mean"):
        call(op, x(2, 3), False)
        call(op, x(2, 3), None, None, True)
        call(op, x(2, 3), dim=1, unbiased=None, correction=0.5)
    for op in ("cumsum", "cumprod"):
        call(op, x(2, 3, dtype=torch.float16), 1, dtype=None)
        call(op, x(), 0)
    for p in (math.inf, -math.inf, 0, 1, "fro"):
        call("norm", x(2, 3), p, 1)
    for op in ("max", "min", "median", "nanmedian"):
        call(op, x(2, 3), None)
        call(op, x(2, 3), dim=None)
        call(op, x(2, 3), 1)
        call(op, x(2, 3), dim=0, keepdim=True)
        call(op, x(), 0)
    call("max", x(2, 3, dtype=torch.bfloat16), 1)
    call("kthvalue", x(2, 3), 2)
    call("kthvalue", x(2, 3), k=1, dim=0, keepdim=True)
    for op in ("argmax", "argmin"):
        call(op, x(2, 3), None, True)
        call(op, x(2, 3, dtype=torch.float16), 1)


def _elementwise() -> None:
    call("pow", x(2, 3), 2)
    call("pow", 2.0, share(2, 3))
    call("pow", share(2, 1), x(3))
    call("relu", x(2, 3), inplace=True)
    call("relu", x(0, 3))
    call("gelu", x(2, 3), "tanh")
    call("leaky_relu", x(2, 3), 1)
    call("softplus", x(2, 3), 2, 10)
    for p in (0, 0.0, 1, 0.3):
        call("dropout", x(2, 3), p, rng=RNG)
    call("dropout", x(2, 3), 0.5, False)
    call("dropout", x(2, 3), p=0.3, inplace=True, rng=Stream(2**32 - 1, 5, 2**64 - 1))
    call("softmax", x(2, 3), 1, 3, None)
    call("log_softmax", x(2, 3), -1, dtype=torch.float32)


def _dots() -> None:
    call("matmul", x(2, 3), x(3, 4), precision="medium")
    call("matmul", x(3), x(3))
    call("linear", x(4), x(5, 4), x(5), precision="medium")
    call("bmm", x(2, 3, 4), x(2, 4, 5), precision="medium")
    call("addmm", x(), x(3, 4), x(4, 5), beta=0.5, alpha=2, precision="medium")
    call("baddbmm", x(2, 1, 1), x(2, 3, 4), x(2, 4, 5), alpha=2)
    for equation in ("ij", "ij->ij", "ij->ji", "ij->"):
        call("einsum", equation, x(2, 3))
    call("einsum", "ij , jk -> ik", x(2, 3), x(3, 4), precision="medium")
    call("conv1d", x(2, 3, 5), x(4, 3, 2), padding="same", dilation=2, precision="medium")
    call("conv2d", x(3, 5, 5), x(4, 3, 3, 3), x(4), padding="valid")
    call("conv2d", x(0, 3, 5, 5), x(4, 3, 3, 3))
    call("conv_transpose2d", x(3, 5, 5), x(3, 4, 3, 3), x(4), 2, 1, 1, precision="medium")
    q, k, v = (2, 2, 5, 4), (2, 2, 6, 4), (2, 2, 6, 3)
    op = "scaled_dot_product_attention"
    call(op, x(*q), x(*k), x(*v), x(5, 1))
    call(op, x(*q), x(*k), x(*v), index(2, 2, 1, 5, 6).bool() | torch.eye(5, 6, dtype=torch.bool))
    call(op, x(*q), x(*k), x(*v), None, 0.5, rng=RNG)
    call(op, x(*q), x(*k), x(*v), is_causal=True, scale=0.3, precision="medium")
    call(op, x(1, 4, 5, 4), x(1, 2, 6, 4), x(1, 2, 6, 3), enable_gqa=True)
    call(op, x(5, 4), x(6, 4), x(6, 3))


def _norms() -> None:
    for op in ("batch_norm", "batch_norm_relu"):
        call(op, x(4, 3), None, None, training=True)
        call(op, x(4, 3, 5), torch.zeros(3), torch.ones(3), x(3), x(3), True)
        call(op, x(4, 3, 5), weight=x(3), training=True, **running(3))
        call(op, x(4, 3, 5), **running(3))
    call("batch_norm_relu", x(4, 3), training=True, residual=x(4, 3), **running(3))
    call("instance_norm", x(2, 3, 5), **running(3))
    call("instance_norm", x(2, 3, 5), torch.zeros(3), torch.ones(3), x(3), x(3))
    call("instance_norm", x(2, 3, 5), torch.zeros(3), torch.ones(3), None, None, False)
    for op in ("layer_norm", "rms_norm"):
        call(op, x(2, 3), 3)
        call(op, x(2, 3), [2, 3])
        call(op, x(2, 3), normalized_shape=3, weight=x(3), eps=1e-3)


def _losses() -> None:
    for reduction in REDUCTIONS:
        call("mse_loss", x(2, 3), x(2, 3), reduction=reduction, weight=fixed(2, 3))
        call("l1_loss", x(2, 3), x(2, 3), None, None, reduction)
        call("huber_loss", x(2, 3), x(2, 3), reduction, 2, fixed(2, 3))
        call("smooth_l1_loss", x(2, 3), x(2, 3), reduction=reduction, beta=0)
        call("binary_cross_entropy", share(2, 3), share(2, 3), fixed(3), reduction=reduction)
        call("binary_cross_entropy_with_logits", x(2, 3), share(2, 3), pos_weight=fixed(1), reduction=reduction)
        call("cross_entropy", x(3), torch.tensor(1), reduction=reduction)
        call("cross_entropy", x(4, 3, 2), share(4, 3, 2), fixed(3), reduction=reduction, label_smoothing=0.1)
        call("nll_loss", x(4, 3, 2), index(3, 4, 2), fixed(3), None, 1, None, reduction)
        call("kl_div", x(2, 3), share(3), reduction=reduction)
        logs = torch.log_softmax(x(5, 2, 4).detach(), 2).requires_grad_()
        call("ctc_loss", logs, index(3, 2, 2), torch.tensor([5, 4]), torch.tensor([2, 1]), 3, reduction)
        call("ctc_loss", logs, index(3, 2, 2), torch.tensor([5, 4]), (2, 1), blank=3, reduction=reduction)
        call("ctc_loss", logs, index(3, 3), [5, 4], [2, 1], 3, reduction, True)
        call("ctc_loss", x(5, 4), index(3, 2), torch.tensor(5), torch.tensor(2), 3, reduction=reduction)
    call("kl_div", x(2, 3), x(2, 3), reduction="batchmean", log_target=True)


def _indexing() -> None:
    for dtype in INTEGERS:
        call("embedding", index(5, 2, 3, dtype=dtype), x(5, 4), -1, None, 2.0, True)
        call("embedding_bag", index(5, 6, dtype=dtype), x(5, 4), torch.tensor([0, 2, 2]), mode="max")
        call("embedding_bag", index(5, 2, 3, dtype=dtype), x(5, 4), mode="sum", per_sample_weights=x(2, 3))
        call("gather", x(3, 4), -2, index(3, 2, 4, dtype=dtype), sparse_grad=False)
        call("index_select", x(3, 4), -1, torch.tensor(1, dtype=dtype))
        call("index_add", x(3, 4), 0, index(3, 2, dtype=dtype), x(2, 4), alpha=0.5)
        call("index_copy", x(3, 4), 1, torch.tensor([2, 0], dtype=dtype), x(3, 2))
        call("put", x(3, 4), index(12, 2, 2, dtype=dtype), x(4), True)
        call("put", x(3, 4), index(12, 0, dtype=dtype), x(0))
        call("scatter", x(3, 4), 1, index(4, 3, 2, dtype=dtype), x(3, 4))
        call("scatter", x(3, 4), 1, index(4, 3, 2, dtype=dtype), src=2)
        call("scatter_add", x(3, 4), 1, index(4, 3, 2, dtype=dtype), x(3, 2))
        call("scatter_reduce", x(3, 4), 1, index(4, 3, 2, dtype=dtype), x(3, 2), "prod", include_self=False)
        for accumulate in (False, True):
            call("index_put", x(3, 4), (None, index(4, 2, dtype=dtype)), x(3, 2), accumulate)
            call("index_put", x(3, 4), [index(3, 2, dtype=dtype), index(4, 2)], x(), accumulate)
            call("index_put", x(3, 4, 2), (index(3, 2, dtype=dtype), None, index(2, 2)), x(2, 4), accumulate)
        call("bincount", index(5, 7, dtype=dtype))
        call("bincount", index(5, 7, dtype=dtype), x(7), minlength=9)
    for accumulate in (False, True):
        call("index_put", x(3, 4), (torch.tensor([True, False, True]),), x(2, 4), accumulate)
        call("index_put", x(3, 4), (None, torch.tensor([0, 1, 0, 1], dtype=torch.uint8)), x(), accumulate)
    call("histc", x(3, 4))
    call("histc", x(3, 4), 5, -1, 1)


def _pools() -> None:
    for op, shape in {"1d": (2, 3, 6), "2d": (2, 3, 6, 6), "3d": (2, 3, 6, 6, 6)}.items():
        dims = len(shape) - 2
        call(f"adaptive_avg_pool{op}", x(*shape), 6)
        call(f"adaptive_max_pool{op}", x(*shape), 6, True)
        call(f"adaptive_avg_pool{op}", x(*shape[1:]), 4)
        call(f"adaptive_max_pool{op}", x(*shape[1:]), 4)
        call(f"avg_pool{op}", x(*shape), 1)
        call(f"max_pool{op}", x(*shape), [1] * dims)
        call(f"max_pool{op}", x(*shape[1:]), 2, return_indices=True)
        places = (torch.arange(2**dims) * 2).view(1, 1, *(2,) * dims)
        call(f"max_unpool{op}", x(1, 1, *(2,) * dims), places, [2] * dims, output_size=(5,) * dims)
    call("adaptive_avg_pool2d", x(2, 3, 6, 5), (None, 2))
    call("fractional_max_pool2d", x(2, 3, 6, 6), 2, output_ratio=0.5, return_indices=True, rng=RNG)
    call("fractional_max_pool3d", x(3, 6, 6, 6), 2, 5, rng=RNG)
    for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area"):
        call("interpolate", x(1, 2, 4, 5), (4, 5), mode=mode)
        call("interpolate", x(1, 2, 4, 5), scale_factor=1.7, mode=mode)
        call("interpolate", x(1, 2, 4, 5), None, (0.5, 2), mode, recompute_scale_factor=True)
    call("grid_sample", x(1, 2, 4, 5), x(1, 3, 3, 2), align_corners=None)
    call("pad", x(2, 3, 4, 5), (0, 0))
    call("pad", x(2, 3, 4, 5), [1, -1, 0, 2], "constant", 1.5)
    call("pad", x(2, 3, 4, 5), (-1, -1), value=None)
    for mode in ("reflect", "replicate", "circular"):
        call("pad", x(2, 3, 4, 5), (0, 0, 0, 0), mode)
        call("pad", x(3, 4), [1, 2], mode=mode, value=None)


def _random() -> None:
    call("rand", 2, 3, rng=RNG)
    call("rand", rng=RNG)
    call("randn", [2, 3], rng=RNG, offset=3, dtype=None)
    call("randn", 5, rng=RNG, device=torch.device("cpu"))
    call("randint", -5, 5, (3,), rng=RNG, device="cpu")
    call("bernoulli", share(2, 3), rng=RNG, offset=2)
    call("randperm", 7, rng=RNG, dtype=torch.int64)


for table in (_reductions, _elementwise, _dots, _norms, _losses, _indexing, _pools, _random):
    table()


def with_tensors(values: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """The values with every tensor changed."""
    from torch.utils._pytree import tree_map_only

    return tree_map_only(torch.Tensor, change, values)
