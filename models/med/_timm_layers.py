"""Exact twins of timm's layers that call torch's functions: the same parameters and names, dettriton's arithmetic.

Where timm broadcasts a parameter or a gate, the twin expands it first: autograd would add up the gradient of a broadcast
in an order of its own, :func:`dettriton.ops._broadcast.expand` adds it up exactly.
"""

from collections.abc import Callable

import torch
from timm import layers
from timm.layers import activations, adaptive_avgmax_pool, grn
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from timm.models import vision_transformer

from dettriton import nn, ops
from dettriton.nn._random import Drawing
from dettriton.ops._broadcast import expand
from dettriton.ops._fork import fork

TWINS: dict[type, type] = {
    layers.Linear: nn.Linear,
    layers.LayerNorm: nn.LayerNorm,
    layers.GroupNorm: nn.GroupNorm,
    layers.GroupNorm1: nn.GroupNorm,
}
"""The twin of each layer, block and model of timm that computes something itself."""


def twin_of(stock: type[torch.nn.Module]) -> Callable[[type], type]:
    """Enter a class into :data:`TWINS`."""

    def enter(twin: type) -> type:
        TWINS[stock] = twin
        return twin

    return enter


@twin_of(Conv2dSame)
class SamePaddedConv2d(nn.Conv2d, Conv2dSame):
    """timm's ``Conv2dSame``: TensorFlow's padding, which depends on the size of the map."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(pad_same(input, self.kernel_size, self.stride, self.dilation), self.weight, self.bias)


@twin_of(layers.BatchNormAct2d)
class BatchNormAct2d(nn.BatchNorm2d, layers.BatchNormAct2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.drop(super().forward(x)))


@twin_of(layers.LayerNorm2d)
class LayerNorm2d(nn.LayerNorm, layers.LayerNorm2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@twin_of(layers.RmsNorm)
class RmsNorm(layers.RmsNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ops.rms_norm(x, self.normalized_shape, self.weight, self.eps)


@twin_of(grn.GlobalResponseNorm)
class GlobalResponseNorm(grn.GlobalResponseNorm):
    """``x + ((weight * (x * n)) + bias)`` with ``n = g * pow(mean(g) + eps, -1)`` and ``g`` the norm of each map.

    A power, because its gradient is written here and that of torch's division by a tensor is torch's to change.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        around, scaled, measured = fork(x, 3)
        g = ops.norm(measured, 2, self.spatial_dim, keepdim=True)
        n = g * expand(ops.pow(ops.mean(g, self.channel_dim, keepdim=True) + self.eps, -1.0), g.shape)
        weight, bias = (expand(p.view(self.wb_shape), x.shape) for p in (self.weight, self.bias))
        return around + (weight * (scaled * expand(n, x.shape)) + bias)


@twin_of(layers.DropPath)
class DropPath(Drawing, layers.DropPath):
    """timm's ``DropPath`` whose choice of samples is a function of (seed, stream, step, sample), as Dropout's mask."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        numbers = self.next_numbers(advance=self.training)
        if not self.training or not self.drop_prob:
            return x
        ones = torch.ones((len(x), *(1,) * (x.dim() - 1)), dtype=torch.float32, device=x.device)
        if self.scale_by_keep:
            return x * ops.dropout(ones, self.drop_prob, rng=numbers)
        return x * ops.bernoulli(ones * (1.0 - self.drop_prob), rng=numbers)


@twin_of(layers.LayerScale)
class LayerScale(layers.LayerScale):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * expand(self.gamma, x.shape)


@twin_of(layers.LayerScale2d)
class LayerScale2d(layers.LayerScale2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * expand(self.gamma.view(1, -1, 1, 1), x.shape)


def squeezed(x: torch.Tensor, with_maximum: bool = False) -> torch.Tensor:
    """The mean of each map, or half the sum of its mean and its maximum: (N, C, 1, 1)."""
    mean = ops.mean(x, (2, 3), keepdim=True)
    return 0.5 * mean + 0.5 * ops.amax(x, (2, 3), keepdim=True) if with_maximum else mean


@twin_of(layers.SqueezeExcite)
class SqueezeExcite(layers.SqueezeExcite):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.gate(self.fc2(self.act(self.bn(self.fc1(squeezed(x, self.add_maxpool))))))
        return x * expand(gate, x.shape)


@twin_of(layers.EffectiveSEModule)
class EffectiveSqueezeExcite(layers.EffectiveSEModule):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * expand(self.gate(self.fc(squeezed(x, self.add_maxpool))), x.shape)


@twin_of(vision_transformer.Attention)
class Attention(vision_transformer.Attention):
    """timm's ``Attention`` by :func:`dettriton.ops.scaled_dot_product_attention`, fused or not: the bits are the same."""

    precision = "high"

    def forward(self, x: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        p, numbers = self.attn_drop.p if self.training else 0.0, self.attn_drop.next_numbers(advance=self.training)
        attended = ops.scaled_dot_product_attention(
            self.q_norm(q), self.k_norm(k), v, attn_mask, p, is_causal, precision=self.precision, rng=numbers
        )
        y = attended.transpose(1, 2).flatten(2)
        # Both came to timm after 1.0.
        norm, gate = getattr(self, "norm", None), getattr(self, "gate", None)
        if norm is not None:
            y = norm(y)
        if gate is not None:
            y = y * ops.sigmoid(gate(x))
        return self.proj_drop(self.proj(y))


@twin_of(adaptive_avgmax_pool.FastAdaptiveAvgPool)
class FastAdaptiveAvgPool(adaptive_avgmax_pool.FastAdaptiveAvgPool):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ops.mean(x, self.dim, keepdim=not self.flatten)


@twin_of(adaptive_avgmax_pool.FastAdaptiveMaxPool)
class FastAdaptiveMaxPool(adaptive_avgmax_pool.FastAdaptiveMaxPool):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ops.amax(x, self.dim, keepdim=not self.flatten)


@twin_of(adaptive_avgmax_pool.AdaptiveAvgMaxPool2d)
class AdaptiveAvgMaxPool2d(adaptive_avgmax_pool.AdaptiveAvgMaxPool2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = self.output_size
        return 0.5 * (ops.adaptive_avg_pool2d(x, size) + ops.adaptive_max_pool2d(x, size))


@twin_of(adaptive_avgmax_pool.AdaptiveCatAvgMaxPool2d)
class AdaptiveCatAvgMaxPool2d(adaptive_avgmax_pool.AdaptiveCatAvgMaxPool2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = self.output_size
        return torch.cat((ops.adaptive_avg_pool2d(x, size), ops.adaptive_max_pool2d(x, size)), 1)


ACTIVATIONS = {
    activations.Swish: ops.silu,
    activations.Mish: ops.mish,
    activations.Sigmoid: ops.sigmoid,
    activations.Tanh: ops.tanh,
    activations.HardSwish: ops.hardswish,
    activations.HardSigmoid: ops.hardsigmoid,
    activations.GELU: ops.gelu,
    activations.GELUTanh: lambda x: ops.gelu(x, "tanh"),
}
"""timm's own activation modules; all take ``inplace`` and none needs it."""


def _activation(stock: type[torch.nn.Module], function: Callable[[torch.Tensor], torch.Tensor]) -> type:
    return type(stock.__name__, (stock,), {"forward": lambda self, x: function(x)})


TWINS.update({stock: _activation(stock, function) for stock, function in ACTIVATIONS.items()})
