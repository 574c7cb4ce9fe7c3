"""What a dot product's kernel does with its result, ``+ bias`` and an activation, and how the backward pass begins.

Written order: the rounded dot product, ``+ bias`` (one rounding, a NaN the canonical one), the activation's formula.
Backward, one kernel reads the upstream gradient once: it stores the gradient before the activation, adds up the bias's
gradient (the exact windowed sum over all but the channel, R2), and finds each channel's largest magnitude, which is the
grid of the gradient to the weight. The bits are those of the ops one after another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dettriton.engine import engine_for
from dettriton.errors import InputError
from dettriton.exact.ieee import canonical_nan
from dettriton.ops._device import magnitude_bits
from dettriton.ops._elementwise import Formula, evaluate
from dettriton.ops._launch import Variant, blocks, jit, kernel, tl
from dettriton.ops.activation import HARDSWISH, RELU6
from dettriton.ops.relu import RELU, RELU_GRADIENT
from dettriton.ops.smooth_activation import GELU, GELU_TANH, SILU
from dettriton.ops.sum import add_to_windows, channel_offsets, empty_bins, exact_sum, rounded_bins

BLOCK = 1024
TILES = 8

MaybeTensor = torch.Tensor | None


@dataclass(frozen=True)
class Activation:
    """A formula that follows a dot product.

    Attributes:
        formula: of the value.
        gradient: of the upstream gradient and what backward keeps.
        keeps_result: whether backward keeps the result, which the next op keeps anyway, instead of the value before.
    """

    formula: Formula
    gradient: Formula
    keeps_result: bool = False


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(RELU, RELU_GRADIENT, keeps_result=True),
    **{
        name: Activation(formula, formula.gradients[0])
        for name, formula in {
            "relu6": RELU6,
            "gelu": GELU,
            "gelu_tanh": GELU_TANH,
            "silu": SILU,
            "hardswish": HARDSWISH,
        }.items()
    },
}


def activation_named(op: str, name: str) -> Activation:
    """The activation of that name.

    Raises:
        InputError: there is none.
    """
    if name not in ACTIVATIONS:
        raise InputError(f"{op}: activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]


@jit
def _identity_f32(x):
    return x


@jit
def _same_gradient_f32(grad, kept):
    return grad


@dataclass(frozen=True)
class Epilogue:
    """What follows a dot product whose results have channels.

    Attributes:
        bias: binary32, one for each channel, or None.
        activation: None for none.
        keep: whether the value before the activation is needed again.
    """

    bias: MaybeTensor = None
    activation: Activation | None = None
    keep: bool = False

    @property
    def stores_before(self) -> bool:
        return self.keep and self.activation is not None and not self.activation.keeps_result

    def _kept(self, result: torch.Tensor, before: MaybeTensor) -> MaybeTensor:
        """What backward reads: the result, the value before the activation, or nothing."""
        if not self.keep or self.activation is None:
            return None
        return result if self.activation.keeps_result else before

    def launch(self, y: torch.Tensor) -> tuple[MaybeTensor, tuple[torch.Tensor, torch.Tensor], Mapping[str, Any]]:
        """For a kernel that ends with :func:`store_finished` into ``y``: what backward will read, its pointers to the
        bias and to the value before the activation, and its constants."""
        before = torch.empty_like(y) if self.stores_before else None
        pointers = (y if self.bias is None else self.bias.contiguous(), y if before is None else before)
        formula = self.activation.formula.device if self.activation else _identity_f32
        flags = {"HAS_BIAS": self.bias is not None, "KEEP": self.stores_before, "ACTIVATION": formula}
        return self._kept(y, before), pointers, flags

    def finish(self, y: torch.Tensor, channel_dim: int) -> tuple[torch.Tensor, MaybeTensor]:
        """The same on the torch engine, in place where it can be: the result and what backward reads."""
        if self.bias is not None:
            y += self.bias.view([-1 if d == channel_dim % y.dim() else 1 for d in range(y.dim())])
            # A canonical NaN plus a finite number keeps its bits.
            if not bool(torch.isfinite(self.bias).all()):
                y = torch.where(y == y, y, canonical_nan(y))
        return self.after_bias(y)

    def after_bias(self, y: torch.Tensor) -> tuple[torch.Tensor, MaybeTensor]:
        """The rest of :meth:`finish`."""
        if self.activation is None:
            return y, None
        result = evaluate(self.activation.formula, y)
        return result, self._kept(result, y)


PLAIN = Epilogue()

PLAIN_CONSTANTS = {"HAS_BIAS": False, "KEEP": False, "ACTIVATION": _identity_f32}
FUSED_CONSTANTS = tuple(
    {"HAS_BIAS": True, "KEEP": not a.keeps_result, "ACTIVATION": a.formula.device}
    for a in (ACTIVATIONS["relu"], ACTIVATIONS["gelu"])
)
"""What kernels with an epilogue are compiled with ahead of time."""


@jit
def store_finished(
    value, bias_ptr, channels, has_channel, before_ptr, y_ptr, at, mask,
    HAS_BIAS: tl.constexpr, KEEP: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    """Finish a tile (rows, channels) of rounded dot products and store it."""
    if HAS_BIAS:
        value = value + tl.load(bias_ptr + channels, mask=has_channel, other=0.0)[None, :]
        value = tl.where(value == value, value, float("nan"))
    if KEEP:
        tl.store(before_ptr + at, value, mask=mask)
    tl.store(y_ptr + at, ACTIVATION(value), mask=mask)


@kernel(
    "*fp32 *fp32 *fp32 *i64 *i32 i64 i64 i64",
    Variant({"GRADIENT": _same_gradient_f32, "ACTIVE": False, "SUM": True}),
    *(
        Variant({"GRADIENT": a.gradient.device, "ACTIVE": True, "SUM": s})
        for a, s in ((ACTIVATIONS["relu"], True), (ACTIVATIONS["gelu"], True), (ACTIVATIONS["gelu"], False))
    ),
)
def _epilogue_grad_kernel(
    grad_ptr, kept_ptr, before_ptr, bins_ptr, top_ptr, outer, channels, inner,
    GRADIENT: tl.constexpr, ACTIVE: tl.constexpr, SUM: tl.constexpr,
    BLOCK: tl.constexpr = BLOCK, TILES: tl.constexpr = TILES,
):  # fmt: skip
    """The gradient before an epilogue, its sums and its largest magnitudes; all tensors (outer, channels, inner)."""
    channel = tl.program_id(0).to(tl.int64) % channels
    chunk = tl.program_id(0).to(tl.int64) // channels
    for tile in range(TILES):
        j = (chunk * TILES + tile) * BLOCK + tl.arange(0, BLOCK)
        mask = j < outer * inner
        at = channel_offsets(j, channel, channels, inner)
        grad = tl.load(grad_ptr + at, mask=mask, other=0.0)
        if ACTIVE:
            grad = GRADIENT(grad, tl.load(kept_ptr + at, mask=mask, other=1.0))
            tl.store(before_ptr + at, grad, mask=mask)
            grad = tl.where(mask, grad, 0.0)
        if SUM:
            add_to_windows(grad, channel, bins_ptr, top_ptr)
        else:
            tl.atomic_max(top_ptr + channel, tl.max(magnitude_bits(grad), axis=0))


@dataclass(frozen=True)
class GradBefore:
    """The gradient before an epilogue.

    Attributes:
        grad: of the upstream gradient's shape.
        bias: its exact sums by channel, if wanted.
        top: the bits of the largest magnitude of each channel, where a kernel found them.
    """

    grad: torch.Tensor
    bias: MaybeTensor = None
    top: MaybeTensor = None


def grad_before_torch(
    grad: torch.Tensor, kept: MaybeTensor, activation: Activation | None, channels: int, inner: int, bias: bool
) -> GradBefore:
    if activation:
        grad = evaluate(activation.gradient, grad, kept)
    outer = grad.numel() // max(channels * inner, 1)
    return GradBefore(grad, exact_sum(grad.reshape(outer, channels, inner), (0, 2)) if bias else None)


def grad_before_triton(
    grad: torch.Tensor, kept: MaybeTensor, activation: Activation | None, channels: int, inner: int, bias: bool
) -> GradBefore:
    grad = grad.contiguous()
    before = torch.empty_like(grad) if activation else grad
    bins, top = empty_bins(torch.float32, channels, grad.device)
    terms = grad.numel() // max(channels, 1)
    tiles = TILES if terms > BLOCK else 1
    _epilogue_grad_kernel(
        (blocks(terms, BLOCK * tiles) * channels,),
        grad, grad if kept is None else kept.contiguous(), before, bins, top,
        terms // max(inner, 1), channels, inner,
        GRADIENT=activation.gradient.device if activation else _same_gradient_f32,
        ACTIVE=activation is not None, SUM=bias, TILES=tiles,
    )  # fmt: skip
    return GradBefore(before, rounded_bins(bins, top, torch.float32) if bias else None, top)


BACKWARD = {"torch": grad_before_torch, "triton": grad_before_triton}


def grad_before(
    grad: torch.Tensor, kept: MaybeTensor, activation: Activation | None, channels: int, inner: int, bias: bool
) -> GradBefore:
    """The gradient before an epilogue, from the upstream one, seen as (outer, channels, inner).

    Args:
        grad: the upstream gradient, binary32.
        kept: what the activation's gradient reads: the value before it, or its result; None without an activation.
        activation: of the epilogue.
        channels, inner: sizes of the view.
        bias: whether the bias's gradient is wanted.
    """
    if activation is None and not bias:
        return GradBefore(grad)
    engine = engine_for(grad) if kept is None else engine_for(grad, kept)
    return BACKWARD[engine](grad, kept, activation, channels, inner, bias)
